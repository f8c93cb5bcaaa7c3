"""Run folders that an earlier hfpipe wrote, one of each kind of task: whatever can be done with a run still can.

`scripts/fingerprint --runs DIR` made them at the version f763d2a; reports, logs and checkpoints are left out for size.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hfpipe

OLD_RUNS = Path(__file__).parents[1] / "fixtures" / "old_runs"
KINDS = sorted(path.name for path in OLD_RUNS.iterdir())


@pytest.fixture(params=KINDS)
def old_run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> hfpipe.Run:
    """A copy of an old run, beside a copy of its data; its recipe names these relative to the working directory."""
    folder = tmp_path / request.param
    shutil.copytree(OLD_RUNS / request.param, folder)
    monkeypatch.chdir(folder)
    return hfpipe.Run(folder / "run")


def test_there_is_one_of_each_kind() -> None:
    """A kind of task whose old runs nobody looks at would be a gap."""
    assert len(KINDS) == 6


def test_an_old_run_is_shown(old_run: hfpipe.Run, hfpipe_command: Callable[..., Any]) -> None:
    """`runs show`, `runs list` and a report written anew, from what the folder has."""
    shown = hfpipe_command("runs", "show", old_run.path)
    assert shown.code == 0, shown.err
    assert "finished" in shown.out
    listed = hfpipe_command("runs", "list", "--runs-dir", old_run.path.parent)
    assert listed.code == 0, listed.err
    assert "run" in listed.out
    report = hfpipe_command("runs", "report", old_run.path)
    assert report.code == 0, report.err
    assert (old_run.path / "report.html").is_file()


def test_an_old_run_evaluates_to_the_metrics_it_has(old_run: hfpipe.Run) -> None:
    """Its figures, measured again, are those that were written down when it was trained."""
    kept = json.loads((old_run.path / "metrics.json").read_text(encoding="utf-8"))
    measured = hfpipe.evaluate(old_run).metrics
    now = {"f1": "f1_macro"} if old_run.recipe.task.kind == "text-classification" else {}  # its name before
    # A class without a prediction counts as 0 in a macro mean now, and was left out of it.
    macro = [name for name in old_run.metrics if name.endswith("_macro")]
    known = {name: measured[now.get(name, name)] for name in old_run.metrics if name not in macro}
    assert len(known) > 1
    assert kept
    assert known == pytest.approx({name: old_run.metrics[name] for name in known}, rel=1e-5)
    assert all(measured[name] <= (old_run.metrics[name] or 1) for name in macro)


def test_an_old_run_predicts(old_run: hfpipe.Run) -> None:
    """A row in, a row out."""
    rows = [json.loads(line) for line in Path("validation.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(old_run.predict(rows)) == len(rows)


def test_old_runs_are_compared(old_run: hfpipe.Run, hfpipe_command: Callable[..., Any]) -> None:
    """`runs diff` reads the examples that both kept, and finds no difference between a run and its copy."""
    shutil.copytree(old_run.path, old_run.path.with_name("copy"))
    found = hfpipe_command("runs", "diff", old_run.path, old_run.path.with_name("copy"), "--json")
    assert found.code == 0, found.err
    (comparison,) = found.json["comparisons"]
    assert comparison["figures"]
    assert all(one["difference"] in (0, None) for one in comparison["figures"])


def test_an_old_run_is_exported(old_run: hfpipe.Run, hfpipe_command: Callable[..., Any], tmp_path: Path) -> None:
    """A folder for `from_pretrained`."""
    found = hfpipe_command("runs", "export", old_run.path, tmp_path / "exported")
    assert found.code == 0, found.err
    assert (tmp_path / "exported" / "model.safetensors").is_file()
