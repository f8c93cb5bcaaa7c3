"""What a user should know of the classes: names that are nearly the same, and classes of few rows or none."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hfpipe.parts.tasks.classes import alike
from hfpipe.system.text import listed

FEW = 5  # labels of a class; with fewer it is told
_SMALL = 20  # labels of a split
_SHOWN = 8  # classes in a notice
Counts = Mapping[str, int]


def alike_names(split: str, counts: Counts) -> list[str]:
    """Classes whose names differ only in case, white space or Unicode form, each group in one line.

    Args:
        split: for the message.
        counts: how many labels each class has in it.
    """
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(alike(name), []).append(name)
    notices = []
    for names in (group for group in groups.values() if len(group) > 1):
        names = sorted(names, key=lambda name: -counts[name])
        shown = ", ".join(f"{name!r} ({counts[name]:,})" for name in names[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        notices.append(
            f"{split}: classes whose names differ only in case, white space or Unicode form: {shown}{more}; if they are one "
            "class, say so with label.names"
        )
    return notices


def rare_classes(train: str, counts: Mapping[str, Counts]) -> list[str]:
    """Classes with few labels, and those that only one of two splits has.

    Args:
        train: the training split.
        counts: of each split, how many labels each class has.
    """
    notices = []
    for split, own in counts.items():
        is_large = max(own.values()) >= FEW or sum(own.values()) >= _SMALL  # else every class is one of few rows
        if is_large and (few := {name: count for name, count in own.items() if 0 < count < FEW}):
            shown = listed(
                (f"{name!r} ({count})" for name, count in sorted(few.items(), key=lambda one: one[1])), _SHOWN
            )
            what = "learned" if split == train else "measured"
            notices.append(f"{split}: {_classes(few)} with fewer than {FEW} labels, hardly {what}: {shown}")
        absent = [name for name, count in own.items() if not count]
        if split == train:
            if absent:
                notices.append(f"{split}: {_classes(absent)} without a label, not learned: {_quoted(absent)}")
            continue
        learned = [name for name in absent if counts[train].get(name)]
        strange = [name for name, count in own.items() if count and not counts[train].get(name)]
        if learned:
            notices.append(f"{split}: {_classes(learned)} of {train} without a label, not measured: {_quoted(learned)}")
        if strange:
            notices.append(f"{split}: {_classes(strange)} without a label in {train}: {_quoted(strange)}")
    return notices


def _classes(names: Collection[str]) -> str:
    count = len(names)
    return f"{count:,} class{'' if count == 1 else 'es'}"


def _quoted(names: list[str]) -> str:
    return listed(map(repr, names), _SHOWN)
