"""The eight lessons of the course in docs/course/, as the page "Break it" shows them: which cards, and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from saga.errors import BadInput


@dataclass(frozen=True)
class Lesson:
    """One lesson: the `cards` that it runs, by their slugs; `read` is what its reader must know to predict them."""

    number: int
    title: str
    cards: tuple[str, ...]
    read: str
    file: str


def _lesson(number: int, title: str, cards: str, read: str) -> Lesson:
    name = "-".join("".join(letter if letter.isalnum() else " " for letter in title.lower()).split())
    return Lesson(number, title, tuple(cards.split()), read, f"docs/course/{number}-{name}.md")


LESSONS = (
    _lesson(
        1,
        "All or nothing",
        "all-goes-well b-fails",
        "A saga is a row of local transactions, each in another service. When one fails, those before it are undone by "
        "their compensations, the latest first.",
    ),
    _lesson(
        2,
        "A refusal is an answer",
        "refusal c-fails",
        "A service may say no: that is certain, and is not tried again. It may also fail: then it is tried again, and "
        "what came of it has to be found out.",
    ),
    _lesson(
        3,
        "Nobody can tell",
        "after-commit lost-answer",
        "An error, or no answer at all, does not say whether the service has acted: it may have committed before.",
    ),
    _lesson(
        4,
        "Twice is once",
        "garbage service-crash",
        "Who asks again must not make the service act again. Each call has a key, and the service keeps the key and "
        "its answer beside its own rows, in the same local transaction.",
    ),
    _lesson(
        5,
        "Too late",
        "late-action",
        "A call can arrive after the one that undoes it. The service remembers in its barrier what came first.",
    ),
    _lesson(
        6,
        "The point of no return",
        "in-doubt-pivot late-pivot",
        "The pivot cannot be undone once it has committed: before it a saga can turn back, after it it can only go "
        "forward. Told to undo, a pivot answers which of the two it is.",
    ),
    _lesson(
        7,
        "Crashed and stuck",
        "orchestrator-crash stuck-compensation",
        "The log says, before each call, how far the saga has come. A compensation is tried again until it succeeds.",
    ),
    _lesson(
        8,
        "Not alone, and not in charge",
        "seen-meanwhile c-fails",
        "Between its first commit and its end others see what a saga has done so far. And nobody has to be in charge: "
        "choose the mode “both” to see services that only listen to each other.",
    ),
)


def find_lesson(number: str | None) -> Lesson | None:
    """The lesson with this number, as a query has it; None without one. Raises BadInput where there is none such."""
    if not number:
        return None
    found = next((lesson for lesson in LESSONS if str(lesson.number) == number), None)
    if found is None:
        raise BadInput(f"lesson must be 1 to {len(LESSONS)}, not {number!r}", "lesson")
    return found
