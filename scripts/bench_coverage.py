"""How often hfpipe's 95 % intervals hold the true value, in a simulation.

    python scripts/bench_coverage.py [--draws N] [--examples N ...] [--only NAME ...] [--json FILE]

Every draw is a new set of examples and of predictions for them, from a distribution whose metrics are known in closed form
(of rankings and losses: from two million examples). The interval that an evaluation would write covers when it holds that
value. Printed is the share of draws that are covered, of those that have an interval, for each metric, rate and number of
examples. Where a metric is undefined in a draw, or there are too few rows, there is no interval and nothing to cover; `none`
is the greatest share of these over the columns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hfpipe.evaluation.statistics.intervals import Interval, intervals_of
from hfpipe.evaluation.statistics.of_findings import add_intervals
from hfpipe.parts.metrics.entities import Seqeval
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.tasks.findings import Scored, by_class, ranking, reliability
from hfpipe.system.snapshot import machine, versions

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
Case = tuple[str, str, float, Callable[[Rng, int, int], Interval]]

RATES = (0.5, 0.7, 0.85, 0.9, 0.95, 0.98, 1.0)
MANY = 2_000_000


def table_of(rate: float, priors: list[float], worst: float | None = None) -> Array:
    """How probable each pair of reference and prediction is, `[classes, classes]`; errors go to all classes alike."""
    classes = len(priors)
    rates = np.full(classes, rate)
    if worst is not None:
        rates[-1] = worst
    table = np.repeat((1 - rates)[:, None] / (classes - 1), classes, axis=1)
    np.fill_diagonal(table, rates)
    return np.array(priors)[:, None] / sum(priors) * table


def scores_of(table: Array) -> dict[str, float]:
    """The true metrics of such pairs."""
    hits, actual, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    f1s, margins = 2 * hits / (actual + predicted), (1 - actual @ actual) * (1 - predicted @ predicted)
    distance = np.subtract.outer(np.arange(len(table)), np.arange(len(table))) ** 2.0
    return {
        "accuracy": float(hits.sum()),
        "precision": float(hits[1] / predicted[1]),
        "recall": float(hits[1] / actual[1]),
        "f1": float(f1s[1]),
        "f1_macro": float(f1s.mean()),
        "f1_weighted": float(f1s @ actual),
        "precision_macro": float((hits / predicted).mean()),
        "recall_macro": float((hits / actual).mean()),
        "matthews_correlation": float((hits.sum() - actual @ predicted) / margins**0.5),
        "quadratic_kappa": float(1 - (table * distance).sum() / (np.outer(actual, predicted) * distance).sum()),
    }


def metric_of(score: str) -> tuple[str, Any]:
    name, _, average = score.partition("_")
    averaged = average in ("macro", "weighted")
    return name, load_metric(name if averaged else score, **({"average": average} if averaged else {}))


NONE = np.ones(0)


def of_classes() -> Iterator[Case]:
    """Metrics of one class an example."""
    two = ("accuracy", "precision", "recall", "f1", "f1_macro", "matthews_correlation")
    many = ("f1_macro", "f1_weighted", "precision_macro", "recall_macro", "matthews_correlation")
    shapes: list[tuple[str, tuple[str, ...], list[float], float | None]] = [
        ("two classes, 1:1", two, [1, 1], None),
        ("two classes, 9:1", two, [9, 1], None),
        ("four classes, 6:2:1:1", (*many, "quadratic_kappa"), [6, 2, 1, 1], None),
        ("four classes, one of rate 0.5", ("f1_macro", "recall_macro"), [6, 2, 1, 1], 0.5),
        ("ten classes", many, [1] * 10, None),
        ("thirty classes", ("f1_macro", "recall_macro"), [1] * 30, None),
    ]
    for shape, scores, priors, worst in shapes:
        for score in scores:
            for rate in RATES:
                table = table_of(rate, priors, worst)
                classes, metric = len(priors), metric_of(score)

                def draw(
                    rng: Rng, n: int, seed: int, t: Array = table, k: int = classes, m: Any = metric, s: str = score
                ) -> Interval:
                    cells = rng.choice(k * k, n, p=t.ravel())
                    return intervals_of([m], cells % k, cells // k, NONE, NONE, seed=seed)[s]

                truth = scores_of(table)[score]
                if np.isfinite(truth):
                    yield f"{score}, {shape}", f"{rate:g}", truth, draw


class OwnAccuracy:
    """A metric of a user, of which nothing is known."""

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float]:
        return {"own": float((predictions == references).mean())}


def of_anything() -> Iterator[Case]:
    for rate in RATES:

        def draw(rng: Rng, n: int, seed: int, p: float = rate) -> Interval:
            references = rng.integers(0, 2, n)
            predictions = np.where(rng.random(n) < p, references, 1 - references)
            return intervals_of([("own", OwnAccuracy())], predictions, references, NONE, NONE, seed=seed)["own"]

        yield "a user's own accuracy", f"{rate:g}", rate, draw


def of_numbers() -> Iterator[Case]:
    """Correlations and errors of numbers."""
    for score in ("pearson", "spearmanr"):
        metric = (score, load_metric(score))
        for r in (0.0, 0.5, 0.8, 0.95, 0.99):

            def draw(rng: Rng, n: int, seed: int, r: float = r, m: Any = metric, s: str = score) -> Interval:
                x, noise = rng.normal(size=(2, n))
                return intervals_of([m], r * x + (1 - r * r) ** 0.5 * noise, x, NONE, NONE, seed=seed)[s]

            yield f"{score}, normal", f"r {r:g}", r if score == "pearson" else 6 / np.pi * np.arcsin(r / 2), draw
    errors: dict[str, tuple[Callable[[Rng, int], Array], float, float]] = {
        "normal": (lambda rng, n: rng.normal(size=n), 1.0, (2 / np.pi) ** 0.5),
        "Laplace": (lambda rng, n: rng.laplace(size=n), 2.0, 1.0),
    }
    for kind, (error, mse, mae) in errors.items():
        for score, truth in (("mse", mse), ("mae", mae)):
            metric = (score, load_metric(score))

            def draw_errors(rng: Rng, n: int, seed: int, e: Any = error, m: Any = metric, s: str = score) -> Interval:
                return intervals_of([m], e(rng, n), np.zeros(n), NONE, NONE, seed=seed)[s]

            yield score, f"{kind} errors", truth, draw_errors


def of_losses() -> Iterator[Case]:
    """Cross-entropies of models of rising quality, whose few wrong examples weigh the more."""
    for margin in (1, 2, 4, 6):

        def losses(rng: Rng, n: int, margin: float = margin) -> Array:
            return np.asarray(np.logaddexp(0, -rng.normal(margin, 0.8 * margin, n)))

        def draw(rng: Rng, n: int, seed: int, made: Any = losses) -> Interval:
            return intervals_of([], NONE, NONE, made(rng, n), np.ones(n), seed=seed)["loss"]

        yield "loss, cross-entropy", f"margin {margin}", float(losses(np.random.default_rng(0), MANY).mean()), draw


def of_sentences() -> Iterator[Case]:
    """Entities, of which sentences have several, and whose errors come together."""
    metric = Seqeval("IOB2", ["O", "B-x", "I-x"])
    for score in ("f1", "precision", "accuracy"):
        for rate in RATES[2:]:
            for spread in (0.0, 0.15):

                def sentences(rng: Rng, n: int, rate: float = rate, spread: float = spread) -> tuple[Array, Array]:
                    found = np.empty((2, n), object)
                    good = np.clip(rate + spread * (1 - rate) * 4 * rng.choice([-1.0, 1 / 3], n, p=[0.25, 0.75]), 0, 1)
                    for row, (count, p) in enumerate(zip(rng.poisson(1.5, n), good, strict=True)):
                        labels = ["B-x", "O"] * int(count) + ["O"] * 4
                        answer = [
                            one if rng.random() < p or (one == "O" and place % 4) else ("O" if one != "O" else "B-x")
                            for place, one in enumerate(labels)
                        ]
                        found[0, row], found[1, row] = answer, labels
                    return found[0], found[1]

                def draw(rng: Rng, n: int, seed: int, made: Any = sentences, s: str = score) -> Interval:
                    return intervals_of([("seqeval", metric)], *made(rng, n), NONE, NONE, seed=seed)[s]

                truth = metric.compute(
                    **dict(zip(("predictions", "references"), sentences(np.random.default_rng(0), 40_000), strict=True))
                )[score]
                if rate < 1 or not spread:
                    what = "together" if spread else "alone"
                    yield f"entity {score}, errors {what}", f"{rate:g}", float(truth or 0), draw


def of_labels() -> Iterator[Case]:
    """Several labels a row."""
    priors = np.array([0.5, 0.3, 0.2, 0.1, 0.05])
    for score in ("f1_micro", "f1_macro", "precision_macro", "recall_macro", "subset_accuracy"):
        for rate in RATES:
            alarm = (1 - rate) / 4
            hits, predicted = priors * rate, priors * rate + (1 - priors) * alarm
            truth = {
                "f1_micro": 2 * hits.sum() / (priors + predicted).sum(),
                "f1_macro": (2 * hits / (priors + predicted)).mean(),
                "precision_macro": (hits / predicted).mean(),
                "recall_macro": rate,
                "subset_accuracy": (priors * rate + (1 - priors) * (1 - alarm)).prod(),
            }[score]

            def draw(rng: Rng, n: int, seed: int, rate: float = rate, alarm: float = alarm, s: str = score) -> Interval:
                held = rng.random((n, 5)) < priors
                said = rng.random((n, 5)) < np.where(held, rate, alarm)
                metric = ("multi_label", load_metric("multi_label"))
                return intervals_of([metric], said.astype(int), held.astype(int), NONE, NONE, seed=seed)[s]

            yield f"{score}, five labels", f"{rate:g}", float(truth), draw


def of_rankings() -> Iterator[Case]:
    """ROC-AUC, average precision and Brier score of two classes with normal scores."""
    for score in ("roc_auc", "average_precision", "brier"):
        for share in (0.5, 0.1):
            for apart in (0.5, 1.5, 3.0, 5.0):

                def found(rng: Rng, n: int, apart: float = apart, share: float = share) -> tuple[Array, Array]:
                    references = (rng.random(n) < share).astype(int)
                    odds = np.log(share / (1 - share)) + apart * (rng.normal(size=n) + apart * (references - 0.5))
                    one = 1 / (1 + np.exp(-odds))
                    return np.stack([1 - one, one], axis=1), references

                def measured(probabilities: Array, references: Array) -> dict[str, Any]:
                    predictions = probabilities.argmax(axis=1)
                    table = by_class(predictions, references, ["no", "yes"], probabilities)
                    return {
                        "classes": table,
                        "ranking": ranking(table),
                        "calibration": reliability(probabilities, references),
                    }

                def draw(rng: Rng, n: int, seed: int, made: Any = found, s: str = score) -> Interval:
                    probabilities, references = made(rng, n)
                    scored = Scored(probabilities.argmax(axis=1), references, np.arange(n), probabilities, None, {}, {})
                    document = add_intervals(measured(probabilities, references), scored, seed)
                    part = document["calibration" if s == "brier" else "ranking"]
                    return Interval(part["intervals"][s], "")

                whole = measured(*found(np.random.default_rng(0), MANY))
                truth = whole["calibration" if score == "brier" else "ranking"][score]
                yield f"{score}, {share:.0%} positive", f"{apart:g} apart", float(truth), draw


GROUPS = {
    "classes": of_classes, "own": of_anything, "numbers": of_numbers, "losses": of_losses, "sentences": of_sentences,
    "labels": of_labels, "rankings": of_rankings,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1_000)
    parser.add_argument("--examples", type=int, nargs="+", default=[20, 50, 100, 400])
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{options.draws:,} draws each; a share of 0.95 is within", end=" ")
    print(f"±{1.96 * (0.95 * 0.05 / options.draws) ** 0.5:.3f} by the number of draws alone")
    head = "".join(f"{f'n={n}':>7}" for n in options.examples)
    print(f"{'metric':<46} {'rate':<15} {'truth':>7} {head} {'none':>6} {'ms':>5}", flush=True)
    results = []
    for case in (case for group in options.only for case in GROUPS[group]()):
        results.append(measure(case, options.examples, options.draws))
    print_least(results, options.examples)
    least = min(results, key=lambda row: np.nanmin([*row["covered"].values()]))
    print(f"\nleast covered: {np.nanmin([*least['covered'].values()]):.3f}, {least['metric']}, rate {least['rate']}")
    about = machine()
    print(f"{about['processor']}, {about['cores']} cores; numpy {versions()['numpy']}, scipy {versions()['scipy']}")
    if options.json:
        content = {"machine": about, "versions": versions(), "draws": options.draws, "results": results}
        options.json.write_text(json.dumps(content, indent=1))


def print_least(results: list[dict[str, Any]], sizes: list[int]) -> None:
    """The least share of all rates by metric, as the table of docs/evaluation.md has it."""
    print("\n| metric | " + " | ".join(f"n = {n}" for n in sizes) + " |\n| --- |" + " --- |" * len(sizes))
    for metric in dict.fromkeys(row["metric"] for row in results):
        own = [row["covered"] for row in results if row["metric"] == metric]
        shares = [[row[n] for row in own if not np.isnan(row[n])] for n in sizes]
        print(f"| {metric} | " + " | ".join(f"{min(one):.3f}" if one else "none" for one in shares) + " |")


def measure(case: Case, sizes: list[int], draws: int) -> dict[str, Any]:
    """Draw, print and return a row."""
    metric, rate, truth, draw = case
    covered, without, start = {}, 0.0, time.perf_counter()
    for n in sizes:
        rng, held, known = np.random.default_rng(n), 0, 0
        for seed in range(draws):
            ends = draw(rng, n, seed).ends
            if ends is not None:
                known += 1
                held += ends[0] - 1e-9 <= truth <= ends[1] + 1e-9
        covered[n], without = held / known if known else float("nan"), max(without, 1 - known / draws)
    spent = (time.perf_counter() - start) / (draws * len(sizes)) * 1e3
    shares = "".join(f"{share:>7.3f}" for share in covered.values())
    print(f"{metric:<46} {rate:<15} {truth:>7.4f} {shares} {without:>6.2f} {spent:>5.1f}", flush=True)
    return {"metric": metric, "rate": rate, "truth": truth, "covered": covered, "none": without}


if __name__ == "__main__":
    main()
