"""hfpipe's own attention and dropout on a CPU are the functions that torch's are."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from transformers.models.bert.modeling_bert import eager_attention_forward

from hfpipe.parts.model.kernels import Dropout, attention, dropout_factors, install

CPU = torch.device("cpu")


class Layer(nn.Module):
    """What transformers hands over with the tensors."""

    is_causal = False
    num_key_value_groups = 1


def inputs(dtype: torch.dtype = torch.float32, tokens: int = 11) -> list[torch.Tensor]:
    """Queries, keys and values, `[3, 4, tokens, 8]`."""
    torch.manual_seed(0)
    return [torch.randn(3, 4, tokens, 8, dtype=dtype, requires_grad=True) for _ in range(3)]


def padding(tokens: int = 11) -> torch.Tensor:
    """A mask in which one of three rows ends four tokens early."""
    seen = torch.ones(3, 1, tokens, tokens, dtype=torch.bool)
    seen[1, :, :, -4:] = False
    return seen


@pytest.mark.parametrize("mask", ["none", "boolean", "added"])
@pytest.mark.parametrize("scaling", [None, 0.2])
def test_attention_is_torch_s(mask: str, scaling: float | None) -> None:
    """Outputs and gradients are those of torch's scaled_dot_product_attention within the rounding of fp32."""
    given = {"none": None, "boolean": padding(), "added": torch.zeros(3, 1, 11, 11).masked_fill(~padding(), -1e9)}[mask]
    own = inputs()
    out, probabilities = attention(Layer(), *own, given, scaling=scaling)
    assert probabilities is None
    theirs = inputs()
    right = F.scaled_dot_product_attention(*theirs, attn_mask=given, scale=scaling).transpose(1, 2)
    torch.testing.assert_close(out, right, rtol=0, atol=1e-6)
    weights = torch.randn_like(right)
    (out * weights).sum().backward()
    (right * weights).sum().backward()
    for one, other in zip(own, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=2e-6)


def test_attention_in_bf16_rounds_as_eager_attention_does() -> None:
    """Against the same numbers in float64 it is no further off than transformers' eager attention under autocast."""
    given = [one.detach() for one in inputs(torch.bfloat16, 40)]
    right = F.scaled_dot_product_attention(*(one.double() for one in given), attn_mask=padding(40)).transpose(1, 2)
    out, _ = attention(Layer(), *given, padding(40))
    added = torch.zeros(3, 1, 40, 40).masked_fill(~padding(40), -1e9)
    with torch.autocast("cpu", torch.bfloat16):
        eager, _ = eager_attention_forward(Layer(), *given, added, scaling=8**-0.5)
    assert out.dtype == torch.bfloat16
    assert (out - right).abs().mean() <= (eager - right).abs().mean()


def test_what_is_not_plain_is_left_to_torch() -> None:
    """Causal layers, shared keys and long inputs give what transformers' own function gives."""
    theirs = transformers.integrations.sdpa_attention.sdpa_attention_forward
    for tokens, causal, groups in ((11, True, 1), (11, False, 2), (513, False, 1)):
        layer = Layer()
        layer.is_causal, layer.num_key_value_groups = causal, groups
        query, key, value = inputs(tokens=tokens)
        key, value = key[:, : 4 // groups], value[:, : 4 // groups]
        out, _ = attention(layer, query, key, value, None)
        assert torch.equal(out, theirs(layer, query, key, value, None)[0])


def test_a_row_that_sees_nothing_is_a_number() -> None:
    """A mask of -inf over all keys of a row gives numbers, as torch's own kernels do, and no NaN."""
    mask = torch.zeros(3, 1, 11, 11)
    mask[1] = -math.inf
    assert bool(attention(Layer(), *inputs(), mask)[0].isfinite().all())


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share(p: float) -> None:
    """Of a million elements a share p is 0, within five deviations of it, and all others are 1 / (1 - p)."""
    torch.manual_seed(1)
    mask = dropout_factors(torch.Size([1000, 1001]), p, torch.float32)
    share = float((mask == 0).float().mean())
    assert abs(share - p) < 5 * (p * (1 - p) / mask.numel()) ** 0.5
    assert torch.allclose(mask[mask != 0], torch.tensor(1 / (1 - p)), rtol=1e-4)
    rows = (mask == 0).float().mean(dim=1)  # no row, and no place in the four of a random number, is another's image
    assert rows.std() == pytest.approx((p * (1 - p) / 1001) ** 0.5, rel=0.2)
    for place in range(4):
        assert abs(float((mask.reshape(-1)[place::4] == 0).float().mean()) - p) < 5 * (p * (1 - p) * 4 / 1001000) ** 0.5


def test_dropout_follows_torch_s_generator() -> None:
    """One seed gives one mask, the next call another, and torch's generator moves by one number whatever the size."""
    layer = Dropout(0.5)
    torch.manual_seed(3)
    first, second, after = layer(torch.ones(99)), layer(torch.ones(99)), torch.rand(1)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(layer(torch.ones(99)), first)
    layer(torch.ones(5))
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(layer.eval()(torch.ones(99)), torch.ones(99))
    for nearly in (1.0, 0.999999):
        assert torch.equal(Dropout(nearly)(torch.ones(9)), torch.zeros(9))


def test_no_gradient_passes_what_was_dropped() -> None:
    """The gradient of an element is what it was multiplied by."""
    torch.manual_seed(0)
    x = torch.ones(200, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())
    assert 0 < int((x.grad == 0).sum()) < 200


def tiny(**changes: object) -> transformers.BertForSequenceClassification:
    """A small BERT with random weights."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, **changes
    )
    return transformers.BertForSequenceClassification(config)


def batch() -> dict[str, torch.Tensor]:
    """Four rows of nine tokens, one of them padded."""
    ids = torch.randint(5, 50, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[2, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def test_a_model_computes_the_same_with_them(tmp_path: Path) -> None:
    """Without dropout the logits are the same within rounding; weights keep their names, and no file tells of it."""
    model = tiny().eval()
    names = list(model.state_dict())
    with torch.no_grad():
        before = model(**batch()).logits
        assert install(model, "fast", CPU) == ""
        after = model(**batch()).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    assert model.config._attn_implementation == "hfpipe"
    assert {type(one) for one in model.modules() if isinstance(one, nn.Dropout)} == {Dropout}
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    assert "hfpipe" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert loaded.config._attn_implementation == "sdpa"
    torch.testing.assert_close(loaded(**batch()).logits, before, rtol=0, atol=1e-6)


def test_they_are_for_a_cpu_that_asks_for_them() -> None:
    """Nothing changes in a model by default, or on a GPU; one with eager attention keeps it."""
    for which, device, told in (("torch", CPU, ""), ("fast", torch.device("cuda"), "changes nothing on cuda")):
        model = tiny()
        assert install(model, which, device).endswith(told)
        assert model.config._attn_implementation == "sdpa"
        assert not any(isinstance(one, Dropout) for one in model.modules())
    eager = tiny(attn_implementation="eager")
    assert "BertForSequenceClassification has an attention of its own" in install(eager, "fast", CPU)
    assert eager.config._attn_implementation == "eager"
    assert any(isinstance(one, Dropout) for one in eager.modules())


def test_recomputed_activations_drop_the_same() -> None:
    """With gradient checkpointing the forward pass comes twice, with the same masks: the gradients are equal."""
    gradients = []
    for checkpointing in (False, True):
        model = tiny().train()
        install(model, "fast", CPU)
        if checkpointing:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # its new name is not in older ones
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(5)
        model(**batch()).logits.sum().backward()
        gradients.append([one.grad for one in model.parameters() if one.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert any(one.abs().sum() > 0 for one in gradients[0])
