"""What an audit holds at once does not grow with the rows: it is counted, not timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.dataset
import pytest

from hfpipe.parts.inputs import audit as auditing
from hfpipe.parts.inputs.rows import read_rows
from hfpipe.recipe import load_recipe


def audited(fields: dict[str, Any], rows: int) -> auditing.Audit:
    """The audit of made-up pairs with classes, ids and some repeated texts."""
    columns = {
        "sentence1": [f"bak bal {'bam ' * (row % 7)}" for row in range(rows)],
        "sentence2": [f"ban {'bap ' * (row % 5)}zzz" for row in range(rows)],
        "label": [row % 2 for row in range(rows)],
        "idx": [row // 2 for row in range(rows)],
    }
    recipe = load_recipe(
        {**fields, "dataset": {"path": "given", "splits": {"evaluation": None}}}, ["evaluate.best=null"]
    )
    return auditing.audit(recipe, read_rows(recipe, dataset={"train": datasets.Dataset.from_dict(columns)}))


def test_it_never_looks_at_more_rows_than_a_piece(
    recipe_fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of 16 rows no hashing, no counting and no list of tokens ever sees more than 16, of 100 rows or of 400."""
    seen: list[int] = []
    keys, flat = auditing._keys, auditing._flat
    monkeypatch.setattr(auditing, "_PIECE", 16)
    monkeypatch.setattr(auditing, "_keys", lambda piece, recipe: (seen.append(len(piece)), keys(piece, recipe))[1])
    monkeypatch.setattr(auditing, "_flat", lambda values: (seen.append(len(values)), flat(values))[1])
    for rows in (100, 400):
        seen.clear()
        audited(recipe_fields, rows)
        assert max(seen) == 16
        assert len(seen) == 3 * -(-rows // 16)  # texts, tokens and labels of each piece


@pytest.mark.parametrize("piece", [16, 64, 8192])
def test_the_size_of_a_piece_changes_nothing(
    recipe_fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    """Every figure is the same, whether 200 rows are looked at in thirteen pieces or in one."""
    monkeypatch.setattr(auditing, "_PIECE", piece)
    found = audited(recipe_fields, 200).splits["train"]
    assert found.labels == {"0": 100, "1": 100}
    assert found.repeated == 200 - 35  # 7 lengths of one sentence by 5 of the other
    assert found.contradicted == 35
    assert found.repeated_ids == 100
    assert found.unknown == pytest.approx(200 / sum(4 + row % 7 + row % 5 for row in range(200)))
    lengths = [7 + row % 7 + row % 5 for row in range(200)]
    assert found.lengths["mean"] == pytest.approx(np.mean(lengths))
    for name, share in (("median", 50), ("p95", 95), ("p99", 99)):
        assert found.lengths[name] == pytest.approx(np.percentile(lengths, share))
    assert found.lengths["longest"] == max(lengths)
    assert sum(count for _, count in found.lengths["histogram"]) == 200


@pytest.mark.parametrize("values", [[5], [1, 2], [3, 3, 9], [*range(1, 101)], [7] * 50 + [64]])
def test_quantiles_of_counts_are_numpys(values: list[int]) -> None:
    """Interpolated between the same two values as `numpy.percentile` does."""
    counts = np.bincount(values)
    for share in (0.0, 0.5, 0.95, 0.99, 1.0):
        assert auditing._quantile(counts, share) == pytest.approx(np.percentile(values, 100 * share))


def test_no_parquet_file_is_held_as_a_whole(
    recipe_fields: dict[str, Any], pairs_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a folder as by its name, a parquet file is read row group by row group: nothing is buffered ahead."""
    buffered: list[bool] = []
    made = pyarrow.dataset.ParquetFileFormat

    def spy(*args: Any, **options: Any) -> Any:
        buffered.append(options["default_fragment_scan_options"].pre_buffer)
        return made(*args, **options)

    monkeypatch.setattr(pyarrow.dataset, "ParquetFileFormat", spy)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    splits = {"train": "train", "evaluation": None}
    for given in (
        {"path": str(pairs_folder), "splits": splits},
        {"path": "parquet", "data_files": str(pairs_folder / "train.parquet"), "splits": splits},
    ):
        buffered.clear()
        read_rows(load_recipe({**recipe_fields, "dataset": given}, ["evaluate.best=null"]))
        assert buffered
        assert not any(buffered)
