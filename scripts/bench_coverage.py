"""How often hfpipe's 95 % intervals hold the true value, in a simulation.

    python scripts/bench_coverage.py [--draws N] [--examples N ...] [--resamples N] [--bca N] [--json FILE]

Every draw is a new set of examples and of predictions for them, from a distribution whose metrics are known in closed
form; `bootstrap_intervals` of the draw covers when it holds that value. Printed are the shares of draws that are
covered, that lie wholly above and wholly below the truth, and the mean width. With --bca N, scipy's BCa intervals of the
first N draws stand beside the percentile intervals of the same draws.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from hfpipe.evaluation.statistics.bootstrap import bootstrap_intervals
from hfpipe.parts.metrics.load import load_metric
from hfpipe.system.snapshot import machine, versions

Array = np.ndarray[Any, Any]
Drawn = tuple[Array, Array]

POSITIVE, RECALL, FALSE_ALARM = 0.3, 0.75, 0.10  # P(reference 1), P(prediction 1 | 1), P(prediction 1 | 0)
CORRELATION = 0.8


def classes(rng: np.random.Generator, examples: int) -> Drawn:
    """Predictions and labels of two classes, independent from example to example."""
    references = (rng.random(examples) < POSITIVE).astype(int)
    return (rng.random(examples) < np.where(references == 1, RECALL, FALSE_ALARM)).astype(int), references


def numbers(rng: np.random.Generator, examples: int) -> Drawn:
    """Two standard normal columns with a known correlation."""
    references, noise = rng.normal(size=(2, examples))
    return CORRELATION * references + (1 - CORRELATION**2) ** 0.5 * noise, references


def truths() -> dict[str, tuple[Callable[[np.random.Generator, int], Drawn], float]]:
    """The distribution and the true value of each metric."""
    both, missed, alarms = POSITIVE * RECALL, POSITIVE * (1 - RECALL), (1 - POSITIVE) * FALSE_ALARM
    neither = (1 - POSITIVE) * (1 - FALSE_ALARM)
    margins = (both + missed) * (both + alarms) * (neither + missed) * (neither + alarms)
    return {
        "accuracy": (classes, both + neither),
        "f1": (classes, 2 * both / (2 * both + missed + alarms)),
        "matthews_correlation": (classes, (both * neither - alarms * missed) / margins**0.5),
        "pearson": (numbers, CORRELATION),
        "mse": (numbers, 2 - 2 * CORRELATION),
    }


def statistic_of(name: str, drawn: Drawn) -> tuple[tuple[Array, ...], Callable[..., Array]]:
    """What is resampled for a metric, and the metric of it, as scipy takes them."""
    metric: Any = load_metric(name)
    if not hasattr(metric, "sums"):
        return drawn, metric.statistics[name].resampled
    sums = metric.sums(*drawn)[name]

    def score(*terms: Array, axis: int) -> Array:
        return sums.score(np.stack([one.sum(axis=axis) for one in terms], axis=-1))

    return tuple(sums.terms), score


def bca(name: str, drawn: Drawn, resamples: int, seed: int) -> tuple[float, float]:
    """Scipy's bias-corrected and accelerated interval of the same statistic."""
    data, statistic = statistic_of(name, drawn)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            data,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, 2_000_000 // len(drawn[0])),  # as many numbers at once as hfpipe holds
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--examples", type=int, nargs="+", default=[400])
    parser.add_argument("--resamples", type=int, default=9_999, help="of each draw; hfpipe itself takes 9,999")
    parser.add_argument("--bca", type=int, default=0, help="draws that get a BCa interval, too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    print(f"{options.draws:,} draws, {options.resamples:,} resamples of each; a share of 0.95 is within", end=" ")
    print(f"±{1.96 * (0.95 * 0.05 / options.draws) ** 0.5:.3f} by the number of draws alone")
    head = f"{'metric':<22} {'examples':>8} {'method':<11} {'draws':>6} {'truth':>7} {'covered':>8}"
    print(f"{head} {'too high':>9} {'too low':>8} {'width':>7} {'ms each':>8}", flush=True)
    for examples in options.examples:
        for name, (draw, truth) in truths().items():
            rng, metrics = np.random.default_rng(examples), [(name, load_metric(name))]
            found: dict[str, list[tuple[float, float]]] = {"percentile": [], "BCa": []}
            seconds = dict.fromkeys(found, 0.0)
            nothing = np.ones(0)  # no loss: only the metric is measured
            for number in range(options.draws):
                drawn = draw(rng, examples)
                start = time.perf_counter()
                interval = bootstrap_intervals(
                    metrics, *drawn, nothing, nothing, seed=number, resamples=options.resamples
                )[name]
                seconds["percentile"] += time.perf_counter() - start
                found["percentile"].append(tuple(interval) if interval else (np.nan, np.nan))
                if number < options.bca:
                    start = time.perf_counter()
                    found["BCa"].append(bca(name, drawn, options.resamples, number))
                    seconds["BCa"] += time.perf_counter() - start
            shown = {"percentile": found["percentile"]}
            if options.bca:
                shown |= {"percentile*": found["percentile"][: options.bca], "BCa": found["BCa"]}
            for method, pairs in shown.items():
                low, high = np.array(pairs).T
                row = {
                    "metric": name,
                    "examples": examples,
                    "method": method,
                    "draws": len(pairs),
                    "truth": truth,
                    "covered": float(((low <= truth) & (truth <= high)).mean()),
                    "too_high": float((low > truth).mean()),
                    "too_low": float((high < truth).mean()),
                    "width": float(np.nanmean(high - low)),
                    "seconds": seconds.get(method, np.nan) / len(pairs),
                }
                results.append(row)
                each = "" if method == "percentile*" else f"{row['seconds'] * 1e3:>8.0f}"
                print(
                    f"{name:<22} {examples:>8} {method:<11} {row['draws']:>6,} {truth:>7.4f} {row['covered']:>8.3f} "
                    f"{row['too_high']:>9.3f} {row['too_low']:>8.3f} {row['width']:>7.4f} {each}",
                    flush=True,
                )
    if options.bca:
        print(f"* percentile intervals of the same {options.bca:,} draws as BCa")
    print(
        f"{machine()['processor']}, {machine()['cores']} cores; numpy {versions()['numpy']}, scipy {versions()['scipy']}"
    )
    if options.json:
        content = {"machine": machine(), "versions": versions(), "resamples": options.resamples, "results": results}
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
