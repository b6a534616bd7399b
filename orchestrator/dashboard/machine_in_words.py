"""What the state machine made of a line of a saga's log, in words for the inspector. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.dashboard.log_reader import state_of
from saga.definition import CHOREOGRAPHY
from saga.machine import CANCEL_REQUESTED, CLAIMED, RELEASED, STARTED, Event, State
from saga.views.lines import ShownLine, detail_of

_EVENTS: Mapping[str, str] = {
    Event.ACTION_DONE: "the action is done",
    Event.ACTION_REFUSED: "the action certainly had no effect",
    Event.ACTION_UNKNOWN: "nobody can tell whether the action had its effect",
    Event.COMPENSATION_DONE: "the compensation is done",
    Event.COMPENSATION_REFUSED: "the compensation certainly had no effect",
    Event.COMPENSATION_UNKNOWN: "the compensation did not succeed",
    Event.CANCELLED: "an operator cancelled the saga",
    Event.DEADLINE_PASSED: "the saga's deadline passed",
    Event.RESUMED: "the saga goes on after its rest",
    Event.RESOLVED: "an operator marked the call as done by hand",
    STARTED: "the saga was started",
    CLAIMED: "an orchestrator took the saga over",
    RELEASED: "an orchestrator handed the saga over, between two calls",
    CANCEL_REQUESTED: "an operator asked to cancel the saga",
}
_STATES: Mapping[str, str] = {
    State.EXECUTING: "so the next step is called",
    State.DECIDING: "so the pivot is called, whose outcome decides",
    State.SEALING: "so the pivot is asked to undo it, which settles what happened",
    State.FINISHING: "so the saga can only go forward",
    State.COMPENSATING: "so the saga goes back",
    State.STALLED_DECIDING: "so the saga rests, and nobody can say whether the pivot had its effect",
    State.STALLED_SEALING: "so the saga rests, and asks again later",
    State.STALLED_FINISHING: "so the saga rests, and tries again later",
    State.STALLED_COMPENSATING: "so the saga rests, and tries again later",
    State.COMPLETED: "so the saga has completed",
    State.COMPENSATED: "so the saga is rolled back",
}
_WHAT_FOLLOWS: Mapping[tuple[str, str], str] = {
    (Event.COMPENSATION_DONE, State.COMPENSATING): "the compensation is done, so the step before it is undone next",
    (
        Event.ACTION_UNKNOWN,
        State.COMPENSATING,
    ): "nobody can tell whether the action had its effect, so it is undone",
    (Event.COMPENSATION_REFUSED, State.FINISHING): "the pivot answered that it had committed: the saga goes forward",
    (
        Event.COMPENSATION_REFUSED,
        State.COMPLETED,
    ): "the pivot answered that it had committed: the saga has completed",
}


# Where another sentence holds in a mode than _STATES has.
_STATES_OF_MODE: Mapping[tuple[str, str], str] = dict.fromkeys(
    [(CHOREOGRAPHY, State.EXECUTING), (CHOREOGRAPHY, State.DECIDING)], "so the next service acts once it hears of it"
)


def in_words(line: ShownLine, mode: str) -> str:
    """Return what a line that is no attempt says; the event's own name where there are no words for it."""
    event, state = str(line["event"]), state_of(line)
    if event == CLAIMED and detail_of(line).get("interrupted"):
        return "an orchestrator took the saga over; the answer of the call that was under way is not known"
    if said := _WHAT_FOLLOWS.get((event, state)):
        return said
    words = _EVENTS.get(event, event.replace("_", " "))
    if event in (Event.RESUMED, STARTED) or state not in _STATES:
        return words
    return f"{words}, {_STATES_OF_MODE.get((mode, state), _STATES[state])}"
