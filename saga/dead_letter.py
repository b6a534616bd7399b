"""A dead letter: an event that is parked in a stream of its own, with who parked it and why. Pure."""

from __future__ import annotations

import json
from typing import Any

from nats.js.api import RawStreamMsg

from saga.event_body import saga_id_of
from saga.payload import iso

DEAD_STREAM, DEAD = "SAGA_DEAD", "dead."
WITHOUT = "Saga-Without"  # a header: it has not got what its event carried


def headers_of(service: str, deliveries: int, reason: str) -> dict[str, str]:
    """The headers of a dead letter."""
    said = " ".join(reason.encode("ascii", "replace").decode().split())[:500] or "?"
    return {"Saga-Service": service, "Saga-Deliveries": str(deliveries), "Saga-Reason": said}


def too_large(service: str, id: str, subject: str, payload: bytes, most: int) -> tuple[str, bytes, dict[str, str]]:
    """(subject, payload, headers) of what is parked for an event that is larger than the broker takes."""
    reason = (
        f"an event of {len(payload)} bytes is too large for the broker: raise its max_payload ({most}), then set "
        f"published_at to NULL in the saga_outbox of {service} where event_id is {id}"
    )
    headers = {**headers_of(service, 0, reason), "Nats-Msg-Id": f"too-large:{id}", WITHOUT: "payload"}
    return DEAD + subject, json.dumps({"saga_id": saga_id_of(payload)}).encode(), headers


def shown(message: RawStreamMsg) -> dict[str, Any]:
    """A dead letter as it is listed, whoever parked it."""
    headers = message.headers or {}
    try:
        attempts = int(headers.get("Saga-Deliveries", 0))
    except ValueError:
        attempts = 0
    return {
        "letter": message.seq,
        "at": iso(message.time.timestamp() if message.time else None),
        "subject": (message.subject or "").removeprefix(DEAD),
        "service": headers.get("Saga-Service", ""),
        "payload": message.data or b"",
        "attempts": attempts,
        "message": headers.get("Saga-Reason", ""),
    }
