"""The cards of the page "Break it", filled in with the steps of a saga, and how the saga should end. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.dashboard.scenario_cards import CARDS, Card
from saga.definition import SagaDefinition, Step
from saga.machine import State
from saga.views.audit import expected


@dataclass(frozen=True)
class Expectation:
    """How a saga should end: its status, what POST /start answers, how many rows of it each service has then.

    `unlimited` names the services that may have more. A service of which nothing is promised is left out.
    """

    status: str
    code: int
    rows: Mapping[str, int]
    unlimited: tuple[str, ...] = ()

    def fits(self, step: str, number: int | None) -> bool:
        """Tell whether a service may have so many rows; None, for one that does not answer, never fits."""
        wanted = self.rows[step]
        return number is not None and (number >= wanted if step in self.unlimited else number == wanted)


@dataclass(frozen=True)
class Scenario:
    """One card for one saga; `flags` are those of POST /start. Its texts are explained at Card."""

    slug: str
    group: str
    title: str
    setup: str
    outcome: str
    why: str
    flags: tuple[tuple[str, str], ...]
    expect: Expectation
    lasts: str
    choreographed: tuple[str, str]
    otherwise: Expectation | None = None

    def right_end(self, status: str) -> Expectation:
        """What is expected of a saga that ended with this status."""
        return self.otherwise if self.otherwise and self.otherwise.status == status else self.expect


def scenarios_for(definition: SagaDefinition) -> tuple[Scenario, ...]:
    """The cards that a saga has the steps for, in their order."""
    names = _parts(definition)
    return tuple(_filled(card, definition, names) for card in CARDS if _roles(card) <= names.keys())


def find_scenario(definition: SagaDefinition, slug: str | None) -> Scenario | None:
    """The saga's card with this slug; None where it has none."""
    return next((each for each in scenarios_for(definition) if each.slug == slug), None)


def expectation(definition: SagaDefinition, status: str, code: int = 200) -> Expectation:
    """What the services must have of such a saga that ended with this status, COMPLETED or COMPENSATED."""
    wanted = {step.name: expected(step, State(status.lower())) for step in definition.steps}
    promised = {name: found for name, found in wanted.items() if found}
    unlimited = tuple(name for name, found in promised.items() if found.most is None)
    return Expectation(status, code, {name: found.least for name, found in promised.items()}, unlimited)


def _parts(definition: SagaDefinition) -> dict[str, str]:
    """The names for the parts of the cards, as far as the saga has steps for them."""
    pivot = next((index for index, step in enumerate(definition.steps) if step.pivot), len(definition.steps))
    back = [step.name for step in reversed(definition.steps[:pivot]) if step.compensation]
    parts = {"first": definition.steps[0].name.lower(), "undone": _undone(back[1:]), "way_back": _undone(back)}
    if back:
        parts |= {"B": back[0], "b": back[0].lower()}
    if len(back) > 1:
        parts |= {"A": back[-1], "a": back[-1].lower()}
    if pivot < len(definition.steps) and definition.steps[pivot].compensation:
        parts |= {"C": definition.steps[pivot].name, "c": definition.steps[pivot].name.lower()}
    return parts


def _undone(names: list[str]) -> str:
    return f"{names[0]} is undone" + "".join(f", then {name}" for name in names[1:]) if names else "nothing is undone"


def _roles(card: Card) -> set[str]:
    texts = (card.title, card.setup, card.outcome, card.why, *(value for _, value in card.flags))
    return set(re.findall(r"{(\w+)}", " ".join(texts)))


def _filled(card: Card, definition: SagaDefinition, names: Mapping[str, str]) -> Scenario:
    def fill(text: str) -> str:
        filled = text.format_map(names)
        return filled[:1].upper() + filled[1:] if text.startswith("{way_back}") else filled

    setup, outcome = card.choreographed or (card.setup, card.outcome)
    return Scenario(
        card.slug,
        card.group,
        fill(card.title),
        fill(card.setup),
        fill(card.outcome),
        fill(card.why),
        tuple((name, fill(value)) for name, value in card.flags),
        expectation(definition, *card.end),
        fill(card.lasts),
        (fill(setup), fill(outcome)),
        expectation(definition, *card.otherwise) if card.otherwise else None,
    )


def _like_signup() -> SagaDefinition:
    """A saga whose steps are those of `signup`; nobody is called for it."""
    steps = tuple(Step(name, "/invoke", "/compensate", pivot=name == "C") for name in "ABC")
    return SagaDefinition("signup", steps)


SCENARIOS = scenarios_for(_like_signup())
