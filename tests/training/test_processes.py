"""One global batch on one process and on two, under torchrun: the same updates with both engines.

This file is also what torchrun starts: `test_processes.py FOLDER` trains every case on FOLDER/fields.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS, EVALUATED = 25, 7  # updates of 8, 8, 8 and 1 row: in the last one the second of two processes has none
STEPS = 8
COMMON = ["optimizer.lr=0.05", "train.batch_size=4", "train.epochs=2"]
CASES = {
    # name: micro-batches in an update over all processes, and overrides
    "sgd": (2, [*COMMON, "optimizer.name=sgd", "train.max_grad_norm=0.5", "evaluate.every=never"]),
    "weighted-none": (
        4,
        [
            *COMMON,
            "optimizer.name=updater_sgd",
            "loss.reduction=none",
            "loss.class_weights=[1.0, 2.5]",
            "train.batch_size=2",
            "evaluate.every=epoch",
            "evaluate.best=accuracy",
            "evaluate.batch_size=3",
        ],
    ),
}
EARLY = [
    *COMMON,
    "optimizer.name=sgd",
    "train.epochs=6",
    "evaluate.every=5",
    "evaluate.best=accuracy",
    "evaluate.patience=2",
]
ENGINES = ("trainer", "loop")
SIZES = (17, 19, 1)  # rows of an evaluation split that two processes can't share evenly


def work(folder: Path) -> None:
    """Train every case as one of the processes, the last time through the command line."""
    import torch

    from hfpipe import finetune, load_recipe
    from hfpipe.cli import app as cli
    from hfpipe.training.job import evaluate_step, predict_split
    from hfpipe.training.prepare import prepare

    torch.set_num_threads(1)
    fields = json.loads((folder / "fields.json").read_text(encoding="utf-8"))
    processes = int(os.environ["WORLD_SIZE"])
    runs = folder / f"runs-{processes}"
    for engine in ENGINES:
        for name, (micro_batches, overrides) in CASES.items():
            accumulate = micro_batches // processes
            recipe = load_recipe(fields, [*overrides, f"train.accumulate={accumulate}", f"engine={engine}"])
            finetune(recipe, runs_dir=runs, name=f"{name}-{engine}")
        early = load_recipe(fields, [*EARLY, f"train.accumulate={2 // processes}", f"engine={engine}"])
        finetune(early, runs_dir=runs, name=f"early-{engine}")
    for size in SIZES:
        splits = f"dataset.splits={{train: 'train[:8]', evaluation: 'train[:{size}]'}}"
        job = prepare(load_recipe(fields, [*COMMON, splits, "evaluate.batch_size=4"]))
        figures = evaluate_step(job, 0)["metrics"]
        logits = [one.tolist() for one in predict_split(job, job.evaluation_data).logits]
        if os.environ["RANK"] == "0":
            (folder / f"scored-{processes}-{size}.json").write_text(json.dumps([figures, logits]), encoding="utf-8")
    recipe_file = runs / "sgd-loop" / "recipe.yaml"
    sys.argv = ["hfpipe", "finetune", str(recipe_file), "--runs-dir", str(runs), "--name", "command", "--json"]
    cli.main()


@pytest.fixture(scope="module")
def launched(
    tmp_path_factory: pytest.TempPathFactory, pairs_folder: Path, tiny_checkpoint: Path
) -> tuple[Path, dict[int, str]]:
    """The folder with the runs of one and of two processes, and what each launch wrote to standard output."""
    folder = tmp_path_factory.mktemp("processes")
    splits = {"train": f"train[:{ROWS}]", "evaluation": f"validation[:{EVALUATED}]"}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    fields = {
        "dataset": {"path": str(pairs_folder), "splits": splits},
        "task": {"text": ["sentence1", "sentence2"]},
        "model": {"checkpoint": str(tiny_checkpoint), "config": no_dropout},
        "train": {"precision": "fp32"},
    }
    (folder / "fields.json").write_text(json.dumps(fields), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")])),
        "CUDA_VISIBLE_DEVICES": "",
    }
    started = {
        processes: subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)),
                *(__file__, str(folder)),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for processes in (1, 2)
    }
    written = {}
    try:
        for processes, process in started.items():
            written[processes], errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors[-4000:]
    finally:
        for process in started.values():
            process.kill()
    return folder, written


def run_of(folder: Path, processes: int, name: str):
    """The run of a case."""
    from hfpipe.runs import Run

    return Run(folder / f"runs-{processes}" / name)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(
    launched: tuple[Path, dict[int, str]], tiny_checkpoint: Path, case: str, engine: str
) -> None:
    """Two processes give the losses, gradient norms and weights of one, within 1e-6, though one runs out of rows."""
    from safetensors.torch import load_file

    one, two = (run_of(launched[0], processes, f"{case}-{engine}") for processes in (1, 2))
    assert (one.status, two.status) == ("finished", "finished")
    steps = [[record for record in run.records if record["type"] == "step"] for run in (one, two)]
    assert [record["num_items"] for record in steps[0]] == [8, 8, 8, 1] * 2
    assert len(steps[0]) == len(steps[1]) == STEPS
    for first, second in zip(*steps, strict=True):
        assert first["num_items"] == second["num_items"]
        assert first["lr"] == second["lr"]
        assert second["loss"] == pytest.approx(first["loss"], abs=1e-6)
        assert second["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-5)
        assert _listed(second["reduced_loss"]) == pytest.approx(_listed(first["reduced_loss"]), abs=1e-5)
    assert two.metrics == pytest.approx(one.metrics, abs=1e-6)
    before = load_file(tiny_checkpoint / "model.safetensors")
    weights = [load_file(run.path / "model" / "model.safetensors") for run in (one, two)]
    assert max(float((before[key] - weights[0][f"bert.{key}"]).abs().max()) for key in before) > 1e-3, "nothing trained"
    assert max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0]) < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_on_two_processes_checks_its_scale(launched: tuple[Path, dict[int, str]], engine: str) -> None:
    """With two processes the check at the start is over both of them, and is recorded, though nothing accumulates."""
    (check,) = [r for r in run_of(launched[0], 2, f"sgd-{engine}").records if r["type"] == "check"]
    assert check["ok"]
    assert check["processes"] == 2
    assert check["ratio"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_stop_early_together(launched: tuple[Path, dict[int, str]], engine: str) -> None:
    """Both processes stop where one alone does, inside an epoch, with the best weights within 1e-6."""
    from safetensors.torch import load_file

    one, two = (run_of(launched[0], processes, f"early-{engine}") for processes in (1, 2))
    assert one.metadata["stopped_early"] == two.metadata["stopped_early"]
    assert one.metadata["stopped_early"]["step"] % 4 != 0
    steps = [[record["step"] for record in run.records if record["type"] == "step"] for run in (one, two)]
    assert steps[0] == steps[1] == list(range(1, one.metadata["stopped_early"]["step"] + 1))
    weights = [load_file(run.path / "model" / "model.safetensors") for run in (one, two)]
    assert max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0]) < 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_fault_61_two_processes_score_each_row_once(launched: tuple[Path, dict[int, str]], size: int) -> None:
    """However the rows are shared, one process may have none: what is said of each, in order, and the mean loss of all."""
    (one, alone), (two, shared) = (
        json.loads((launched[0] / f"scored-{processes}-{size}.json").read_text(encoding="utf-8"))
        for processes in (1, 2)
    )
    assert len(shared) == len(alone) == size
    assert len({tuple(row) for row in alone}) == size  # no two rows look alike, so that a swap would show
    for first, second in zip(alone, shared, strict=True):
        assert second == pytest.approx(first, abs=1e-6)
    assert two == pytest.approx(one, abs=1e-6)


def test_one_process_speaks_for_all(launched: tuple[Path, dict[int, str]]) -> None:
    """The command under torchrun prints exactly one JSON object."""
    for processes, written in launched[1].items():
        assert json.loads(written)["run"] == str(run_of(launched[0], processes, "command").path)


def _listed(value: float | list[float]) -> list[float]:
    """The losses of the items; the 0 of a process that has no row left is none."""
    return [item for item in value if item] if isinstance(value, list) else [value]


if __name__ == "__main__":
    work(Path(sys.argv[1]))
