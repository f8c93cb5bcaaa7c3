"""What is remembered of a run. Nothing heavy is imported here."""

from hfpipe.runs.store import Run, default_folder, delete_run, find_run, list_runs

__all__ = ["Run", "default_folder", "delete_run", "find_run", "list_runs"]
