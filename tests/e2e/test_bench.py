"""The bench runs, and what it says follows from what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.figures import Figure, ratio
from bench.load import Job, Load, Run
from bench.report import table
from tests.support.stack import ROOT


def run(rate: float, *latencies: float) -> Run:
    return Run(int(rate), 1.0, latencies, 0.0)


def test_a_ratio_is_the_median_of_its_rounds() -> None:
    class Stage:
        kind = "sqlite"

    this, that = [run(50), run(90), run(10)], [run(100), run(100), run(100)]
    found = ratio("sagas", Stage(), "≥ 0.75", this, that, lambda made: made.rate)  # type: ignore[arg-type]
    assert found.value == 0.5
    assert list(found.rounds) == [0.5, 0.9, 0.1]


@pytest.mark.parametrize(
    ("value", "must", "reached"), [(0.75, "≥ 0.75", True), (0.7, "≥ 0.75", False), (2.1, "≤ 2", False), (9, "", None)]
)
def test_a_figure_that_misses_its_bound_says_so(value: float, must: str, reached: bool | None) -> None:
    figure = Figure("x", "sqlite", value, must)
    assert figure.reached is reached
    assert ("MISSED" in table([figure], {})) is (reached is False)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("asked", "figures"), [([], 14), (["--only", "choreography"], 10)])
def test_it_runs_and_saves_what_it_prints(tmp_path: Path, asked: list[str], figures: int) -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--db", "sqlite", "--out", str(tmp_path), *asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stderr
    saved = json.loads(next(tmp_path.glob("*.json")).read_text())
    names = [figure["name"] for figure in saved["figures"]]
    assert len(names) == len(set(names)) == figures
    for name in names:
        assert f"| {name} | sqlite |" in done.stdout
    for unfinished in [figure for figure in saved["figures"] if "unfinished" in figure["name"]]:
        assert set(unfinished["notes"]["states"]) <= {"completed", "compensated"}, "one that was left was not driven"


def test_an_answer_that_was_not_expected_ends_the_measurement(tmp_path: Path) -> None:
    load = Load()
    try:
        with pytest.raises(RuntimeError, match="floor"):
            load.run(Job("floor", ["http://127.0.0.1:9"] * 3, 0.1))
    finally:
        load.close()
