"""What the libraries print while they work, sent to a log file instead of the terminal."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfpipe.system.redaction import redact

_LIBRARIES = ("transformers", "datasets", "accelerate", "evaluate", "huggingface_hub", "fsspec", "py.warnings")
# Read when the libraries are imported, which happens after this.
_QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "true", "HF_HUB_DISABLE_TELEMETRY": "1"}


class _Discreet(logging.Formatter):
    """A log line as a run may keep it."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


@contextmanager
def library_logs_to(log: Path) -> Iterator[None]:
    """Send messages, warnings and progress bars of the libraries to a file, and put everything back afterwards."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(_Discreet("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    import datasets
    import transformers

    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    bars = (transformers.utils.logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled())
    shown = warnings.showwarning
    for logger in loggers:
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
    logging.captureWarnings(True)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = shown
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        if bars[0]:
            transformers.utils.logging.enable_progress_bar()
        if not bars[1]:
            datasets.enable_progress_bars()
        handler.close()
