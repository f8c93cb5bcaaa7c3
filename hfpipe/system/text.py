"""Small helpers for texts that are read: counts, lists, errors of libraries, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 row`, `2,000 rows`; `many` is the plural of a noun that does not end in -s."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def listed(values: Iterable[object], most: int | None = None) -> str:
    """The values with commas, the first ones of many: `a, b and 3 more`."""
    names = [str(value) for value in values]
    more = f" and {len(names) - most:,} more" if most is not None and len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def shortened(value: Any, characters: int, items: int = 20) -> tuple[Any, int]:
    """A value to be looked at, with its long texts and lists cut where they say so.

    Args:
        value: as JSON has it; bytes become their number.
        characters: the longest text that stays whole.
        items: the longest list that stays whole.

    Returns:
        The value, and how many texts and lists in it were cut.
    """
    if isinstance(value, str) and len(value) > characters:
        return f"{value[:characters]}... ({len(value):,} characters)", 1
    if isinstance(value, bytes | bytearray):
        return f"({plural(len(value), 'byte')})", 1
    if isinstance(value, Mapping):
        parts = {str(key): shortened(part, characters, items) for key, part in value.items()}
        return {key: part for key, (part, _) in parts.items()}, sum(cut for _, cut in parts.values())
    if isinstance(value, list | tuple):
        shown = [shortened(part, characters, items) for part in value[:items]]
        more = [f"... ({plural(len(value), 'item')})"] if len(value) > items else []
        return [*(part for part, _ in shown), *more], sum(cut for _, cut in shown) + len(more)
    return value, 0


def amount(size: int) -> str:
    """Bytes as a person reads them: `1.2 GB`, `34.5 MB`, `6 kB`."""
    if size >= 10**8:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 10**5 else f"{-(-size // 1000)} kB"


def one_line(error: BaseException, most: int = 500) -> str:
    """What an error of a library says, on one line of so many characters; its type where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an error of a library says, without its full stop; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def finite(value: Any) -> Any:
    """The value with NaN and infinities as None, since JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return value


def json_line(value: Any) -> str:
    """A value as JSON on one line; what is not finite is null."""
    return json.dumps(finite(value), ensure_ascii=False)


def json_page(value: Any) -> str:
    """A value as JSON for people, too: indented; what is not finite is null."""
    return json.dumps(finite(value), ensure_ascii=False, indent=2)
