"""An independent witness: one recipe trained in the plainest PyTorch, with nothing imported from hfpipe.

    python scripts/plain_reference.py RECIPE.yaml OUT

It reads a resolved text-classification recipe whose data set is a folder of parquet files (DIR/train-*.parquet) and
whose checkpoint is a local folder, trains it with cross entropy and AdamW or SGD in fp32 on a CPU, and writes
OUT/losses.json (the loss, gradient norm and learning rate of every step) and OUT/model.safetensors. The loop engine
must follow it bit for bit; tests/parity/test_plain_reference.py holds that.

What both must agree on, and nothing else: the order of an epoch is numpy's PCG64([seed, epoch]).permutation; the seed is
set before the model is built, and again at the start of every epoch, from the second on to a hash of seed and epoch; a loss
is divided by the examples of
its whole update; no decay on biases and norms; clip, then optimizer, then schedule.
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from ruamel.yaml import YAML
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_of_epoch(seed: int, epoch: int) -> int:
    """The seed itself first, then a hash: seed + epoch would be the stream of another seed."""
    return int(np.random.SeedSequence([seed, 0x64726F70, epoch, 0, 0]).generate_state(1)[0]) if epoch else seed


def learning_rate(recipe: dict, step: int, num_steps: int) -> float:
    """Linear warm-up, then linear decay to 0; step counts from 0."""
    peak, warmup = recipe["optimizer"]["lr"], recipe["schedule"]["warmup"]
    warmup_steps = math.ceil(warmup * num_steps) if warmup < 1 else int(warmup)
    if step < warmup_steps:
        return peak * (step / max(1, warmup_steps))
    return peak * max(0.0, (num_steps - step) / max(1, num_steps - warmup_steps))


def main(recipe_path: str, out: str) -> None:
    recipe = YAML(typ="safe").load(Path(recipe_path))
    train, optim = recipe["train"], recipe["optimizer"]
    assert (recipe["loss"]["name"], recipe["loss"]["reduction"]) == ("cross_entropy", "mean")
    assert recipe["schedule"]["name"] == "linear"
    assert optim["name"] in ("adamw", "sgd")

    # Data: every text tokenized on its own, as it is, with its label.
    table = pq.read_table(sorted(Path(recipe["dataset"]["path"]).glob("train-*.parquet"))[0]).to_pydict()
    tokenizer = AutoTokenizer.from_pretrained(recipe["model"]["checkpoint"])
    columns = [table[name] for name in recipe["task"]["text"]]
    examples = [
        tokenizer(*texts, truncation=True, max_length=recipe["model"]["max_length"])
        for texts in zip(*columns, strict=True)
    ]
    labels = table[recipe["task"]["label"]]

    # Model: the fresh head depends on the seed.
    seed_everything(recipe["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(
        recipe["model"]["checkpoint"], num_labels=max(labels) + 1, dtype=torch.float32, ignore_mismatched_sizes=True
    )
    seed_everything(recipe["seed"])
    model.train()

    # Optimizer: two groups, the second without decay.
    norms = tuple(
        module for module in vars(torch.nn).values() if isinstance(module, type) and "Norm" in module.__name__
    )
    undecayed = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, norms) or name == "bias"
    }
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in undecayed], "weight_decay": optim["weight_decay"]},
        {"params": [p for p in model.parameters() if id(p) in undecayed], "weight_decay": 0.0},
    ]
    if optim["name"] == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=optim["lr"], fused=True)
    else:
        optimizer = torch.optim.SGD(groups, lr=optim["lr"])

    per_update = train["batch_size"] * train["accumulate"]
    steps_per_epoch = math.ceil(len(examples) / per_update)
    num_steps = math.ceil(train["epochs"] * steps_per_epoch)
    log, step = [], 0
    for epoch in range(math.ceil(num_steps / steps_per_epoch)):
        seed_everything(seed_of_epoch(recipe["seed"], epoch))
        order = np.random.Generator(np.random.PCG64([recipe["seed"], epoch])).permutation(len(examples)).tolist()
        for start in range(0, len(order), per_update):
            update = order[start : start + per_update]
            total = 0.0
            for at in range(0, len(update), train["batch_size"]):
                rows = update[at : at + train["batch_size"]]
                batch = tokenizer.pad([examples[row] for row in rows], return_tensors="pt")
                logits = model(**batch).logits
                losses = F.cross_entropy(logits, torch.tensor([labels[row] for row in rows]), reduction="none")
                total += float(losses.detach().double().sum())
                (losses.sum() * (1 / len(update))).backward()
            limit = math.inf if train["max_grad_norm"] is None else train["max_grad_norm"]
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step, num_steps)
            optimizer.step()
            model.zero_grad()
            step += 1
            lr = optimizer.param_groups[0]["lr"]
            log.append({"step": step, "loss": total / len(update), "grad_norm": float(norm), "lr": lr})
            if step == num_steps:
                break

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "losses.json").write_text(json.dumps(log, indent=1))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
