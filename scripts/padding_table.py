#!/usr/bin/env python
"""./scripts/padding_table.py [FAMILY ...]

Prints, for tiny random models of many families with a head for sequences, how far the answers of two rows in a batch are
from those alone, by the side that the tokenizer pads on, and what hfpipe makes of a checkpoint whose tokenizer pads on the
left and names no padding token. The table of docs/tasks.md is its output.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from random import Random

import datasets
import torch
import transformers
from tokenizers import Tokenizer, models, processors
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedTokenizerFast

from hfpipe.errors import ModelError
from hfpipe.parts.inputs.padding import padding_difference, settle_padding
from hfpipe.parts.model.models import load_model, load_processor, open_checkpoint
from hfpipe.parts.tasks import TextTask
from hfpipe.parts.tasks.classes import Classes
from hfpipe.recipe import load_recipe

# fmt: off
DECODERS = [
    "gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "openai-gpt", "llama", "mistral", "qwen2", "qwen3",
    "gemma", "gemma2", "phi", "phi3", "falcon", "stablelm", "olmo2", "opt", "bloom", "mpt", "biogpt", "ctrl",
]
# fmt: on
# fmt: off
OTHERS = [
    "bert", "roberta", "deberta-v2", "electra", "modernbert", "bart", "t5", "xlnet", "nystromformer", "yoso",
    "fnet", "funnel",
]
# fmt: on
SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers",), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_inner", "d_ff", "dff"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("head_dim", "d_head", "d_kv"), 16),
    **{
        "max_position_embeddings": 66,
        "num_key_value_heads": 1,
        "n_inner": None,
        "rotary_dim": 8,
        "conv_kernel_size": 5,
    },
    **{
        "block_sizes": [1, 1],
        "block_repeats": [1, 1],
        "pooler_hidden_size": 32,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
}
"""Of all these families; a configuration takes those that it has."""
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]
VOCABULARY = [*SPECIAL, *sorted(ByteLevel.alphabet())]
TASK = TextTask(("text",), "label", Classes(("no", "yes")))


def tiny_config(family: str) -> PretrainedConfig:
    """The configuration of a tiny model; where the family says of itself what pads, it stays."""
    config = AutoConfig.for_model(family)
    for name, value in SIZES.items():
        if hasattr(config, name) and not (family == "xlnet" and name == "max_position_embeddings"):
            try:
                setattr(config, name, value)
            except (NotImplementedError, AttributeError):
                continue  # two names of one thing, of which this one is not set
    if config.is_encoder_decoder:
        config.decoder_start_token_id = 2
    config.id2label, config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    config.vocab_size = len(VOCABULARY)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:2]
    if getattr(config, "attention_layers", None):
        config.attention_types, config.attention_layers = [[["global", "local"], 1]], ["global", "local"]
    if (config.pad_token_id or 0) >= config.vocab_size:
        config.pad_token_id = None
    return config


def make_checkpoint(folder: Path, family: str, *, side: str = "left", pad: str | None = None) -> Path:
    """A folder with a tiny random classifier, and a tokenizer that pads on a side, with a token or none."""
    config = tiny_config(family)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    rules = Tokenizer(models.BPE({token: row for row, token in enumerate(VOCABULARY)}, []))
    rules.pre_tokenizer = ByteLevel(add_prefix_space=False)
    if config.is_encoder_decoder:  # their heads read the token that ends the text
        rules.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 3)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": pad}
    PreTrainedTokenizerFast(tokenizer_object=rules, padding_side=side, **names).save_pretrained(folder)
    return folder


def encoded_rows() -> datasets.Dataset:
    """Rows of 3 to 24 tokens, which none of the families takes for special ones, and the one that ends a text."""
    random = Random(0)
    ids = [[*random.choices(range(len(SPECIAL), len(VOCABULARY)), k=length), 3] for length in (3, 24, 9, 5, 17)]
    return datasets.Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})


def row_of(family: str) -> str:
    """The line of a family: differences by side, and what is taken."""
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder), family)
        fields = {"dataset": {"path": "./d"}, "task": {"text": "text"}, "model": {"checkpoint": folder}}
        checkpoint = open_checkpoint(load_recipe(fields))
        tokenizer, _ = load_processor(checkpoint, TASK)
        model, _ = load_model(checkpoint, TASK, (), "")
    rows = encoded_rows()
    apart = {}
    for side in ("left", "right"):
        tokenizer.padding_side = side
        collate = TASK.collator(tokenizer)
        apart[side] = padding_difference(model, TASK, [rows[0], rows[1]], collate, collate)
    tokenizer.padding_side = "left"
    try:
        found = settle_padding(model, TASK, tokenizer, rows, 64)
    except ModelError:
        taken, left = "refused", ""
    else:
        taken = f"one length, {found.multiple}" if found.multiple else tokenizer.padding_side
        left = f"{found.difference:.0e}"
    return f"| {family} | {apart['left']:.0e} | {apart['right']:.0e} | {tokenizer.pad_token} | {taken} | {left} |"


def main() -> None:
    """Print the table, or the lines of some families."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=[*DECODERS, *OTHERS], metavar="FAMILY")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print("| family | padded on the left | on the right | with | hfpipe takes | difference left |")
    print("| --- | --- | --- | --- | --- | --- |")
    for family in parser.parse_args().families:
        print(row_of(family), flush=True)


if __name__ == "__main__":
    main()
