"""Differences of metrics in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_pairs(row: Mapping[str, Any], names: tuple[str, str], examples: int) -> str:
    """Two runs on the same examples: by how much which is better, and whether chance could do it."""
    if row["p"] is None:
        return of_values(row, names)
    if row["test"] == "McNemar":
        disagreements = row["only_first_correct"] + row["only_second_correct"]
        test = f"McNemar {p_text(row['p'])} on {disagreements} disagreement{'' if disagreements == 1 else 's'}"
    else:
        test = f"paired bootstrap {p_text(row['p'])}"
    verdict = "distinguishable" if row["distinguishable"] else "not distinguishable"
    return f"{_lead(row, names)}; {test}: {verdict} from chance on these {examples:,} examples"


def of_values(row: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Two values without a test."""
    first, second = (_number(row[side]) for side in ("first", "second"))
    why = f" (not tested: {row['why']})" if row.get("why") else ""
    return f"{row['name']}: {names[0]} {first}, {names[1]} {second}{why}"


def of_groups(row: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Two groups: the same by the noise between seeds, by which test, and how many seeds would show it."""
    from hfpipe.evaluation.statistics.significance import MOST_SEEDS

    counts = f"{row['seeds'][0]} and {row['seeds'][1]} seeds"
    if row["p"] is None:
        means = f"{row['name']}: mean of {names[0]} {row['first']:.4f}, of {names[1]} {row['second']:.4f} ({counts})"
        if min(row["seeds"]) < 2:
            return f"{means}; one seed has no deviation, so nothing can be said about noise"
        if not any(row["standard_deviations"]):
            return f"{means}; the seeds of each give one and the same value, so no deviation was seen"
        if row["standard_deviation_of_differences"] == 0:
            return f"{means}; the difference is the same for every seed, so no deviation of it was seen"
        return means
    verdict = "distinguishable" if row["distinguishable"] else "not distinguishable"
    noise, each = f"{verdict} from the noise between seeds", "seeds each"
    if row["paired"]:
        test, each = f"paired t {p_text(row['p'])} over {row['seeds'][0]} seeds that both have", "seeds"
    else:
        test = f"Welch's t {p_text(row['p'])} with {counts}, unpaired because {row['why_unpaired']}"
    text = f"{_lead(row, names)}; {test}: {noise}"
    if row["seeds_needed"] is not None:
        text += f"; a difference of this size takes {row['seeds_needed']:,} {each}"
    elif row["difference"]:
        text += f"; a difference of this size takes more than {MOST_SEEDS:,} {each}"
    return f"{text}; these find one of {row['smallest_difference']:.2g} four times in five"


def of_run_in_group(row: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Where a run lies among the seeds of a group; `names` has the run first."""
    run, group = names
    total = row["below"] + row["equal"] + row["above"]
    positions = [f"{row[side]} {side}" for side in ("below", "equal", "above") if row[side]]
    text = f"{row['name']}: {run} has {row['run']:.4f}; of the {total} seeds of {group} {', '.join(positions)}"
    if row["standard_deviation"] is None:
        return f"{text}; one seed has no deviation, so nothing can be said about noise"
    if row["expected"] is None:
        return text if row["standard_deviation"] else f"{text}; they are all equal, so no deviation was seen"
    low, high = row["expected"]
    verdict = "it could be one of them" if row["inside"] else "it is not like one of them"
    return f"{text}; one more seed would be between {low:.4f} and {high:.4f} in 95 % of all cases: {verdict}"


def of_tests(tests: int) -> str | None:
    """What it means that several tests were made."""
    if tests < 2:
        return None
    return f"{tests} tests were made, uncorrected: of 20 where nothing differs, one comes out as distinguishable on average"


def p_text(p: float) -> str:
    """A probability as it is usually printed."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def _lead(row: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Which one is ahead by how much, with the interval seen from its side."""
    from hfpipe.recipe.catalog import greater_is_better

    difference, rising = row["difference"], greater_is_better(row["name"])
    if not difference:
        between = _interval(row["interval"], 1)
        return f"{row['name']}: {names[0]} and {names[1]} are equal at {_number(row['first'])}{between}"
    second_leads = (difference > 0) is (rising is not False)
    what = "higher" if rising is None else "better"
    ahead = names[1] if second_leads else names[0]
    sign = 1 if second_leads else -1
    sign = -sign if rising is False else sign
    metric = f"{row['name']}{' (less is better)' if rising is False else ''}"
    values = [_number(row["second"]), _number(row["first"])]
    against = " against ".join(values if second_leads else values[::-1])
    return f"{ahead} is {what} by {_size(difference)} {metric}: {against}{_interval(row['interval'], sign)}"


def _interval(interval: list[float] | None, sign: int) -> str:
    if interval is None:
        return ""
    low, high = sorted(sign * end for end in interval)
    return f" (95 % interval of the difference {low:.4f} to {high:.4f})"


def _size(difference: float) -> str:
    """A difference without its sign; one below the last digit shown is not called 0."""
    return f"{abs(difference):.4f}" if abs(difference) >= 0.00005 else f"{abs(difference):.1g}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
