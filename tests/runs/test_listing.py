"""Runs as people manage them: listed, filtered, shown, deleted; and runs that are broken or of another hfpipe."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hfpipe.errors import RecipeError
from hfpipe.recipe import Recipe, load_recipe, to_yaml, with_overrides
from hfpipe.reports.terminal.runs import print_table
from hfpipe.runs import Run, delete_run, find_run, list_runs, listing
from hfpipe.runs.evaluations import write_evaluation
from hfpipe.runs.store import FORMAT

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


@pytest.fixture
def recipe() -> Recipe:
    """Any recipe."""
    fields = {"dataset": {"path": "./d"}, "task": {"text": "s"}, "model": {"checkpoint": "./m"}, "name": "r"}
    return load_recipe({**fields, "evaluate": {"metrics": ["accuracy", "f1"], "best": "f1"}})


@pytest.fixture
def make(tmp_path: Path, recipe: Recipe) -> Callable[..., Run]:
    """Makes a run without training; `days` after the tenth of November."""

    def made(run_id: str, days: float = 0, *, folder: str = "runs", **about: Any) -> Run:
        run = Run.create(recipe, tmp_path / folder, run_id)
        started = (NOON + timedelta(days=days)).isoformat()
        run.update_metadata(
            **{"id": run_id, "name": "r", "status": "finished", "engine": "loop", "started": started, **about}
        )
        run.write_json("metrics.json", {"metrics": {"loss": 0.5, "accuracy": 0.75, "f1": 0.25}})
        return run

    return made


def ids(folder: Path, **filters: Any) -> list[str]:
    """The ids that the list shows."""
    return [row["id"] for row in listing.table(folder, **filters)]


@pytest.fixture
def dead() -> int:
    """The id of a process that is gone."""
    done = subprocess.Popen(["true"])
    done.wait()
    return done.pid


def test_the_order_is_by_what_runs_say(make: Callable[..., Run], tmp_path: Path) -> None:
    """Newest first by `started`, whatever the times of the files are, and groups among the others."""
    old, new = make("old"), make("new", 2)
    make("seed-1", 1, folder="runs/group")
    for file in [old.path, *old.path.iterdir()]:
        os.utime(file, (4e9, 4e9))
    for file in [new.path, *new.path.iterdir()]:
        os.utime(file, (1, 1))
    assert ids(tmp_path / "runs") == ["new", "group/seed-1", "old"]


def test_a_run_in_a_group_is_found_by_both_names(make: Callable[..., Run], tmp_path: Path) -> None:
    """`GROUP/NAME`, a start of it, and the path lead to it; its name alone does not."""
    run = make("seed-1", folder="runs/group")
    for name in ("group/seed-1", "group/s", "gro", str(run.path)):
        assert find_run(name, tmp_path / "runs").path == run.path.resolve()
    assert find_run("group/s", tmp_path / "runs").id == "group/seed-1"
    with pytest.raises(RecipeError, match="no run 'seed-1'"):
        find_run("seed-1", tmp_path / "runs")


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, ["late", "middle", "early"]),
        ({"limit": 2}, ["late", "middle"]),
        ({"recipe": "other"}, ["middle"]),
        ({"recipe": "r", "limit": 1}, ["late"]),
        ({"status": "failed"}, ["early"]),
        ({"since": "2026-11-11T00:00+00:00"}, ["late", "middle"]),
        ({"until": "2026-11-12T12:00:00+00:00"}, ["middle", "early"]),
        ({"since": "2026-11-12", "until": "2026-11-12"}, ["middle"]),
        ({"since": "2026-12-01"}, []),
    ],
)
def test_the_list_can_be_narrowed(
    make: Callable[..., Run], tmp_path: Path, filters: dict[str, Any], expected: list[str]
) -> None:
    """Recipe, status and time leave what they should; a day named as the end counts whole."""
    make("early", status="failed")
    make("middle", 2, name="other")
    make("late", 4)
    assert ids(tmp_path / "runs", **filters) == expected


def test_times_may_be_how_long_ago(make: Callable[..., Run], tmp_path: Path) -> None:
    """Hours and days count back from now."""
    for hours in (1, 30):
        make(f"h{hours}", started=(datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="seconds"))
    runs = tmp_path / "runs"
    assert ids(runs, since="12h") == ["h1"]
    assert ids(runs, since="7d") == ["h1", "h30"]
    assert ids(runs, until="90m") == ["h30"]
    assert ids(runs, until="2w") == []


@pytest.mark.parametrize("text", ["yesterday", "7", "7y", "2026-13-01", "", "d"])
def test_what_is_no_time_is_told(text: str) -> None:
    """With the option and what would be one."""
    with pytest.raises(RecipeError, match=r"--since: .* is no time; allowed: a date"):
        listing.moment(text, "--since")


def test_an_unknown_status_is_told(tmp_path: Path) -> None:
    """With the near one and all of them."""
    with pytest.raises(RecipeError, match=r"did you mean 'finished'.*allowed: preparing, running"):
        listing.table(tmp_path, status="finishd")


def test_the_deciding_figure_is_shown(make: Callable[..., Run], tmp_path: Path) -> None:
    """The recipe's best, from run.json or from the recipe; else the first that is no loss; else the loss."""
    run = make("a")
    assert listing.row(run)["metric"] == {"f1": 0.25}
    run.update_metadata(best="accuracy")
    assert listing.row(run)["metric"] == {"accuracy": 0.75}
    run.update_metadata(best=None)
    assert listing.row(run)["metric"] == {"accuracy": 0.75}
    run.write_json("metrics.json", {"metrics": {"loss": 0.5}})
    assert listing.row(run)["metric"] == {"loss": 0.5}
    run.write_json("metrics.json", {"metrics": {}})
    assert listing.row(run)["metric"] == {}


def test_the_best_runs_first(make: Callable[..., Run], tmp_path: Path, hfpipe_command: Callable[..., Any]) -> None:
    """By any metric, in its own direction; undefined and missing ones last; the limit is taken from the top."""
    scores = {
        "a": {"accuracy": 0.5, "loss": 0.3},
        "b": {"accuracy": 0.9, "loss": 0.4},
        "c": {"accuracy": None, "loss": 0.1},
        "d": {},
        "e": {"accuracy": 0.9, "loss": 0.2},
    }
    for days, (name, metrics) in enumerate(scores.items()):
        make(name, days).write_json("metrics.json", {"metrics": metrics})
    folder = tmp_path / "runs"
    assert ids(folder, sort="accuracy") == ["e", "b", "a", "d", "c"]
    assert ids(folder, sort="loss") == ["c", "e", "a", "b", "d"]
    assert ids(folder, sort="loss", limit=2) == ["c", "e"]
    done = hfpipe_command("runs", "list", "--runs-dir", folder, "--sort", "loss", "--limit", "1")
    assert "loss 0.1000" in done.out
    with pytest.raises(RecipeError, match=r"--sort: no run has a metric 'acuracy'; did you mean 'accuracy'"):
        listing.table(folder, sort="acuracy")
    assert listing.table(tmp_path / "empty", sort="accuracy") == []


def test_the_direction_of_a_metric_of_ones_own(make: Callable[..., Run], tmp_path: Path, recipe: Recipe) -> None:
    """Is what the recipe says of it; where nobody knows, the greatest is first."""
    for days, (name, cost) in enumerate({"a": 3.0, "b": 1.0}.items()):
        make(name, days).write_json("metrics.json", {"metrics": {"cost": cost}})
    assert ids(tmp_path / "runs", sort="cost") == ["a", "b"]
    own = with_overrides(recipe, ["evaluate.best=cost", "evaluate.greater_is_better=false"])
    (tmp_path / "runs" / "a" / "recipe.yaml").write_text(to_yaml(own))
    assert ids(tmp_path / "runs", sort="cost") == ["b", "a"]


def test_a_run_whose_process_is_gone_died(make: Callable[..., Run], dead: int) -> None:
    """Only when that process was on this machine, and only when the run had not ended."""
    run = make("a", status="running", pid=dead, host=platform.node())
    assert run.status == "died"
    assert listing.row(run)["seconds"] is None
    run.update_metadata(host="elsewhere")
    assert run.status == "running"
    with pytest.raises(RecipeError, match="running on elsewhere"):
        delete_run(run)
    run.update_metadata(host=platform.node(), pid=os.getpid())
    assert run.status == "running"
    assert listing.row(run)["seconds"] > 0
    run.update_metadata(pid=dead, status="stopped")
    assert run.status == "stopped"
    run.update_metadata(status="preparing")
    delete_run(run)
    assert not run.path.exists()
    assert not list(run.path.parent.iterdir())


def test_broken_lines_of_the_records_are_left_out_and_said(
    make: Callable[..., Run], hfpipe_command: Callable[..., Any]
) -> None:
    """A last line cut short, also inside a character, and broken ones in the middle: every whole one is used."""
    run = make("a")
    lines = [
        b'{"type": "step", "step": 1}',
        b'{"type": "st',
        b"12",
        '{"text": "a\u2028b", "type": "notice"}'.encode(),
        b"\xff",
    ]
    run.path.joinpath("records.jsonl").write_bytes(b"\n".join([*lines, b'{"type": "notice", "text": "caf\xc3']))
    assert [record["type"] for record in run.records] == ["step", "notice"]
    assert run.records[1]["text"] == "a\u2028b"
    assert run.broken_lines == [2, 3, 5, 6]
    shown = hfpipe_command("runs", "show", run.path)
    assert shown.code == 0
    assert "lines 2, 3, 5, 6 are no whole records and are left out; 2 are used" in shown.err
    assert hfpipe_command("runs", "show", run.path, "--json").json["broken_records"] == [2, 3, 5, 6]
    assert hfpipe_command("runs", "list", "--runs-dir", run.path.parent).code == 0


def test_a_newer_format_is_refused_with_both_versions(
    make: Callable[..., Run], hfpipe_command: Callable[..., Any]
) -> None:
    """The run is listed as newer, hides no other, and reading it names the two versions."""
    from importlib.metadata import version

    run = make("a", format=FORMAT + 1, versions={"hfpipe": "9.1.0"})
    make("b", -1)
    listed = hfpipe_command("runs", "list", "--runs-dir", run.path.parent, "--json").json["runs"]
    assert [(row["id"], row["status"]) for row in listed] == [("a", "newer"), ("b", "finished")]
    assert "9.1.0" in listed[0]["problem"]
    shown = hfpipe_command("runs", "show", run.path)
    assert shown.code == 2
    assert f"written by hfpipe 9.1.0 in format {FORMAT + 1}; this is hfpipe {version('hfpipe')}" in shown.err


def test_a_run_without_a_format_is_read(make: Callable[..., Run]) -> None:
    """Runs of before there was a number."""
    assert make("a").metadata["engine"] == "loop"


def test_a_recipe_of_another_version_is_told(make: Callable[..., Run], hfpipe_command: Callable[..., Any]) -> None:
    """Which fields this hfpipe does not know, and which version wrote them; of its own version the mistake alone."""
    run = make("a", versions={"hfpipe": "9.1.0"})
    with open(run.path / "recipe.yaml", "a", encoding="utf-8") as file:
        file.write("distill: {teacher: big}\nsweep: 3\n")
    shown = hfpipe_command("runs", "show", run.path)
    assert shown.code == 2
    for told in ("was written by hfpipe 9.1.0", "distill: unknown field", "sweep: unknown field", "with hfpipe 9.1.0"):
        assert told in shown.err
    assert (
        hfpipe_command("runs", "list", "--runs-dir", run.path.parent, "--json").json["runs"][0]["status"] == "finished"
    )
    run.update_metadata(versions={})
    with pytest.raises(RecipeError) as caught:
        _ = run.recipe
    assert "was written by" not in str(caught.value)


@pytest.mark.parametrize("content", ["[1]", "null", "3", "{", "\x00"])
def test_a_damaged_run_json_hides_no_other(
    make: Callable[..., Run], hfpipe_command: Callable[..., Any], content: str
) -> None:
    """Whatever stands in it, the list works and the run can be deleted."""
    run = make("a")
    make("b")
    (run.path / "run.json").write_text(content)
    listed = hfpipe_command("runs", "list", "--runs-dir", run.path.parent, "--json")
    assert listed.code == 0
    assert {row["id"] for row in listed.json["runs"]} == {"a", "b"}
    assert hfpipe_command("runs", "list", "--runs-dir", run.path.parent).code == 0
    assert hfpipe_command("runs", "delete", "a", "--yes", "--runs-dir", run.path.parent).code == 0
    assert [one.id for one in list_runs(run.path.parent)] == ["b"]


def test_damaged_metrics_are_told_in_the_list(make: Callable[..., Run], hfpipe_command: Callable[..., Any]) -> None:
    """The row is there, without figures, and says why."""
    run = make("a")
    (run.path / "metrics.json").write_text("{")
    (row,) = hfpipe_command("runs", "list", "--runs-dir", run.path.parent, "--json").json["runs"]
    assert (row["metric"], row["status"]) == ({}, "finished")
    assert "metrics.json: not JSON" in row["problem"]
    assert "metrics.json: not JSON" in hfpipe_command("runs", "list", "--runs-dir", run.path.parent).out.replace(
        "\n", ""
    )


def test_show_tells_notices_model_and_evaluations(make: Callable[..., Run], hfpipe_command: Callable[..., Any]) -> None:
    """With --json and for a person."""
    run = make("a", given={"loss": "mine:focal"})
    run.append({"type": "notice", "text": "one class is rare"})
    (run.path / "model").mkdir()
    figures = {"metrics": {"f1": 0.25}, "intervals": {"f1": [0.125, 0.375]}, "examples": 408}
    write_evaluation(run, "validation", figures, [])
    shown = hfpipe_command("runs", "show", run.path, "--json").json
    assert shown["notices"] == ["one class is rare"]
    assert shown["model_folder"] == str(run.path / "model")
    assert shown["evaluations"] == {"validation": figures}
    plain = hfpipe_command("runs", "show", run.path).out
    for told in (
        "notice   one class is rare",
        str(run.path / "model"),
        "validation: f1 0.2500 (0.1250 to 0.3750)",
        "408",
    ):
        assert told in plain
    assert "loss (mine:focal): from Python" in plain


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mrcp", "did you mean 'mrpc-20261101-12000[01]'"),
        ("mrpc-20261101-12000", "is ambiguous: 2 run ids start with it"),
        ("colla-20261103-120000", "did you mean 'cola-20261103-120000'"),
        ("zzz", "no run 'zzz'"),
    ],
)
def test_a_mistaken_name_is_told_with_what_is_near(
    make: Callable[..., Run], tmp_path: Path, name: str, told: str
) -> None:
    """A mistyped start, a start of several, a mistyped whole id, and nothing near."""
    for run_id in ("mrpc-20261101-120000", "mrpc-20261101-120001", "cola-20261103-120000"):
        make(run_id)
    with pytest.raises(RecipeError, match=told) as caught:
        find_run(name, tmp_path / "runs")
    assert caught.value.exit_code == 2


def test_an_empty_list_says_why(make: Callable[..., Run], hfpipe_command: Callable[..., Any], tmp_path: Path) -> None:
    """No runs at all, none that match, or no run of a recipe of that name."""
    runs = tmp_path / "runs"
    assert hfpipe_command("runs", "list", "--runs-dir", runs).out.startswith("no runs in ")
    make("a", name="mrpc")
    assert hfpipe_command("runs", "list", "--since", "1h", "--status", "failed", "--runs-dir", runs).out.startswith(
        "no such"
    )
    assert "did you mean 'mrpc'" in hfpipe_command("runs", "list", "--recipe", "mrcp", "--runs-dir", runs).out


def test_several_runs_are_deleted_together_or_not_at_all(
    make: Callable[..., Run], hfpipe_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that runs or is not there keeps all; one named twice is deleted once."""
    runs = tmp_path / "runs"
    make("a")
    make("b")
    busy = make("busy", status="running", pid=os.getpid(), host=platform.node())
    for names, told in ((["a", "busy"], "is running"), (["a", "nowhere"], "no run 'nowhere'")):
        refused = hfpipe_command("runs", "delete", *names, "--yes", "--runs-dir", runs)
        assert (refused.code, told in refused.err) == (2, True)
    assert len(list_runs(runs)) == 3
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert "pass --yes" in hfpipe_command("runs", "delete", "a", "b", "--runs-dir", runs).err
    done = hfpipe_command("runs", "delete", "a", "b", "a", "--yes", "--runs-dir", runs, "--json")
    assert done.json == {"deleted": [str(runs / "a"), str(runs / "b")]}
    assert [path.name for path in runs.iterdir()] == [busy.id]


def test_the_list_is_one_object(make: Callable[..., Run], hfpipe_command: Callable[..., Any]) -> None:
    """With every column, as numbers."""
    run = make("a", ended=(NOON + timedelta(seconds=90)).isoformat())
    (row,) = hfpipe_command("runs", "list", "--runs-dir", run.path.parent, "--json").json["runs"]
    assert row["seconds"] == 90
    assert (row["recipe"], row["engine"], row["path"]) == ("r", "loop", str(run.path))
    assert json.dumps(row)
    table = hfpipe_command("runs", "list", "--runs-dir", run.path.parent).out
    assert "1m30s" in table
    assert "f1 0.2500" in table
    run.write_json("metrics.json", {"metrics": {"f1": None}})
    assert "f1 undefined" in hfpipe_command("runs", "list", "--runs-dir", run.path.parent).out


def test_a_list_that_goes_into_a_pipe_is_not_cut(
    make: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A long id takes nothing from the other columns: each run is one line with all that is said of it."""
    long = "a-name-that-fills-more-than-half-of-a-line-20261110-120000"
    make(long, started="2026-11-10T12:00:00+00:00")
    print_table(listing.table(tmp_path / "runs"))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if long in line]
    assert [word for word in line.split() if word in ("r", "loop", "finished", "f1", "0.2500", "2026-11-10")] == [
        "r", "loop", "finished", "f1", "0.2500", "2026-11-10",
    ]  # fmt: skip


def test_the_size_of_a_run_is_that_of_its_files(make: Callable[..., Run], tmp_path: Path) -> None:
    """Every file below its folder counts, a link does not; the list says it for each run and for all."""
    run = make("one")
    (run.path / "model").mkdir()
    (run.path / "model" / "model.safetensors").write_bytes(b"0" * 3_000_000)
    (run.path / "link").symlink_to(run.path / "model" / "model.safetensors")
    expected = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file() and not path.is_symlink())
    (row,) = listing.table(tmp_path / "runs")
    assert row["bytes"] == expected > 3_000_000


def test_sizes_are_shown(make: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column of sizes, and their sum below the table."""
    for name in ("one", "two"):
        (make(name).path / "weights").write_bytes(b"0" * 4_000_000)
    print_table(listing.table(tmp_path / "runs"))
    shown = capsys.readouterr().out
    assert shown.count("4.0 MB") == 2
    assert "2 runs, 8.0 MB on disk" in shown


def test_idle_hours_are_no_time_at_work(make: Callable[..., Run], tmp_path: Path) -> None:
    """A run of ten minutes that is stopped, rests for a day and is resumed for five more took fifteen minutes."""

    def at(minutes: float) -> str:
        return (NOON + timedelta(minutes=minutes)).isoformat()

    make("one", ended=at(24 * 60 + 15), idle_seconds=(24 * 60) * 60.0)
    (row,) = listing.table(tmp_path / "runs")
    assert row["seconds"] == 15 * 60


def test_what_was_idle_before_a_resume() -> None:
    """From the end that was written down, else from the checkpoint, else all of it; earlier rests are added."""

    def ago(minutes: float) -> str:
        return (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()

    began = {"started": ago(60)}
    for about, saved, minutes in (
        ({**began, "ended": ago(20)}, ago(30), 20),
        (began, ago(30), 30),
        (began, None, 60),
        ({**began, "ended": ago(20), "idle_seconds": 600.0}, None, 30),
        ({}, None, 0),
    ):
        assert listing.idle_before(about, saved) == pytest.approx(minutes * 60, abs=30)
