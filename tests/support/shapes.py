"""Sagas of any shape for Hypothesis, and participants that answer whatever it draws."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from saga.definition import SagaDefinition, Step
from saga.http_client.transport import Failure, HttpAnswer
from saga.payload import compact

MOMENTS = st.floats(0.0, 3.0, allow_nan=False)  # seconds, with more digits than a database keeps
RESULTS = st.dictionaries(st.sampled_from(["id", "pin", "ü"]), st.integers() | st.text(max_size=5) | st.floats(0, 1))


@st.composite
def definitions(draw: st.DrawFn) -> SagaDefinition:
    """Draw a definition of one to six steps, with or without a pivot, some without a compensation."""
    count = draw(st.integers(1, 6))
    pivot = draw(st.none() | st.integers(0, count - 1))
    steps = []
    for index in range(count):
        name = "ABCDEF"[index]
        undo = f"http://{name}/undo" if (pivot is None or index <= pivot) and draw(st.booleans()) else None
        steps.append(Step(name, f"http://{name}/do", undo, send=("pin",), retries=1, pivot=index == pivot))
    return SagaDefinition("any", tuple(steps), secret=("pin",), deadline=draw(st.none() | st.just(20.0)))


ANSWERS = st.sampled_from(
    [
        *[(200, None)] * 4,
        (409, None),
        (500, None),
        (503, None),
        (None, Failure.TIMED_OUT),
        (None, Failure.NOT_CONNECTED),
    ]
)


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, now: float = 1_800_000_000.1234567):
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """As time.sleep."""
        self.now += seconds


class Anybody:
    """Every participant: it answers as is drawn, after as long as is drawn."""

    def __init__(self, data: st.DataObject, clock: Clock):
        self._data = data
        self._clock = clock

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
        seconds = self._data.draw(MOMENTS)
        self._clock.now += seconds
        status, failure = self._data.draw(ANSWERS)
        if status is None:
            return HttpAnswer(seconds * 1000, failure=failure, message="no answer")
        answer = self._data.draw(RESULTS) if status == 200 else {"error": "no"}
        return HttpAnswer(seconds * 1000, status, {}, compact(answer).encode())
