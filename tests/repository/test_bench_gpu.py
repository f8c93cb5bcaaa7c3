"""The bench for a GPU, as far as a CPU goes: the rows it makes, and what it says where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "bench_gpu.py"


@pytest.fixture(scope="module")
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    """The script as a module."""
    return script("bench_gpu")


@pytest.mark.parametrize("lengths", ["mrpc", "512"])
def test_rows_have_the_lengths_that_are_named(bench: ModuleType, tmp_path: Path, lengths: str) -> None:
    """Tokenized, rows are as long as MRPC's, 53 tokens in the mean and never above 128, or all of them 512."""
    from transformers import AutoTokenizer

    weights = bench.make_checkpoint(tmp_path, "tiny", 512)
    assert 60_000 < weights < 80_000
    rows = bench.make_rows(400, lengths, 0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer(rows["sentence1"][:], rows["sentence2"][:])["input_ids"]
    assert tokenizer.unk_token_id not in {token for row in ids for token in row}
    found = np.array([len(row) for row in ids])
    if lengths == "512":
        assert set(found.tolist()) == {512}
    else:
        assert found.mean() == pytest.approx(53, abs=2)
        assert found.max() <= 128


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    """It measures nothing, writes nothing, and ends well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path / "gpu")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.startswith("no CUDA device here")
    assert not list(tmp_path.iterdir())
