"""What `hfpipe data` prints of an audit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hfpipe.parts.inputs.audit import Audit, SplitAudit

_BAR = 40  # characters of the longest bar
_TEXT = 300  # characters of a rendered example that are shown
_CLASSES = 20  # classes that are listed


def page(title: str, audit: Audit, longer: Mapping[str, list[dict[str, Any]]], shown: list[dict[str, Any]]) -> str:
    """The whole audit as text for a terminal.

    Args:
        title: of the data.
        audit: what was counted.
        longer: by split, what other values of max_length would cut and cost.
        shown: a few rendered rows of the training split.
    """
    lines = [title]
    for split, one in audit.splits.items():
        lines += ["", f"{split}: {one.rows:,} rows", *_labels(one), *_lengths(one, audit.max_length)]
        lines += _longer(longer.get(split, []), one.rows)
        lines.append(f"  unknown tokens {one.unknown:.2%}")
        lines.append(
            f"  empty texts {one.empty:,}, repeated rows {one.repeated:,}, texts with more than one label "
            f"{one.contradicted:,}, repeated ids {one.repeated_ids:,}"
        )
        if split in audit.shared:
            lines.append(f"  rows whose text is also in {next(iter(audit.splits))}: {audit.shared[split]:,}")
    lines += ["", *(f"notice: {text}" for text in audit.notices or ["none"])]
    for row in shown:
        lines += ["", *_example(row)]
    return "\n".join(lines)


def _labels(one: SplitAudit) -> Iterator[str]:
    if one.numbers:
        yield f"  labels {one.numbers['least']:g} to {one.numbers['greatest']:g}, mean {one.numbers['mean']:.3f}"
    if one.labels:
        total = sum(one.labels.values()) or 1
        for name, count in list(one.labels.items())[:_CLASSES]:
            yield f"  {name[:30]:<30} {count:>9,} {count / total:>7.1%} {_bar(count, max(one.labels.values()))}"
        if len(one.labels) > _CLASSES:
            yield f"  and {len(one.labels) - _CLASSES:,} more classes"


def _lengths(one: SplitAudit, max_length: int) -> Iterator[str]:
    lengths = one.lengths
    yield (
        f"  tokens a row: mean {lengths['mean']:.1f}, median {lengths['median']:.0f}, 95 % {lengths['p95']:.0f}, "
        f"99 % {lengths['p99']:.0f}, longest {lengths['longest']} (max_length {max_length})"
    )
    most = max(count for _, count in lengths["histogram"])
    start = 1
    for edge, count in lengths["histogram"]:
        yield f"  {start:>5} to {edge:<5} {count:>9,} {_bar(count, most)}"
        start = edge + 1


def _longer(sizes: list[dict[str, Any]], rows: int) -> Iterator[str]:
    for size in sizes:
        yield (
            f"  max_length {size['max_length']:>5} cuts {size['cut']:,} rows ({size['cut'] / rows:.1%}) at "
            f"{size['tokens']:.2f} times the tokens"
        )


def _bar(count: int, most: int) -> str:
    return "#" * max(round(_BAR * count / most), 1 if count else 0) if most else ""


def _example(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"row {row['row']}"
    for name, value in row["columns"].items():
        yield f"  {name}: {_short(value)}"
    for decoded in row["decoded"]:
        yield f"  decoded: {_short(decoded)}"
    yield f"  tokens: {_short(' '.join(map(str, row['tokens'][0])))}"
    yield f"  labels: {_short(row['labels'])}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} ..."
