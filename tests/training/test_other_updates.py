"""A run that goes on with updates of another size: allowed by name it takes effect, exactly and in both engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from stopped import Dying, Killed, digest, records

import hfpipe
from hfpipe.errors import ModelError, RecipeError
from hfpipe.experiments.reproduce import reproduce
from hfpipe.parts.inputs import batches
from hfpipe.parts.inputs.buckets import shuffled
from hfpipe.runs import checkpoints
from hfpipe.system import manifest

ENGINES = ("trainer", "loop")
OFTEN = ["checkpoints.every_steps=1", "checkpoints.every=never", "checkpoints.keep_last=9", "evaluate.every=5"]
# 44 rows in updates of 8 make 6 an epoch, the last one of 4. The run dies in step 5, with 32 rows of the first epoch
# trained on: 12 are left.
ALLOWED = ["train.batch_size", "train.accumulate", "train.batching"]
CHANGES = {
    "larger": (["train.batch_size=16"], [12]),
    "smaller": (["train.batch_size=5"], [3, 5, 4]),
    "accumulated": (["train.batch_size=3", "train.accumulate=3"], [4, 8]),
    "all": (["train.batch_size=64"], [12]),
    "buckets": (["train.batch_size=5", "train.batching.bucket=true"], [3, 5, 4]),
    "tokens": (["train.batching={by: tokens, tokens: 60, bucket: true}"], None),
    "accumulated-tokens": (["train.batching={by: tokens, tokens: 40}", "train.accumulate=2"], None),
}


pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The training rows that a loader was asked for, without blanks, in their order; not those that a check looks at."""
    rows: list[int] = []

    class Seen(batches.Examples):
        def __getitems__(self, asked: Sequence[int]) -> list[dict[str, Any]]:
            if len(self) == 44:
                rows.extend(row for row in asked if row >= 0)
            return super().__getitems__(asked)

    monkeypatch.setattr(batches, "Examples", Seen)
    return rows


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, two_epochs: Callable[..., dict[str, Any]]) -> hfpipe.Run:
    """A run that died in step 5, with checkpoints of the steps before."""
    fields = two_epochs("loss")
    runs = tmp_path_factory.mktemp("template")
    with pytest.raises(Killed):
        hfpipe.finetune(fields, overrides=OFTEN, engine="loop", runs_dir=runs, name="one", display=Dying(5))
    return hfpipe.Run(runs / "one")


Stopped = Callable[..., hfpipe.Run]


@pytest.fixture
def stopped(template: hfpipe.Run, tmp_path: Path) -> Stopped:
    """Makes copies of that run."""
    return lambda name="one": hfpipe.Run(Path(shutil.copytree(template.path, tmp_path / "runs" / name)))


def items(run: hfpipe.Run) -> list[int]:
    """The items of every step."""
    return [record["num_items"] for record in run.records if record["type"] == "step"]


@pytest.mark.parametrize("change", CHANGES)
def test_fault_12_an_allowed_change_of_the_update_takes_effect(stopped: Stopped, seen: list[int], change: str) -> None:
    """The rows left of the epoch and those of the next are trained on once each, in updates of the new size.

    What was changed and where goes into the checkpoints: killed in the epoch that had started, and resumed with the other
    engine and no further permission, the run ends as the one that was not killed, bit for bit.
    """
    overrides, rest = CHANGES[change]
    endings = []
    for engine in ENGINES:
        seen.clear()
        run = hfpipe.finetune(resume=stopped(engine), overrides=overrides, allow_change=ALLOWED, engine=engine)
        left = shuffled(44, 42, 0)[32:].tolist()
        assert sorted(seen[:12]) == sorted(left)
        if change in ("larger", "smaller", "accumulated", "all"):
            assert seen == left + shuffled(44, 42, 1).tolist()
        assert sorted(seen[12:]) == list(range(44))
        sizes = items(run)
        if rest is not None:
            assert sizes[4 : 4 + len(rest)] == rest
        assert sum(sizes) == 88
        assert run.read_json("metrics.json")["trained_examples"] == 88
        endings.append((records(run), digest(run)))

        again = stopped(f"{engine}-again")
        with pytest.raises(Killed):
            hfpipe.finetune(resume=again, overrides=overrides, allow_change=ALLOWED, engine=engine, display=Dying(6))
        again = hfpipe.finetune(resume=again, engine=ENGINES[ENGINES.index(engine) - 1])
        assert [one["step"] for one in again.metadata["resumed"]] == [4, 5]
        endings.append((records(again), digest(again)))
    for other, weights in endings[1:]:
        assert other == endings[0][0]
        assert weights == endings[0][1]


def test_fault_12_the_length_of_the_run_follows(stopped: Stopped) -> None:
    """The run has the steps that the new updates make, its schedule runs over them, and both are told and recorded."""
    run = hfpipe.finetune(resume=stopped(), overrides=["train.batch_size=16"], allow_change=["train.batch_size"])
    assert items(run) == [8, 8, 8, 8, 12, 16, 16, 12]
    rates = [record["lr"] for record in run.records if record["type"] == "step"]
    assert rates == pytest.approx([1e-3 * (12 - s) / 12 if s < 4 else 1e-3 * (8 - s) / 8 for s in range(8)])
    epochs = [record["epoch"] for record in run.records if record["type"] == "step"]
    assert epochs == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 1, 4 / 3, 5 / 3, 2])
    assert [one["step"] for one in run.records if one["type"] == "evaluation"] == [5, 8]
    told = [one["text"] for one in run.records if "resumed" in one]
    assert any(text.endswith("the schedule linear runs over 8 steps, where it ran over 12") for text in told)
    assert (
        "from step 5 on updates have 16 rows each, where they had 8 rows; of the epoch that had started 12 rows are left, and "
        "are trained on that way"
    ) in told
    assert "train.batch_size changed from 8 to 16, as allowed" in told
    assert [(one["after"], one["rows"]) for one in run.metadata["updates"]] == [(0, 8), (4, 16)]
    assert run.metadata["resumed"][0]["changes"] == {"train.batch_size": [8, 16]}
    with pytest.raises(RecipeError, match=r"went on with another recipe on its way \(train\.batch_size\)"):
        reproduce(run, runs_dir=run.path.parent)


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_12_epochs_are_told_by_their_rows(stopped: Stopped, engine: str) -> None:
    """Evaluating and saving by the epoch comes where the rows of an epoch are all trained on."""
    rhythm = ["evaluate.every=epoch", "checkpoints={every: epoch, keep_best: false, keep_last: 9}"]
    run = hfpipe.finetune(
        resume=stopped(),
        overrides=["train.batch_size=5", *rhythm],
        allow_change=["train.batch_size", "evaluate.every", "checkpoints"],
        engine=engine,
    )
    assert items(run) == [8] * 4 + [3, 5, 4] + [5] * 8 + [4]
    assert [(one["step"], one["epoch"]) for one in run.records if one["type"] == "evaluation"] == [(7, 1.0), (16, 2.0)]
    assert [one.step for one in checkpoints.list_checkpoints(run.path)] == [1, 2, 3, 4, 7, 16]


def test_fault_12_padding_is_that_of_a_whole_epoch(stopped: Stopped, pairs: dict[str, list[dict[str, Any]]]) -> None:
    """The share of padding is of the first epoch that has the new updates from its beginning, by arithmetic."""
    run = hfpipe.finetune(resume=stopped(), overrides=["train.batch_size=5"], allow_change=["train.batch_size"])
    lengths = [len((row["sentence1"] + " " + row["sentence2"]).split()) + 3 for row in pairs["train"]]
    order = shuffled(44, 42, 1).tolist()
    batches = [[lengths[row] for row in order[start : start + 5]] for start in range(0, 44, 5)]
    padded = sum(len(batch) * max(batch) for batch in batches)
    assert run.read_json("metrics.json")["padding_share"] == pytest.approx(1 - sum(lengths) / padded)


def test_fault_12_changed_twice_in_one_epoch(stopped: Stopped, seen: list[int]) -> None:
    """Updates of 8, of 3 and of 7 rows in one epoch: its rows come in its order, and both changes are remembered."""
    run = stopped()
    options: dict[str, Any] = {"overrides": ["train.batch_size=3"], "allow_change": ["train.batch_size"]}
    with pytest.raises(Killed):
        hfpipe.finetune(resume=run, display=Dying(7), **options)
    seen.clear()
    run = hfpipe.finetune(resume=run, overrides=["train.batch_size=7"], allow_change=["train.batch_size"])
    # 32 rows as 8 each, one up to 33, one up to 36; then up to 42, the next multiple of 7.
    assert items(run) == [8] * 4 + [1, 3] + [6, 2] + [7] * 6 + [2]
    assert seen == shuffled(44, 42, 0)[36:].tolist() + shuffled(44, 42, 1).tolist()
    assert [(one["after"], one["rows"]) for one in run.metadata["updates"]] == [(0, 8), (4, 3), (6, 7)]


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_12_from_an_end_of_an_epoch(stopped: Stopped, engine: str) -> None:
    """Changed between two epochs nothing is begun: the run is that of the new size from there on; also a finished one."""
    run = hfpipe.finetune(resume=stopped(), overrides=["checkpoints.keep_state=true"], engine=engine)
    assert items(run) == [8, 8, 8, 8, 8, 4] * 2
    longer = ["train.epochs=3", "train.batch_size=20"]
    run = hfpipe.finetune(resume=run, overrides=longer, allow_change=["train"], engine=engine)
    assert items(run) == [8, 8, 8, 8, 8, 4] * 2 + [20, 20, 4]
    told = [one["text"] for one in run.records if "resumed" in one]
    assert "from step 13 on updates have 20 rows each, where they had 8 rows" in told


def test_fault_12_a_number_of_steps_stays(stopped: Stopped) -> None:
    """With train.max_steps the run has as many steps as before, of more rows, and no rate jumps."""
    run = stopped()
    overrides = ["train.batch_size=16", "train.max_steps=12"]
    run = hfpipe.finetune(resume=run, overrides=overrides, allow_change=["train"])
    rates = [record["lr"] for record in run.records if record["type"] == "step"]
    assert rates == pytest.approx([1e-3 * (12 - step) / 12 for step in range(12)])
    assert items(run) == [8, 8, 8, 8, 12, 16, 16, 12, 16, 16, 12, 16]
    assert run.read_json("metrics.json")["trained_examples"] == sum(items(run))
    assert not any("the learning rate of step" in one.get("text", "") for one in run.records)


def test_fault_12_another_seed_trains_on_what_is_left(stopped: Stopped, seen: list[int]) -> None:
    """Another seed, allowed in the middle of an epoch, shuffles the rows that are left of it; none comes twice."""
    hfpipe.finetune(resume=stopped(), overrides=["seed=7"], allow_change=["seed"])
    assert sorted(seen[:12]) == sorted(shuffled(44, 42, 0)[32:].tolist())
    assert seen[12:] == shuffled(44, 7, 1).tolist()


def test_fault_12_without_permission_nothing_changes(stopped: Stopped) -> None:
    """Exit code 2 with the words that would allow it, and the run stays as it was."""
    run = stopped()
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(RecipeError, match=r"Pass --allow-change train\.batch_size if"):
        hfpipe.finetune(resume=run, overrides=["train.batch_size=16"])
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_fault_12_a_checkpoint_from_before(stopped: Stopped) -> None:
    """A checkpoint that has no list of its updates yet says how many rows they had."""
    run = stopped()
    folder = run.path / checkpoints.name_of(4)
    progress = json.loads((folder / "checkpoint.json").read_text())
    del progress["updates"], progress["recipe"]["train"]["kernels"]  # nor the fields of a recipe that came later
    (folder / "checkpoint.json").write_text(json.dumps({**progress, "rows_per_step": 8}))
    manifest.write(folder)
    copy = hfpipe.Run(Path(shutil.copytree(run.path, run.path.parent / "copy")))
    assert items(hfpipe.finetune(resume=run)) == [8, 8, 8, 8, 8, 4] * 2
    run = hfpipe.finetune(resume=copy, overrides=["train.batch_size=16"], allow_change=["train.batch_size"])
    assert items(run) == [8, 8, 8, 8, 12, 16, 16, 12]


def test_fault_12_of_a_stream_the_update_stays(
    recipe_fields: dict[str, Any], pairs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of a stream is counted in updates, so that another size is exit code 4, and says what is possible."""
    import datasets

    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    files = f"{{train: {pairs_folder / 'train.parquet'}, validation: {pairs_folder / 'validation.parquet'}}}"
    overrides = [
        *("dataset.path=parquet", f"dataset.data_files={files}", "dataset.streaming=true", "train.max_steps=9"),
        *("task.label={column: label, names: [other, same]}", *OFTEN),
    ]
    with pytest.raises(Killed):
        hfpipe.finetune(recipe_fields, overrides=overrides, runs_dir=tmp_path, name="one", display=Dying(4))
    options: dict[str, Any] = {"overrides": ["train.batch_size=16"], "allow_change": ["train.batch_size"]}
    with pytest.raises(ModelError, match="an update of a stream had 8 rows, and would have 16 rows") as told:
        hfpipe.finetune(resume=tmp_path / "one", **options)
    assert "allowed: updates of 8 rows" in str(told.value)
    assert "model.checkpoint=RUN/checkpoints/step-" in str(told.value)
    assert hfpipe.finetune(resume=tmp_path / "one").status == "finished"
