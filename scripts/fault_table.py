"""Write docs/faults.md: the faults that hfpipe is made for, each with its tests and what came of it.

python scripts/fault_table.py           write it
python scripts/fault_table.py --check   exit 1 when it is stale

Tests named `test_fault_NN_...` are found by their names; tests that prove a fault under another name are listed here.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "faults.md"
HELD, PARTLY, NOT_HERE = "held", "partly", "not here"


@dataclass(frozen=True)
class Fault:
    """A fault in a few words.

    Attributes:
        what: happens.
        outcome: held, partly or not here.
        why: what is missing, where it is not held.
        also: tests under another name, as `file::name` under tests/.
    """

    what: str
    outcome: str = HELD
    why: str = ""
    also: tuple[str, ...] = ()


FAULTS = {
    1: Fault(
        "SIGKILL inside a save",
        also=("runs/test_checkpoints.py::test_a_kill_at_any_file_operation_leaves_a_whole_checkpoint",),
    ),
    2: Fault("SIGKILL after a save, while old checkpoints go"),
    3: Fault("a full disk during a save"),
    4: Fault("a full disk during a line of the records"),
    5: Fault(
        "a run folder that can't be written",
        also=("runs/test_store.py::test_a_read_only_runs_folder_is_a_fault_of_the_machine",),
    ),
    6: Fault(
        "a save that succeeds without its file",
        also=(
            "runs/test_checkpoints.py::test_what_was_not_written_is_noticed",
            "runs/test_checkpoints.py::test_what_changed_on_its_way_is_noticed",
        ),
    ),
    7: Fault("no optimizer, schedule or random state"),
    8: Fault(
        "one flipped bit in a checkpoint",
        also=("runs/test_checkpoints.py::test_a_thousand_flipped_bits_are_all_found",),
    ),
    9: Fault("a truncated file of a checkpoint"),
    10: Fault("NaN or infinity in a checkpoint"),
    11: Fault("weights missing, too many, of another shape"),
    12: Fault("resuming with a changed recipe"),
    13: Fault("resuming with other data or code"),
    14: Fault("resuming with other workers or processes"),
    15: Fault("resuming a finished run"),
    16: Fault("two runs in one folder, one after another"),
    17: Fault("two processes in one run"),
    18: Fault("a run folder that was moved"),
    19: Fault("the best checkpoint is gone"),
    20: Fault("a metric that is never a number"),
    21: Fault(
        "best: a tie, or a figure without a direction",
        also=(
            "training/test_recorder.py::test_the_newest_and_the_best_are_kept",
            "training/test_recorder.py::test_a_smaller_figure_can_be_the_best",
        ),
    ),
    22: Fault("a misspelt metric"),
    23: Fault("SIGTERM at any instant"),
    24: Fault("a second signal, SIGINT, SIGUSR1, SIGHUP"),
    25: Fault("a signal to one of several processes"),
    26: Fault(
        "one of several processes dies, or hangs",
        PARTLY,
        "the others end with exit code 5, within seconds of a death and after `HFPIPE_WAIT_MINUTES` of silence; between "
        "GPUs it is NCCL that ends them after that time, with an abort, and torchrun itself ends with 1 whatever they end with",
    ),
    27: Fault("out of memory in a step"),
    28: Fault(
        "a loss or gradient that is not finite",
        also=(
            "training/test_pipeline.py::test_a_loss_that_is_no_number_stops_the_run",
            "cli/test_bad_input.py::test_a_loss_that_is_not_finite_is_told",
        ),
    ),
    29: Fault("logits that are not finite in an evaluation"),
    30: Fault(
        "a learning rate of 1e18, 0, below 0 or NaN; a warm-up longer than the run",
        also=("parts/optim/test_schedules.py::test_what_cannot_work_is_refused",),
    ),
    31: Fault("`5e-5` in YAML"),
    32: Fault("`no`, `0123`, `1:30` and dates in YAML"),
    33: Fault("duplicate, unknown and misspelt keys"),
    34: Fault("alias bombs, 10 MB recipes, Python tags"),
    35: Fault('`fp16: "false"` as text'),
    36: Fault("accumulation, batch, epochs or steps of 0"),
    37: Fault("more accumulation than batches"),
    38: Fault("empty texts"),
    39: Fault("None, NaN, numbers and lists in a text column"),
    40: Fault("CSV texts `NA`, `null`, `None`, `nan`"),
    41: Fault("a CSV column of digits"),
    42: Fault("CSV with a comma too many, bad quotes, a BOM, Latin-1"),
    43: Fault("JSONL cut, empty, with duplicate keys or changing types"),
    44: Fault("labels that are None, floats, truth values or text"),
    45: Fault("label -1"),
    46: Fault("a label that is no class, or that training never saw"),
    47: Fault("labels that are all or partly -100"),
    48: Fault("a split of one class"),
    49: Fault("a number of classes that the data do not have"),
    50: Fault("classes in another order"),
    51: Fault("no label column, or two"),
    52: Fault("an empty split, fewer rows than a batch"),
    53: Fault("rows that repeat, or are in two splits"),
    54: Fault("texts longer than the model takes"),
    55: Fault("half surrogates, NUL, marks of direction, 5 MB in one text"),
    56: Fault("a tokenizer of another checkpoint, or of none"),
    57: Fault("a head for other classes, or none"),
    58: Fault("newer code, older cache"),
    59: Fault("a cache file changed, cut or gone"),
    60: Fault("data edited with the time kept"),
    61: Fault(
        "evaluating 17, 19, 1 and 0 rows in two processes",
        also=(
            "training/test_processes.py::test_two_processes_are_one",
            "parity/test_watching.py::test_evaluation_loss_is_the_mean_over_items",
            "faults/test_data.py::test_fault_52_a_split_without_rows",
        ),
    ),
    62: Fault(
        "one update cut by accumulation and processes",
        also=(
            "parity/test_batch_invariance.py::test_one_update_whatever_the_split",
            "training/test_processes.py::test_two_processes_are_one",
        ),
    ),
    63: Fault(
        "evaluating, saving and workers, on and off",
        also=("parity/test_watching.py::test_watching_changes_no_weight",),
    ),
    64: Fault(
        "a ragged last batch divided by the nominal one",
        also=(
            "parity/test_d2l_identities.py::test_nominal_division_drifts_on_the_ragged_batch",
            "experiments/test_compare.py::test_adamw_hides_a_constant_factor_until_a_ragged_batch",
            "experiments/test_compare.py::test_verdict_says_what_was_measured_and_predicted",
        ),
    ),
    65: Fault("pickles", also=("training/test_pipeline.py::test_nothing_in_a_run_is_a_pickle",)),
    66: Fault("code that comes with a checkpoint or a recipe"),
    67: Fault("indexes and links that lead out of their folder"),
    68: Fault("run ids that are paths"),
    69: Fault("data addresses, redirects, private networks"),
    70: Fault("archives that unpack elsewhere or without end"),
    71: Fault(
        "offline means no connection",
        also=("system/test_offline.py::test_offline_means_not_one_connection",),
    ),
    72: Fault("tokens in the environment, the recipe or an argument"),
    73: Fault("REST routes without a token", NOT_HERE, "hfpipe has no service"),
    74: Fault("a clock that jumps back, equal times"),
}


def defined() -> dict[str, list[str]]:
    """The names of the test functions by file under tests/."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        found[path.relative_to(ROOT / "tests").as_posix()] = names
    return found


def tests_of(number: int, names: dict[str, list[str]]) -> list[str]:
    """The tests named after a fault, then those listed for it."""
    named = [
        f"{file}::{name}"
        for file, found in names.items()
        for name in found
        if (number_of := re.match(r"test_fault_(\d+)_", name)) and int(number_of[1]) == number
    ]
    return [*named, *FAULTS[number].also]


def page() -> str:
    names = defined()
    count = {
        outcome: sum(fault.outcome == outcome for fault in FAULTS.values()) for outcome in (HELD, PARTLY, NOT_HERE)
    }
    lines = [
        "# Faults",
        "",
        f"What goes wrong around a training, and the tests that make it go wrong: {count[HELD]} of {len(FAULTS)} are held, "
        f"{count[PARTLY]} partly, {count[NOT_HERE]} not here. Written by `scripts/fault_table.py`; tests are under `tests/`.",
        "",
        "| # | fault | outcome | tests |",
        "| --- | --- | --- | --- |",
    ]
    for number, fault in FAULTS.items():
        tests = "<br>".join(f"`{test}`" for test in tests_of(number, names))
        outcome = f"{fault.outcome}: {fault.why}" if fault.why else fault.outcome
        lines.append(f"| {number} | {fault.what} | {outcome} | {tests} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    fresh = page()
    if "--check" in sys.argv:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != fresh:
            print(f"{PAGE.relative_to(ROOT)} is stale: run python scripts/fault_table.py")
            sys.exit(1)
        return
    PAGE.write_text(fresh, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
