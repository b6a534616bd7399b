"""The page of the dead letters: events that a service could not handle, each with a button to replay it."""

from __future__ import annotations

from flask import Blueprint, redirect, render_template
from werkzeug.wrappers import Response

from orchestrator.parts import Orchestrator
from orchestrator.status_codes import status_code_of
from saga.errors import BadInput, BrokerUnavailable, NoSuchLetter

LETTERS = 100

blueprint = Blueprint("dead_letters_page", __name__)


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


def _render(orchestrator: Orchestrator, problem: str | None = None, code: int = 200) -> tuple[str, int]:
    try:
        letters = orchestrator.choreographer and orchestrator.choreographer.dead_letters(LETTERS)
    except BrokerUnavailable as error:
        letters, problem = None, problem or f"{error}. What is parked there is not known."
    return render_template("dead_letters.html", letters=letters, most=LETTERS, problem=problem), code
