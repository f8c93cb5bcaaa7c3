"""Models, a loss, a metric and a collator as a user has them in a module of his own, for tests of what is given from Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import BertForSequenceClassification, BertModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanBert(BertForSequenceClassification):
    """BERT that classifies the mean of its tokens, where transformers' takes the first one."""

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, token_type_ids: Any = None, **others: Any
    ) -> Any:
        """Logits, `[batch, classes]`."""
        tokens = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
        mask = attention_mask[..., None]
        return {"logits": self.classifier(self.dropout((tokens * mask).sum(1) / mask.sum(1)))}


class Net(nn.Module):
    """A bag of words without anything of transformers, whose first weights are tied to those of a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(400, 16)
        self.decoder = nn.Linear(16, 400, bias=False)
        self.decoder.weight = self.embeddings.weight
        self.norm = nn.BatchNorm1d(16)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(16, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **others: Any) -> torch.Tensor:
        """Logits, `[batch, 2]`."""
        mask = attention_mask[..., None]
        mean = (self.embeddings(input_ids) * mask).sum(1) / mask.sum(1)
        pulled = functional.softmax(self.decoder(mean), -1) @ self.embeddings.weight
        return self.head(self.dropout(self.norm(mean + pulled)))


class Wrapped(nn.Module):
    """A module around a model of transformers that it is made with."""

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, 2)

    def forward(self, **inputs: torch.Tensor) -> Any:
        """An object with logits, `[batch, 2]`."""
        return SequenceClassifierOutput(logits=self.head(self.encoder(**inputs).last_hidden_state[:, 0]))


def wrapped(checkpoint: Any) -> Wrapped:
    """One around a checkpoint."""
    return Wrapped(BertModel.from_pretrained(checkpoint))


def smoothed(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss, `[items]`."""
    return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=0.3)


def share_of_ones(predictions: Any, references: Any) -> dict[str, float]:
    """A metric."""
    return {"ones": float(np.mean(predictions == 1))}


def reversed_words(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A collator that pads to 40 tokens with 1 and no token types."""
    batch = {}
    for name, filling in (("input_ids", 1), ("attention_mask", 0)):
        batch[name] = torch.tensor([row[name][:40] + [filling] * (40 - len(row[name][:40])) for row in rows])
    if "labels" in rows[0]:
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
    return batch
