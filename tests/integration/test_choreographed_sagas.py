"""Choreographed sagas: whatever dies wherever, each ends all or nothing, at most once; events carry what they may."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.choreography_coordinator import shown
from saga.choreography import step_transactions
from saga.choreography.broker import ACK, Delivery
from saga.choreography.event_fold import Early, fold_event
from saga.choreography.events import EventKind, SagaEvent
from saga.context import replay
from saga.definition import SagaDefinition, Step
from saga.errors import Refused
from saga.faults.flags import FaultKind
from saga.faults.injection import LOSES_ANSWER
from saga.machine import Line
from saga.saga_row import SagaRow
from saga.views.saga_filter import SagaQuery
from saga.views.saga_search import SagaSearch
from tests.conftest import databases
from tests.support.choreographed_world import ChoreographedWorld
from tests.support.world import INPUT, SERVICES, Points, signup

ONE_EACH = {"A": 1, "B": 1, "C": 1}
NONE = {"A": 0, "B": 0, "C": 0}
NESTED = b'{"saga_id": ' + b"[" * 100_000
NOW = 1_000_000_000.0
SCENARIOS = {
    "": ("COMPLETED", None),
    "a": ("COMPENSATED", "failed"),
    "b": ("COMPENSATED", "failed"),
    "c": ("COMPENSATED", "failed"),
    "b:after": ("COMPENSATED", "failed"),
    "c:after": ("COMPLETED", None),
    "b:after:1": ("COMPLETED", None),
    "b:after:2": ("COMPLETED", None),
    "a:before:2": ("COMPLETED", None),
    "c:garbage:2": ("COMPLETED", None),
    "b:crash:1": ("COMPLETED", None),
    "b:crash-after": ("COMPENSATED", "failed"),
    "b:refuse": ("COMPENSATED", "refused"),
    "c:refuse": ("COMPENSATED", "refused"),
    "b:garbage": ("COMPENSATED", "failed"),
    "b:crash-after&b:refuse": ("COMPENSATED", "refused"),
    "b&a:undo:4": ("COMPENSATED", "failed"),
    "b:after&b:undo:4&a:undo:2": ("COMPENSATED", "failed"),
    "orchestrator:after-B": ("COMPLETED", None),
    "c&orchestrator:before-undo-A": ("COMPENSATED", "failed"),
}
LAST_ATTEMPT = ("b:after:2", "a:before:2", "c:garbage:2")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChoreographedWorld]:
    monkeypatch.setattr(step_transactions, "WAIT_LOOK_EVERY", 0.0)
    made = ChoreographedWorld(tmp_path)
    yield made
    made.close()


def run(world: ChoreographedWorld, flags: str, *crashes: int) -> list[str]:
    """One saga with crashes at these points, to its end, and the promises checked; gives the points' names."""
    status, kind = SCENARIOS[flags]
    saga_id = world.start(flags)
    world.point = points = Points(*crashes)
    world.log.checks_writes = not crashes  # with a crash it is checked at that moment, and each has its run
    world.play()
    world.point = lambda name: None
    saga = world.row(saga_id)
    if crashes and flags in LAST_ATTEMPT and saga["status"] == "COMPENSATED":
        status, kind = "COMPENSATED", "failed"  # the crash has cost it the attempt that would have succeeded
    assert saga["status"] == status, saga
    assert (saga["error"] or {}).get("kind") == kind
    assert world.rows(saga_id) == (ONE_EACH if status == "COMPLETED" else NONE)
    assert world.unpublished() == 0
    assert world.broker.parked == []
    done = [work for work in world.done if work[0] == saga_id]
    assert len(done) == len(set(done)), "something took effect twice"
    undone = [step for _, step, call in done if call == "compensation"]
    assert undone == sorted(undone, reverse=True), "not undone in reverse"
    return points.names


@pytest.mark.parametrize("flags", SCENARIOS)
def test_a_crash_at_any_point_loses_nothing(world: ChoreographedWorld, flags: str) -> None:
    """Between commit and publish, publish and mark, delivery and acknowledgement, and before each commit."""
    names = run(world, flags)
    for number in range(len(names)):
        run(world, flags, number)
    assert any("publish" in name for name in names)
    assert any("before ack" in name for name in names)
    print(f"{flags or 'all succeed'}: {len(names)} crash points")  # noqa: T201


@pytest.mark.parametrize("flags", ["", "c", "c:after", "b:after:2", "b:refuse", "b:after&b:undo:4&a:undo:2"])
def test_a_crash_at_any_kind_of_point_loses_nothing_on_mysql(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    """The first and the last point of each name: what is between them differs on SQLite as much as here."""
    monkeypatch.setattr(step_transactions, "WAIT_LOOK_EVERY", 0.0)
    made = ChoreographedWorld(tmp_path, database=databases(request, "mysql", tmp_path))
    names = run(made, flags)
    last = {name: number for number, name in enumerate(names)}
    for number in sorted({*map(names.index, last), *last.values()}):
        run(made, flags, number)
    made.close()


def test_every_kind_of_point_at_which_a_process_may_die_is_there(world: ChoreographedWorld) -> None:
    """Each step's commit, publication, mark, delivery and acknowledgement, forward and back; the observer's too."""
    names = set(run(world, "")) | set(run(world, "c:refuse"))
    told = {"A": ["done", "undone"], "B": ["done", "undone"], "C": ["done", "refused"]}
    for step, kinds in told.items():
        assert f"{step} commits" in names  # its local transaction, and the mark of its relay
        for event in (f"saga.signup.{step}.{kind}" for kind in kinds):
            listening = [name for name, queue in world.broker.queues.items() if event in queue.subjects]
            points = [f"before publish {event}", f"after publish {event}"]
            for name in [*listening, "orchestrator"]:
                points += [f"{name} before {event}", f"{name} before ack of {event}"]
            assert names.issuperset(points)
    assert "orchestrator commits" in names


@pytest.mark.parametrize("flags", ["", "b:after"])
def test_a_second_crash_at_any_point_after_the_first_loses_nothing(world: ChoreographedWorld, flags: str) -> None:
    for first in range(0, len(run(world, flags)), 3):
        for second in range(first + 1, len(run(world, flags, first)), 5):
            run(world, flags, first, second)


@pytest.mark.parametrize("flags", ["", "c", "b:after", "c:after"])
def test_events_that_are_delivered_again_after_the_end_change_nothing(world: ChoreographedWorld, flags: str) -> None:
    run(world, flags)
    before, done = world.row("saga-1"), list(world.done)
    for subject, payload in list(world.broker.stream):
        world.broker.put(subject, payload)
    world.play()
    assert world.row("saga-1") == before
    assert world.done == done


def test_an_action_that_comes_after_its_compensation_does_nothing(world: ChoreographedWorld) -> None:
    saga_id = world.start("b")
    world.play()
    assert world.barriers(saga_id) == {"A": "compensated", "B": "sealed"}
    done = next(event for event in world.broker.stream if event[0] == "saga.signup.A.done")
    payload = {**json.loads(done[1]), "faults": {}}
    world.broker.put(done[0], json.dumps(payload).encode())
    world.play()
    assert world.rows(saga_id) == NONE
    assert world.barriers(saga_id) == {"A": "compensated", "B": "sealed"}


def test_events_carry_what_later_steps_need_and_secrets_go_to_their_step_alone(world: ChoreographedWorld) -> None:
    run(world, "")
    told = {subject: payload.decode() for subject, payload in world.broker.stream}
    assert [subject for subject in told if INPUT["payment"] in told[subject]] == ["saga.signup.C.given"]
    assert list(told).index("saga.signup.C.given") < list(told).index("saga.signup.started")
    assert json.loads(told["saga.signup.started"])["fields"] == {"username": "ada", "address": "1 Main St"}
    assert json.loads(told["saga.signup.A.done"])["fields"] == {"user_id": 1, "address": "1 Main St"}
    assert json.loads(told["saga.signup.B.done"])["fields"] == {"user_id": 1}
    assert list(told)[-1] == "saga.signup.completed"
    assert world.broker.queues["B"].subjects == [
        "saga.signup.A.done",
        "saga.signup.B.given",
        "saga.signup.C.refused",
        "saga.signup.C.undone",
    ]


def test_a_compensation_that_never_succeeds_is_parked_and_not_called_undone(world: ChoreographedWorld) -> None:
    saga_id = world.start("b&a:undo")
    world.play()
    saga = world.row(saga_id)
    assert saga["status"] == "STALLED"
    assert saga["needs_attention"]
    assert saga["steps"][0]["status"] == "COMPENSATING"
    assert world.rows(saga_id) == {"A": 1, "B": 0, "C": 0}
    assert [subject for subject, _ in world.broker.parked] == ["saga.signup.B.refused"]
    assert [found.id for found in SagaSearch(world.log).find(SagaQuery(needs_attention=True))] == [saga_id]


@pytest.mark.parametrize("told_late", [False, True])
def test_a_saga_with_a_parked_event_is_found_until_it_is_replayed(world: ChoreographedWorld, told_late: bool) -> None:
    """Also where news of the step before comes after that of the parking."""
    saga_id = world.start("")
    parked = Delivery("dead.saga.signup.A.done", json.dumps({"saga_id": saga_id}).encode(), 1, 7, {"Saga-Service": "B"})
    if told_late:
        world.observer.handle(parked)
    world.broker.queues["B"].subjects = []  # who parks it does not act on it
    world.play()
    world.observer.handle(parked)

    def found() -> list[str]:
        return [row.id for row in SagaSearch(world.log).find(SagaQuery(needs_attention=True))]

    assert world.row(saga_id)["needs_attention"]
    assert found() == [saga_id]
    world.observer.replayed(saga_id, 7, "saga.signup.A.done")
    assert not world.row(saga_id)["needs_attention"]
    assert found() == []


def as_of(row: SagaRow, lines: Sequence[Line]) -> SagaRow:
    """The saga as it was when its log had these lines."""
    saga, context = replay(row.definition, row.input, lines, row.results)
    return replace(row, state=saga.state, cursor=saga.cursor, results=saga.results, context=context)


def test_an_attempt_to_undo_that_is_heard_before_what_it_follows_from_is_asked_for_again(
    world: ChoreographedWorld,
) -> None:
    saga_id = world.start("c&a:undo:1")
    world.play()
    row, lines = world.log.find(saga_id), world.log.lines(saga_id)
    assert row
    early = [index for index, line in enumerate(lines) if (line.detail or {}).get("call") == "compensation"]
    told = SagaEvent("signup", saga_id, EventKind.ATTEMPT, "A", {"call": "compensation", "number": 1, "at": 1.0})
    for known in (3, 5, early[0]):  # B's turn, C's turn, B undoes itself
        with pytest.raises(Early):
            fold_event(as_of(row, lines[:known]), told)
    assert fold_event(as_of(row, lines[: early[1]]), told)[1]


def test_the_reason_of_a_dead_letter_is_masked_and_what_it_carries_is_not_shown(world: ChoreographedWorld) -> None:
    saga_id = world.start("")
    row = world.log.find(saga_id)
    assert row
    letter = {
        "letter": 1,
        "message": f"card {INPUT['payment']} is blocked",
        "payload": b'{"saga_id": "%s"}' % saga_id.encode(),
    }
    assert shown(letter, {saga_id: row}) == {"letter": 1, "message": "card *** is blocked", "saga_id": saga_id}
    carried = json.dumps({"saga_id": saga_id, "fields": {"payment": INPUT["payment"], "note": f"x{INPUT['payment']}"}})
    with_payload = shown({**letter, "payload": carried.encode()}, {saga_id: row}, with_payload=True)["payload"]
    assert with_payload == {"saga_id": saga_id, "fields": {"payment": "***", "note": "x***"}}
    assert shown({**letter, "payload": carried.encode()}, {}, with_payload=True)["payload"] is None
    for payload in (b"[]", NESTED):
        assert shown({**letter, "payload": payload}, {saga_id: row}, with_payload=True)["payload"] is None
        assert shown({**letter, "payload": payload}, {}) == {"letter": 1, "message": letter["message"], "saga_id": None}


def test_a_dead_letter_of_a_brokers_new_disk_is_noted_though_its_number_was_given_before(
    world: ChoreographedWorld,
) -> None:
    saga_id = world.start()
    payload = json.dumps({"saga_id": saga_id}).encode()
    letters = [Delivery("dead.saga.signup.A.done", payload, 1, 1, {"Saga-Service": "B"}, at) for at in (NOW, NOW + 60)]
    world.observer.handle(letters[0])
    world.observer.replayed(saga_id, 1, "saga.signup.A.done")
    for letter in (letters[0], letters[1], letters[1]):
        world.observer.handle(letter)
    noted = [line.event for line in world.log.lines(saga_id)]
    assert noted == ["started", "parked", "replayed", "parked"]
    assert world.row(saga_id)["needs_attention"]


def test_an_event_that_is_nested_too_deeply_is_let_go_by_who_observes(world: ChoreographedWorld) -> None:
    assert world.observer.ordering_key("saga.signup.A.done", NESTED) is None
    for subject in ("saga.signup.A.done", "dead.saga.signup.A.done"):
        assert world.observer.handle(Delivery(subject, NESTED, 1, 1, {})) == ACK


@pytest.mark.parametrize(
    ("subject", "body"),
    [
        ("A.done", {"result": "ok"}),
        ("A.done", {"at": "now"}),
        ("A.done", {"at": 1e300}),
        ("A.done", {"attempt": "first"}),
        ("A.done", {"attempt": {"number": "one"}}),
        ("A.done", {"attempt": {"number": 2**31}}),
        ("A.done", {"attempt": {"number": 1, "duration_ms": "long"}}),
        ("A.done", {"fields": None}),
        ("A.done", {"given": {"B": 0}}),
        ("A.done", {"given": {"B": ["A"]}}),
        ("A.done", {"faults": {"B": ["after"]}}),
        ("A.done", {"faults": {"B": {"action": ["after"]}}}),
        ("A.done", {"faults": {"B": {"action": [["fail", 1]]}}}),
        ("A.refused", {"error": "rejected"}),
        ("A.refused", {"error": {"kind": "rejected"}}),
        ("A.refused", {"error": {"kind": ["failed"]}}),
        ("A.refused", {"error": {"kind": "failed", "message": 7}}),
        ("A.attempt", {"call": "action"}),
        ("A.attempt", {"call": "undo", "number": 1, "stalls": True}),
    ],
)
def test_an_event_whose_fields_have_another_shape_is_let_go_by_who_observes_and_parked_by_who_acts(
    world: ChoreographedWorld, subject: str, body: dict[str, Any]
) -> None:
    """Whoever publishes it, in whatever language: the saga is shown and goes on as if it had not been."""
    saga_id = world.start()
    before = world.row(saga_id)
    payload = json.dumps({"saga_id": saga_id, "at": NOW, **body}).encode()
    told = Delivery(f"saga.signup.{subject}", payload, 1, 1, {})
    assert world.observer.handle(told) == ACK
    assert world.row(saga_id) == before
    if subject == "A.done":
        assert world.listeners["B"].handle(told).park
    world.play()
    assert world.row(saga_id)["status"] == "COMPLETED"


@pytest.mark.parametrize("payload", [b"{}", b"no json", b"[]", b'{"saga_id": 7}', '{"saga_id": "ü"}'.encode()])
def test_an_event_that_cannot_be_understood_is_parked_and_holds_up_nobody(
    world: ChoreographedWorld, payload: bytes
) -> None:
    world.broker.put("saga.signup.started", payload)
    run_past = world.start()
    world.play()
    assert [subject for subject, _ in world.broker.parked] == ["saga.signup.started"]
    assert world.row(run_past)["status"] == "COMPLETED"


def test_the_same_saga_and_step_with_other_fields_is_parked(world: ChoreographedWorld) -> None:
    run(world, "")
    done = json.loads(dict(world.broker.stream)["saga.signup.A.done"])
    done["fields"]["address"] = "elsewhere"
    world.broker.put("saga.signup.A.done", json.dumps(done).encode())
    world.play()
    assert world.broker.parked == [("saga.signup.A.done", "this saga and step were called before with another body")]
    assert world.rows("saga-1") == ONE_EACH


@pytest.mark.parametrize(
    ("flags", "status", "rows", "steps"),
    [
        ("c", "COMPENSATED", {"A": 0, "B": 1, "C": 0}, ["COMPENSATED", "SKIPPED", "REFUSED"]),
        ("b:after", "COMPLETED", ONE_EACH, ["DONE", "DONE", "DONE"]),  # its own barrier knows that it took effect
        ("b", "COMPENSATED", NONE, ["COMPENSATED", "REFUSED", "PENDING"]),
        ("b:crash", "COMPENSATED", NONE, ["COMPENSATED", "REFUSED", "PENDING"]),  # its own barrier is sealed
    ],
)
def test_a_step_without_a_compensation_is_passed_over(
    tmp_path: Path, flags: str, status: str, rows: dict[str, int], steps: list[str]
) -> None:
    shipped = signup()
    definition = replace(
        shipped, steps=tuple(replace(step, compensation=None) if step.name == "B" else step for step in shipped.steps)
    )
    world = ChoreographedWorld(tmp_path, definition)
    saga_id = world.start(flags)
    world.play()
    saga = world.row(saga_id)
    assert saga["status"] == status
    assert world.rows(saga_id) == rows
    assert [step["status"] for step in saga["steps"]] == steps
    world.close()


def test_a_step_of_which_nobody_has_said_how_it_is_undone_is_not_passed_over(tmp_path: Path) -> None:
    """A service's own file must say so; should it not, an operator is asked, and A is not undone around it."""
    steps = tuple(replace(s, compensation=None, unsaid=True) if s.name == "B" else s for s in signup().steps)
    world = ChoreographedWorld(tmp_path, replace(signup(), steps=steps))
    saga_id = world.start("c:refuse")
    world.play()
    saga = world.row(saga_id)
    assert saga["status"] == "COMPENSATING"
    assert [parked for parked in world.broker.parked if "nobody can undo B" in str(parked)]
    assert world.rows(saga_id) == {"A": 1, "B": 1, "C": 0}
    world.close()


def test_a_pivot_without_a_compensation_that_has_sealed_itself_ends_the_saga(tmp_path: Path) -> None:
    """How its attempts ended is not known, but that none of them took effect is."""
    shipped = signup()
    definition = replace(shipped, steps=(*shipped.steps[:2], replace(shipped.steps[2], compensation=None)))
    world = ChoreographedWorld(tmp_path, definition)
    saga_id = world.start("c:crash")
    world.play()
    saga = world.row(saga_id)
    assert (saga["status"], saga["error"]["kind"]) == ("COMPENSATED", "failed")
    assert [step["status"] for step in saga["steps"]] == ["COMPENSATED", "COMPENSATED", "REFUSED"]
    assert world.rows(saga_id) == NONE
    world.close()


@pytest.mark.parametrize("flags", ["c:before:7", "c:after:7", "c:crash:2"])
def test_past_the_pivot_a_step_is_tried_until_it_succeeds(tmp_path: Path, flags: str) -> None:
    shipped = signup()
    steps = tuple(replace(step, pivot=step.name == "B") for step in shipped.steps)
    world = ChoreographedWorld(tmp_path, replace(shipped, steps=steps))
    saga_id = world.start(flags)
    world.play()
    assert world.row(saga_id)["status"] == "COMPLETED"
    assert world.rows(saga_id) == ONE_EACH
    assert world.broker.parked == []
    world.close()


def test_a_secret_that_a_step_returns_goes_to_who_needs_it(tmp_path: Path) -> None:
    steps = (
        Step("A", "http://a/invoke", "http://a/compensate", ("username",)),
        Step("B", "http://b/invoke", "http://b/compensate", ("address", "user_id")),
        Step("C", "http://c/invoke", "http://c/compensate", ("user_id", "payment"), pivot=True),
    )
    world = ChoreographedWorld(tmp_path, replace(signup(), steps=steps, secret=("user_id", "payment")))
    saga_id = world.start()
    world.play()
    told = [(subject, json.loads(payload)) for subject, payload in world.broker.stream]
    given = [(subject, event["by"], sorted(event["fields"])) for subject, event in told if subject.endswith(".given")]
    assert given == [
        ("saga.signup.C.given", -1, ["payment"]),
        ("saga.signup.B.given", 0, ["user_id"]),
        ("saga.signup.C.given", 0, ["user_id"]),
    ]
    assert dict(told)["saga.signup.A.done"]["result"] == {"user_id": "***"}
    assert world.row(saga_id)["status"] == "COMPLETED"
    assert world.rows(saga_id) == ONE_EACH
    world.close()


def test_an_attempt_that_succeeds_after_its_time_was_up_is_not_undone_by_giving_up(world: ChoreographedWorld) -> None:
    """B's last attempt outlasts its time-out, commits and tells so, just before it is given up."""
    saga_id = world.start()
    world.reach("B")
    listener, (index, _) = world.listeners["B"], world.broker.queues["B"].waiting.popleft()
    last = Delivery(*world.broker.stream[index], 3, index, {})
    listener.handle(last)
    assert listener.on_timeout(last) == ACK
    world.play()
    assert world.row(saga_id)["status"] == "COMPLETED"
    assert world.rows(saga_id) == ONE_EACH


@pytest.mark.parametrize(
    ("flags", "outlasted", "kind"),
    [("b:refuse", 0, "refused"), ("b:refuse", 1, "timeout"), ("b:before", 1, "timeout"), ("b:before", 0, "failed")],
)
def test_the_kind_of_error_is_what_it_is_over_http(
    world: ChoreographedWorld, flags: str, outlasted: int, kind: str
) -> None:
    """A call of which one attempt was timed out is a time-out, whatever its last attempt came to."""
    saga_id = world.start(flags)
    world.reach("B")
    listener, (index, _) = world.listeners["B"], world.broker.queues["B"].waiting[0]
    for number in range(1, 1 + outlasted):
        listener.on_timeout(Delivery(*world.broker.stream[index], number, index, {}))
    world.play()
    assert world.row(saga_id)["error"]["kind"] == kind
    assert world.rows(saga_id) == NONE


@pytest.mark.parametrize("kind", sorted(LOSES_ANSWER))
def test_a_refusal_turns_the_saga_back_though_the_answer_to_a_success_would_be_lost(
    world: ChoreographedWorld, kind: FaultKind
) -> None:
    saga_id = world.start(f"b:{kind}&b:refuse")
    world.play()
    saga = world.row(saga_id)
    assert (saga["status"], saga["error"]["kind"]) == ("COMPENSATED", "refused")
    assert world.rows(saga_id) == NONE
    assert world.barriers(saga_id)["B"] == "refused"


def test_a_step_that_failed_to_give_up_and_succeeded_after_all_is_told_as_done(world: ChoreographedWorld) -> None:
    """No attempt ended in time, giving up failed and was reported; then one of the attempts committed after all."""
    saga_id = world.start("b:undo:1")
    world.reach("B")
    listener, (index, _) = world.listeners["B"], world.broker.queues["B"].waiting.popleft()
    deliveries = [Delivery(*world.broker.stream[index], number, index, {}) for number in range(1, 5)]
    for delivery in deliveries[:3]:
        assert listener.on_timeout(delivery) != ACK
    while world.broker.queues["orchestrator"].waiting:
        world.broker.deliver("orchestrator")
    saga = world.row(saga_id)
    assert (saga["status"], saga["steps"][1]["error"]) == ("RUNNING", "injected: undo")
    took = [line.duration_ms for line in world.log.lines(saga_id) if line.step == "B" and line.event == "attempt"]
    timeout = 1000 * world.definition.steps[1].timeout
    assert len(took) == 3 and all(each is not None and each >= timeout for each in took)  # it acted all that time
    listener.handle(deliveries[1])
    assert listener.handle(deliveries[3]) == ACK
    world.play()
    saga = world.row(saga_id)
    assert (saga["status"], saga["error"]) == ("COMPLETED", None)
    assert world.rows(saga_id) == ONE_EACH


def test_a_refusal_does_not_tell_the_secrets_that_it_echoes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def declined(tx: object, fields: Mapping[str, str]) -> None:
        raise Refused(f"the card {fields['payment']} is declined")

    monkeypatch.setitem(SERVICES, "C", replace(SERVICES["C"], action=declined))
    world = ChoreographedWorld(tmp_path)
    saga_id = world.start()
    world.play()
    assert world.row(saga_id)["error"]["message"] == "the card *** is declined"
    told = {subject for subject, payload in world.broker.stream if INPUT["payment"] in payload.decode()}
    assert told == {"saga.signup.C.given"}
    world.close()


def test_a_refusal_by_the_schema_does_not_tell_the_secrets_that_it_echoes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is the saga that says what is secret, and where a long message is cut in the middle of one."""
    whole = {"not": {"required": ["payment"]}}  # its message quotes all fields
    monkeypatch.setitem(SERVICES, "C", replace(SERVICES["C"], schema=whole, secret=()))
    world = ChoreographedWorld(tmp_path)
    for payment in ("4111-2222-3333", "4111" * 80):
        saga_id = world.start("", {**INPUT, "payment": payment})
        world.play()
        assert world.row(saga_id)["error"]["kind"] == "refused"
        assert "'payment': '***'" in world.row(saga_id)["error"]["message"]
        told = {subject for subject, payload in world.broker.stream if payment[:14] in payload.decode()}
        assert told == {"saga.signup.C.given"}
    world.close()


def test_a_field_that_holds_a_secret_goes_to_its_step_alone(tmp_path: Path) -> None:
    shipped = signup()
    steps = (*shipped.steps[:2], replace(shipped.steps[2], send=("user_id", "payment", "customer")))
    world = ChoreographedWorld(tmp_path, replace(shipped, steps=steps, secret=("card",)))
    world.start("c:refuse", {**INPUT, "customer": {"cards": [{"card": "4111-2222-3333"}]}})
    world.play()
    told = [subject for subject, payload in world.broker.stream if "4111-2222-3333" in payload.decode()]
    assert told == ["saga.signup.C.given"]
    world.close()


def test_a_step_that_moves_undoes_what_it_did_at_its_old_position(tmp_path: Path) -> None:
    shipped = signup()
    world = ChoreographedWorld(tmp_path, without(shipped, "A"))
    saga_id = world.start("c:refuse", {**INPUT, "user_id": 7})
    world.reach("C")
    world.change(shipped, "B")  # it is the second step now
    world.play()
    world.change(shipped)
    world.play()
    assert world.row(saga_id)["status"] == "COMPENSATED"
    assert world.rows(saga_id) == NONE
    assert world.broker.parked == []
    world.close()


def test_a_result_that_is_not_json_is_a_failure_of_the_step_that_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is committed and told: the next step could not read it."""

    action = SERVICES["B"].action

    def unequal(tx: Any, fields: Mapping[str, Any]) -> dict[str, float]:
        action(tx, fields)
        return {"rate": float("nan")}

    monkeypatch.setitem(SERVICES, "B", replace(SERVICES["B"], action=unequal))
    world = ChoreographedWorld(tmp_path)
    saga_id = world.start()
    world.play()
    saga = world.row(saga_id)
    assert saga["status"] == "COMPENSATED"
    assert saga["error"]["message"].startswith(
        "the service failed, and rolled back: what the action returned is not JSON"
    )
    assert "rate" in saga["error"]["message"]
    assert world.rows(saga_id) == NONE
    assert world.broker.parked == []
    world.close()


def test_a_number_keeps_its_digits_from_step_to_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    action = SERVICES["B"].action

    def priced(tx: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {**(action(tx, fields) or {}), "price": Decimal("12345678901234567890.123")}

    monkeypatch.setitem(SERVICES, "B", replace(SERVICES["B"], action=priced))
    world = ChoreographedWorld(tmp_path)
    saga_id = world.start()
    world.play()
    saga = world.row(saga_id)
    assert (saga["status"], saga["result"]["price"]) == ("COMPLETED", Decimal("12345678901234567890.123"))
    world.close()


def test_a_new_step_lets_sagas_pass_that_began_without_it(tmp_path: Path) -> None:
    """Its service hears of all that the broker still has: also of sagas that have completed, or are under way."""
    shipped = signup()
    steps = {step.name: step for step in shipped.steps}
    world = ChoreographedWorld(tmp_path, replace(shipped, steps=(steps["A"], steps["C"])))
    done, refused = world.start(), world.start("c:refuse")
    world.play()
    under_way = world.start()
    world.reach("C")
    world.change(shipped)
    world.play()
    assert [world.row(saga)["status"] for saga in (done, refused, under_way)] == [
        "COMPLETED",
        "COMPENSATED",
        "COMPLETED",
    ]
    for saga_id, rows in ((done, 1), (refused, 0), (under_way, 1)):
        assert world.rows(saga_id) == {"A": rows, "B": 0, "C": rows}
    assert world.broker.parked == []
    assert world.rows(run_to_its_end(world)) == ONE_EACH
    world.close()


def test_a_service_with_the_old_file_does_not_act_before_a_step_that_it_does_not_know(tmp_path: Path) -> None:
    """C has not been restarted: to it, A's event says that it is its turn."""
    shipped = signup()
    world = ChoreographedWorld(tmp_path, without(shipped, "B"))
    world.change(shipped, "A", "B", "orchestrator")
    saga_id = world.start("b:refuse")
    world.play()
    assert world.row(saga_id)["status"] == "COMPENSATED"
    assert world.rows(saga_id) == NONE
    world.close()


def test_a_service_with_the_old_file_does_not_act_before_a_step_that_is_first_now(tmp_path: Path) -> None:
    shipped = signup()
    world = ChoreographedWorld(tmp_path, without(shipped, "A"))
    world.change(shipped, "A", "orchestrator")
    saga_id = world.start("a:refuse", {**INPUT, "user_id": 7})
    world.play()
    assert world.row(saga_id)["status"] == "COMPENSATED"
    assert world.rows(saga_id) == NONE
    world.close()


@pytest.mark.parametrize("added", ["A", "B", "C"])
def test_a_step_is_added_where_the_services_are_restarted_first_and_the_orchestrator_last(
    tmp_path: Path, added: str
) -> None:
    """The new one, its neighbours, who publishes; sagas that begin or are under way meanwhile end well."""
    shipped = signup()
    world = ChoreographedWorld(tmp_path, without(shipped, added))
    rows = {name: int(name != added) for name in SERVICES}
    input = {**INPUT, "user_id": 7}  # which A, where it is there, tells
    for name in sorted(SERVICES, key=lambda name: name != added):
        under_way = world.start("", input)
        world.reach("C")
        world.change(shipped, name)
        begun = world.start("", input)
        world.play()
        for saga_id in (under_way, begun):
            assert world.row(saga_id)["status"] == "COMPLETED"
            assert world.rows(saga_id) == rows
    world.change(shipped, "orchestrator")
    assert world.rows(run_to_its_end(world)) == ONE_EACH
    assert world.broker.parked == []
    world.close()


def without(definition: SagaDefinition, name: str) -> SagaDefinition:
    return replace(definition, steps=tuple(step for step in definition.steps if step.name != name))


def run_to_its_end(world: ChoreographedWorld) -> str:
    saga_id = world.start()
    world.play()
    assert world.row(saga_id)["status"] == "COMPLETED"
    return saga_id


def test_a_broker_that_has_lost_everything_is_told_again(world: ChoreographedWorld) -> None:
    """Its stream is younger than what was published: whatever is still in an outbox is published once more."""
    ended = run_to_its_end(world)
    lost, back = world.start(), world.start("b:after")
    world.reach("C")
    done = list(world.done)
    world.broker.server.lose_events()
    world.play()
    assert [world.row(saga)["status"] for saga in (ended, lost, back)] == [
        "COMPLETED",
        "COMPLETED",
        "COMPENSATED",
    ]
    assert world.rows(ended) == world.rows(lost) == ONE_EACH
    assert world.rows(back) == NONE
    assert len(world.done) == len(set(world.done)) > len(done)
    assert world.broker.parked == []


@pytest.mark.parametrize("flags", ["", "c", "b:after", "c:after", "c:refuse&b:undo:4&a:undo:2", "b:after&b:undo:4"])
def test_events_that_are_heard_in_any_order_tell_the_same_saga(world: ChoreographedWorld, flags: str) -> None:
    run_once = world.start(flags)
    world.play()
    told, events = plain(world.row(run_once)), list(world.broker.stream)
    for seed in range(30):
        again = world.start(flags)
        for relay in world.relays.values():
            relay.round()
        for queue in world.broker.queues.values():
            queue.waiting.clear()
        renamed = [(subject, payload.replace(run_once.encode(), again.encode())) for subject, payload in events]
        shuffled = random.Random(seed).sample(renamed, len(renamed))
        while shuffled:
            early = [event for event in shuffled if world.observer.handle(Delivery(*event, 1, 1, {})) != ACK]
            assert len(early) < len(shuffled), "the story stands still"
            shuffled = early
        assert plain(world.row(again)) == told


def plain(saga: dict[str, Any]) -> dict[str, Any]:
    steps = [(step["name"], step["status"], step["effect"]) for step in saga["steps"]]
    return {"status": saga["status"], "error": saga["error"], "result": saga["result"], "steps": steps}
