"""Counts from its log what a saga cost: messages, attempts, time. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.dashboard.log_reader import read_history
from saga.choreography.events import EventKind
from saga.views.lines import ShownLine, detail_of


@dataclass(frozen=True)
class SagaStats:
    """`messages`: HTTP requests, or events that a step published for the others; `again`: sent or delivered again.

    `seconds` from its start to its end, None before that.
    """

    messages: int
    attempts: int
    again: int
    seconds: float | None
    or_more: bool = False  # its log is shown in parts, so that some are not counted


def stats_of(saga: Mapping[str, Any], lines: Sequence[ShownLine]) -> SagaStats:
    """The figures of a saga, from its representation and its log as the API shows them."""
    history = read_history(lines)
    calls = history.calls
    attempts = sum(call.number for call in calls)
    again = sum(max(0, call.number - 1) for call in calls)
    messages = len(_events(lines)) or attempts  # a saga that came by no event came by calls
    seconds = None
    if saga["ended_at"]:
        begin, end = (datetime.fromisoformat(saga[name]) for name in ("started_at", "ended_at"))
        seconds = (end - begin).total_seconds()
    return SagaStats(messages, attempts, again, seconds, history.left_out)


def _events(lines: Sequence[ShownLine]) -> set[str]:
    """The subjects of its events, but for those of failed attempts, which no step has to hear."""
    subjects = {str(detail_of(line).get("subject") or "") for line in lines}
    return {subject for subject in subjects if subject and not subject.endswith(f".{EventKind.ATTEMPT}")}
