"""A metric over several seeds: its mean, how far the seeds scatter, and what so many of them can tell from noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hfpipe.evaluation.statistics.significance import (
    MOST_SEEDS,
    deviation,
    seeds_needed,
    smallest_difference,
    t_interval,
)
from hfpipe.recipe.catalog import greater_is_better


def spread(
    metric: str, values: Mapping[int, float | None], baselines: Mapping[int, float | None] | None = None
) -> dict[str, Any]:
    """Sum up a metric.

    Args:
        metric: its name, which says whether greater is better.
        values: by seed; None where it is undefined.
        baselines: what a model that has learned nothing reaches, by seed, since rows that a seed holds out are its own.

    Returns:
        `seeds` (how many have it), `mean`, `standard_deviation` (n - 1), `interval` (95 % t interval of the
        mean), `best` and `worst` (`value` and `seed`; the greatest and the least where `greater_is_better` is None),
        `baseline`, `difference` (mean minus baseline), `seeds_needed` (to tell it from noise), `smallest_difference` and
        `smallest_difference_of_groups` (that so many seeds tell from a known number, and from as many other seeds; see
        `hfpipe.evaluation.statistics.significance`), `undefined` (seeds), and `text`. What is not known is None.
    """
    known = {seed: value for seed, value in values.items() if value is not None}
    undefined = [seed for seed in values if seed not in known]
    rising = greater_is_better(metric)
    if not known:
        return {"seeds": 0, "undefined": undefined, "text": f"{metric}: undefined for every seed"}
    numbers = list(known.values())
    order = sorted(known, key=lambda seed: known[seed], reverse=rising is not False)
    scatter = deviation(numbers)
    against = [(baselines or {}).get(seed) for seed in known]
    gains = [value - base for value, base in zip(numbers, against, strict=True) if base is not None]
    has_baseline = len(gains) == len(numbers)
    scatter_of_gains = deviation(gains) if has_baseline else None
    difference = _mean(gains) if has_baseline else None
    found: dict[str, Any] = {
        "seeds": len(numbers),
        "mean": _mean(numbers),
        "standard_deviation": scatter,
        "interval": t_interval(numbers),
        "greater_is_better": rising,
        "best": {"value": known[order[0]], "seed": order[0]},
        "worst": {"value": known[order[-1]], "seed": order[-1]},
        "baseline": _mean([base for base in against if base is not None]) if has_baseline else None,
        "difference": difference,
        "seeds_needed": seeds_needed(difference, scatter_of_gains) if difference and scatter_of_gains else None,
        "smallest_difference": smallest_difference(scatter, [len(numbers)]) if scatter else None,
        "smallest_difference_of_groups": smallest_difference(scatter, [len(numbers)] * 2) if scatter else None,
        "undefined": undefined,
    }
    return {**found, "text": _text(metric, found)}


def _mean(values: list[float]) -> float:
    return values[0] if min(values) == max(values) else float(np.mean(values))


def _text(metric: str, found: Mapping[str, Any]) -> str:
    """The metric in a few sentences."""
    sentences = [f"{metric}: mean {found['mean']:.4f} over {found['seeds']} seed{'s' if found['seeds'] > 1 else ''}"]
    if found["standard_deviation"] is None:
        sentences.append("one seed has no deviation, so nothing can be said about noise: train more seeds")
        return "; ".join(sentences)
    difference, needed = found["difference"], found["seeds_needed"]
    if difference is None:
        sentences.append("no baseline is known for it")
    elif not difference:
        sentences.append(f"it equals the baseline {found['baseline']:.4f}")
    else:
        is_worse = found["greater_is_better"] is not None and (difference > 0) is not found["greater_is_better"]
        sentences.append(
            f"{abs(difference):.4f} {'above' if difference > 0 else 'below'} the baseline {found['baseline']:.4f}"
            + (", which is worse" if is_worse else "")
            + (f", and {needed:,} seeds would tell that from noise" if needed else "")
            + (
                f", too little for {MOST_SEEDS:,} seeds to tell from noise"
                if not needed and found["standard_deviation"]
                else ""
            )
        )
    if found["standard_deviation"]:
        sentences.append(
            f"{found['seeds']} seeds find a true difference of {found['smallest_difference']:.2g} from a known number, or of "
            f"{found['smallest_difference_of_groups']:.2g} from {found['seeds']} other seeds, four times in five"
        )
    else:
        sentences.append(f"all {found['seeds']} seeds give the same value, so no deviation was seen")
    if found["undefined"]:
        sentences.append(f"undefined for seed {', '.join(map(str, found['undefined']))}")
    return "; ".join(sentences)
