"""What holds for the tests on a GPU; without CUDA each of them is skipped (tests/conftest.py)."""

from __future__ import annotations

import os

# cuBLAS reads it when it makes its first handle, which an earlier test of the process may do.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
