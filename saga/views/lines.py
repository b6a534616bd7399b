"""These functions read the lines of a saga's log as the API shows them: objects with the fields of `Line`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saga.choreographed_notes import DeadLetter, before_any_service, parked_after
from saga.machine import Line

ShownLine = Mapping[str, Any]


def detail_of(line: ShownLine) -> Mapping[str, Any]:
    """Return the line's detail; empty where the line has none."""
    return line["detail"] or {}


def heard_by_a_service(lines: Iterable[ShownLine]) -> bool:
    """Return whether a service has heard, or may have heard, of the choreographed saga with this log."""
    return not all(before_any_service(_line(line)) for line in lines)


def parked_lines(lines: Sequence[ShownLine]) -> list[ShownLine]:
    """Return the lines that say which events are parked, and were not replayed since."""
    letters: tuple[DeadLetter, ...] = ()
    for line in lines:
        letters = parked_after(letters, _line(line))
    numbers = {letter.line for letter in letters}
    return [line for line in lines if line["seq"] in numbers]


def _line(shown: ShownLine) -> Line:
    """Return the line as the core knows it, without its time, which is not asked for here.

    A saga that has a secret field called `letter` is shown with the numbers of its dead letters masked: they count as
    one letter.
    """
    detail = detail_of(shown)
    if not isinstance(detail.get("letter", 0), int):
        detail = {name: value for name, value in detail.items() if name != "letter"}
    return Line(shown["seq"], 0.0, shown["event"], shown["step"], detail=detail)
