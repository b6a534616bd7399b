"""The seed scenarios as an exported state machine, whose HTTP Tasks call our services; we read the services' rows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from orchestrator.dashboard.scenarios import SCENARIOS
from saga.definition import SagaDefinition, Step
from saga.definition_file import load_definition
from saga.step_functions.asl import state_machine
from tests.conftest import databases
from tests.support.stack import INPUT, ROOT, SERVICES, Stack, eventually

if TYPE_CHECKING:
    from tests.support.step_functions import StepFunctions

pytestmark = pytest.mark.xdist_group("step functions")  # the interpreter takes seconds to import
ONE_EACH, NONE = {"A": 1, "B": 1, "C": 1}, {"A": 0, "B": 0, "C": 0}
TOKEN = "sesame"
HOLD = 10  # seconds: much longer than all attempts of one call

CARDS = {  # of the page "Break it"; the two whose process exits would disturb the others
    "&".join(f"{name}={value}" for name, value in card.flags): card
    for card in SCENARIOS
    if not {"orchestrator-crash", "service-crash"} & {card.slug}
}


class Services:
    """Three real services, and the saga over them."""

    def __init__(self, stack: Stack, engine: StepFunctions):
        self.stack, self.engine = stack, engine
        urls = {f"SERVICE_{name}_URL": stack.url_of(process) for name, process in SERVICES.items()}
        self.signup = load_definition(ROOT / "orchestrator" / "sagas" / "signup.yaml", urls)

    def run(self, flags: str = "") -> tuple[int, dict[str, Any]]:
        """A step whose answers are held back is not waited for long, and one that acts late is asked once."""
        held = {found[1].upper(): found for found in re.finditer(r"(\w):(lost|late)(:1)?", flags)}

        def patience(step: Step) -> dict[str, Any]:
            if step.name not in held:
                return {}
            _, kind, once = held[step.name].groups()
            return {"timeout": 2.0 if once else 1.0, "retries": 0 if kind == "late" else step.retries}

        return self.engine.run(self.with_steps(patience), INPUT, flags)

    def with_steps(self, changes: Callable[[Step], dict[str, Any]]) -> SagaDefinition:
        """The saga with other time-outs or retries."""
        return replace(self.signup, steps=tuple(replace(step, **changes(step)) for step in self.signup.steps))

    def rows(self, saga: dict[str, Any]) -> dict[str, int]:
        """How many rows of this saga each service has."""
        return {name: sum(row["saga_id"] == saga["saga_id"] for row in self.stack.rows(name)) for name in SERVICES}

    def barrier(self, name: str, saga_id: str) -> str:
        """What the service's barrier says of its step."""
        url = f"{self.stack.url_of(SERVICES[name])}/records/{saga_id}"
        found = requests.get(url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5).json()["barrier"]
        return str(found[0]["state"]) if found else "no row"


@pytest.fixture(scope="module")
def services(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ports: Iterator[int]
) -> Iterator[Services]:
    from tests.support.step_functions import StepFunctions

    directory = tmp_path_factory.mktemp("step-functions")
    environ = {"FAULT_HOLD_SECONDS": str(HOLD), "SAGA_TOKEN": TOKEN}
    stack = Stack(databases(request, "sqlite", directory), Path(directory), ports, environ)
    for service in SERVICES.values():
        stack.launch(service)
    for service in SERVICES.values():
        stack.await_ready(service)
    yield Services(stack, StepFunctions(TOKEN))
    stack.stop_all()


@pytest.fixture(scope="module")
def ran(services: Services) -> Iterator[dict[str, Future[tuple[int, dict[str, Any]]]]]:
    """Every scenario, all at once: most of them wait most of the time."""
    with ThreadPoolExecutor(6) as pool:
        yield {flags: pool.submit(services.run, flags) for flags in CARDS}


Ran = dict[str, "Future[tuple[int, dict[str, Any]]]"]


@pytest.mark.parametrize("flags", CARDS)
def test_every_card_of_break_it_ends_as_it_says(services: Services, ran: Ran, flags: str) -> None:
    code, saga = ran[flags].result()
    card = CARDS[flags]
    assert (saga["status"], code) == (card.expect.status, card.expect.code)
    assert services.rows(saga) == card.expect.rows


def test_a_field_that_is_missing_is_left_out(services: Services) -> None:
    code, saga = services.engine.run(services.signup, {"username": "ada"})
    assert code == 200
    assert [row["address"] for row in services.stack.rows("B") if row["saga_id"] == saga["saga_id"]] == [None]


def test_past_its_deadline_a_saga_turns_back(services: Services) -> None:
    hasty = replace(services.signup, deadline=2)
    code, saga = services.engine.run(hasty, INPUT, "delay=b:2200")
    assert code == 504
    assert saga["error"] == {"step": "B", "kind": "deadline", "status_code": None, "message": "the deadline passed"}
    assert saga["undone"] == ["B", "A"]
    assert services.rows(saga) == NONE


def test_without_the_connections_credentials_nothing_happens(services: Services) -> None:
    from tests.support.step_functions import StepFunctions

    code, saga = StepFunctions().run(services.signup, INPUT)
    assert code == 409
    assert saga["error"]["status_code"] == 401
    assert services.rows(saga) == NONE


def test_a_service_that_dies_after_its_commit_is_asked_again(services: Services, ran: Ran) -> None:
    _all_ended(ran)
    patient = services.with_steps(lambda step: {"retries": 20})
    code, saga = services.engine.run(patient, INPUT, "fail=b:crash-after:1")
    assert code == 200, saga
    assert services.rows(saga) == ONE_EACH


def test_a_service_that_is_killed_in_the_middle_is_waited_for(services: Services, ran: Ran) -> None:
    """Pitfalls 11, 26: B may have stored it; so it is undone once B is back, and A after it."""
    from tests.support import step_functions

    _all_ended(ran)
    called: list[str] = []

    def watched(arguments: Mapping[str, Any]) -> dict[str, Any]:
        called.append(arguments["Headers"]["Idempotency-Key"].partition(":")[2])
        return step_functions.call(arguments, TOKEN)

    with ThreadPoolExecutor(1) as pool:
        engine = step_functions.StepFunctions(invoke=watched)
        running = pool.submit(engine.run, services.signup, INPUT, "delay=b:3000")
        eventually(lambda: "B:action" in called)
        services.stack.kill("service_b")
        eventually(lambda: called.count("B:compensation") > 3)
        services.stack.start("service_b")
        code, saga = running.result(60)
    assert code == 500
    assert saga["undone"] == ["B", "A"]
    assert services.rows(saga) == NONE


def _all_ended(ran: Ran) -> None:
    """So that a killed service disturbs no other scenario."""
    for running in ran.values():
        running.result()


def test_the_command_writes_what_was_executed(services: Services, tmp_path: Path) -> None:
    environ = {f"SERVICE_{name}_URL": services.stack.url_of(process) for name, process in SERVICES.items()}
    command = [sys.executable, "-m", "saga.cli", "export", "--asl", "signup", "--output", str(tmp_path / "it.json")]
    run = subprocess.run(command, cwd=ROOT, env=services.stack.environ | environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "https:// addresses only" in run.stderr
    shipped = load_definition(ROOT / "orchestrator" / "sagas" / "signup.yaml", environ)
    assert json.loads((tmp_path / "it.json").read_text()) == state_machine(shipped)
