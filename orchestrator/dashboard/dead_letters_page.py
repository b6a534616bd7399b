"""The page of the dead letters: events that a service could not handle, by their cause, to be replayed one or many."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from orchestrator.parts import Orchestrator
from orchestrator.status_codes import status_code_of
from saga.errors import BadInput, BrokerUnavailable, NoSuchLetter, SagaError

LETTERS = 100

Letter = Mapping[str, Any]  # as ChoreographyCoordinator.dead_letters gives it

blueprint = Blueprint("dead_letters_page", __name__)


@dataclass(frozen=True)
class Cause:
    """Why letters are parked: at which service, and what it said; `letters` are those, newest first."""

    service: str
    why: str
    letters: Sequence[Letter]

    @property
    def since(self) -> str | None:
        """When the oldest of them was parked, as far as this is known."""
        return min((each["at"] for each in self.letters if each["at"]), default=None)

    @property
    def names(self) -> str:
        """What names these letters and no others: a broker with a new disk counts from 1 again."""
        return " ".join(map(name_of, self.letters))


@dataclass(frozen=True)
class Replayed:
    """What came of replaying one letter; `problem` says why it was left alone."""

    letter: str
    subject: str | None
    problem: str | None = None


@blueprint.get("/ui/dead-letters")
def show_dead_letters(orchestrator: Orchestrator) -> tuple[str, int]:
    """Show the newest dead letters."""
    return _render(orchestrator)


@blueprint.post("/ui/dead-letters/<int:letter>/replay")
def replay(orchestrator: Orchestrator, letter: int) -> Response | tuple[str, int]:
    """Publish a parked event again, from a form; a refusal is said on the page."""
    try:
        orchestrator.choreography.replay(letter)
    except (BadInput, BrokerUnavailable, NoSuchLetter) as error:
        return _render(orchestrator, f"{error}.", status_code_of(error))
    return redirect("/ui/dead-letters", 303)


@blueprint.get("/ui/dead-letters/<int:letter>/replay")
def show_dead_letters_after_replay(orchestrator: Orchestrator, letter: int) -> Response:
    """Lead from the address of the form, which a browser keeps when it was refused, back to the page."""
    return redirect("/ui/dead-letters")


@blueprint.get("/ui/dead-letters/replay")
def show_dry_run(orchestrator: Orchestrator) -> str:
    """List the letters that are parked for one cause, and that a confirmation would replay."""
    service, why = request.args.get("service", ""), request.args.get("why", "")
    causes = causes_of(orchestrator.choreography.dead_letters(LETTERS))
    cause = next((each for each in causes if (each.service, each.why) == (service, why)), None)
    return render_template("replay.html", cause=cause)


@blueprint.post("/ui/dead-letters/replay")
def replay_these(orchestrator: Orchestrator) -> str:
    """Replay the letters that the form names, and no others."""
    named = list(dict.fromkeys(request.form.get("letters", "").split()))
    if not named or len(named) > LETTERS:
        raise BadInput(f"letters must name 1 to {LETTERS} dead letters", "letters")
    parked = {name_of(each): each for each in orchestrator.choreography.dead_letters(LETTERS)}
    done = [_replayed(orchestrator, name, parked.get(name)) for name in named]
    return render_template("replayed.html", done=done)


def _replayed(orchestrator: Orchestrator, name: str, letter: Letter | None) -> Replayed:
    number = name.partition("@")[0]
    if letter is None:
        return Replayed(number, None, "it is not parked any more")
    try:
        orchestrator.choreography.replay(letter["letter"])
    except SagaError as error:
        return Replayed(number, letter["subject"], str(error))
    return Replayed(number, letter["subject"])


def name_of(letter: Letter) -> str:
    """Return what names a letter for good: its number, and when it was stored."""
    return f"{letter['letter']}@{letter['at'] or ''}"


def causes_of(letters: Sequence[Letter]) -> list[Cause]:
    """Return the letters by their cause, the largest first. Numbers in a message, such as ids, make no difference."""
    grouped: dict[tuple[str, str], list[Letter]] = {}
    for letter in letters:
        why = re.sub(r"\b[0-9a-f-]*\d[0-9a-f-]{7,}\b", "…", letter["message"])
        grouped.setdefault((letter["service"], why), []).append(letter)
    causes = [Cause(service, why, found) for (service, why), found in grouped.items()]
    return sorted(causes, key=lambda cause: (-len(cause.letters), cause.service, cause.why))


def _render(orchestrator: Orchestrator, problem: str | None = None, code: int = 200) -> tuple[str, int]:
    try:
        choreographer = orchestrator.choreographer
        letters = choreographer and choreographer.dead_letters(LETTERS, with_payload=True)
    except BrokerUnavailable as error:
        letters, problem = None, problem or f"{error}. What is parked there is not known."
    return (
        render_template(
            "dead_letters.html", letters=letters, causes=causes_of(letters or ()), most=LETTERS, problem=problem
        ),
        code,
    )
