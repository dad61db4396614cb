"""Numbers as people write them: exact in tables, at most three significant digits in a sentence."""

from __future__ import annotations

from tunepoint.stats.intervals import Interval
from tunepoint.stats.ranges import Quantiles, Range


def usd(value: float | None) -> str:
    """Return dollars for a table: whole from $100, with cents below."""
    if value is None:
        return "–"
    sign, size = ("-" if value < 0 else ""), abs(value)
    return f"{sign}${size:,.0f}" if size >= 100 else f"{sign}${size:,.2f}"


def at_start(title: str) -> str:
    """Return a title as a sentence begins with it: a plain word gets a capital, the name of a model stays."""
    word = title.split(" ", 1)[0]
    return title[:1].upper() + title[1:] if word.isalpha() and len(word) > 1 else title


def about_usd(value: float) -> str:
    """Return dollars for a sentence: three significant digits, whole from $10."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    return f"{sign}${size:,.2f}" if size < 10 else f"{sign}${significant(max(10, round(size)))}"


def tiny_usd(value: float | None) -> str:
    """Return the dollars of one answer; of a million answers where one costs less than $0.0001."""
    if value is None:
        return "–"
    if 0 < value < 0.0001:
        return f"${1e6 * value:,.2f} per million"
    return f"${value:.2g}" if 0 < value < 0.01 else f"${value:.4f}"


def seconds(value: float | None) -> str:
    """Return seconds, as milliseconds below one."""
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def significant(value: float, digits: int = 3) -> str:
    """Return a whole number with commas, rounded to this many significant digits."""
    return f"{float(f'{value:.{digits}g}'):,.0f}"


def about_minutes(minutes: float) -> str:
    """Return a time of work for a sentence: minutes below two hours, hours above."""
    count, unit = (minutes, "minute") if minutes < 120 else (minutes / 60, "hour")
    whole = max(1, round(count))
    return f"{whole:,} {unit}{'' if whole == 1 else 's'}"


def rounded_up(count: int) -> int:
    """Return a count rounded up to two significant digits."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // unit) * unit


def volume(value: float) -> str:
    """Return queries a month for a sentence: two significant digits, as they are said aloud."""
    return significant(value, 2)


def volume_interval(band: Quantiles) -> str:
    """Return a break-even volume with its interval, if that has a width."""
    likely, low, high = volume(band.likely), volume(band.low), volume(band.high)
    interval = "" if low == high else f" (90% interval {low} to {high})"
    return f"about {likely} queries a month{interval}"


MAX_REALISTIC, MAX_TIMES_DECLARED = 10_000_000, 100
"""Queries a month, and times the declared traffic, beyond which a break-even is none in practice."""


def is_realistic(band: Quantiles, traffic: Range) -> bool:
    """Return whether a break-even volume can be reached, from the declared traffic."""
    within = min(MAX_REALISTIC, MAX_TIMES_DECLARED * traffic.likely)
    return band.likely <= max(traffic.high, within)


def percent(share: float) -> str:
    """Return a share with one digit after the point."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """Return a difference of two scores in percentage points, with its sign."""
    return f"{100 * difference:+.1f} points"


def points_interval(difference: Interval) -> str:
    """Return a difference of two scores with its interval."""
    return f"{points(difference.estimate)} ({points_range(difference.low, difference.high)})"


def points_range(low: float, high: float) -> str:
    """Return the ends of an interval of a difference, in percentage points."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"
