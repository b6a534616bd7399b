"""The laboratory runs two purchases on one row, call by call, in a given order or in every order that there is.

Each purchase has a real driver, which writes a real saga log; each step is a participant with a real barrier. Only the
network is missing: the laboratory is the drivers' transport, and hands their requests to the participants itself.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine, event, insert, select

from orchestrator.isolation.account import Account, accounts
from orchestrator.isolation.history import Access, History, Turn
from orchestrator.isolation.purchase import TAKE, Fields, PurchaseStep, StepCode, Switches, definition_of, steps_of
from saga import barrier
from saga.barrier import Barrier, Transaction
from saga.driver import Driver, DriverDeps
from saga.http_client.transport import HttpAnswer
from saga.local_transaction import LocalTransactions, StepFunction
from saga.machine import Call, Direction
from saga.participant import Endpoints, ParticipantDefinition, ParticipantRequest, ParticipantResponse
from saga.saga_log import SagaLog
from saga.saga_row import new_saga_row
from saga.storage import log_tables
from saga.storage.database import connect, create_tables, transaction

OPENING_BALANCE = 100
AMOUNTS = {"Ann": 30, "Ben": 50}  # what each takes: there is enough for both
LEASE = 60.0  # seconds; the clock stands still, so that it never ends
OWNER = "laboratory"

Order = tuple[str, ...]  # whose turn it is, turn by turn


@contextmanager
def laboratory(on: Switches) -> Iterator[Laboratory]:
    """Open a laboratory with these countermeasures, on databases that are deleted at its end."""
    with tempfile.TemporaryDirectory(prefix="isolation-") as directory:
        opened = Laboratory(Path(directory), on)
        try:
            yield opened
        finally:
            opened.close()


class Laboratory:
    """One service, which has an account for each run, and one saga log."""

    def __init__(self, directory: Path, on: Switches):
        self._service = _quick(connect(f"sqlite:///{directory}/service.db"))
        create_tables(self._service, accounts.metadata)
        create_tables(self._service, barrier.metadata)
        log = _quick(connect(f"sqlite:///{directory}/log.db", plain=True))
        create_tables(log, log_tables.metadata)
        steps = steps_of(on)
        self._definition = definition_of(steps)
        self._participants = {step.name.lower(): self._participant(step) for step in steps}
        self._numbers = itertools.count(1)
        self._notes: list[Access] = []  # of the call under way
        self._refusal: str | None = None  # the same
        self._deps = DriverDeps(
            log=SagaLog(log),
            transport=self,
            owner=OWNER,
            clock=lambda: 0.0,
            monotonic=lambda: 0.0,
            sleep=lambda seconds: None,
            random=lambda: 0.5,
            stopping=lambda: False,
            observe=lambda row, line: None,
            lease=LEASE,
        )

    def close(self) -> None:
        """Close the databases."""
        self._service.dispose()
        self._deps.log.database.engine.dispose()

    def histories(self, sold_out: bool) -> Iterator[History]:
        """Run every order in which the calls of the two sagas can come, each once.

        After a run, each turn in which the other saga could have moved as well leads to one more order to run. (This is
        stateless exploration, as in Godefroid's VeriSoft, POPL 1997.)
        """
        left: list[Order] = [()]
        while left:
            begun = left.pop()
            history, choices = self.run(begun, sold_out)
            yield history
            order = history.order
            for turn in range(len(begun), len(order)):
                left += [(*order[:turn], other) for other in choices[turn] if other != order[turn]]

    def run(self, begun: Order, sold_out: bool) -> tuple[History, list[Order]]:
        """Run both sagas on a new account: the first turns as `begun` says, and then the first saga that can move.

        With `sold_out`, Ann's goods cannot be sent. Returns what happened, and for each turn which sagas could move.
        """
        number = next(self._numbers)
        with transaction(self._service) as connection:
            connection.execute(insert(accounts), {"id": number, "saga_id": "", "balance": OPENING_BALANCE})
        drivers = {name: self._start(name, number, sold_out and name == "Ann") for name in AMOUNTS}
        calls = {name: driver.next_call() for name, driver in drivers.items()}
        turns: list[Turn] = []
        choices: list[Order] = []
        while able := {name: call for name, call in calls.items() if call}:
            name = begun[len(turns)] if len(turns) < len(begun) else next(iter(able))
            before = turns[-1].balance if turns else OPENING_BALANCE
            choices.append(tuple(able))
            turns.append(self._turn(name, drivers[name], able[name], before))
            calls[name] = drivers[name].next_call()
        ends = {name: driver.row.state for name, driver in drivers.items()}
        return History(tuple(turns), ends, self._balance(number)), choices

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
        """Hand a driver's request to the participant that it is for."""
        parts = urlsplit(url)
        participant, request = self._participants[str(parts.hostname)], ParticipantRequest(headers, body=body)
        answer = participant.compensate(request) if parts.path == "/compensate" else participant.invoke(request)
        self._refusal = json.loads(answer.text)["error"] if answer.status == 409 else None
        return _received(answer)

    def get(self, url: str, headers: Mapping[str, str], timeout: float) -> HttpAnswer:
        """Ask the participant that the URL names for its records of a saga."""
        parts = urlsplit(url)
        return _received(self._participants[str(parts.hostname)].records(parts.path.rpartition("/")[2]))

    def _balance(self, account: int) -> int:
        with transaction(self._service) as connection:
            query = select(accounts.c.balance).where(accounts.c.id == account)
            return int(connection.execute(query).scalar_one())

    def _start(self, name: str, account: int, sold_out: bool) -> Driver:
        saga_id = str(uuid.UUID(int=2 * account + list(AMOUNTS).index(name)))
        input = {"account": account, "amount": AMOUNTS[name], "sold_out": sold_out}
        row, line = new_saga_row(saga_id, self._definition, input, 0.0)
        row = replace(row, owner=OWNER, due_at=LEASE)
        self._deps.log.begin(row, [line])
        return Driver(row, self._deps)

    def _turn(self, name: str, driver: Driver, call: Call, before: int) -> Turn:
        self._notes.clear()
        driver.make(call)
        effect = 0
        if call.step.name == TAKE and self._refusal is None:
            effect = AMOUNTS[name] if call.direction is Direction.COMPENSATION else -AMOUNTS[name]
        balance = self._notes[-1].left if self._notes else before
        return Turn(name, call.step.name, call.direction, effect, tuple(self._notes), self._refusal, balance)

    def _participant(self, step: PurchaseStep) -> Endpoints:
        action, compensation = self._with_account(step.action), self._with_account(step.compensation or _nothing)
        definition = ParticipantDefinition(step.name, accounts, action, compensation, schema={})
        return Endpoints(definition, LocalTransactions(Barrier(self._service), action, compensation))

    def _with_account(self, code: StepCode) -> StepFunction:
        def run(transaction: Transaction, fields: Fields) -> Fields | None:
            return code(Account(transaction, fields["account"], self._notes), fields)

        return run


def _received(answer: ParticipantResponse) -> HttpAnswer:
    return HttpAnswer(0.0, answer.status, answer.headers, answer.text.encode())


def _nothing(account: Account, fields: Fields) -> None:
    """Undo a step that has no compensation: nobody calls this."""


def _quick(engine: Engine) -> Engine:
    """Let a database not wait for the disk: nothing in it has to survive a power cut."""
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    return engine
