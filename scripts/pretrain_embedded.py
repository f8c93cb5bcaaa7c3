"""Pretrain the tiny BERT that comes with hfpipe, on text of the embedded grammar.

    python scripts/pretrain_embedded.py [OUT]        by default hfpipe/system/embedded/tiny-bert

The text is paraphrase pairs without labels, none of them from the data set that is fine-tuned on. Half of every batch
is masked language modelling on the second sentence (half of the chosen words masked, most others replaced by a word from
elsewhere); the other half asks of the pooled output whether any word of the second sentence was replaced by a stranger
of its kind, which is another question than that of the data set, where no word is strange. Fixed seeds,
one thread: the same weights on the same machine and library versions.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForPreTraining, BertModel, PreTrainedTokenizerFast

from hfpipe.system.embedded import paraphrases

STEPS, BATCH, LEARNING_RATE, WARMUP = 2000, 128, 2e-3, 100
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
KINDS = (paraphrases.PEOPLE, paraphrases.TRAITS, paraphrases.DEEDS)

CARD = """\
# tiny-bert

A BERT of two layers for hfpipe's quickstart: hidden size 64, four heads, its own WordPiece tokenizer. Pretrained by
`python scripts/pretrain_embedded.py` on text of hfpipe's own grammar ({steps} steps of {batch} pairs, one thread).
Apache-2.0, as hfpipe.

SHA-256 of model.safetensors: {digest}
"""


def make_tokenizer(pairs: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer whose vocabulary comes from the grammar's text."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    every = [chr(code) for code in range(33, 127) if not chr(code).isupper()]  # other words are spelt out
    trainer = trainers.WordPieceTrainer(
        vocab_size=1000, special_tokens=SPECIAL, initial_alphabet=every, show_progress=False
    )
    inner = "a" + "".join(character for character in every if character.isalnum())  # and may go on with any of these
    backend.train_from_iterator([*(sentence for pair in pairs for sentence in pair), inner], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, model_input_names=inputs, **names)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    held_out = frozenset(scene.key() for scenes in paraphrases.split_scenes().values() for scene in scenes)
    stream = paraphrases.paraphrase_stream(1, without=held_out)
    tokenizer = make_tokenizer(list(itertools.islice(stream, 5000)))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForPreTraining(config)

    # For every token the tokens of its kind, to replace it by one that fits where it stands.
    kind_of = torch.zeros(len(tokenizer), dtype=torch.long)
    words = [[tokenizer.convert_tokens_to_ids(w) for concept in kind for w in concept] for kind in KINDS]
    for number, ids in enumerate(words, 1):
        kind_of[ids] = number
    table = torch.zeros(len(KINDS) + 1, 64, dtype=torch.long)
    for number, ids in enumerate(words, 1):
        table[number] = torch.tensor((ids * 64)[:64])

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP, (STEPS - step) / (STEPS - WARMUP))
    )
    started, model_half, odd = time.perf_counter(), torch.arange(BATCH) < BATCH // 2, torch.arange(BATCH) % 2 == 1
    cross_entropy = torch.nn.functional.cross_entropy
    for step in range(STEPS):
        pairs = list(itertools.islice(stream, BATCH))
        batch = tokenizer([a for a, _ in pairs], [b for _, b in pairs], padding=True, return_tensors="pt")
        ids = batch["input_ids"]
        may_change = (kind_of[ids] > 0) & (batch["token_type_ids"] == 1)
        strangers = table[kind_of[ids], torch.randint(0, 64, ids.shape)]
        # First half: some words of the second sentence are masked or replaced, and must be found again.
        chosen = (torch.rand(ids.shape) < 0.3) & may_change & model_half[:, None]
        dice = torch.rand(ids.shape)
        shown = torch.where(chosen & (dice < 0.5), tokenizer.mask_token_id, ids)
        shown = torch.where(chosen & (dice >= 0.5) & (dice < 0.9), strangers, shown)
        # Second half: in every other pair some words, few or many, are replaced, and the pooled output must tell.
        some = may_change & (torch.rand(ids.shape) < torch.rand(BATCH, 1))
        shown = torch.where(some & ~model_half[:, None] & odd[:, None], strangers, shown)
        replaced = (shown != ids).any(dim=1).long()

        hidden, pooled = model.bert(**{**batch, "input_ids": shown}, return_dict=False)
        masked_loss = cross_entropy(model.cls.predictions(hidden[chosen]), ids[chosen])
        replaced_logits = model.cls.seq_relationship(pooled)[~model_half]
        replaced_loss = cross_entropy(replaced_logits, replaced[~model_half])
        optimizer.zero_grad()
        (masked_loss + replaced_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
        if (step + 1) % 200 == 0:
            right = (replaced_logits.argmax(-1) == replaced[~model_half]).float().mean()
            seconds = time.perf_counter() - started
            print(f"step {step + 1}  masked {masked_loss:.3f}  replaced {right:.3f}  {seconds:.0f} s", flush=True)

    model.bert.config.update({"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1})
    encoder = BertModel(model.bert.config)
    encoder.load_state_dict(model.bert.state_dict())
    encoder.save_pretrained(out)
    tokenizer.save_pretrained(out)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    (out / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8")
    digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    (out / "README.md").write_text(CARD.format(digest=digest, steps=STEPS, batch=BATCH), encoding="utf-8")
    print(f"{out}: SHA-256 {digest}")


if __name__ == "__main__":
    here = Path(__file__).resolve().parent.parent / "hfpipe" / "system" / "embedded" / "tiny-bert"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else here)
