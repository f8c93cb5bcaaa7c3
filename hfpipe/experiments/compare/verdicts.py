"""What the numbers of a comparison mean, in words: the measured ones beside those that the arithmetic predicts.

A verdict is a statement about size where nothing is predicted ("the same within rounding", "differs from step 3"), and
names a cause only where the arithmetic of `parts/optim/reduction.py` predicts the factor and the measured gradient has it.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from hfpipe.experiments.compare.traces import Difference, Trace, rounding
from hfpipe.parts.optim.reduction import effective_rate, item_scale

# Relative: how exactly a measured ratio of two L2 norms must be the predicted one.
_NORM_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 1e-2}
# What may differ between two recipes without changing an update, or in ways that the rates below contain.
_UNDERSTOOD = (
    "engine",
    "loss.reduction",
    "optimizer.name",
    "optimizer.lr",
    "schedule",
    "evaluate",
    "checkpoints",
    "train.workers",
)


def gradient_ratio(trace: Trace, base: Trace) -> float | None:
    """The L2 norm of the gradient of step 1, before clipping, over the baseline's, as measured."""
    ratio = trace.first_norm / base.first_norm if base.first_norm else math.nan
    return ratio if math.isfinite(ratio) else None


def predicted_gradient_ratio(trace: Trace, base: Trace) -> float | None:
    """What the reductions make of that ratio: D between sum and mean, for the D items of step 1.

    None unless both saw the same items in step 1 and found the same loss there, within rounding: only then is the
    gradient of the mean loss the same.
    """
    if not trace.steps or not base.steps:
        return None
    ours, theirs = trace.steps[0], base.steps[0]
    same_items = ours["num_items"] == theirs["num_items"] and ours["divisor"] == theirs["divisor"]
    if not same_items or not abs(trace.losses[1] - base.losses[1]) <= rounding(1, base.losses[1]):
        return None
    return _gradient_factor(trace, base, ours["divisor"])


def effective_learning_rate(trace: Trace) -> float | None:
    """The rate that plain SGD on the mean loss would need for the same step 1, with the peak rate of the recipe.

    None where an optimizer rescales the gradient (AdamW and the other adaptive ones) or is not known not to.
    """
    if not trace.is_linear or not trace.steps:
        return None
    return _rate(trace, trace.steps[0]["divisor"], trace.recipe.optimizer.lr)


def of_baseline(base: Trace) -> str:
    """What there is to say about the baseline itself: that it is not divided exactly once, and that it diverged."""
    text = "the baseline"
    if base.is_linear and (base.recipe.loss.reduction == "mean") == base.divides:
        text += f": {_division(base)}"
    return text + (f"; diverged after step {_last_step(base)}: {base.failure}" if base.failure is not None else "")


def verdict(trace: Trace, base: Trace, difference: Difference, twin: tuple[str, str] | None = None) -> str:
    """One variant against the baseline.

    Args:
        trace: the variant.
        base: the baseline.
        difference: of the two.
        twin: another variant that it equals, and how (`bit for bit`), when it does not equal the baseline.
    """
    sentences = [_main(trace, base, difference)]
    measured, predicted = gradient_ratio(trace, base), predicted_gradient_ratio(trace, base)
    tolerance = max(_NORM_TOLERANCE.get(part.precision, 1e-2) for part in (trace, base))
    if measured is not None and predicted is not None and not math.isclose(measured, predicted, rel_tol=tolerance):
        sentences.append(
            f"the first gradient is {measured:.6g} times the baseline's, and the arithmetic predicts {predicted:.6g}"
        )
    if trace.failure is None and base.failure is None and trace.weights_step != base.weights_step:
        sentences.append(
            f"model/ holds the weights of step {trace.weights_step}, the baseline's those of step {base.weights_step}"
        )
    loaded = [what for what, digest in trace.digests.items() if digest != base.digests.get(what)]
    if loaded:
        sentences.append(f"not the baseline's {' and '.join(loaded)}")
    if twin is not None:
        sentences.append(f"the same as {twin[0]}, {twin[1]}")
    return "; ".join(sentences)


def _main(trace: Trace, base: Trace, difference: Difference) -> str:
    rate, ragged = rate_explanation(trace, base)
    others = _other_fields(trace, base)
    besides = f"; {', '.join(others)} differ{'s' if len(others) == 1 else ''} too" if others else ""
    if trace.failure is not None:
        return f"diverged after step {_last_step(trace)}: {trace.failure}" + (f"; {rate}{besides}" if rate else "")
    if base.failure is not None:
        return f"the baseline diverged after step {_last_step(base)}" + (f"; {rate}{besides}" if rate else "")
    if difference.size is not None:
        return _same(trace, base, difference, rate)
    if rate is not None:
        return rate + besides
    if ragged is not None and difference.beyond_step is not None and difference.beyond_step >= ragged:
        return f"drifts from step {difference.beyond_step}: the ragged batch of step {ragged}{besides}"
    return _hidden_until(trace, base, difference) or _differs(trace, base, difference)


def _hidden_until(trace: Trace, base: Trace, difference: Difference) -> str | None:
    """What an adaptive optimizer hides is a constant factor; a ragged batch has another one, from which on it shows."""
    predicted = predicted_gradient_ratio(trace, base)
    if predicted is None or math.isclose(predicted, 1) or trace.is_linear or _name(trace) != _name(base):
        return None
    if difference.beyond_step is None or difference.losses_within or _other_fields(trace, base):
        return None
    for ours, theirs in zip(trace.steps, base.steps, strict=False):
        if ours["divisor"] != theirs["divisor"] or ours["lr"] != theirs["lr"] or ours["step"] > difference.beyond_step:
            return None
        ratio = _gradient_factor(trace, base, ours["divisor"])
        if not math.isclose(ratio, predicted):
            return (
                f"drifts from step {difference.beyond_step}: {_name(trace)} hides that the gradient is "
                f"{_times(predicted)} the baseline's, until it is {_times(ratio)} in step {ours['step']}, "
                "a ragged batch"
            )
    return None


def _gradient_factor(trace: Trace, base: Trace, divisor: float) -> float:
    """The gradient over the baseline's for the same items, by the arithmetic."""
    ours, theirs = trace.recipe.loss.reduction, base.recipe.loss.reduction
    return item_scale(ours, divisor) / item_scale(theirs, divisor)


def _same(trace: Trace, base: Trace, difference: Difference, rate: str | None) -> str:
    if difference.weights_within is None:
        return f"the same losses, {difference.size}"
    size = "the same, bit for bit" if difference.size == "bit for bit" else "the same within rounding"
    if rate is not None:
        return f"{size}, in spite of {rate}"
    predicted = predicted_gradient_ratio(trace, base)
    if predicted is None or math.isclose(predicted, 1):
        return size
    longer = f"the gradient is {_times(predicted)} the baseline's"
    if trace.is_linear and base.is_linear:
        return f"{size}: {longer}, and {_name(trace if trace.divides else base)} divides by the items"
    return f"{size}: {longer}, and {_name(trace)} hides it"


def _differs(trace: Trace, base: Trace, difference: Difference) -> str:
    """The plain statement: from where, and how much."""
    if difference.losses_within and difference.weights_within is False:
        text = f"the same losses within rounding, and weights that differ by up to {difference.max_weight:.2g}"
        return text + _rescaled(trace, base)
    far = []
    if difference.max_loss is not None:
        far.append(f"losses by up to {difference.max_loss:.2g}")
    if difference.max_weight is not None:
        far.append(f"weights by up to {difference.max_weight:.2g}")
    text = f"differs from step {difference.beyond_step}: {', '.join(far) or 'no step in common'}"
    if len(trace.steps) != len(base.steps):
        text += f"; {len(trace.steps)} steps, the baseline {len(base.steps)}"
    for ours, theirs in zip(trace.steps, base.steps, strict=False):
        if ours["num_items"] != theirs["num_items"]:
            return f"{text}; step {ours['step']} has {ours['num_items']} items, the baseline's {theirs['num_items']}"
    return text + _rescaled(trace, base)


def _rescaled(trace: Trace, base: Trace) -> str:
    predicted = predicted_gradient_ratio(trace, base)
    if predicted is None or math.isclose(predicted, 1) or trace.is_linear or _name(trace) != _name(base):
        return ""
    return f"; the gradient is {_times(predicted)} the baseline's, and {_name(trace)} rescales it"


def rate_explanation(trace: Trace, base: Trace) -> tuple[str | None, int | None]:
    """What the arithmetic says about the learning rate of every step, against the baseline's.

    Returns:
        In words, when the rate is another one in full batches ("8 times the learning rate: sum without division");
        and the first ragged step whose rate is another one although that of full batches is the same.
    """
    ratios = _rate_ratios(trace, base)
    if not ratios:
        return None, None
    full = trace.steps[0]["divisor"]
    at_full = [ratio for divisor, _, ratio in ratios if divisor == full]
    ragged = [
        (step, ratio) for divisor, step, ratio in ratios if divisor != full and not math.isclose(ratio, at_full[0])
    ]
    if not all(math.isclose(ratio, at_full[0]) for ratio in at_full):
        return f"from {min(at_full):.3g} to {max(at_full):.3g} times the learning rate: the schedules differ", None
    if math.isclose(at_full[0], 1):
        return None, ragged[0][0] if ragged else None
    rate = "the learning rate of the gradient" if trace.recipe.optimizer.weight_decay else "the learning rate"
    text = f"{_times(at_full[0])} {rate}: {_cause(trace, base)}"
    if ragged:
        step, ratio = ragged[0]
        text += f" ({_times(ratio).removesuffix(' of')} in step {step}, a ragged batch)"
    return text, None


def _rate_ratios(trace: Trace, base: Trace) -> list[tuple[float, int, float]]:
    """(D, step, effective rate over the baseline's) of the common steps; empty where the arithmetic doesn't say."""
    if predicted_gradient_ratio(trace, base) is None:
        return []
    if not (trace.is_linear and base.is_linear) and _name(trace) != _name(base):
        return []
    ratios = []
    for ours, theirs in zip(trace.steps, base.steps, strict=False):
        if ours["divisor"] != theirs["divisor"]:
            return []
        if trace.is_linear:
            mine, other = (_rate(t, r["divisor"], r["lr"]) for t, r in ((trace, ours), (base, theirs)))
        else:
            mine, other = ours["lr"], theirs["lr"]  # the scale of the gradient cancels
        if other:
            ratios.append((ours["divisor"], ours["step"], mine / other))
    return ratios if ratios and ratios[0][0] == trace.steps[0]["divisor"] else []


def _rate(trace: Trace, divisor: float, lr: float) -> float:
    return effective_rate(lr, trace.recipe.loss.reduction, divisor, optimizer_divides=trace.divides)


def _cause(trace: Trace, base: Trace) -> str:
    """Why the rates differ."""
    ours, theirs = trace.recipe, base.recipe
    causes = []
    is_mean = [part.recipe.loss.reduction == "mean" for part in (trace, base)]
    if trace.is_linear and (is_mean[0] != is_mean[1] or trace.divides != base.divides):
        causes.append(_division(trace))
    if ours.optimizer.lr != theirs.optimizer.lr:
        causes.append(f"optimizer.lr is {ours.optimizer.lr:g}, the baseline's {theirs.optimizer.lr:g}")
    return ", and ".join(causes) or "the schedule"


def _division(trace: Trace) -> str:
    reduction = trace.recipe.loss.reduction
    if reduction == "mean":
        return "divided twice" if trace.divides else "divided once, as the mean"
    if trace.divides:
        return f"divided once, by {_name(trace)}"
    return "sum without division" if reduction == "sum" else "none, a sum without division"


def _last_step(trace: Trace) -> int:
    return trace.steps[-1]["step"] if trace.steps else 0


def _times(ratio: float) -> str:
    """`8 times`, `1/8 of`, `0.3 times`."""
    if ratio < 1:
        whole = Fraction(ratio).limit_denominator(1_000_000)
        if whole.numerator == 1 and math.isclose(float(whole), ratio):
            return f"1/{whole.denominator} of"
    return f"{ratio:.4g} times"


def _name(trace: Trace) -> str:
    return trace.recipe.optimizer.name


def _other_fields(trace: Trace, base: Trace) -> list[str]:
    """The fields, beyond those that the rates contain, in which two recipes differ."""
    ours, theirs = _flat("", trace.recipe.model_dump()), _flat("", base.recipe.model_dump())
    changed = [key for key in dict.fromkeys((*ours, *theirs)) if ours.get(key) != theirs.get(key)]
    return [key for key in changed if not any(key == known or key.startswith(f"{known}.") for known in _UNDERSTOOD)]


def _flat(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= _flat(f"{path}.{key}".lstrip("."), part)
    return flat
