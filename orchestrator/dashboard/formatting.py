"""Numbers, times, lists and quotations as the pages say them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

QUOTED_AT_MOST = 200  # characters of a note or a message; the log has all of it

_COUNTS = ("three", "four", "five", "six", "seven", "eight", "nine", "ten")


def length(seconds: float, places: int = 1) -> str:
    """A length of time in words: 12 ms, 4.2 s, 1 min 30 s, 2 h 5 min; with so many `places` after the point."""
    if round(seconds * 1000, places) < 1000:
        return f"{round(seconds * 1000, places):g} ms"
    if round(seconds, places) < 60:
        return f"{round(seconds, places):g} s"
    whole = round(seconds)
    parts = [(whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next(index for index, part in enumerate(parts) if part[0])
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def ago(at: str, clock: float) -> str:
    """How long one of the API's times is before `clock`, or after it, in words: 12 s. `clock` is in seconds."""
    return length(abs(clock - datetime.fromisoformat(at).timestamp()), 0)


def moment(at: str) -> str:
    """One of the API's times for a sentence, 2026-01-31 12:00:00 UTC, which a page shows in its reader's own zone."""
    return f"{at[:10]} {at[11:19]} UTC"


def times(count: int, or_more: bool = False, in_brackets: bool = True) -> str:
    """A number of times in words; above ten in figures, in brackets since it may follow another number: (40 times)."""
    words = {1: "once", 2: "twice", **{number: f"{word} times" for number, word in enumerate(_COUNTS, 3)}}
    if count in words:
        return f"at least {words[count]}" if or_more else words[count]
    if or_more:
        return f"at least {count} times"
    return f"({count} times)" if in_brackets else f"{count} times"


def listed(names: Sequence[str]) -> str:
    """The names as a sentence lists them: A, B and C."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def quoted(text: str) -> str:
    """The text in quotation marks, on one line; what is longer than QUOTED_AT_MOST is cut."""
    line = " ".join(text.split())
    return f"“{line if len(line) <= QUOTED_AT_MOST else line[: QUOTED_AT_MOST - 1] + '…'}”"
