"""The events of choreographed sagas: their subjects and bodies, who publishes them, and who listens to them. Pure.

All of it follows from the order of the steps:

    saga.signup.started -> A acts -> saga.signup.A.done -> B acts -> saga.signup.B.done -> C acts ...
                                     A undoes itself   <- saga.signup.B.refused     <- C.refused, or C.undone

A step that gives up has sealed or undone itself in the transaction that writes its `refused`, so only the steps before
it are left to undo. Events carry the fields that later steps need. A secret field is sent only to the step that needs
it, by an event of its own (`given`), before the event that lets the step act. The model is the choreographed saga of
Richardson, "Microservices Patterns" (2018), section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from saga.choreography.event_body import check
from saga.definition import SagaDefinition, Step
from saga.errors import BadInput
from saga.machine import fields_for
from saga.payload import LEVELS_ADDED, LEVELS_AT_MOST, compact, holds, mask, parse_object, secret_texts

PREFIX = "saga"


class EventKind(StrEnum):
    """What an event says; the last token of its subject."""

    STARTED = "started"  # published by the orchestrator
    GIVEN = "given"  # secret fields, for one step alone
    DONE = "done"
    REFUSED = "refused"  # the step has no effect, as it did nothing or has undone it, and never will have one
    UNDONE = "undone"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    ABANDONED = "abandoned"  # by an operator, before anybody heard of the saga (saga/choreography/abandoned_sagas.py)
    ATTEMPT = "attempt"  # an attempt that failed; only observers need it


OF_A_STEP = frozenset({EventKind.GIVEN, EventKind.DONE, EventKind.REFUSED, EventKind.UNDONE, EventKind.ATTEMPT})
# The events that an observer needs: no secrets, and no ends, as these follow from the other events.
OBSERVED = (EventKind.STARTED, EventKind.DONE, EventKind.REFUSED, EventKind.UNDONE, EventKind.ATTEMPT)


@dataclass(frozen=True)
class SagaEvent:
    """One event of a saga; `body` is its payload without the saga's id."""

    saga: str
    saga_id: str
    kind: EventKind
    step: str | None
    body: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """The subject that the event is published on."""
        return subject(self.saga, self.kind, self.step)

    @property
    def id(self) -> str:
        """The id of the event (Nats-Msg-Id), the same each time that it is published, so that the broker keeps one."""
        what = [self.saga_id, self.step or "", self.kind]
        if self.kind in (EventKind.GIVEN, EventKind.ATTEMPT):
            what += [str(self.body[name]) for name in ("by", "call", "number") if name in self.body]
        return ":".join(what)

    def payload(self) -> bytes:
        """Return what is published: the body and the saga's id, as JSON in UTF-8."""
        return compact({"saga_id": self.saga_id, **self.body}).encode()


def subject(saga: str, kind: EventKind, step: str | None = None) -> str:
    """Return a subject: `saga.signup.B.done`, or without a step `saga.signup.started`."""
    return ".".join([PREFIX, saga, *([step] if step else []), kind])


def observed() -> list[str]:
    """Return the subjects, as patterns for all sagas, that an observer listens to."""
    return [subject("*", kind, "*" if kind in OF_A_STEP else None) for kind in OBSERVED]


def parse_event(subject: str, payload: bytes) -> SagaEvent:
    """Return the event that was published as `payload`. Raises BadInput where it is none."""
    tokens = subject.split(".")
    try:
        kind = EventKind(tokens[-1])
    except ValueError:
        raise BadInput(f"{subject}: there is no such event") from None
    if tokens[0] != PREFIX or len(tokens) != (4 if kind in OF_A_STEP else 3):
        raise BadInput(f"{subject}: there is no such event")
    body = parse_object(payload, "the event", depth=LEVELS_AT_MOST + LEVELS_ADDED, strict=False)
    saga_id = body.pop("saga_id", None)
    if not isinstance(saga_id, str) or not 0 < len(saga_id) <= 255 or not (saga_id.isascii() and saga_id.isprintable()):
        raise BadInput("saga_id is required: 1 to 255 printable ASCII characters", "saga_id")
    body = check(body)
    if kind is EventKind.ATTEMPT and not {"call", "number"} <= body.keys():
        raise BadInput("call and number are required")
    return SagaEvent(tokens[1], saga_id, kind, tokens[2] if kind in OF_A_STEP else None, body)


def started(definition: SagaDefinition, saga_id: str, input: Mapping[str, Any], at: float) -> list[SagaEvent]:
    """Return the events that start a saga: the secrets for the steps that need them, then the first step's event."""
    faults = {step.name: found for step in definition.steps if (found := _faults(step))}
    steps = [step.name for step in definition.steps]
    open_to_all = {"fields": {}, "given": {}, "faults": faults, "steps": steps, "at": at}
    given, fields, senders = _share(definition, saga_id, -1, open_to_all, input)
    body = {**open_to_all, "fields": fields, "given": senders}
    return [*given, SagaEvent(definition.name, saga_id, EventKind.STARTED, None, body)]


def abandoned(saga: str, saga_id: str, at: float) -> SagaEvent:
    """Return the event that keeps a service from acting that hears of the saga later."""
    return SagaEvent(saga, saga_id, EventKind.ABANDONED, None, {"at": at})


class Task(StrEnum):
    """What an event asks a step to do."""

    ACT = "act"
    COMPENSATE = "compensate"
    STORE_SECRETS = "store_secrets"  # the secrets that it carries


@dataclass(frozen=True)
class StepSubscription:
    """What one step of a saga listens to, what it takes from these events, and what it publishes."""

    definition: SagaDefinition
    index: int

    @property
    def step(self) -> Step:
        """The step of the definition."""
        return self.definition.steps[self.index]

    @property
    def may_refuse(self) -> bool:
        """Whether the step can still turn the saga back: steps up to the pivot can, and those after it cannot."""
        return not any(step.pivot for step in self.definition.steps[: self.index])

    def subjects(self) -> dict[str, Task]:
        """Return the subjects that the step listens to, and what each asks of it."""
        name, steps = self.definition.name, self.definition.steps
        before = (
            subject(name, EventKind.DONE, steps[self.index - 1].name)
            if self.index
            else subject(name, EventKind.STARTED)
        )
        heard = {before: Task.ACT}
        # Any field that it gets may hold a secret one within.
        if self.step.send and self.definition.secret:
            heard[subject(name, EventKind.GIVEN, self.step.name)] = Task.STORE_SECRETS
        if self.index + 1 < len(steps):
            after = steps[self.index + 1].name
            heard |= {subject(name, kind, after): Task.COMPENSATE for kind in (EventKind.REFUSED, EventKind.UNDONE)}
        return heard

    def senders(self, event: SagaEvent) -> Sequence[int]:
        """Return the positions of the steps that have sent secrets to this one; -1: whoever started the saga."""
        return list(event.body.get("given", {}).get(self.step.name, ()))

    def fields(self, event: SagaEvent, given: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the fields of the step's two calls.

        They come from the event that lets it act, and from the secrets that it was sent, of which the last one wins.
        """
        known = dict(event.body.get("fields", {}))
        for secrets in given:
            known.update(secrets)
        return fields_for(self.step, known)

    def faults(self, event: SagaEvent, call: str) -> list[tuple[str, str]]:
        """Return the flags of failure injection for the step's action or compensation, as (name, value)."""
        return [(name, value) for name, value in event.body.get("faults", {}).get(self.step.name, {}).get(call, ())]

    def knows(self, event: SagaEvent) -> bool:
        """Return whether the saga began with this step; one that was added later only passes the saga on."""
        return self.step.name in event.body.get("steps", (self.step.name,))

    def is_next(self, event: SagaEvent) -> bool:
        """Return whether this step follows the event's in the saga, which may have steps that are not known here.

        True also where one of the two is no step of the saga, and only passes it on.
        """
        steps, publisher = list(event.body.get("steps", ())), event.step
        if self.step.name not in steps or (publisher and publisher not in steps):
            return True
        return steps.index(self.step.name) == (steps.index(publisher) + 1 if publisher else 0)

    def shown(self, value: Any, fields: Mapping[str, Any]) -> Any:
        """Return `value` as others may see it: the secrets among `fields` are masked, also where texts echo them."""
        secret = self.definition.secret
        return mask(value, secret, secret_texts(fields, secret))

    def done(
        self, event: SagaEvent, result: Mapping[str, Any], report: Mapping[str, Any], acted_with: Mapping[str, Any]
    ) -> list[SagaEvent]:
        """Return what the step publishes once its action has taken effect; `report` is for observers."""
        given, fields, senders = _share(self.definition, event.saga_id, self.index, event.body, result)
        shown = self.shown(dict(result), acted_with)
        done = self._event(event, EventKind.DONE, {**report, "fields": fields, "given": senders, "result": shown})
        last = self.index + 1 == len(self.definition.steps)
        return [*given, done, *([self._end(event, EventKind.COMPLETED, report)] if last else [])]

    def refused(self, event: SagaEvent, report: Mapping[str, Any]) -> list[SagaEvent]:
        """Return what the step publishes once it certainly has no effect, and never will have one."""
        return [self._event(event, EventKind.REFUSED, report), *self._turned_back(event, report)]

    def undone(self, event: SagaEvent, report: Mapping[str, Any]) -> list[SagaEvent]:
        """Return what the step publishes once its compensation is done, or where it needs none."""
        return [self._event(event, EventKind.UNDONE, report), *self._turned_back(event, report)]

    def attempt(self, event: SagaEvent, report: Mapping[str, Any]) -> SagaEvent:
        """Return what the step publishes of an attempt that failed."""
        return SagaEvent(event.saga, event.saga_id, EventKind.ATTEMPT, self.step.name, report)

    def _turned_back(self, event: SagaEvent, report: Mapping[str, Any]) -> list[SagaEvent]:
        return [self._end(event, EventKind.COMPENSATED, report)] if self.index == 0 else []

    def _event(self, event: SagaEvent, kind: EventKind, body: Mapping[str, Any]) -> SagaEvent:
        carried = {name: event.body[name] for name in ("faults", "steps") if name in event.body}
        return SagaEvent(event.saga, event.saga_id, kind, self.step.name, {**carried, **body})

    def _end(self, event: SagaEvent, kind: EventKind, report: Mapping[str, Any]) -> SagaEvent:
        return SagaEvent(event.saga, event.saga_id, kind, None, {"at": report.get("at")})


def subscriptions_of(name: str, definitions: Iterable[SagaDefinition]) -> dict[str, tuple[StepSubscription, Task]]:
    """Return the subjects that the service called `name` listens to, and what each asks of which step."""
    tasks: dict[str, tuple[StepSubscription, Task]] = {}
    for definition in definitions:
        for index, step in enumerate(definition.steps):
            if step.name == name:
                subscription = StepSubscription(definition, index)
                tasks |= {subject: (subscription, task) for subject, task in subscription.subjects().items()}
    return tasks


def needed_subscriptions(definition: SagaDefinition) -> dict[str, str]:
    """Return the subjects without whose listeners the saga could not go on or turn back, each with its step."""
    needed: dict[str, str] = {}
    for index, step in enumerate(definition.steps):
        subscription = StepSubscription(definition, index)
        after = StepSubscription(definition, index + 1) if index + 1 < len(definition.steps) else None
        for heard, task in subscription.subjects().items():
            if task is Task.ACT or (task is Task.COMPENSATE and after and after.may_refuse):
                needed[heard] = step.name
    return needed


def _share(
    definition: SagaDefinition, saga_id: str, by: int, carried: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[list[SagaEvent], dict[str, Any], dict[str, list[int]]]:
    """Share the fields `new`, which the step at position `by` adds to those that the event `carried`.

    Returns the events that bring secrets to their steps, the open fields that later steps need, and for each step the
    positions of those that have sent secrets to it.
    """
    secret, later = set(definition.secret), definition.steps[by + 1 :]
    needed = {name for step in later for name in step.send}
    known = {**carried["fields"], **new}
    hidden = {name for name in needed & known.keys() if name in secret or holds(known[name], secret)}
    fields = {name: value for name, value in known.items() if name in needed - hidden}
    senders = {name: list(known_senders) for name, known_senders in carried.get("given", {}).items()}
    events = []
    for step in later:
        secrets = {name: new[name] for name in step.send if name in hidden and name in new}
        if secrets:
            senders.setdefault(step.name, []).append(by)
            events.append(
                SagaEvent(definition.name, saga_id, EventKind.GIVEN, step.name, {"by": by, "fields": secrets})
            )
    return events, fields, senders


def _faults(step: Step) -> dict[str, list[tuple[str, str]]]:
    """Return the flags that are injected into a step's two calls, which are in the queries of their URLs."""
    found = {}
    for call, url in (("action", step.action), ("compensation", step.compensation or "")):
        flags = [(name, value) for name, value in parse_qsl(urlsplit(url).query) if name in ("fail", "delay")]
        if flags:
            found[call] = flags
    return found
