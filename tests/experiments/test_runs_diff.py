"""`hfpipe runs diff`: metrics of two runs, two groups, or one of each, and whether chance could make the difference."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hfpipe.errors import RecipeError
from hfpipe.evaluation.statistics.significance import power
from hfpipe.experiments.diff import sentences
from hfpipe.experiments.diff.evaluations import compare_evaluations
from hfpipe.experiments.diff.same_examples import column
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all
from hfpipe.recipe import Recipe, load_recipe, to_yaml, with_overrides
from hfpipe.runs import Run
from hfpipe.runs.evaluations import write_evaluation
from hfpipe.runs.groups import Group

ROWS = 400
REFERENCES = np.random.default_rng(1).integers(0, 2, ROWS)
NAMES = ("A", "B")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """Accuracy and F1 of two classes."""
    return load_recipe("quickstart")


def says(share: float, seed: int) -> np.ndarray:
    """The predictions of a model that is correct on so many of the examples."""
    return np.where(np.random.default_rng(seed).random(ROWS) < share, REFERENCES, 1 - REFERENCES)


def measured(
    recipe: Recipe,
    folder: Path,
    name: str,
    predictions: Any,
    references: Any = REFERENCES,
    *,
    split: str = "validation",
    **changes: Any,
) -> Run:
    """A run with these predictions of the examples of a split."""
    run = Run(folder / name) if (folder / name).is_dir() else Run.create(recipe, folder, name)
    run.update_metadata(id=name, status="finished", identity={"dataset": {"digest": "d"}})
    losses = [0.1 if one == other else 2.0 for one, other in zip(predictions, references, strict=True)]
    pairs = [(one if isinstance(one, str) else one["name"]) for one in recipe.evaluate.metrics]
    values: dict[str, Any] = {"loss": float(np.mean(losses))}
    values |= compute_all([(one, load_metric(one)) for one in pairs], predictions, references)
    document = {"format": 1, "split": split, "dataset": "rows", "examples": len(references), "metrics": values}
    document |= {"names": ["no", "yes"], "scheme": None, "kind": "text-classification", **changes}
    columns = [[one.item() if hasattr(one, "item") else one for one in side] for side in (predictions, references)]
    rows = [
        {"id": row, "prediction": one, "reference": other, "loss": loss, "weight": 1.0}
        for row, (one, other, loss) in enumerate(zip(*columns, losses, strict=True))
    ]
    write_evaluation(run, split, document, rows)
    run.write_json("metrics.json", {"split": "validation", "metrics": values})
    return run


def rows_of(found: Mapping[str, Any], split: int = 0) -> dict[str, dict[str, Any]]:
    """The metrics of a comparison by name."""
    return {row["name"]: row for row in found["comparisons"][split]["metrics"]}


def test_a_small_difference_is_not_distinguishable(recipe: Recipe, tmp_path: Path) -> None:
    """Accuracy has McNemar's p and the disagreements, F1 and the loss the paired bootstrap, and the words say chance."""
    first, second = REFERENCES.copy(), REFERENCES.copy()
    first[:40], second[25:60] = 1 - first[:40], 1 - second[25:60]  # 15 shared mistakes, 25 against 20 of their own
    runs = measured(recipe, tmp_path, "a", first), measured(recipe, tmp_path, "b", second)
    found = compare_evaluations(*runs, NAMES)
    rows = rows_of(found)
    accuracy = rows["accuracy"]
    assert accuracy["difference"] == pytest.approx(5 / 400)
    assert (accuracy["only_first_correct"], accuracy["only_second_correct"]) == (20, 25)
    assert accuracy["p"] == pytest.approx(0.5515, abs=1e-4)
    low, high = accuracy["interval"]
    assert accuracy["text"] == (
        f"B is better by 0.0125 accuracy: 0.9125 against 0.9000 (95 % interval of the difference {low:.4f} to {high:.4f}); "
        "McNemar p = 0.55 on 45 disagreements: not distinguishable from chance on these 400 examples"
    )
    assert low < 0 < high
    assert rows["f1"]["test"] == rows["loss"]["test"] == "paired bootstrap"
    assert rows["f1"]["resamples"] == 9_999
    assert rows["loss"]["text"].startswith("B is better by 0.0237 loss (less is better): ")
    assert found["tests"] == 3
    assert "what another seed would change" in found["notices"][0]
    assert "3 tests were made, uncorrected" in found["notices"][1]


def test_a_large_difference_is_distinguishable_whichever_comes_first(recipe: Recipe, tmp_path: Path) -> None:
    """Seen from the other side the difference has the other sign, the words and the p are the same."""
    runs = measured(recipe, tmp_path, "a", says(0.7, 3)), measured(recipe, tmp_path, "b", says(0.9, 4))
    there, back = compare_evaluations(*runs, NAMES), compare_evaluations(*runs[::-1], NAMES[::-1])
    for name, row in rows_of(there).items():
        other = rows_of(back)[name]
        assert row["distinguishable"]
        assert other["difference"] == pytest.approx(-row["difference"])
        assert other["interval"] == pytest.approx([-end for end in row["interval"][::-1]])
        assert other["p"] == pytest.approx(row["p"])
        assert other["text"] == row["text"]
        low, high = re.findall(r"difference (\S+) to (\S+)\)", row["text"])[0]
        assert float(low) < abs(row["difference"]) < float(high)  # seen from the better one
        assert row["text"].startswith("B is better by")
        assert ": distinguishable from chance on these 400 examples" in row["text"]


def test_equal_answers_are_equal(recipe: Recipe, tmp_path: Path) -> None:
    """Two runs that say the same have no disagreement, p 1, and are called equal."""
    runs = measured(recipe, tmp_path, "a", says(0.8, 3)), measured(recipe, tmp_path, "b", says(0.8, 3))
    row = rows_of(compare_evaluations(*runs, NAMES))["accuracy"]
    assert row["p"] == 1
    assert row["text"].startswith("accuracy: A and B are equal at 0.")
    assert "on 0 disagreements" in row["text"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"dataset": "others"}, "the rows that they were measured on are not the same"),
        ({"split": "test"}, "they were measured on other splits"),
        ({"names": ["yes", "no"]}, "their classes are not the same, or not in the same order"),
        ({"kind": "multiple-choice"}, "they are of other kinds of task"),
    ],
)
def test_what_cannot_be_compared_is_shown_with_the_metrics(
    recipe: Recipe, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    """Other rows, splits or classes: no test is made, the metrics stand side by side, and the reason is given."""
    first = measured(recipe, tmp_path, "a", says(0.7, 3))
    second = measured(recipe, tmp_path, "b", says(0.9, 4))
    document = second.read_json("evaluations/validation.json")
    second.write_json("evaluations/validation.json", {**document, **changes})
    found = compare_evaluations(first, second, NAMES)
    (split,) = found["comparisons"]
    assert not split["comparable"]
    assert split["why"] == text
    assert text in split["text"]
    assert found["tests"] == 0
    assert rows_of(found)["accuracy"]["text"].startswith("accuracy: A 0.")


def test_examples_that_do_not_match_are_not_joined(recipe: Recipe, tmp_path: Path) -> None:
    """A missing row, another label, a damaged or missing file: each is an own reason, none is papered over."""
    first = measured(recipe, tmp_path, "a", says(0.7, 3))
    second = measured(recipe, tmp_path, "b", says(0.9, 4))
    file = second.path / "evaluations" / "validation.examples.jsonl"
    whole = file.read_text()

    def why() -> str:
        return str(compare_evaluations(first, second, NAMES)["comparisons"][0]["why"])

    file.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert why() == "1 example was scored by one of them only"
    other = f'"reference": {1 - REFERENCES[0]}'
    file.write_text(whole.replace(f'"reference": {REFERENCES[0]}', other, 1))
    assert why() == "example 0 has another label in each"
    file.write_text(whole[:-20])
    assert why() == "the predictions of B on validation are damaged"
    file.unlink()
    assert why() == "B has no predictions of the examples of validation"


def test_the_order_of_the_lines_does_not_matter(recipe: Recipe, tmp_path: Path) -> None:
    """Examples are joined by id: shuffled lines give the same p."""
    runs = measured(recipe, tmp_path, "a", says(0.7, 3)), measured(recipe, tmp_path, "b", says(0.75, 4))
    before = rows_of(compare_evaluations(*runs, NAMES))
    file = runs[1].path / "evaluations" / "validation.examples.jsonl"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert rows_of(compare_evaluations(*runs, NAMES)) == before


def test_all_common_splits_are_compared(recipe: Recipe, tmp_path: Path) -> None:
    """Each split that both have, and a word about one that only one has."""
    first, second = (measured(recipe, tmp_path, name, says(0.8, seed)) for name, seed in (("a", 1), ("b", 2)))
    for run, seed in ((first, 3), (second, 4)):
        measured(recipe, tmp_path, run.id, says(0.8, seed), split="test")
    measured(recipe, tmp_path, "a", says(0.8, 5), split="challenge")
    found = compare_evaluations(first, second, NAMES)
    assert [(one["split"], one["comparable"]) for one in found["comparisons"]] == [
        ("test", True),
        ("validation", True),
        ("challenge", False),
    ]
    assert found["comparisons"][2]["why"] == "only A was measured on challenge"
    assert found["tests"] == 6


def test_other_metrics_and_other_losses_are_not_tested(recipe: Recipe, tmp_path: Path) -> None:
    """F1 of another class is another metric, and so is another loss; the accuracy is tested all the same."""
    other = with_overrides(recipe, ["loss.name=focal", "evaluate.metrics=[accuracy, {name: f1, pos_label: 0}]"])
    runs = measured(recipe, tmp_path, "a", says(0.8, 1)), measured(other, tmp_path, "b", says(0.9, 2))
    rows = rows_of(compare_evaluations(*runs, NAMES))
    assert rows["accuracy"]["p"] is not None
    assert rows["f1"]["p"] is rows["loss"]["p"] is None
    assert rows["loss"]["why"] == "the recipes have other losses"
    assert "not tested: the recipes have other losses" in rows["loss"]["text"]


def test_a_metric_that_would_run_code_is_not_run(recipe: Recipe, tmp_path: Path) -> None:
    """A metric of a file or of the Hub is shown and not tested: looking at a difference runs nobody's code."""
    runs = [measured(recipe, tmp_path, name, says(0.8, seed)) for name, seed in (("a", 1), ("b", 2))]
    foreign = load_recipe("quickstart", ["evaluate.metrics=[accuracy, ./boom.py]", "evaluate.best=null"])
    for run in runs:
        run.write_text("recipe.yaml", to_yaml(foreign))
    rows = rows_of(compare_evaluations(runs[0], runs[1], NAMES))
    assert rows["accuracy"]["p"] is not None
    assert rows["f1"]["why"] == "hfpipe can't compute it again from the saved predictions"


@pytest.mark.parametrize(
    ("metric", "kind", "references", "predictions", "more", "tests"),
    [
        (
            "seqeval",
            "token-classification",
            [["B-PER", "O"], ["O", "O"], ["B-PER", "I-PER"]] * 20,
            [["B-PER", "O"], ["O", "B-PER"], ["B-PER", "O"]] * 20,
            {"names": ["O", "B-PER", "I-PER"], "scheme": "IOB2"},
            {"f1": "paired bootstrap", "accuracy": "paired bootstrap"},
        ),
        (
            "squad",
            "question-answering",
            [{"answers": {"text": ["red"], "answer_start": [0]}}] * 60,
            [{"prediction_text": "red"}, {"prediction_text": "red car"}] * 30,
            {"names": None},
            {"exact_match": "McNemar", "f1": "paired bootstrap"},
        ),
        (
            "multi_label",
            "multi-label-classification",
            [[1, 0], [0, 1], [1, 1]] * 20,
            [[1, 0], [0, 1], [0, 1]] * 20,
            {"names": ["x", "y"]},
            {"subset_accuracy": "McNemar", "f1_micro": "paired bootstrap"},
        ),
        (
            "pearson",
            "text-classification",
            [float(row % 7) for row in range(60)],
            [float(row % 7) + 0.5 * (row % 3) for row in range(60)],
            {"names": None},
            {"pearson": "paired bootstrap"},
        ),
    ],
)
def test_every_kind_of_answer_is_compared(
    recipe: Recipe, tmp_path: Path, metric: str, kind: str, references: Any, predictions: Any, more: Any, tests: Any
) -> None:
    """Labels of words, texts, several labels and numbers come back from their files in the form that metrics take."""
    own = with_overrides(recipe, [f"evaluate.metrics=[{metric}]", "evaluate.best=null"])
    sides = [column(one) for one in (predictions, references)]
    values = {"loss": 0.5, **compute_all([(metric, load_metric(metric))], *sides)}
    runs = []
    for name, answers in (
        ("a", predictions),
        ("b", references if metric != "squad" else [{"prediction_text": "red"}] * 60),
    ):
        run = Run.create(own, tmp_path, name)
        document = {"split": "validation", "dataset": "rows", "kind": kind, "scheme": None, "metrics": values, **more}
        rows = zip(answers, references, strict=True)
        lines = [
            {"id": row, "prediction": one, "reference": two, "loss": 1.0, "weight": 1.0}
            for row, (one, two) in enumerate(rows)
        ]
        write_evaluation(run, "validation", document, lines)
        runs.append(run)
    found = rows_of(compare_evaluations(runs[0], runs[1], NAMES))
    assert {name: found[name]["test"] for name in tests} == tests
    for name in tests:
        assert found[name]["interval"][0] > 0  # the second one is correct everywhere
        assert found[name]["p"] < 0.05


def group_of(recipe: Recipe, folder: Path, name: str, values: Mapping[int, float], data: str = "d") -> Group:
    """A group whose runs have these accuracies."""
    group = Group.create(recipe, folder, name)
    group.update_metadata(format=1, id=name, seeds=list(values), status="finished")
    for seed, value in values.items():
        run = Run.create(with_overrides(recipe, [f"seed={seed}"]), group.path, f"seed-{seed}")
        run.update_metadata(status="finished", identity={"dataset": {"digest": data}, "recipe": {"digest": str(seed)}})
        run.write_json("metrics.json", {"split": "validation", "metrics": {"accuracy": value}})
    return group


def test_two_groups_are_tested_over_their_seeds(recipe: Recipe, tmp_path: Path) -> None:
    """Of other seeds Welch's t, with why, the number of seeds of each, the effect, and how many seeds would tell."""
    sides = [0.80, 0.84, 0.79, 0.81], [0.82, 0.85, 0.80]
    first, second = (
        group_of(recipe, tmp_path, name, dict(enumerate(side, 1))) for name, side in zip("ab", sides, strict=True)
    )
    found = compare_evaluations(first, second, NAMES)
    row = rows_of(found)["accuracy"]
    pooled = (sum(np.var(side, ddof=1) for side in sides) / 2) ** 0.5
    needed = row["seeds_needed"]
    assert found["comparisons"][0]["kind"] == "groups"
    assert row["seeds"] == [4, 3]
    assert row["test"] == "Welch's t"
    assert row["difference"] == pytest.approx(np.mean(sides[1]) - np.mean(sides[0]))
    assert row["p"] == pytest.approx(stats.ttest_ind(*sides, equal_var=False).pvalue)
    assert row["effect"] == pytest.approx(row["difference"] / pooled)
    assert power(row["effect"], [needed, needed]) >= 0.8 > power(row["effect"], [needed - 1, needed - 1])
    assert (row["paired"], row["why_unpaired"]) == (False, "the groups have other seeds")
    assert f"p = {row['p']:.2g} with 4 and 3 seeds, unpaired because the groups have other seeds: not" in row["text"]
    assert f"a difference of this size takes {needed} seeds each" in row["text"]


def test_groups_of_the_same_seeds_and_rows_are_tested_in_pairs(recipe: Recipe, tmp_path: Path) -> None:
    """Each seed held out rows of its own, the same in both groups: the paired t test sees what Welch's can't."""
    sides = [0.70, 0.84, 0.79, 0.91], [0.72, 0.85, 0.82, 0.93]
    first, second = (
        group_of(recipe, tmp_path, name, dict(enumerate(side, 1))) for name, side in zip("ab", sides, strict=True)
    )
    for group in (first, second):
        for seed, run in group.runs.items():
            run.update_metadata(identity={"dataset": {"digest": f"held out by {seed}"}})
    found = compare_evaluations(first, second, NAMES)
    row, whole = rows_of(found)["accuracy"], found["comparisons"][0]
    assert (row["test"], row["paired"], whole["paired"], whole["why_unpaired"]) == ("paired t", True, True, None)
    assert row["p"] == pytest.approx(stats.ttest_rel(*sides).pvalue)
    assert row["distinguishable"]
    assert stats.ttest_ind(*sides, equal_var=False).pvalue > 0.5
    differences = np.subtract(sides[1], sides[0])
    assert row["standard_deviation_of_differences"] == pytest.approx(differences.std(ddof=1))
    assert row["interval"] == pytest.approx(stats.t.interval(0.95, 3, differences.mean(), stats.sem(differences)))
    needed = row["seeds_needed"]
    assert power(row["effect"], [needed]) >= 0.8 > power(row["effect"], [needed - 1])
    assert f"paired t p = {row['p']:.2g} over 4 seeds that both have: distinguishable" in row["text"]


def test_a_seed_that_held_out_other_rows_is_no_pair(recipe: Recipe, tmp_path: Path) -> None:
    """The same seeds on other rows: the test is unpaired, and says because of which seed."""
    first = group_of(recipe, tmp_path, "a", {1: 0.80, 2: 0.84})
    second = group_of(recipe, tmp_path, "b", {1: 0.82, 2: 0.85})
    first.runs[1].update_metadata(identity={"dataset": {"digest": "e"}})
    second.runs[2].update_metadata(identity={"dataset": {"digest": "e"}})
    row = rows_of(compare_evaluations(first, second, NAMES))["accuracy"]
    assert row["test"] == "Welch's t"
    assert "unpaired because seed 1 was measured on other rows in each" in row["text"]


def test_a_difference_that_every_seed_shares_has_no_deviation(recipe: Recipe, tmp_path: Path) -> None:
    """0.25 more for both seeds: no test, and the sentence says why."""
    first = group_of(recipe, tmp_path, "a", {1: 0.5, 2: 0.25})
    row = rows_of(compare_evaluations(first, group_of(recipe, tmp_path, "b", {1: 0.75, 2: 0.5}), NAMES))["accuracy"]
    assert row["p"] is None
    assert "the difference is the same for every seed" in row["text"]


def test_groups_of_other_data_are_not_tested(recipe: Recipe, tmp_path: Path) -> None:
    """Their means stand side by side, with the reason."""
    first = group_of(recipe, tmp_path, "a", {1: 0.80, 2: 0.84})
    second = group_of(recipe, tmp_path, "b", {1: 0.82, 2: 0.85}, data="e")
    found = compare_evaluations(first, second, NAMES)
    assert found["comparisons"][0]["why"] == "they were measured on other data"
    assert rows_of(found)["accuracy"]["p"] is None
    assert found["tests"] == 0


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({1: 0.9}, "one seed has no deviation"),
        ({1: 0.9, 2: 0.9}, "no deviation was seen"),
    ],
)
def test_groups_without_deviation_say_so(recipe: Recipe, tmp_path: Path, values: dict[int, float], text: str) -> None:
    """One seed, or equal values on both sides, allow no test."""
    first = group_of(recipe, tmp_path, "a", {1: 0.8, 2: 0.8})
    row = rows_of(compare_evaluations(first, group_of(recipe, tmp_path, "b", values), NAMES))["accuracy"]
    assert row["p"] is None
    assert text in row["text"]


@pytest.mark.parametrize(("value", "inside", "text"), [(0.82, True, "could be one"), (0.95, False, "is not like one")])
def test_a_run_lies_somewhere_among_the_seeds(
    recipe: Recipe, tmp_path: Path, value: float, inside: bool, text: str
) -> None:
    """How many seeds are below and above it, and whether one more seed would be expected there; from either side."""
    group = group_of(recipe, tmp_path, "a", {1: 0.80, 2: 0.84, 3: 0.79, 4: 0.81})
    run = group_of(recipe, tmp_path, "b", {9: value}).run(9)
    row = rows_of(compare_evaluations(group, run, NAMES))["accuracy"]
    back = rows_of(compare_evaluations(run, group, NAMES[::-1]))["accuracy"]
    assert (row["below"], row["equal"], row["above"]) == ((3, 0, 1) if inside else (4, 0, 0))
    assert row["inside"] is inside
    assert row["text"] == back["text"]
    assert row["text"].startswith(f"accuracy: B has {value:.4f}; of the 4 seeds of A")
    assert text in row["text"]
    assert row["difference"] == pytest.approx(value - 0.81)
    assert back["difference"] == pytest.approx(0.81 - value)


def test_a_group_without_a_finished_seed_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    """There is nothing to compare, and the message says what to do; a group half trained gets a notice that it is half."""
    whole = group_of(recipe, tmp_path, "a", {1: 0.8, 2: 0.9, 3: 0.85})
    whole.run(3).update_metadata(status="failed")
    notices = compare_evaluations(whole, whole, NAMES)["notices"]
    assert notices[0] == "2 of 3 seeds of A are finished; the others are left out"
    empty = group_of(recipe, tmp_path, "b", {1: 0.8})
    empty.run(1).update_metadata(status="failed")
    with pytest.raises(RecipeError, match="no seed of the group 'B' is finished"):
        compare_evaluations(whole, empty, NAMES)


def test_the_command_tells_differences_and_verdicts(
    recipe: Recipe, tmp_path: Path, hfpipe_command: Callable[..., Any]
) -> None:
    """The table of fields, then the sentences; --json keeps its fields and adds the comparisons."""
    measured(recipe, tmp_path, "a", says(0.7, 3))
    measured(with_overrides(recipe, ["optimizer.lr=0.5"]), tmp_path, "b", says(0.9, 4))
    done = hfpipe_command("runs", "diff", "a", "b", "--runs-dir", tmp_path)
    assert done.code == 0, done.err
    assert "recipe.optimizer.lr" in done.out
    assert "b is better by" in done.out
    found = hfpipe_command("runs", "diff", "a", "b", "--runs-dir", tmp_path, "--json").json
    assert (found["first"], found["second"]) == ("a", "b")
    assert {"path": "recipe.optimizer.lr", "first": 0.0003, "second": 0.5} in found["differences"]
    assert found["comparisons"][0]["metrics"][1]["distinguishable"]
    group_of(recipe, tmp_path, "g", {1: 0.8, 2: 0.9})
    found = hfpipe_command("runs", "diff", "a", "g", "--runs-dir", tmp_path, "--json").json
    assert found["comparisons"][0]["kind"] == "run and group"
    assert [one["path"] for one in found["differences"]] == ["recipe.seed"]


def test_an_old_run_without_answers_says_so(recipe: Recipe, tmp_path: Path, hfpipe_command: Callable[..., Any]) -> None:
    """Runs of before evaluations were saved are shown by their metrics."""
    group = group_of(recipe, tmp_path, "g", {1: 0.8, 2: 0.9})
    done = hfpipe_command("runs", "diff", group.run(1).path, group.run(2).path, "--runs-dir", tmp_path)
    assert done.code == 0
    assert "no test on the same examples" in done.out
    assert "0.8000" in done.out


@pytest.mark.parametrize(
    ("p", "text"), [(0.5515, "p = 0.55"), (0.00012, "p = 0.00012"), (1e-7, "p < 0.0001"), (1, "p = 1")]
)
def test_a_p_as_it_is_printed(p: float, text: str) -> None:
    """Two digits, and never 0."""
    assert sentences.p_text(p) == text


def test_a_tiny_difference_is_not_called_nothing(recipe: Recipe, tmp_path: Path) -> None:
    """What is below the digits that are shown has its own."""
    first = group_of(recipe, tmp_path, "a", {1: 0.8, 2: 0.9})
    second = group_of(recipe, tmp_path, "b", {1: 0.8, 2: 0.90004})
    assert rows_of(compare_evaluations(first, second, NAMES))["accuracy"]["text"].startswith(
        "B is better by 2e-05 accuracy"
    )


def test_runs_of_the_version_before_are_compared_under_their_own_keys(recipe: Recipe, tmp_path: Path) -> None:
    """Examples with `said` and `right` give the same comparison as with `prediction` and `reference`."""
    runs = [measured(recipe, tmp_path, name, says(share, seed)) for name, share, seed in (("a", 0.8, 2), ("b", 0.9, 3))]
    found = rows_of(compare_evaluations(*runs, NAMES))
    file = tmp_path / "a" / "evaluations" / "validation.examples.jsonl"
    renamed = file.read_text().replace('"prediction"', '"said"').replace('"reference"', '"right"')
    file.write_text(renamed)
    assert '"said"' in renamed
    assert rows_of(compare_evaluations(*runs, NAMES)) == found
    assert found["accuracy"]["p"] is not None


def test_the_keys_of_before_are_there_for_one_release(recipe: Recipe, tmp_path: Path) -> None:
    """`figures`, `only_first_right` and `remarks` hold what `metrics`, `only_first_correct` and `notices` do."""
    runs = [measured(recipe, tmp_path, name, says(share, seed)) for name, share, seed in (("a", 0.8, 2), ("b", 0.9, 3))]
    found = compare_evaluations(*runs, NAMES)
    (comparison,) = found["comparisons"]
    assert found["remarks"] == found["notices"] != []
    assert comparison["figures"] == comparison["metrics"] != []
    (accuracy,) = (row for row in comparison["metrics"] if row["name"] == "accuracy")
    assert accuracy["only_first_right"] == accuracy["only_first_correct"] > 0
    assert accuracy["only_second_right"] == accuracy["only_second_correct"] > 0
