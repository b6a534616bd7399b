"""The orchestrator's part in choreographed sagas: it starts them, then only observes; and it knows the dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine as Database

from saga.choreography import observed
from saga.dead_letter import DEAD, DEAD_STREAM
from saga.engine import Engine
from saga.ensemble import Ensemble
from saga.errors import BadInput, Conflict, NoSuchLetter, SagaUnreadable
from saga.event_body import saga_id_of
from saga.follower import Follower
from saga.log import Record, Stored
from saga.machine import PARKED
from saga.payload import mask
from saga.representation import parked, secrets_of
from saga.settings import Settings
from saga.unreadable import Unreadable
from saga.verbs import REFUSALS

NAME = "orchestrator"


class Choreographer:
    """The outbox that `started` goes through, the follower that hears all events, and the dead letters."""

    def __init__(self, database: Database, engine: Engine, follower: Follower, settings: Settings):
        self._ensemble = Ensemble(NAME, database, settings)
        self._engine = engine
        self._follower = follower
        self._ensemble.broker.consume(NAME, observed(), follower)
        self._ensemble.broker.consume(f"{NAME}_dead", [f"{DEAD}>"], follower, stream=DEAD_STREAM)
        engine.announce = self._ensemble.relay.notify

    def open(self) -> None:
        """Connect, in the background."""
        self._ensemble.open()

    def close(self) -> None:
        """Observe nothing more: what happens meanwhile is heard later."""
        self._ensemble.close()

    def dead_letters(self, most: int) -> list[dict[str, Any]]:
        """The parked events, newest first; never what they carry, which may be secret. BrokerUnavailable."""
        letters = self._ensemble.broker.dead_letters(most)
        named = {saga_id_of(letter["payload"]) or "" for letter in letters}
        records = self._engine.around.log.find_many(filter(str.isascii, named))  # no other id is one, and MySQL raises
        return [shown(letter, records) for letter in letters]

    def count_dead_letters(self) -> int:
        """How many there are. BrokerUnavailable."""
        return self._ensemble.broker.count_dead_letters()

    def replay(self, letter: int) -> dict[str, Any]:
        """Publish a parked event again. NoSuchLetter, BadInput, BrokerUnavailable."""
        replayed = self._ensemble.broker.replay(letter)
        saga_id = saga_id_of(replayed["payload"])
        if saga_id:
            with suppress(SagaUnreadable):  # its log cannot tell of it, and the service is told all the same
                self._follower.replayed(saga_id, letter, replayed["subject"])
        return {"letter": letter, "subject": replayed["subject"], "replayed": True}

    def resume(self, saga_id: str) -> None:
        """Replay what of a saga is parked. NoSuchSaga, Conflict where nothing is, BadInput where one cannot be."""
        saga, lines = self._engine.read(saga_id)
        if isinstance(saga, Unreadable):
            raise SagaUnreadable(f"{REFUSALS['resume']}: it cannot be read: {saga.reason}")
        letters = parked(lines)
        if not letters:
            raise Conflict("no event of this saga is parked: there is nothing to replay")
        details = [line.detail or {} for line in lines if line.event == PARKED]
        subjects = {detail["letter"]: str(detail["subject"]) for detail in details}
        refused: BadInput | None = None
        for letter in letters:
            try:
                self.replay(letter)
            except BadInput as error:
                refused = error
            except NoSuchLetter:  # it was published again, and a crash, or the log, kept that from being noted
                self._follower.replayed(saga_id, letter, subjects[letter])
        if refused:
            raise refused


def shown(letter: Mapping[str, Any], records: Mapping[str, Stored]) -> dict[str, Any]:
    """A dead letter as the API shows it: without what it carries, and masked by what its saga keeps secret."""
    saga_id = saga_id_of(letter["payload"])
    record, message = records.get(saga_id or ""), letter["message"]
    if isinstance(record, Unreadable) and record.secret != ():
        message = "withheld: the saga cannot be read, nor which of its fields are secret"
    elif isinstance(record, Record):
        message = mask(message, record.definition.secret, secrets_of(record))
    told = {name: value for name, value in letter.items() if name != "payload"}
    return {**told, "message": message, "saga_id": saga_id}
