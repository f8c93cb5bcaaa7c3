"""report.html as text: what is on it, that names from data never become markup, and that anything may be missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hfpipe.reports import write_group_report, write_report
from hfpipe.reports.html.drawing import draw
from hfpipe.runs import Run

MOST_BYTES = 500_000
VOID = {"meta", "link", "br", "img", "path", "use", "line", "rect", "circle", "input", "hr"}


class Outline(HTMLParser):
    """Tags, headings in order, ids, and whether what opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.levels: list[int] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.unscoped = 0
        self.unnamed = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.ids += [given["id"] or ""] if "id" in given else []
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        self.unscoped += tag == "th" and "scope" not in given
        self.unnamed += tag == "svg" and not (given.get("aria-label") or given.get("aria-hidden"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def page(run: Run) -> str:
    """The report of a run."""
    write_report(run)
    return (run.path / "report.html").read_text(encoding="utf-8")


def seen(text: str) -> str:
    """What stands between the tags, with single spaces."""
    return " ".join(re.sub(r"<style.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL).split())


def require_well_formed(text: str) -> None:
    """No script, nothing from outside, ids once, headings without a gap, tables and drawings with names."""
    found = Outline(text)
    assert not found.open
    assert not found.tags & {"script", "iframe", "object", "embed", "link", "img", "form"}
    assert not re.search(r"(?:src|href)=\"(?!#|seed-)|@import|url\((?!#)", text)
    assert len(found.ids) == len(set(found.ids))
    assert found.levels[0] == 1
    assert found.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(found.levels, found.levels[1:], strict=False))
    assert not found.unscoped
    assert not found.unnamed
    assert '<html lang="en">' in text
    assert len(text.encode()) < MOST_BYTES


def test_a_report_shows_what_was_found(
    dummy_predictions: Callable[..., Run],
    classification: Callable[..., dict[str, Any]],
    audit: Callable[..., dict[str, Any]],
) -> None:
    """Result, interval, baseline, remark, notice, curves, classes, matrix, slices, splits, data, command and recipe."""
    names = ["different", "same"]
    other = {**classification(names, seed=5), "split": "test", "overrides": ["dataset.path=/home/someone/other"]}
    text = page(dummy_predictions(document=classification(names), audited=audit(names), others=[other]))
    require_well_formed(text)
    shown = seen(text)
    assert "on 408 examples of validation." in shown
    assert (
        "Always &#39;different&#39;, the most frequent class of the split, would have 0.6840, below the whole" in shown
    )
    assert "The model never predicts &#39;same&#39;." in shown
    assert "freshly initialised from seed 42" in shown
    for heading in (
        "Loss",
        "Metrics",
        "Learning rate",
        "Gradient norm",
        "Confusion",
        "Reliability",
        "By length",
        "By genre",
    ):
        assert f"<h3>{heading}</h3>" in text
    assert "With dataset.path=.../other" in shown
    assert "also in training" in shown
    assert "<pre>hfpipe finetune recipes/quickstart.yaml</pre>" in text
    assert "<pre>hfpipe runs reproduce one</pre>" in text
    assert "checkpoint: embedded:tiny-bert" in text
    assert "torch 2.13.0+cpu" in shown
    assert "/home/" not in text


def test_names_from_data_never_become_markup(
    dummy_predictions: Callable[..., Run],
    classification: Callable[..., dict[str, Any]],
    audit: Callable[..., dict[str, Any]],
) -> None:
    """A class called <script>, and the same in a metric, slice, notice and remark, is shown as it is written."""
    evil = "<script>alert('x')</script>"
    document = classification([evil, "same"])
    document["metrics"][evil] = 0.5
    document["slices"][0] |= {"by": evil, "value": evil}
    document["notices"].append(evil)
    run = dummy_predictions(document=document, audited=audit([evil, "same"]), notices=[evil])
    lines = (run.path / "records.jsonl").read_text(encoding="utf-8").replace('"accuracy"', json.dumps(evil))
    (run.path / "records.jsonl").write_text(lines, encoding="utf-8")
    text = page(run)
    require_well_formed(text)
    assert text.count("&lt;script&gt;") > 8


@pytest.mark.parametrize("name", ["$x_1$", "a & b", "_hidden", "日本語", "x" * 200])
def test_odd_names_are_drawn_as_they_are(name: str) -> None:
    """A figure's name with a dollar, an ampersand or other letters is a text of the drawing."""

    def paint(panel: Any) -> None:
        panel.plot([0, 1], [0, 1])
        panel.set_xlabel(name)

    assert f">{name.replace('&', '&amp;')}</text>" in draw("one", "one", paint)


def test_a_drawing_takes_its_colours_from_the_page(
    dummy_predictions: Callable[..., Run], classification: Callable[..., dict[str, Any]], regression: dict[str, Any]
) -> None:
    """No drawing has a colour of its own, so that light, dark and print can choose."""
    for name, document in (("a", classification(["x", "y"])), ("b", regression)):
        text = page(dummy_predictions(name, document=document))
        drawings = re.findall(r"<svg viewBox.*?</svg>", text, flags=re.DOTALL)
        assert len(drawings) >= 5
        colours = set(re.findall(r"(?:fill|stroke): ?([^;\"]+)", " ".join(drawings)))
        assert {one for one in colours if not one.startswith(("var(--", "none"))} == set()


@pytest.mark.parametrize("drop", ["every key", "to null"])
def test_anything_may_be_missing(
    dummy_predictions: Callable[..., Run],
    classification: Callable[..., dict[str, Any]],
    regression: dict[str, Any],
    drop: str,
) -> None:
    """Each key of a document gone or null, one after the other, still makes a whole page."""
    for whole in (classification(["different", "same"], 40), regression):
        for number, key in enumerate(whole):
            less = {name: value for name, value in whole.items() if name != key}
            document = less if drop == "every key" else {**less, key: None}
            if key in ("metrics", "split"):
                continue
            run = dummy_predictions(f"{whole['kind'][5:8]}-{number}", document={"metrics": {}, **document}, steps=0)
            require_well_formed(page(run))


def test_an_empty_run_still_has_a_page(tmp_path: Path, dummy_predictions: Callable[..., Run]) -> None:
    """Only run.json; no records, no metrics, and a recipe of another version: what is there is shown."""
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "run.json").write_text('{"id": "old", "status": "failed", "error": "no"}', encoding="utf-8")
    (folder / "recipe.yaml").write_text("name: old\nno_such_field: /home/someone/x\n", encoding="utf-8")
    text = page(Run(folder))
    require_well_formed(text)
    assert "Nothing was evaluated." in text
    assert "no_such_field: .../x" in text


def test_many_classes_and_many_steps_stay_small(
    dummy_predictions: Callable[..., Run],
    classification: Callable[..., dict[str, Any]],
    audit: Callable[..., dict[str, Any]],
) -> None:
    """77 classes become the most confused pairs, 100,000 steps points with a band, and the page stays under 500 KB."""
    names = [f"class {row}" for row in range(77)]
    text = page(dummy_predictions(document=classification(names, 5000), audited=audit(names), steps=100_000))
    require_well_formed(text)
    assert "The most confused pairs of 77 classes." in text
    assert "Each point is the mean of 334 steps" in text
    assert "where 1 step is, at most 900.00." in seen(text)
    assert len(text.encode()) < MOST_BYTES / 2


def test_a_thousand_classes_are_worst_first_and_all_by_name(
    dummy_predictions: Callable[..., Run], classification: Callable[..., dict[str, Any]]
) -> None:
    """Twenty rows in front, the lowest F1 first; all of them by name under a fold; the confused pairs; a page of 500 KB."""
    names = [f"class {row:03}" for row in range(1_000)]
    document = classification(names[:3], 5000)
    document["classes"] = [
        {"name": name, "precision": 0.5, "recall": 0.5, "f1": ((7 * row) % 1000) / 1000, "support": 5, "predicted": 5}
        for row, name in enumerate(names)
    ]
    pairs = [{"reference": "class 001", "prediction": "class 002", "count": 4, "of": 5}]
    document["confusion"] = {"classes": 1_000, "pairs": pairs}
    text = page(dummy_predictions(document=document))
    require_well_formed(text)
    front, folded = text.split("<details>", 1)[0], text.split("All 1,000 classes by name", 1)[1]
    assert "The 20 classes with the lowest F1 of 1,000, the lowest first." in front
    assert front.index(">class 000<") < front.index(">class 143<") < front.index(">class 286<")  # 0, 0.001, 0.002
    assert "class 999" not in front
    assert all(f">{name}<" in folded for name in names)
    assert "The most confused pairs of 1,000 classes." in text
    assert len(text.encode()) < MOST_BYTES / 2


def test_objects_from_python_are_reported(dummy_predictions: Callable[..., Run]) -> None:
    """A run with parts that stand in no recipe does not pretend that a command reproduces it."""
    text = page(dummy_predictions(given={"loss": "my.losses:focal"}))
    assert "loss (my.losses:focal)" in text
    assert "runs reproduce" not in text


def test_what_was_changed_on_the_way_is_reported(dummy_predictions: Callable[..., Run]) -> None:
    """A run that went on with another recipe shows from which step what was changed, and does not call its command whole."""
    changes = {
        "optimizer.lr": [2e-5, 1e-5],
        "dataset.path": ["/home/someone/data/old", "csv"],
        "evaluate.best": [None, "f1"],
    }
    resumed = [
        {"step": 40, "changes": {}},
        {"step": 1234, "changes": changes},
        {"step": 2000, "changes": {"seed": [1, 2]}},
    ]
    text = page(dummy_predictions(resumed=resumed))
    require_well_formed(text)
    shown = seen(text)
    assert "hfpipe finetune recipes/quickstart.yaml" in shown
    assert (
        "it went on with another recipe: after step 1,234: optimizer.lr from 2e-05 to 1e-05, dataset.path from .../old to "
        "csv, evaluate.best from null to f1; after step 2,000: seed from 1 to 2."
    ) in shown
    assert "runs reproduce" in shown
    assert "--anyway" in shown
    assert "The recipe as it was then" not in shown
    assert "/home/someone" not in text
    untouched = seen(page(dummy_predictions("two", resumed=resumed[:1])))
    assert "another recipe" not in untouched
    assert "--anyway" not in untouched


def test_a_group_shows_its_seeds(
    dummy_predictions: Callable[..., Run], classification: Callable[..., dict[str, Any]]
) -> None:
    """Mean, interval and baseline, a dot a seed, the curves, and a relative link to each report that is there."""
    runs = [
        dummy_predictions(f"seed-{seed}", document=classification(["a", "<i>"], seed=seed), seed=seed)
        for seed in (1, 2, 3)
    ]
    for run in runs[:2]:
        write_report(run)
    accuracy = {
        "mean": 0.9012, "standard_deviation": 0.011, "interval": [0.88, 0.92], "best": {"value": 0.93, "seed": 3},
        "worst": {"value": 0.89, "seed": 1}, "baseline": 0.684, "seeds_needed": 2, "text": "<i>",
    }  # fmt: skip
    folder = runs[0].path.parent
    write_group_report(folder, "three <b>", runs, {"split": "validation", "metrics": {"accuracy": accuracy, "f1": {}}})
    text = (folder / "report.html").read_text(encoding="utf-8")
    require_well_formed(text)
    shown = seen(text)
    assert "0.9012 mean accuracy of 3 seeds, standard deviation 0.0110" in shown
    assert "95 % interval of the mean 0.8800 to 0.9200; the baseline has 0.6840." in shown
    assert "0.9300 (seed 3)" in shown
    assert re.findall(r'href="([^#"]+)"', text) == ["seed-1/report.html", "seed-2/report.html"]
    assert text.count("Training loss of 3 seeds.") == 1


def test_a_group_without_anything(tmp_path: Path) -> None:
    """No run and no summary is a page that says so."""
    write_group_report(tmp_path, "empty", [], {})
    assert "Nothing was evaluated." in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_the_version_before_wrote_is_shown(dummy_predictions: Callable[..., Run]) -> None:
    """The worst examples under `said` and `right`, and `remarks`, are on the page as they are under the keys of today."""
    worst = [{"id": 3, "right": 1.25, "said": 4.75}]
    document = {
        "metrics": {"mse": 0.5},
        "examples": 9,
        "remarks": ["an old remark"],
        "errors": {"mean": 0.1, "worst": worst},
    }
    run = dummy_predictions(document=document)
    write_report(run)
    text = seen((run.path / "report.html").read_text(encoding="utf-8"))
    assert "An old remark." in text
    assert "4.7500" in text
    assert "1.2500" in text
