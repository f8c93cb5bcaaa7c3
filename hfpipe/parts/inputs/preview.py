"""Looking at data without training: audit, tokens, a peek."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfpipe.recipe import Recipe
from hfpipe.runs.targets import as_recipe, quiet, reach_hub
from hfpipe.system.display import Display, Silent
from hfpipe.system.machine import translated_errors


def look_at_data(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    examples: int = 3,
    display: Display | None = None,
) -> tuple[str, Any, dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Audit the data of a recipe without loading any weights.

    Args:
        recipe: a recipe, or what `load_recipe` takes.
        overrides: `dotted.path=value` each.
        examples: rows of the training split to render.
        display: where progress goes; by default nowhere.

    Returns:
        The name of the data, the `Audit`, what a longer max_length would cut and cost by split, and
        the rendered rows.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    resolved, rows = _read(recipe, overrides, display or Silent())
    from hfpipe.parts.inputs import audit

    with quiet(), translated_errors():
        found = audit.audit(resolved, rows)
        longer = {split: audit.longer(rows, split) for split in rows.raw}
        shown = audit.examples(rows, resolved.dataset.splits.train, examples)
    found.notices[:0] = rows.notices
    return rows.source.name, found, longer, shown


def preprocess(
    recipe: Recipe | str | Path | Mapping[str, Any], *, overrides: Sequence[str] = (), display: Display | None = None
) -> dict[str, dict[str, Any]]:
    """Check and tokenize the data of a recipe, and leave the tokens in the cache.

    Args:
        recipe: a recipe, or what `load_recipe` takes.
        overrides: `dotted.path=value` each.
        display: where progress goes; by default nowhere.

    Returns:
        For each split its encoded `rows` and the `seconds` that tokenizing took, None where the cache had them.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    _, rows = _read(recipe, overrides, display or Silent())
    return {split: {"rows": len(one.data), "seconds": one.seconds} for split, one in rows.encoded.items()}


def _read(
    recipe: Recipe | str | Path | Mapping[str, Any], overrides: Sequence[str], display: Display
) -> tuple[Recipe, Any]:
    """The recipe, and the :class:`hfpipe.parts.inputs.rows.Rows` of its data."""
    resolved = as_recipe(recipe, overrides)
    reach_hub(resolved, display)
    from hfpipe.parts.inputs.rows import read_rows

    with quiet(), translated_errors():
        return resolved, read_rows(resolved, notice=display.notice)


def peek(
    dataset: str,
    config: str | None = None,
    *,
    split: str | None = None,
    rows: int = 5,
    display: Display | None = None,
) -> Any:
    """Show features, sizes and a few rows of a data set without downloading it.

    Args:
        dataset: Hub id, local folder, or a file.
        config: configuration, where there are several.
        split: by default the first.
        rows: how many.
        display: where progress goes; by default nowhere.

    Returns:
        A :class:`hfpipe.parts.data.peek.Peek`.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    from hfpipe.system import hub

    if not hub.is_local(dataset) and not dataset.startswith("embedded:"):
        hub.detect_offline((display or Silent()).notice)
    from hfpipe.parts.data.peek import peek as look

    with quiet(), translated_errors():
        return look(dataset, config, split, rows)
