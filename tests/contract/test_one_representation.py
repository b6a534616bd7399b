"""A saga's row says what all its lines come to, at every write, whoever writes; and it is shown the same by everybody.

On SQLite and MySQL, for sagas of any shape with participants that answer anything: the built-in driver, a workflow's
journal, and the observer of a choreographed saga (whose worlds of test_choreographed_sagas.py check it, too).
"""

from __future__ import annotations

import itertools
import json
import uuid
from contextlib import suppress
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saga import progress
from saga.call import make_call
from saga.choreography.broker import Delivery
from saga.choreography.events import EventKind, SagaEvent
from saga.choreography.observer import Observer
from saga.definition import CHOREOGRAPHY, TEMPORAL
from saga.driver import Claim, Driver, DriverDeps
from saga.errors import LeaseLost
from saga.machine import CANCEL_REQUESTED, FAULT, RELEASED, STALLED, Event, Line
from saga.runtime.end_signals import EndSignals
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.temporal.journal import Journal
from saga.temporal.messages import AttemptRecord, Timing, WorkflowInput
from saga.temporal.projection import Projector
from saga.views.representation import represent
from tests.contract.test_saga_log import log as log  # the fixture
from tests.support.builders import a_saga_id, a_started_saga
from tests.support.shapes import Anybody, Clock, definitions
from tests.support.world import check_replay

INPUT = {"pin": "4111"}
LEASE = 1000.0
NUMBERS = itertools.count(1)
ANY = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Checked(SagaLog):
    """The real log; after every write the row is what all its lines come to."""

    def advance(self, saga_id: str, *args: object, **kwargs: object) -> None:
        super().advance(saga_id, *args, **kwargs)  # type: ignore[arg-type]
        check_replay(self, saga_id)


def begun(log: SagaLog, data: st.DataObject, clock: Clock, owner: str | None = "one", mode: str = "") -> SagaRow:
    definition = data.draw(definitions())
    definition = definition.in_mode(mode) if mode else definition
    now = round(clock(), 6)
    made, line = a_started_saga(
        definition,
        INPUT,
        now,
        id=a_saga_id(next(NUMBERS) << 64 | uuid.uuid4().int >> 64),
        owner=owner,
        due_at=None if owner == TEMPORAL else now + LEASE,  # on Temporal: as once its workflow is known to be started
        deadline_at=definition.deadline and now + definition.deadline,
    )
    assert log.begin(made, [line]) is None
    return made


def shown(log: SagaLog, saga_id: str) -> str:
    found = log.find(saga_id)
    assert found
    return json.dumps(represent(found))


@ANY
@given(data=st.data())
def test_what_its_driver_answers_is_what_is_read_later(log: SagaLog, data: st.DataObject) -> None:
    log, clock = Checked(log.database.engine), Clock()
    row = begun(log, data, clock)
    observed: list[Line] = []
    deps = DriverDeps(
        log=log,
        transport=Anybody(data, clock),
        owner="one",
        clock=clock,
        sleep=clock.sleep,
        random=lambda: data.draw(st.floats(0, 1)),
        stopping=lambda: False,
        observe=lambda _, line: observed.append(line),
        lease=LEASE,
    )
    driver = Driver(row, deps)
    for _ in range(data.draw(st.integers(0, 30))):
        if driver.row.ended:
            break
        if driver.row.state in STALLED or data.draw(st.integers(0, 9)) == 0:
            claimed, held = log.preempt(row.id, driver.row.epoch, driver.row.state, "two", clock() + LEASE)
            driver = Driver(claimed, replace(deps, owner="two"), Claim(held))
            if claimed.state in STALLED and data.draw(st.booleans()):
                driver.record_event(Event.RESOLVED, detail={"by": "operator", "note": "4111"})
        elif data.draw(st.integers(0, 9)) == 0:
            driver.add_line(CANCEL_REQUESTED, {"by": "operator"})
        if call := driver.next_call():
            with suppress(LeaseLost):
                driver.make(call)
        assert json.dumps(represent(driver.row)) == shown(log, row.id)
    assert log.lines(row.id)[1:] == observed


@ANY
@given(data=st.data())
def test_what_a_workflow_shows_is_what_its_projection_shows(log: SagaLog, data: st.DataObject) -> None:
    log, clock = Checked(log.database.engine), Clock()
    row = begun(log, data, clock, owner=TEMPORAL)
    begins = WorkflowInput(row.definition.snapshot, INPUT, row.started_at, row.deadline_at, Timing(LEASE, 1.0, 300.0))
    journal = Journal(row.id, begins, clock, lambda: 0.5)
    projector, anybody = Projector(log, lambda saga_id, line: None), Anybody(data, clock)
    for _ in range(data.draw(st.integers(0, 30))):
        if journal.ended:
            break
        what = data.draw(st.sampled_from(["call", "call", "call", "lost", "note", "carry"]))
        call = journal.next_call()
        if call is None:
            journal.record_event(data.draw(st.sampled_from([Event.RESUMED, Event.RESOLVED])))
        elif what == "call":
            made: list[AttemptRecord] = []
            outcome = make_call(
                progress.request(row.id, call, journal.saga.calls, journal.saga.state == "sealing", "0" * 16, None),
                anybody,
                sleep=clock.sleep,
                random=lambda: 0.5,
                before_attempt=lambda number: None,
                after_attempt=lambda attempt, again, made=made: made.append(AttemptRecord(attempt, clock())),  # type: ignore[misc]
            )
            journal.record_attempts(call, made)
            event, cause = progress.answered(journal.saga, call, outcome, late=data.draw(st.booleans()))
            journal.record_event(event, outcome.result, cause)
        elif what == "lost":
            journal.record_interruption()
        elif what == "note":
            journal.add_line(data.draw(st.sampled_from([RELEASED, FAULT])), {"fault": "before-A"})
        else:
            journal = Journal(row.id, journal.continued_input(), clock, lambda: 0.5)
        if data.draw(st.booleans()):
            journal.mark_projected(projector.project(journal.projection()))
            assert not journal.lines
            assert json.dumps(represent(journal.row)) == shown(log, row.id)
    projector.project(journal.projection())
    assert json.dumps(represent(journal.row)) == shown(log, row.id)


@ANY
@given(data=st.data())
def test_what_a_follower_has_heard_is_what_is_read_later(log: SagaLog, data: st.DataObject) -> None:
    log, clock = Checked(log.database.engine), Clock()
    row = begun(log, data, clock, owner=None, mode=CHOREOGRAPHY)
    latest: list[SagaRow] = []
    observer = Observer(log, EndSignals(), clock, lambda after, line: latest.append(after))
    names = [step.name for step in row.definition.steps]
    kinds = [EventKind.DONE, EventKind.DONE, EventKind.REFUSED, EventKind.UNDONE, EventKind.ATTEMPT]
    heard: list[tuple[str, bytes]] = []
    for _ in range(data.draw(st.integers(0, 25))):
        clock.now += data.draw(st.floats(0, 3))
        what = data.draw(st.integers(0, 9))
        if what == 0:
            observer.overdue(row)
        elif what == 1:
            observer.replayed(row.id, data.draw(st.integers(1, 3)), "saga.any.A.done")
        elif what == 2:
            letter = data.draw(st.integers(1, 3))
            payload, headers = json.dumps({"saga_id": row.id}).encode(), {"Saga-Service": names[0]}
            observer.handle(Delivery("dead.saga.any.A.done", payload, 1, letter, headers, clock()))
        elif what == 3 and heard:
            observer.handle(Delivery(*data.draw(st.sampled_from(heard)), 2, 1, {}))
        else:
            number, back = data.draw(st.integers(1, 4)), data.draw(st.booleans())
            attempt = {
                "call": "compensation" if back else "action",
                "number": number,
                "verdict": data.draw(st.sampled_from(["done", "refused", "unknown"])),
                "duration_ms": data.draw(st.floats(0, 10)),
                "message": "4111",
            }
            error = {"kind": "failed", "status_code": 500, "message": "card 4111"}
            body = {"at": clock(), "attempt": attempt, "result": {"id": number}}
            body |= {"error": error, "uncertain": data.draw(st.booleans())} if data.draw(st.booleans()) else {}
            kind = data.draw(st.sampled_from(kinds))
            if kind is EventKind.ATTEMPT:
                body = {"at": clock(), **attempt, "stalls": data.draw(st.booleans())}
            event = SagaEvent("any", row.id, kind, data.draw(st.sampled_from(names)), body)
            heard.append((event.subject, event.payload()))
            observer.handle(Delivery(*heard[-1], 1, 1, {}))
        if latest:
            assert json.dumps(represent(latest[-1])) == shown(log, row.id)
