"""The headers and messages of dead letters: events that are parked in a stream of their own, with the reason. Pure."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from saga.choreography.event_body import saga_id_of
from saga.errors import BadInput
from saga.payload import LEVELS_ADDED, LEVELS_AT_MOST, iso, parse_object

logger = logging.getLogger("saga")

Message = tuple[str, bytes, dict[str, str]]  # (subject, payload, headers)

HEADERS_AT_MOST = 1000  # bytes that an event's headers take up at most
DEAD_STREAM, DEAD = "SAGA_DEAD", "dead."
WITHOUT = "Saga-Without"  # the header of a dead letter that does not have its event's payload
DELIVERIES = "Saga-Deliveries"  # a header: how many attempts there were, over all replays

_SUBJECT = re.compile(r"saga(\.[A-Za-z0-9_-]+)+")


def headers_of(service: str, deliveries: int, reason: str) -> dict[str, str]:
    """Return the headers of a dead letter: the service that parks it, after so many deliveries, and the reason."""
    said = " ".join(reason.encode("ascii", "replace").decode().split())[:500] or "?"
    return {"Saga-Service": service, DELIVERIES: str(deliveries), "Saga-Reason": said}


def replayed(letter: int, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a dead letter that is published again; they keep the number of its attempts."""
    return {"Nats-Msg-Id": f"replay:{letter}", DELIVERIES: str(attempts_before(headers))}


def attempts_before(headers: Mapping[str, str]) -> int:
    """Return how many attempts there were at an event by its headers; 0 where these do not say so."""
    said = headers.get(DELIVERIES, "")
    return int(said) if re.fullmatch(r"[0-9]{1,9}", said) else 0


def fits(id: str, subject: str) -> bool:
    """Return whether an event can be published under this id, on this subject."""
    return _printable(id) and bool(_SUBJECT.fullmatch(subject))


def misfit(service: str, id: str, subject: str, payload: bytes, most: int) -> str:
    """Say why an event in an outbox can never be published, and what to do about it.

    The event does not fit (see `fits`), or it is larger than `most` bytes.
    """
    if not _printable(id):
        return "its id in the saga_outbox is no printable ASCII text: mend it, and set published_at to NULL there"
    if not _SUBJECT.fullmatch(subject):
        return f"{subject!r} is no subject of a saga's event: mend it, then {_again(service, id)}"
    size = f"an event of {len(payload)} bytes is too large for the broker"
    return f"{size}: raise its max_payload ({most}), then {_again(service, id)}"


def unreadable(service: str, id: str, payload: bytes) -> str | None:
    """Say why the payload of an event in an outbox is not valid, and what to do about it; None where it is valid."""
    try:
        parse_object(payload, "the event", depth=LEVELS_AT_MOST + LEVELS_ADDED, strict=False)
    except BadInput as error:
        return f"{error}: mend its payload, then {_again(service, id)}"
    return None


def _again(service: str, id: str) -> str:
    return f"set published_at to NULL in the saga_outbox of {service} where event_id is {id}"


def _printable(id: str) -> bool:
    return id.isascii() and id.isprintable()


def instead(service: str, id: str, subject: str, payload: bytes, reason: str) -> Message:
    """Return the dead letter that is published instead of an event; it does not have the event's payload."""
    subject = subject if _SUBJECT.fullmatch(subject) else "saga.unknown"
    known = id if _printable(id) else hashlib.sha256(id.encode("utf-8", "replace")).hexdigest()
    headers = {**headers_of(service, 0, reason), "Nats-Msg-Id": f"misfit:{known}", WITHOUT: "payload"}
    return DEAD + subject, json.dumps({"saga_id": saga_id_of(payload)}).encode(), headers


def message_of(service: str, id: str, subject: str, payload: bytes, most: int) -> Message:
    """Return what is published for an event: the event, or a dead letter where it can never be published.

    `most` is the broker's limit in bytes, for the payload and the headers together.
    """
    if len(payload) + HEADERS_AT_MOST > most or not fits(id, subject):
        reason = misfit(service, id, subject, payload, most)
        logger.error("event_not_published service=%s reason=%s", service, reason)
        return instead(service, id, subject, payload, reason)
    return subject, payload, {"Nats-Msg-Id": id}


def shown(letter: int, at: float | None, subject: str, payload: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return a dead letter as Broker.dead_letters lists it.

    `letter` is its number; `at` is when it was stored, in seconds since the epoch.
    """
    return {
        "letter": letter,
        "at": iso(at),
        "subject": subject.removeprefix(DEAD),
        "service": headers.get("Saga-Service", ""),
        "payload": payload,
        "attempts": attempts_before(headers),
        "message": headers.get("Saga-Reason", ""),
    }
