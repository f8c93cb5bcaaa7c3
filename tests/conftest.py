"""What holds for every test: one thread, no network, a Hugging Face cache of its own, real data only on request."""

from __future__ import annotations

import os
import tempfile

import pytest

REALDATA_HOME = os.environ.get("HFPIPE_REALDATA_HOME")

# Before the first import of torch or of the Hub's libraries, which read these once. One thread, because two workers
# share the cores and because sums in another order differ in the last bit.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="Agg")
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1")

_own_home = None if REALDATA_HOME else tempfile.TemporaryDirectory(prefix="hfpipe-tests-")
os.environ["HF_HOME"] = REALDATA_HOME or _own_home.name
for narrower in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HF_TOKEN"):
    os.environ.pop(narrower, None)  # each would win over HF_HOME


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked realdata, with the reason, where there is no real data."""
    if item.get_closest_marker("realdata") and not REALDATA_HOME:
        pytest.skip("HFPIPE_REALDATA_HOME names no Hugging Face cache with the real data")


def pytest_unconfigure() -> None:
    """Remove the cache that this process made for itself."""
    if _own_home is not None:
        _own_home.cleanup()
