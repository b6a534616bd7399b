"""The cards of the page "Break it", for any saga: what goes wrong, what comes of it, and why.

A card names steps by their parts: {B} is the last step that can be undone before the pivot, {A} the first one if it is
another, {C} the pivot. {undone} says how the steps before {B} are undone, {way_back} how {B} and those before it are.
"""

from __future__ import annotations

from dataclasses import dataclass

PLAIN, UNKNOWN, CRASHES, STUCK, ISOLATION = "plain", "unknown", "crashes", "stuck", "isolation"

# In the order that teaches, each with its heading.
GROUPS = {
    PLAIN: "Plain failures",
    UNKNOWN: "Nobody can tell",
    CRASHES: "Crashes",
    STUCK: "Stuck",
    ISOLATION: "Isolation: what others see meanwhile",
}

COMPLETED, FAILED = ("COMPLETED", 200), ("COMPENSATED", 500)
TIMED_OUT, REFUSED = ("COMPENSATED", 504), ("COMPENSATED", 409)


@dataclass(frozen=True)
class Card:
    """One card, whose texts are still to be filled in with the names of steps.

    `title` and `setup` say what is injected, and do not give the end away. `outcome` says what comes of it; `why`, why
    the saga ends as it does: a clause that follows "because". `end`: the saga's status, and what POST /start answers;
    `otherwise`: the other right end of a race. `choreographed`: setup and outcome where nobody calls, if they differ.
    """

    slug: str
    group: str
    title: str
    setup: str
    outcome: str
    why: str
    flags: tuple[tuple[str, str], ...]
    end: tuple[str, int]
    lasts: str = "less than a second"
    choreographed: tuple[str, str] | None = None
    otherwise: tuple[str, int] | None = None


UNDO_TO_BE_SURE = "{B} comes before the pivot, and what nobody can be sure of is undone there"

CARDS = (
    Card(
        "all-goes-well",
        PLAIN,
        "Nothing goes wrong",
        "No fault is injected.",
        "Every step takes effect.",
        "every step took effect",
        (),
        COMPLETED,
    ),
    Card(
        "b-fails",
        PLAIN,
        "{B} fails",
        "{B} answers 500 before it does anything, three times.",
        "{B} has done nothing that could be undone; {undone}.",
        "{B} failed for good, and it comes before the pivot",
        (("fail", "{b}"),),
        FAILED,
        "about a second",
        (
            "{B} fails before it does anything, each of the three times that the event is delivered to it.",
            "{B} seals its barrier and says that it refuses. Who hears that is undone: {undone}.",
        ),
    ),
    Card(
        "refusal",
        PLAIN,
        "{B} refuses",
        "{B} says no, with 409.",
        "That is an answer and not a failure: {B} is not asked again; {undone}.",
        "{B} refused, and it comes before the pivot",
        (("fail", "{b}:refuse"),),
        REFUSED,
        choreographed=(
            "{B} says no.",
            "That is an outcome and not a failure: nothing is delivered again. Who hears it is undone: {undone}.",
        ),
    ),
    Card(
        "c-fails",
        PLAIN,
        "{C}, the pivot, fails",
        "{C} answers 500 before it does anything, three times.",
        "The saga turns back at its last step: {way_back}.",
        "{C} certainly did nothing, so that there was still a way back",
        (("fail", "{c}"),),
        FAILED,
        "about a second",
        (
            "{C} fails before it does anything, each of the three times that the event is delivered to it.",
            "{C} seals its barrier and says that it refuses. Each step that hears of it passes it on: {way_back}.",
        ),
    ),
    Card(
        "after-commit",
        UNKNOWN,
        "{B} commits, then fails",
        "{B} commits its local transaction, and then answers 500.",
        "Nobody can tell from outside whether {B} has acted, so all of it is undone: {way_back}. Most demos forget "
        "{B}'s row here.",
        UNDO_TO_BE_SURE,
        (("fail", "{b}:after"),),
        FAILED,
        "about a second",
        (
            "{B} commits its local transaction, and then fails before it has said so.",
            "When its attempts are used up, {B} undoes itself and says that it refuses, in one transaction: "
            "{way_back}.",
        ),
    ),
    Card(
        "lost-answer",
        UNKNOWN,
        "{B}'s answer is lost",
        "{B} commits its local transaction, but its answer never arrives.",
        "A time-out does not mean that nothing happened. {B} is asked again under the same key, so that it acts only "
        "once; then all of it is undone: {way_back}.",
        UNDO_TO_BE_SURE,
        (("fail", "{b}:lost"),),
        TIMED_OUT,
        "about 16 seconds",
        (
            "{B} commits its local transaction, and hangs before it has said so.",
            "The event is delivered to {B} again, which finds in its barrier that it has acted, and hangs again. Then "
            "it undoes itself and says so: {way_back}.",
        ),
    ),
    Card(
        "late-action",
        UNKNOWN,
        "{B} acts too late",
        "{B} sleeps past every time-out, and runs its action after all when it wakes up.",
        "By then {B} has been told to undo. Its barrier remembers that, and lets the late action do nothing; {undone}.",
        UNDO_TO_BE_SURE,
        (("fail", "{b}:late"),),
        TIMED_OUT,
        "about 16 seconds; {B} wakes up after 20",
        (
            "{B} sleeps past every time-out, and runs its action after all when it wakes up.",
            "By then {B} has given up, which has sealed its barrier: the late action does nothing. Who hears that is "
            "undone: {undone}.",
        ),
    ),
    Card(
        "garbage",
        UNKNOWN,
        "{B} answers garbage once",
        "{B} commits its local transaction, but what it answers the first time is no JSON.",
        "{B} is asked again under the same key, and gives the answer that it had saved: it has acted once, and the "
        "saga goes on.",
        "the second attempt got the answer that {B} had saved",
        (("fail", "{b}:garbage:1"),),
        COMPLETED,
        choreographed=(
            "{B} commits its local transaction, and fails the first time before it has said so.",
            "The event is delivered to {B} again, which finds what it had saved, and says it: it has acted once, and "
            "the saga goes on.",
        ),
    ),
    Card(
        "in-doubt-pivot",
        UNKNOWN,
        "{C}, the pivot, commits, then fails",
        "{C} commits its local transaction, and then answers 500. What it did cannot be undone.",
        "{C} is told to undo, and answers 409: it has committed. So the saga goes forward.",
        "{C} had committed, and past its pivot a saga can only go forward",
        (("fail", "{c}:after"),),
        COMPLETED,
        "about a second",
        (
            "{C} commits its local transaction, and then fails before it has said so. What it did cannot be undone.",
            "When its attempts are used up, {C} asks its own barrier, which says that it has committed. So it says "
            "that it is done.",
        ),
    ),
    Card(
        "late-pivot",
        UNKNOWN,
        "{C}, the pivot, acts too late",
        "{C} sleeps past every time-out, and runs its action after all when it wakes up.",
        "By then {C} has been told to undo, and has sealed its barrier: it has not acted, and never will. So there is "
        "a way back: {way_back}.",
        "{C} was sealed before it had acted, so that there was still a way back",
        (("fail", "{c}:late"),),
        TIMED_OUT,
        "about 16 seconds; {C} wakes up after 20",
        (
            "{C} sleeps past every time-out, and runs its action after all when it wakes up.",
            "By then {C} has given up, which has sealed its barrier: it has not acted, and never will. {way_back}.",
        ),
    ),
    Card(
        "service-crash",
        CRASHES,
        "{B} crashes after its commit",
        "{B}'s process exits right after its commit, once.",
        "The next attempt reaches the restarted {B}, which answers what it had saved: it has acted once, and the saga "
        "goes on. Where the restart takes longer than the attempts, all of it is undone, which is as right.",
        "the restarted {B} still had the answer of its first attempt",
        (("fail", "{b}:crash-after:1"),),
        COMPLETED,
        "a second, while {B} restarts",
        (
            "{B}'s process exits right after its commit, once, before it has said so.",
            "The event is delivered to the restarted {B}, which finds what it had saved, and says it: it has acted "
            "once, and the saga goes on.",
        ),
        otherwise=FAILED,
    ),
    Card(
        "orchestrator-crash",
        CRASHES,
        "The orchestrator crashes",
        "The orchestrator's process exits when it has {B}'s answer, before that is in its log.",
        "Restarted, it reads its log and calls {B} again, which answers what it had saved. The page loses its "
        "connection, and finds it again.",
        "its log told the restarted orchestrator where to go on",
        (("fail", "orchestrator:after-{b}"), ("delay", "{first}:600")),
        COMPLETED,
        "a few seconds, while it restarts",
        (
            "The orchestrator's process exits when it hears {B}'s event, before that is in its log.",
            "No step waits for it. Restarted, it hears the event again, and writes it into its log. The page loses its "
            "connection, and finds it again.",
        ),
    ),
    Card(
        "stuck-compensation",
        STUCK,
        "{B} fails, and so does undoing {A}",
        "{B} fails. Undoing {A} fails too, six times.",
        "The saga stalls, waits, and tries again by itself, for as long as it takes; on its page you can retry at "
        "once. {A} is never called undone before it is.",
        "a compensation is tried again until it succeeds",
        (("fail", "{b}"), ("fail", "{a}:undo:6")),
        FAILED,
        "a few seconds",
        (
            "{B} fails. {A} fails to undo itself, six times.",
            "{B}'s event is delivered to {A} again after ever longer waits, and nobody is in charge who could hurry "
            "it. {A} is never called undone before it is.",
        ),
    ),
    Card(
        "seen-meanwhile",
        ISOLATION,
        "{C} thinks for three seconds, then refuses",
        "{C} waits for three seconds before it says no. Meanwhile anybody can read what the other services have.",
        "{way_back}. For three seconds their rows were there to be read: a saga does not isolate, and whoever has read "
        "them has acted on what never came true.",
        "{C} refused, and had not committed",
        (("delay", "{c}:3000:1"), ("fail", "{c}:refuse")),
        REFUSED,
        "about 3 seconds",
    ),
)
