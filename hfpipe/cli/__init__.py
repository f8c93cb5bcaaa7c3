"""The commands; `main` is what the shell calls."""

from hfpipe.cli.app import main

__all__ = ["main"]
