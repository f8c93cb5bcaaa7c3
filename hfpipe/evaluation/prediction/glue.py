"""What the GLUE server takes: the names, labels and sizes of its test sets, and the zip that is uploaded.

Source: https://gluebenchmark.com/faq, the sample submission there, and Wang et al. 2019 for the sizes of the test sets.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfpipe.errors import DataError, RecipeError
from hfpipe.recipe.catalog import near
from hfpipe.system import atomic

HEADER = "index\tprediction"
HIGHEST_STSB = 5.0
_SHOWN = 3  # mistakes of a file that a message has
_NLI = {"entailment": "entailment", "neutral": "neutral", "contradiction": "contradiction"}
_TWO = {"entailment": "entailment", "not_entailment": "not_entailment"}


@dataclass(frozen=True)
class TestSet:
    """One test set of the server.

    Attributes:
        file: what its predictions are called.
        config: of the data set `nyu-mll/glue`.
        split: of that.
        rows: in it.
        labels: what the server reads for each class, by the Hub's name of the class and in the Hub's order; empty for a
            number.
    """

    file: str
    config: str
    split: str
    rows: int
    labels: Mapping[str, str]


TEST_SETS = (
    TestSet("CoLA.tsv", "cola", "test", 1_063, {"unacceptable": "0", "acceptable": "1"}),
    TestSet("SST-2.tsv", "sst2", "test", 1_821, {"negative": "0", "positive": "1"}),
    TestSet("MRPC.tsv", "mrpc", "test", 1_725, {"not_equivalent": "0", "equivalent": "1"}),
    TestSet("STS-B.tsv", "stsb", "test", 1_379, {}),
    TestSet("QQP.tsv", "qqp", "test", 390_965, {"not_duplicate": "0", "duplicate": "1"}),
    TestSet("MNLI-m.tsv", "mnli", "test_matched", 9_796, _NLI),
    TestSet("MNLI-mm.tsv", "mnli", "test_mismatched", 9_847, _NLI),
    TestSet("QNLI.tsv", "qnli", "test", 5_463, _TWO),
    TestSet("RTE.tsv", "rte", "test", 3_000, _TWO),
    TestSet("WNLI.tsv", "wnli", "test", 146, {"not_entailment": "0", "entailment": "1"}),
    TestSet("AX.tsv", "ax", "test", 1_104, _NLI),
)


@dataclass(frozen=True)
class Packed:
    """What is in a zip for the server.

    Attributes:
        output: the zip.
        files: the rows of each file in it.
        missing: the files that the server wants and that are not there.
    """

    output: Path
    files: dict[str, int]
    missing: list[str]


def test_sets_of(config: str | None, where: str) -> list[TestSet]:
    """The test sets that a model of a configuration labels; one of MNLI the diagnostic set AX too.

    Raises:
        RecipeError: no set of GLUE.
    """
    configs = list(dict.fromkeys(one.config for one in TEST_SETS))
    if config not in configs:
        raise RecipeError(
            f"{config!r} is no set of GLUE{near(str(config), configs)}",
            where=where,
            allowed=", ".join(configs),
            fix="--glue labels the test set of the data that a run was trained on.",
        )
    return [one for one in TEST_SETS if one.config == config or (config == "mnli" and one.config == "ax")]


def server_labels(
    test_set: TestSet, classes: Sequence[str], declared: Sequence[str] | Mapping[str, str] | None, where: str
) -> dict[str, str]:
    """What the server reads for each class of a model.

    Args:
        test_set: of the server.
        classes: of the model's head.
        declared: names that the recipe gave the classes: in the order of the Hub's, or by their numbers.
        where: the place in the recipe.

    Raises:
        RecipeError: classes that are not those of the test set.
    """
    if set(classes) == set(test_set.labels):
        return dict(test_set.labels)
    if isinstance(declared, Mapping):
        declared = [declared.get(str(number), "") for number in range(len(test_set.labels))]
    own = list(declared or ())
    if len(own) == len(test_set.labels) == len(classes) and set(own) == set(classes):
        return dict(zip(own, test_set.labels.values(), strict=True))
    raise RecipeError(
        f"the model has the classes {', '.join(classes) or 'of no classifier'}, and {test_set.file} is about "
        f"{', '.join(test_set.labels) or 'a number'}",
        where=where,
        fix="Train on the set itself, as `recipes/` does.",
    )


def write_predictions(path: Path, predictions: Iterable[str]) -> int:
    """Write a file of predictions in the order of the test set; it is there only when all of it is.

    Returns:
        The rows in it.
    """
    rows = 0
    with atomic.replaced_file(path) as file:
        file.write(f"{HEADER}\n".encode())
        for rows, prediction in enumerate(predictions, 1):
            file.write(f"{rows - 1}\t{prediction}\n".encode())
    return rows


def pack(folder: Path, output: Path | None = None, *, complete: bool = False) -> Packed:
    """Check the files of a submission and pack them; the same files give the same zip, byte for byte.

    Args:
        folder: with the files under the server's names; others are left out.
        output: by default `submission.zip` in the folder.
        complete: refuse to pack while a file is missing.

    Raises:
        RecipeError: no such folder.
        DataError: no file at all, a name that is none of the server's, or a file that the server would refuse; every
            mistake at once.
    """
    if not folder.is_dir():
        raise RecipeError(f"no folder {str(folder)!r}", where="DIR", fix="`hfpipe predict RUN --glue` makes one.")
    output = output or folder / "submission.zip"
    if not output.absolute().parent.is_dir():
        raise RecipeError(f"no folder {str(output.parent)!r}", where="--output", fix="Make it first.")
    names = [one.file for one in TEST_SETS]
    there = sorted(path.name for path in folder.glob("*.tsv"))
    missing = [name for name in names if name not in there]
    problems = [f"{folder / name}: no name of the server's{near(name, names)}" for name in there if name not in names]
    for one in TEST_SETS:
        if one.file in there:
            problems += _mistakes(folder / one.file, one)
    if missing == names:
        problems.append(f"{folder}: none of {', '.join(names)} is there")
    elif missing and complete:
        problems.append(f"{folder}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    if problems:
        raise DataError("\n".join(problems))
    packed = [one for one in TEST_SETS if one.file in there]
    with atomic.replaced_file(output) as file, zipfile.ZipFile(file, "w") as archive:
        for one in packed:
            # The earliest time that a zip can hold, and plain permissions: nothing of this machine is in it.
            about = zipfile.ZipInfo(one.file, (1980, 1, 1, 0, 0, 0))
            about.compress_type, about.create_system, about.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(about, (folder / one.file).read_bytes(), compresslevel=9)
    return Packed(output, {one.file: one.rows for one in packed}, missing)


def _mistakes(path: Path, test_set: TestSet) -> list[str]:
    """What the server would refuse, the first few of it."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        return [f"{path}: not UTF-8 at byte {error.start}"]
    rows = lines[1:-1] if lines[-1] == "" else lines[1:]
    found = [] if lines[0] == HEADER else [f"{path}:1: {lines[0][:60]!r}; allowed: {HEADER!r}"]
    if len(rows) != test_set.rows:
        found.append(f"{path}: {len(rows):,} rows, and the test set has {test_set.rows:,}")
    wrong = []
    for number, row in enumerate(rows):
        index, tab, label = row.partition("\t")
        if not tab or index != str(number):
            wrong.append(f"{path}:{number + 2}: {row[:60]!r}; allowed: the index {number}, a tab and the label")
        elif not _is_label(label, test_set):
            allowed = ", ".join(test_set.labels.values()) or f"a number from 0 to {HIGHEST_STSB:g}"
            wrong.append(f"{path}:{number + 2}: the label {label[:60]!r}; allowed: {allowed}")
    more = [f"{path}: and {len(wrong) - _SHOWN:,} more such rows"] if len(wrong) > _SHOWN else []
    return [*found, *wrong[:_SHOWN], *more]


def _is_label(text: str, test_set: TestSet) -> bool:
    if test_set.labels:
        return text in test_set.labels.values()
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and 0 <= value <= HIGHEST_STSB
