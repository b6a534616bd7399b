"""What can run a saga, for one contract: each starts the same saga over the same services, and says how it ended.

The contract is tests/e2e/test_every_engine.py.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import requests
import uuid_utils

from saga.definition_file import load_definition
from tests.support.stack import INPUT, ROOT, SERVICES, Stack

BUILT_IN, CHOREOGRAPHY, TEMPORAL, STEP_FUNCTIONS = ENGINES = (
    "built-in", "choreography", "Temporal", "Step Functions",
)  # fmt: skip
SIGNUP = ROOT / "orchestrator" / "sagas" / "signup.yaml"
HASTY_TIMEOUT = 2  # seconds
HOLD = 12  # seconds: longer than all attempts of one call of the hasty saga

Answer = tuple[int, dict[str, Any]]  # what POST /start answers, and the saga


@dataclass(frozen=True)
class Started:
    """A saga under way; `ended()` waits for its end."""

    saga_id: str
    ended: Callable[[], Answer]


class Engine(Protocol):
    """One way to run a saga."""

    stack: Stack
    drivers: Sequence[str]  # the processes that drive it, each of which may be killed

    def begin(self, flags: str = "", saga: str = "signup") -> Started:
        """Start a saga."""

    def run(self, flags: str = "", saga: str = "signup") -> Answer:
        """Start one, and wait for its end."""

    def undone(self, saga: Mapping[str, Any]) -> list[str]:
        """Return the steps whose compensation was done, in order."""


class OnStack:
    """An engine behind the orchestrator's API."""

    def __init__(self, stack: Stack, drivers: Sequence[str]):
        self.stack, self.drivers = stack, drivers

    def begin(self, flags: str = "", saga: str = "signup") -> Started:
        """Answered as soon as it is durable; its end is asked for under the same key."""
        key = {"Idempotency-Key": str(uuid.uuid4())}
        flags = f"saga={saga}&{flags}"
        saga_id = self.stack.post_start(f"{flags}&wait=0", headers=key).json()["saga_id"]

        def ended() -> Answer:
            self.stack.ended(saga_id, within=60)
            answer = self.stack.post_start(flags, headers=key)
            return answer.status_code, answer.json()

        return Started(saga_id, ended)

    def run(self, flags: str = "", saga: str = "signup") -> Answer:
        """Start a saga and wait as `curl` does; a stalled saga is waited for beyond that."""
        key = {"Idempotency-Key": str(uuid.uuid4())}
        answer = self.stack.post_start(f"saga={saga}&{flags}", headers=key)
        if answer.status_code == 202:
            self.stack.ended(answer.json()["saga_id"], within=60)
            answer = self.stack.post_start(f"saga={saga}&{flags}", headers=key)
        return answer.status_code, answer.json()

    def undone(self, saga: Mapping[str, Any]) -> list[str]:
        """Return the steps whose compensation was done, as the log tells."""
        lines = self.stack.lines(saga["saga_id"])
        return [line["step"] for line in lines if line["event"] == "compensation_done"]


class OnStepFunctions:
    """The exported state machine, in an interpreter that is not ours."""

    drivers = ()

    def __init__(self, stack: Stack, sagas: Path):
        from tests.support.step_functions import StepFunctions  # takes seconds to import

        self.stack = stack
        self._pool = ThreadPoolExecutor(16)
        urls = {f"SERVICE_{name}_URL": stack.url_of(process) for name, process in SERVICES.items()}
        self._sagas = {path.stem: load_definition(path, urls) for path in sagas.glob("*.yaml")}
        self._interpreter = StepFunctions()

    def begin(self, flags: str = "", saga: str = "signup") -> Started:
        """Start an execution in a thread of its own."""
        saga_id = str(uuid_utils.uuid7())
        running = self._pool.submit(self._interpreter.run, self._sagas[saga], INPUT, flags, saga_id)
        return Started(saga_id, lambda: running.result(120))

    def run(self, flags: str = "", saga: str = "signup") -> Answer:
        """Start one, and wait for its end."""
        return self.begin(flags, saga).ended()

    def undone(self, saga: Mapping[str, Any]) -> list[str]:
        """Return the steps whose compensation was done, as the execution's history tells."""
        return list(saga["undone"])


def sagas_in(directory: Path) -> Path:
    """Return a folder with `signup` as it ships, and `hasty`, whose B and C are not waited for long."""
    sagas = directory / "sagas"
    sagas.mkdir()
    shipped = SIGNUP.read_text()
    hasty = re.sub(r"    timeout: .*\n", "", shipped.replace("name: signup", "name: hasty", 1))
    hasty, found = re.subn(r"(  - name: [BC]\b.*\n)", rf"\1    timeout: {HASTY_TIMEOUT}\n", hasty)
    assert found == 2
    (sagas / "signup.yaml").write_text(shipped)
    (sagas / "hasty.yaml").write_text(hasty)
    return sagas


def rows_of(engine: Engine, saga_id: str) -> dict[str, int]:
    """Return how many rows of this saga each service has."""
    return {name: sum(row["saga_id"] == saga_id for row in engine.stack.rows(name)) for name in SERVICES}


def barrier_of(engine: Engine, step: str, saga_id: str) -> str:
    """Return the state of a step's barrier row."""
    records = requests.get(f"{engine.stack.url_of(SERVICES[step])}/records/{saga_id}", timeout=10).json()
    return str(records["barrier"][0]["state"]) if records["barrier"] else "no row"


def kill_and_start(engine: Engine, process: str) -> None:
    """kill -9, and what a supervisor does then."""
    engine.stack.kill(process)
    engine.stack.start(process)
