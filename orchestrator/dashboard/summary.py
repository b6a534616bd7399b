"""What happened to a saga, in one to three plain sentences that claim nothing the log does not say. Pure.

Both functions take the saga's representation and its log's lines as the API shows them, already masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.dashboard.formatting import listed, moment, quoted, times
from orchestrator.dashboard.log_reader import CallHistory, SagaHistory, read_history
from orchestrator.dashboard.phrasing import voice_of
from saga.definition import CHOREOGRAPHY
from saga.machine import ENDED, STALLED, Event, State
from saga.views.lines import ShownLine, detail_of

SENTENCES_AT_MOST = 3

_VERBS = {"refused": "refused", "timeout": "timed out"}  # by the error's kind; else: failed
_WHY_STUCK = {
    str(State.STALLED_DECIDING): ", and has no compensation that could tell whether it took effect",
    str(State.STALLED_FINISHING): ", and past the pivot a saga only goes forward",
}
_KEPT = {"applied": "what it did stays", "unknown": "what it may have done stays"}  # by the effect of a skipped step
_SUCCESSES = (Event.ACTION_DONE, Event.COMPENSATION_DONE)
_OPENINGS = (
    "all ",
    "an operator ",
    "asked to undo it, ",
    "its one step ",
    "its own barrier ",
    "nothing is heard ",
    "nothing was heard ",
    "the compensation of ",
    "the deadline ",
    "undoing ",
)

Saga = Mapping[str, Any]


def summarize(saga: Saga, lines: Sequence[ShownLine]) -> str:
    """What happened, why, and what happens next."""
    history = read_history(lines)
    way = _in_short(saga) if history.torn else _way(saga, history)
    said = [*way, *_asides(saga, history)][:SENTENCES_AT_MOST] or [f"It is {saga['status']}"]
    return " ".join(f"{_opened(sentence)}." for sentence in said)


def root_cause(saga: Saga, lines: Sequence[ShownLine]) -> str | None:
    """Why the saga turned back, else what it is stalled at; None where neither is so."""
    history = read_history(lines)
    if history.torn:
        return _first_cause(saga)
    if history.turn and not history.went_forward:
        return _opened(_cause(saga, history.turn))
    return _opened(_stuck(saga, history)) if history.state in STALLED else None


def _way(saga: Saga, history: SagaHistory) -> Iterator[str]:
    """Forward, back, or back to the pivot and forward again; and where it is now."""
    turn, seal = history.turn, history.seal
    if turn is None:
        if history.state == State.COMPLETED:
            yield _effects(saga, history)
    elif seal is None:
        yield f"{_cause(saga, turn)}{_doubt(saga, turn)}, {_so(saga, history, turn)}"
    elif seal.end is None:
        yield f"{_cause(saga, turn)}{_doubt(saga, turn)}, {voice_of(saga).asks(turn)}"
    else:
        yield f"{_cause(saga, turn)}{_doubt(saga, turn)}"
        yield f"{_sealed(saga, seal)}, {_so(saga, history, turn)}"
    if history.state in STALLED:
        again = "its event is parked" if history.parked else voice_of(saga).again(saga)
        since = history.calls[-1].stalls[0]["at"]
        attention = " and in need of attention" if saga["needs_attention"] else ""
        yield f"Stalled since {moment(since)}{attention}: {_stuck(saga, history)}; {again}"
    elif history.state not in ENDED:
        yield from _present(saga, history)


def _in_short(saga: Saga) -> Iterator[str]:
    """What the representation alone tells: of a saga whose log is shown in parts."""
    steps = saga["steps"]
    cause, done = _first_cause(saga), [step["name"] for step in steps if step["status"] == "DONE"]
    if saga["ended_at"] and saga["status"] == "COMPLETED":
        yield f"all {len(steps)} steps took effect"
        return
    if cause:
        yield cause
    undone = [step["name"] for step in reversed(steps) if step["status"] == "COMPENSATED"]
    effects = [f"{listed(done)} took effect"] if done and not saga["ended_at"] else []
    effects += [f"{listed(undone)} {_were(undone)} undone"] if undone else []
    if effects:
        yield "; ".join(effects)
    if not saga["ended_at"]:
        yield f"It is {saga['status']}" + (f" until {saga['due_at']}" if saga["status"] == "STALLED" else "")


def _first_cause(saga: Saga) -> str | None:
    error = saga["error"]
    if not error:
        return None
    if error["kind"] == "cancelled" and not _abandoned(saga):
        return f"an operator cancelled it at {error['step']}"
    if error["kind"] == "deadline":
        return f"the deadline passed at {error['step']}"
    return f"{error['step']} {_VERBS.get(str(error['kind']), 'failed')} ({quoted(str(error['message']))})"


def _cause(saga: Saga, turn: CallHistory) -> str:
    """Why it turned back."""
    where = f"at {turn.step}" if turn.number else f"before {turn.step} was called"
    if _abandoned(saga):
        return "an operator abandoned it before any service had heard of it"
    if turn.event == Event.CANCELLED:
        return f"an operator cancelled it {where}"
    if turn.event == Event.DEADLINE_PASSED:
        return f"the deadline passed {where}"
    voice = voice_of(saga)
    return f"{turn.step} {_verb(saga, turn)}{voice.tries(turn)}{voice.why(turn)}"


def _abandoned(saga: Saga) -> bool:
    """Whether an operator has ended a choreographed saga."""
    return saga["mode"] == CHOREOGRAPHY and (saga["error"] or {}).get("kind") == "cancelled"


def _doubt(saga: Saga, turn: CallHistory) -> str:
    """What was known of the step's effect when it turned back."""
    if _abandoned(saga):
        return ""
    if turn.event == Event.ACTION_REFUSED:
        return "" if _verb(saga, turn) == "refused" else " and changed nothing"
    if turn.event == Event.ACTION_UNKNOWN:
        return "; whether it took effect was unknown"
    verdicts = [detail_of(line).get("verdict") for line in turn.attempts]
    if "done" in verdicts:
        return f"; {turn.step} had taken effect"
    return f"; {turn.step} may have been called" if turn.number and not verdicts else ""


def _verb(saga: Saga, turn: CallHistory) -> str:
    error = saga["error"] or {}
    return _VERBS.get(str(error.get("kind")), "failed") if error.get("step") == turn.step else "failed"


def _sealed(saga: Saga, seal: CallHistory) -> str:
    """What became of a pivot whose outcome was unknown."""
    return _by_hand(seal) if seal.by_hand else voice_of(saga).sealed(seal)


def _so(saga: Saga, history: SagaHistory, turn: CallHistory) -> str:
    """What came of its turning back."""
    if history.went_forward:
        return "so the saga went forward" + (
            f" and {_effects(saga, history)}" if history.state == State.COMPLETED else ""
        )
    if history.state != State.COMPENSATED:
        return "so it turns back"
    others = [step for step in history.undone if step != turn.step]
    kept = [step for step in saga["steps"] if step["status"] == "SKIPPED" and step["effect"] in _KEPT]
    rest = [f"{step['name']} has no compensation, so {_KEPT[step['effect']]}" for step in kept]
    rest += [_by_hand(call) for call in history.undone_by_hand]
    if turn.step in history.undone:
        done = f"{turn.step} was undone" + (f" as well as {listed(others)}" if others else "")
    elif others:
        done = f"{listed(others)} {_were(others)} undone"
    else:
        done = "it turned back" if rest else "nothing had to be undone"
    return "; ".join([f"so {done}", *rest])


def _effects(saga: Saga, history: SagaHistory) -> str:
    """What took effect, of a completed saga."""
    if not history.done_by_hand:
        return f"all {len(saga['steps'])} steps took effect" if len(saga["steps"]) > 1 else "its one step took effect"
    effects = [f"{listed(history.done)} took effect"] if history.done else []
    return "; ".join([*effects, *map(_by_hand, history.done_by_hand)])


def _stuck(saga: Saga, history: SagaHistory) -> str:
    call, voice = history.calls[-1], voice_of(saga)
    rounds = f"{len(call.stalls)} round{'s' if len(call.stalls) > 1 else ''}"
    rounds = f"at least {rounds}" if call.left_out else rounds
    return f"{voice.subject(call)} failed in {rounds}{voice.why(call)}{_WHY_STUCK.get(history.state, '')}"


def _present(saga: Saga, history: SagaHistory) -> Iterator[str]:
    """What it waits for."""
    call = history.calls[-1]
    at = next((step["name"] for step in saga["steps"] if step["status"] in ("RUNNING", "COMPENSATING")), call.step)
    if not at:
        return
    waits = voice_of(saga).waits(call, at)
    before = history.undone if call.backward else history.done
    happened = f"{_were(before)} undone" if call.backward else "took effect"
    yield f"{listed(before)} {happened}; {waits}" if before else waits


def _asides(saga: Saga, history: SagaHistory) -> Iterator[str]:
    """What else there was on the way, the weightiest first."""
    yield from _of_nobody_in_charge(saga, history)
    more = history.left_out
    if history.cancel_requested_at:
        at = history.cancel_requested_at
        yield f"An operator asked to cancel it at {at}, which was left to the outcome of {at}"
    if history.taken_over:
        times_over = times(history.taken_over, more)
        yield f"It was taken over {times_over}, from an orchestrator that had crashed, stopped or lost its lease"
    if history.handed_over:
        yield f"It was handed over {times(history.handed_over, more)} by an orchestrator that shut down"
    succeeded = [call for call in history.calls if call.event in _SUCCESSES]
    tried = filter(None, map(voice_of(saga).before_it_succeeded, succeeded))
    if said := "; ".join(tried):
        yield said


def _of_nobody_in_charge(saga: Saga, history: SagaHistory) -> Iterator[str]:
    """What only a choreographed saga comes to."""
    for line in history.parked if history.state not in ENDED else ():
        detail = detail_of(line)
        why = f" ({quoted(detail['message'])})" if detail.get("message") else ""
        yield f"{line['step']} could not handle {detail.get('subject')}{why}: it is parked until somebody replays it"
    if history.overdue and history.state not in ENDED:
        turned = history.turn and not history.went_forward
        yield "Its deadline has passed" + ("" if turned else ", and nobody is in charge who could roll it back")
    elif history.overdue:
        yield "Its deadline passed before it ended, and nobody was in charge"
    if history.replayed:
        yield f"A parked event was replayed {times(history.replayed, history.left_out)} by an operator"
    if history.crashes and saga["mode"] == CHOREOGRAPHY:
        often = times(history.crashes, history.left_out)
        yield f"The orchestrator, which only listens, crashed {often}; that held up nobody"


def _by_hand(call: CallHistory) -> str:
    note = str(((call.end or {}).get("detail") or {}).get("note", ""))
    return f"an operator marked {call.subject} as done by hand: {quoted(note)}"


def _were(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _opened(sentence: str) -> str:
    """With a capital, unless it begins with a step's name: those stay as they are."""
    return sentence[0].upper() + sentence[1:] if sentence.startswith(_OPENINGS) else sentence
