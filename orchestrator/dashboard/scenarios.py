"""The cards of the page "Break it": what goes wrong in a `signup`, what should come of it, and whether it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saga.errors import BadInput

ALL = {"A": 1, "B": 1, "C": 1}
NONE = {"A": 0, "B": 0, "C": 0}
ENDS = ("COMPLETED", "COMPENSATED")


@dataclass(frozen=True)
class Expectation:
    """How a saga should end: its status, what POST /start answers, how many rows of it each service has then."""

    status: str
    code: int
    rows: Mapping[str, int]


@dataclass(frozen=True)
class Scenario:
    """One card; `flags` are those of POST /start, `lasts` is for a reader.

    `choreographed`: what is told of it where nobody calls, if that is something else than `about`.
    `otherwise`: the other right end of a race, told from `expect` by the saga's status.
    """

    slug: str
    title: str
    about: str
    flags: tuple[tuple[str, str], ...]
    expect: Expectation
    lasts: str = "less than a second"
    choreographed: str = ""
    otherwise: Expectation | None = None

    def right_end(self, status: str) -> Expectation:
        """What is expected of a saga that ended with this status."""
        return self.otherwise if self.otherwise and self.otherwise.status == status else self.expect


@dataclass(frozen=True)
class Finding:
    """Something that was expected, and what was found; `ok` says whether the two are the same."""

    what: str
    expected: str
    found: str
    ok: bool


COMPLETED = Expectation("COMPLETED", 200, ALL)
FAILED = Expectation("COMPENSATED", 500, NONE)
TIMED_OUT = Expectation("COMPENSATED", 504, NONE)

SCENARIOS = (
    Scenario(
        "all-goes-well",
        "All goes well",
        "A creates the user, B stores its address, C takes its payment details. Every step takes effect.",
        (),
        COMPLETED,
    ),
    Scenario(
        "b-fails",
        "B fails",
        "B answers 500 before it does anything, three times. Nothing of B is there to undo; A is undone.",
        (("fail", "b"),),
        FAILED,
        "about a second",
        choreographed=(
            "B fails before it does anything, three times: A's event is delivered again for each attempt. "
            "Then B seals itself, says that it refuses, and A, which hears that, undoes itself."
        ),
    ),
    Scenario(
        "c-fails",
        "C, the pivot, fails",
        "C answers 500 before it does anything. The saga turns back at its last step: B is undone, then A.",
        (("fail", "c"),),
        FAILED,
        "about a second",
        choreographed=(
            "C fails before it does anything. It seals itself and says that it refuses; B hears that, undoes "
            "itself and says so; A hears B, and undoes itself."
        ),
    ),
    Scenario(
        "after-commit",
        "B commits, then fails",
        "B stores the address and then answers 500. Nobody can tell from outside, so B is undone as well as A. "
        "Most demos forget B's row here.",
        (("fail", "b:after"),),
        FAILED,
        "about a second",
        choreographed=(
            "B stores the address and then fails before it can say so. When its attempts are used up it "
            "undoes itself, and says that it refuses, in one transaction; A hears that, and undoes itself."
        ),
    ),
    Scenario(
        "lost-answer",
        "B's answer is lost",
        "B stores the address, but its answer never arrives. A time-out does not mean that nothing happened: B is "
        "asked again, under the same key, so that it stores nothing twice; then it is undone as well as A.",
        (("fail", "b:lost"),),
        TIMED_OUT,
        "about 16 seconds",
        choreographed=(
            "B stores the address, and then hangs before it can say so. A's event is delivered again; B finds"
            " in its barrier that it has stored it already, and hangs again. Then it undoes itself, and A "
            "hears that."
        ),
    ),
    Scenario(
        "late-action",
        "B acts too late",
        "B sleeps past every time-out, and would store the address after it has been undone. Its barrier remembers "
        "that the undo came first, and lets the late action do nothing.",
        (("fail", "b:late"),),
        TIMED_OUT,
        "about 16 seconds; B wakes up after 20",
        choreographed=(
            "B sleeps past every time-out, and would store the address after it has given up. Giving up has "
            "sealed its barrier, which lets the late action do nothing."
        ),
    ),
    Scenario(
        "refusal",
        "B refuses",
        "B says no, with 409. That is an answer and not a failure: it is not asked again, and only A is undone.",
        (("fail", "b:refuse"),),
        Expectation("COMPENSATED", 409, NONE),
        choreographed=(
            "B says no. That is an outcome and not a failure: nothing is delivered again, and A, which hears "
            "it, undoes itself."
        ),
    ),
    Scenario(
        "garbage",
        "B answers garbage once",
        "B stores the address, but what it answers is no JSON. It is asked again under the same key, and gives the "
        "answer that it had saved: one row, and the saga goes on.",
        (("fail", "b:garbage:1"),),
        COMPLETED,
        choreographed=(
            "B stores the address, and then fails before it can say so. A's event is delivered again; B finds"
            " what it had saved, and says it: one row, and the saga goes on."
        ),
    ),
    Scenario(
        "service-crash",
        "B crashes after its commit",
        "B's process exits right after its commit, once. The attempt that follows reaches the restarted B, "
        "which answers what it had saved: one row, and the saga goes on. A machine too busy to restart B within half "
        "a second uses the attempts up; then all of it is undone, which is as right.",
        (("fail", "b:crash-after:1"),),
        COMPLETED,
        "a second, while B restarts",
        choreographed=(
            "B's process exits right after its commit, once, before it has said so. A's event is delivered "
            "again to the restarted B, which finds what it had saved, and says it: one row, and the saga goes"
            " on."
        ),
        otherwise=FAILED,
    ),
    Scenario(
        "orchestrator-crash",
        "The orchestrator crashes",
        "The orchestrator's process exits when it has B's answer, before that is in its log. Restarted, it reads its "
        "log and asks B again; B answers what it had saved. The page loses its connection, and finds it again.",
        (("fail", "orchestrator:after-b"), ("delay", "a:600")),
        COMPLETED,
        "a few seconds, while it restarts",
        choreographed=(
            "The orchestrator's process exits when it hears B's event. Nothing waits for it: C has its turn "
            "meanwhile. Restarted, it hears the event again, and writes it into its log. The page loses its "
            "connection, and finds it again."
        ),
    ),
    Scenario(
        "in-doubt-pivot",
        "The pivot is in doubt",
        "C takes the payment and then answers 500: did it or not? C is asked to seal its outcome. It answers 409, "
        "which says that it has committed and cannot be undone. So the saga goes forward, and completes.",
        (("fail", "c:after"),),
        COMPLETED,
        "about a second",
        choreographed=(
            "C takes the payment, and then fails before it can say so. When its attempts are used up it asks "
            "its own barrier, which says that it has committed. So it says that it is done, and the saga "
            "completes."
        ),
    ),
    Scenario(
        "stuck-compensation",
        "A compensation is stuck",
        "B fails, and undoing A fails too, six times. The saga stalls, waits, and tries again by itself, for as long "
        "as it takes; on its page you can retry at once. It is never called undone before it is.",
        (("fail", "b"), ("fail", "a:undo:6")),
        FAILED,
        "a few seconds",
        choreographed=(
            "B fails, and A fails to undo itself, six times. B's event is delivered to it again after ever "
            "longer rests, and nobody is in charge who could hurry it. It is never called undone before it "
            "is."
        ),
    ),
)


def check(scenario: Scenario, saga: Mapping[str, Any], rows: Mapping[str, int | None]) -> list[Finding]:
    """Compare a card with what came of it; `rows` is how many each service has, None where it does not answer."""
    right = scenario.right_end(saga["status"])
    return _compare(right.status, right.rows, saga, rows)


def predict(form: Mapping[str, str], steps: Sequence[str]) -> tuple[str, dict[str, int]] | None:
    """A reader's prediction in a form's fields `predict-status`, `predict-<step>`; None where there is none.

    BadInput names the field that is neither.
    """
    if not any(name.startswith("predict-") for name in form):
        return None
    status = _one_of(form, "predict-status", ENDS)
    return status, {step: int(_one_of(form, f"predict-{step}", ("0", "1"))) for step in steps}


def compare(
    prediction: tuple[str, Mapping[str, int]], saga: Mapping[str, Any], rows: Mapping[str, int | None]
) -> list[Finding]:
    """Compare a reader's prediction with what came of it."""
    return _compare(*prediction, saga, rows)


def _compare(
    status: str, expected: Mapping[str, int], saga: Mapping[str, Any], rows: Mapping[str, int | None]
) -> list[Finding]:
    findings = [Finding("the saga ends as", status, saga["status"], status == saga["status"])]
    for step, number in expected.items():
        found = rows.get(step)
        says = "it does not answer" if found is None else _rows(found)
        findings.append(Finding(f"{step} has", _rows(number), says, found == number))
    return findings


def _rows(number: int) -> str:
    return {0: "no row", 1: "one row"}.get(number, f"{number} rows")


def _one_of(form: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    if form.get(name) not in known:
        raise BadInput(f"{name} must be one of {', '.join(known)}, not {form.get(name, '')!r}", name)
    return form[name]
