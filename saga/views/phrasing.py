"""The words in which the pages and the command line tell of one saga: they are changed here. Pure.

A phrase has one text, or one for each mode. In an orchestrated saga the orchestrator calls and a service answers; in a
choreographed one nobody calls and nobody answers: a service hears an event, acts, and publishes another. What stands in
braces is put in by whoever says the phrase. A text that is empty is not said: there is nothing to say in that mode. A
sentence begins with a small letter here: it gets its capital where it opens a text, unless it opens with a step's name.

No phrase claims what the saga's log does not say: "no answer is recorded", not "it did not answer".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from saga.definition import CHOREOGRAPHY, ORCHESTRATION


class Modes(NamedTuple):
    """The texts of a phrase that differs between the modes."""

    orchestrated: str
    choreographed: str


_MODES = {ORCHESTRATION: 0, CHOREOGRAPHY: 1}

PHRASES: Mapping[str, str | Modes] = {
    # --- a call, as the subject of a sentence
    "action": "{step}",
    "compensation": Modes("the compensation of {step}", "undoing {step}"),
    # --- what an attempt came to, in a sentence: B answered HTTP 503 twice
    "attempt done": Modes("answered HTTP {status}", "succeeded"),
    "attempt done in silence": Modes("gave no answer", "succeeded"),
    "attempt refused": Modes("answered HTTP {status}", "failed without effect"),
    "attempt unreachable": Modes("could not be reached", "failed without effect"),
    "attempt without an object": Modes("answered HTTP {status} without a JSON object", "failed with an unknown effect"),
    "attempt failed": Modes("answered HTTP {status}", "failed with an unknown effect"),
    "attempt timed out": Modes("gave no answer", "ran out of time"),
    # --- why a saga turned back
    "cancelled": Modes(
        "an operator cancelled it {where}", "an operator abandoned it before any service had heard of it"
    ),
    "deadline passed": "the deadline passed {where}",
    "at a step": "at {step}",
    "before a step": "before {step} was called",
    "step failed": "{step} {failed}{tries}{why}",
    "after attempts": " after {count} attempts",
    "attempts without a line": Modes(", {count} of them perhaps cut short", ", {count} of which nothing was heard"),
    "why, with a status": Modes(" (HTTP {status}: {message})", " ({message})"),
    "why": Modes(" ({plain})", " ({message})"),
    # --- what was known of the step's effect then
    "changed nothing": " and changed nothing",
    "in doubt": "; whether it took effect was unknown",
    "had taken effect": "; {step} had taken effect",
    "may have been called": "; {step} may have been called",
    # --- the pivot in doubt
    "pivot is asked": Modes("so {step} was asked to undo it", "so {step} asks its own barrier row"),
    "pivot had committed": Modes(
        "asked to undo it, {step} answered that it had committed",
        "its own barrier row told {step} that it had committed",
    ),
    "pivot is sealed": Modes(
        "asked to undo it, {step} answered that it had not committed, and is sealed",
        "its own barrier row told {step} that it had not committed, and sealed it",
    ),
    # --- what came of it
    "all took effect": "all {count} steps took effect",
    "the only one took effect": "its one step took effect",
    "took effect": "{steps} took effect",
    "were undone": "{steps} {were} undone",
    "turns back": "so it turns back",
    "turned back": "so it turned back",
    "nothing to undo": "so nothing had to be undone",
    "undid the others": "so {steps} {were} undone",
    "undid it": "so {step} was undone",
    "undid it and others": "so {step} was undone as well as {steps}",
    "went forward": "so the saga went forward",
    "went forward and ended": "so the saga went forward and {effects}",
    "cannot be undone, applied": "{step} has no compensation, so what it did stays",
    "cannot be undone, unknown": "{step} has no compensation, so what it may have done stays",
    "done by hand": "an operator marked {call} as done by hand: {note}",
    # --- where it is now
    "status": "it is {status}",
    "status until": "it is {status} until {at}",
    "waits": Modes("{call} has not answered yet (attempt {next})", "nothing is heard of {call} yet (attempt {next})"),
    "waits, has tried": Modes(
        "{call} {attempts}; attempt {next} has no answer yet",
        "{call} {attempts}; nothing is heard of attempt {next} yet",
    ),
    "stalled": "stalled since {at}: {stuck}; {again}",
    "stalled, needs attention": "stalled since {at} and in need of attention: {stuck}; {again}",
    "stuck": "{call} failed in {rounds}{why}",
    "stuck, cannot tell": (
        "{call} failed in {rounds}{why}, and has no compensation that could tell whether it took effect"
    ),
    "stuck past the pivot": "{call} failed in {rounds}{why}, and past the pivot a saga only goes forward",
    "one round": "1 round",
    "rounds": "{count} rounds",
    "at least": "at least {what}",
    "tried again": Modes(
        "it is tried again by itself{at}, and an operator can try it now or mark it as done by hand",
        "its service tries it again by itself, and no operator can make it try now",
    ),
    "tried again at": " at {at}",
    "its event is parked": "its event is parked",
    # --- what else there was on the way
    "failed before it succeeded": "{call} {attempts} before it succeeded",
    "one attempt unheard": Modes("", "nothing was heard of 1 attempt of {step}"),
    "attempts unheard": Modes("", "nothing was heard of {count} attempts of {step}"),
    "cancel left to the pivot": "an operator asked to cancel it at {step}, which was left to the outcome of {step}",
    "taken over": "it was taken over {times}, from an orchestrator that had crashed, stopped or lost its lease",
    "handed over": "it was handed over {times} by an orchestrator that shut down",
    "parked": "{step} could not handle {subject}{why}: it is parked until somebody replays it",
    "overdue": "its deadline has passed, and nobody is in charge who could roll it back",
    "overdue, turning back": "its deadline has passed",
    "was overdue": "its deadline passed before it ended, and nobody was in charge",
    "replayed": "a parked event was replayed {times} by an operator",
    "listener crashed": Modes("", "the orchestrator, which only listens, crashed {times}; that held up nobody"),
    # --- the sequence diagram: labels, and the same in words
    "diagram": Modes("Who called whom", "Who told whom"),
    "diagram in words": Modes("who called whom", "who told whom; the orchestrator only listens"),
    "label of a call": "{step}",
    "label of an undo": "undo {step}",
    "calls": "the orchestrator calls {step}, {attempts}: {answer}",
    "calls to undo": "the orchestrator calls {step} to undo it, {attempts}: {answer}",
    "perhaps calls": "the orchestrator perhaps calls {step}, attempt {number}: {what}",
    "perhaps calls to undo": "the orchestrator perhaps calls {step} to undo it, attempt {number}: {what}",
    "is calling": "the orchestrator calls {step}: no answer yet",
    "is calling to undo": "the orchestrator calls {step} to undo it: no answer yet",
    "acts": "{step}, {attempts}: it {answer}",
    "one attempt": "attempt {first}",
    "several attempts": "attempts {first} to {last}",
    "in rounds": "{attempts}, in {count} rounds",
    "delivered again": "{attempts} (what it heard is delivered again {times})",
    "answer": Modes("HTTP {status}", "acts"),
    "answer to an undo": Modes("HTTP {status}", "undoes itself"),
    "answer done in silence": Modes("no answer", "acts"),
    "answer done in silence to an undo": Modes("no answer", "undoes itself"),
    "answer refused": Modes("HTTP {status}", "fails"),
    "answer refused to an undo": Modes("HTTP {status}", "fails to undo itself"),
    "answer 409": Modes("HTTP {status}", "refuses"),
    "answer 409 to an undo": Modes("HTTP {status}", "has committed"),
    "answer unreachable": Modes("no connection", "fails"),
    "answer unreachable to an undo": Modes("no connection", "fails to undo itself"),
    "answer failed": Modes("HTTP {status}", "may have failed"),
    "answer timed out": Modes("no answer", "takes too long"),
    "no answer yet": Modes("no answer yet", "nothing heard yet"),
    "nothing heard": "nothing is heard of {step} yet",
    "rests": Modes("it rests", "rests"),
    "rests, in words": Modes("stalled: it rests before the next round", "{step} rests before the next round"),
    "call never recorded": "{call}, attempt {number}: answer never recorded",
    "call not awaited": "{call}, attempt {number}: answer not awaited",
    "answer is not awaited": "an operator does not wait for its answer",
    "answer is not recorded": "no answer is recorded",
    "answer is not written down": "the orchestrator crashes before it has written the answer down",
    "publishes": "{publisher} publishes {subject}: {then}",
    "orchestrator as publisher": "the orchestrator",
    "nobody acts": "nobody has to act on it",
    "hears and acts": "{step} hears it, and acts",
    "hears and undoes": "{step} hears it, and undoes itself",
    "hears and passes on": "{step} hears it, and cannot be undone: it passes it on",
    "lines left out": "… {count} lines of the log are left out here",
    "rows left out": "… {count} more",
    # --- notes in the diagram: the label, and the same in words
    "note: fault": "crashes",
    "note: fault, in words": "the orchestrator crashes, as it was asked to",
    "note: released": "it hands over",
    "note: released, in words": "an orchestrator that shuts down hands it over",
    "note: cancel_requested": "cancel: the pivot decides",
    "note: cancel_requested, in words": "an operator asks to cancel it, which is left to the pivot",
    "note: cancelled": "cancelled",
    "note: cancelled, in words": "an operator cancels it",
    "note: deadline_passed": "the deadline passes",
    "note: deadline_passed, in words": "the deadline passes: it turns back",
    "note: resolved": "done by hand",
    "note: resolved, in words": "an operator marks the call as done by hand",
    "note: overdue": "overdue",
    "note: overdue, in words": "its deadline has passed; it is not rolled back",
    "note: taken over": "orchestrator gone, about {time}",
    "note: taken over, in words": (
        "another orchestrator takes it over: its own has crashed, stopped or lost its lease; "
        "nothing was written for {time}"
    ),
    "note: parked": "parked",
    "note: parked, in words": "{step} cannot handle {subject}: it is parked until somebody replays it",
    "note: replayed": "replayed: {subject}",
    "note: replayed, in words": "an operator replays {subject}: it is published again",
    "note: abandoned": "abandoned",
    "note: abandoned, in words": "an operator abandons it: whoever hears of it from now on does nothing",
    # --- the timeline: hover texts; {} is how long it took
    "bar: attempt": Modes(
        "{step} {call}, attempt {number}: {answer} in {time} ({verdict})",
        "{step} {call}, attempt {number}: {verdict} in {time}",
    ),
    "bar: running": Modes(
        "{step} {call}, attempt {number}: no answer yet", "{step} {call}, attempt {number}: nothing heard yet"
    ),
    "bar: never recorded": (
        "{step} {call}, attempt {number}: no answer is recorded; after {time} the orchestrator was gone, and another "
        "took over"
    ),
    "bar: not awaited": (
        "{step} {call}, attempt {number}: no answer is recorded; after {time} an operator took the saga"
    ),
    "orchestrator gone": "orchestrator gone, about {time}",
    # --- a step: what its status means, its effect, how often it was tried
    "step pending": "it has had no turn",
    "step running": "its action has its turn",
    "step done": "it took effect",
    "step refused": "it said no: nothing happened, and nothing will",
    "step no effect": "it failed, and certainly changed nothing",
    "step unknown": "nobody can say whether it took effect",
    "step compensating": "it is being undone",
    "step compensated": "it is undone",
    "step sealed": "it did nothing, and never will",
    "step skipped": "it cannot be undone, and was passed over on the way back",
    "effect none": "none",
    "effect applied": "applied",
    "effect undone": "undone",
    "effect unknown": "unknown",
    "effect sealed": "none",
    "attempts counted": "{count} attempts",
    "one attempt counted": "1 attempt",
    "attempt under way": "attempt {number} under way",
    # --- what a saga is stuck at
    "last answer": "{answer}: {message}",
    "no last answer": "no answer",
    "retrying": Modes("Retried: attempt {number} is under way", "Replayed: nothing is heard of it yet"),
    "retried": Modes("Retried: {answer}", "Replayed: it {answer}"),
    "retried again": Modes("Retried: {answer} again", "Replayed: it {answer} again"),
    "parked again": "Replayed: parked again ({answer})",
    "turns back in": Modes("turns back by itself in", "overdue in"),
    "in flight": "attempt {number} under way,",
    "undo in flight": "undo, attempt {number} under way,",
    "of the time-out": "of {seconds}",
    "since the last answer": "since the last answer",
    # --- the page of a saga, and two of them side by side
    "resume button": Modes("Retry {call} now", "{service} is mended: replay"),
    "resolve form": Modes("I did it by hand …", ""),
    "stalled panel": "Stuck at {call}",
    "parked panel": "{service} could not handle an event: it is parked",
    "overdue panel": "Overdue: it waits for {service}",
    "mend stalled": Modes(
        "It is tried again by itself, and never given up",
        "{service} tries it again by itself, and never gives up",
    ),
    "mend parked": "Mend {service} first; then replay the event, and the saga goes on",
    "mend overdue": (
        "Mend {service}: the saga then goes on by itself. An orchestrator would have rolled it back at its deadline; "
        "that is the price of choreography"
    ),
    "still has rows": "{step} still has {rows}. Go on only once that is gone",
    "has no row": "{step} has no row of this saga",
    "has a row already": "{step} has {rows} of this saga already",
    "has no row yet": "{step} has no row of this saga yet. Go on only once it has what the call should have done",
    "rows are not known": "{step} does not answer: what it has is not known",
    "on builtin": "",
    "on temporal": " on Temporal",
    "status column": Modes("HTTP", "Code"),
    "messages counted": Modes("{count} HTTP requests", "{count} events published"),
    "one message counted": Modes("1 HTTP request", "1 event published"),
    "repeats counted": Modes("{count} sent again", "{count} delivered again"),
}


class Phrases:
    """Says the phrases in the words of one mode."""

    def __init__(self, mode: str):
        self._mode = _MODES.get(mode, 0)  # 0 also for a mode of a newer version, which cannot be told of better

    def __call__(self, name: str, **facts: Any) -> str:
        """The phrase called `name`, with these facts in the places that its text has for them."""
        text = PHRASES[name]
        return (text if isinstance(text, str) else text[self._mode]).format(**facts)
