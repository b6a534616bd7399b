"""The figures: each a ratio of two things measured in turns in one run, or a quantity with its bound."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench import fill
from bench.load import Job, Run
from bench.stage import HASTY, STEPS, Stage
from saga.runtime.due_sagas import DueSagas
from saga.views.backlog import count_states
from tests.support.stack import SERVICES, eventually

CLIENTS = 16
SETTLE = 1.0  # seconds of warming up before a pair is measured


@dataclass(frozen=True)
class Figure:
    """One line of the table. `rounds` are the single measurements that `value` is the median of."""

    name: str
    database: str
    value: float
    must: str  # "≥ 0.75", "≤ 2", or "" where nothing is promised
    unit: str = ""
    rounds: Sequence[float] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool | None:
        """Whether the value keeps its bound; None where nothing is promised."""
        if not self.must:
            return None
        sign, bound = self.must.split()[:2]
        return self.value >= float(bound) if sign == "≥" else self.value <= float(bound)

    def to_json(self) -> dict[str, Any]:
        """Return the figure as the results' file has it."""
        return {**asdict(self), "reached": self.reached}


def say(text: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"bench: {text}\n")
    sys.stderr.flush()


def in_turns(stage: Stage, jobs: dict[str, Job], rounds: int) -> dict[str, list[Run]]:
    """Run every job once a round, one after the other, after a short warm-up."""
    runs: dict[str, list[Run]] = {name: [] for name in jobs}
    for job in jobs.values():
        stage.load.run(replace(job, seconds=min(SETTLE, job.seconds)))
    for number in range(rounds):
        for name, job in jobs.items():
            run = stage.load.run(job)
            runs[name].append(run)
            say(f"{stage.kind}: round {number + 1} of {rounds}: {name}: {run.rate:.0f}/s, p50 {p50(run) * 1000:.2f} ms")
    return runs


def p50(run: Run) -> float:
    """Return the median latency of a run, in seconds."""
    return statistics.median(run.latencies)


def ratio(
    name: str, stage: Stage, must: str, of: Sequence[Run], to: Sequence[Run], what: Callable[[Run], float]
) -> Figure:
    """Return the median of `what` round by round: this ÷ that."""
    rounds = [what(this) / what(that) for this, that in zip(of, to, strict=True)]
    notes = {"this": statistics.median(map(what, of)), "that": statistics.median(map(what, to))}
    return Figure(name, stage.kind, statistics.median(rounds), must, "×", rounds, notes)


def rate(run: Run) -> float:
    """Return how many sagas or calls a run did per second."""
    return run.rate


def sagas(stage: Stage, rounds: int, seconds: float) -> list[Figure]:
    """Measure sagas through the orchestrator ÷ the same three calls by the client itself."""
    found: list[Figure] = []
    for fails in (False, True):
        case = "C always fails" if fails else "all succeed"
        start = Job("start", [stage.stack.url], seconds, flags=f"saga={HASTY}&fail=c" if fails else "", fails=fails)
        floor = Job("floor", stage.services, seconds, fails=fails)
        many = {"floor": replace(floor, clients=CLIENTS), "sagas": replace(start, clients=CLIENTS)}
        before = stage.cpu("orchestrator")
        runs = in_turns(stage, many, rounds)
        used = stage.cpu("orchestrator") - before
        throughput = ratio(
            f"sagas/s, {CLIENTS} clients ÷ FLOOR, {case}", stage, "≥ 0.80" if fails else "≥ 0.75",
            runs["sagas"], runs["floor"], rate,
        )  # fmt: skip
        alone = in_turns(stage, {"floor": floor, "sagas": start}, rounds)
        latency = ratio(
            f"p50 latency, 1 client ÷ FLOOR, {case}", stage, "≤ 1.4", alone["sagas"], alone["floor"], p50
        )  # fmt: skip
        found += [throughput, latency]
        if not fails:
            warm = min(SETTLE, seconds) * runs["sagas"][0].rate
            milliseconds = 1000 * used / (sum(run.done for run in runs["sagas"]) + warm)
            found.append(Figure(f"orchestrator CPU a saga, {CLIENTS} clients", stage.kind, milliseconds, "≤ 2", "ms"))
    return found


def choreography(stage: Stage, rounds: int, seconds: float) -> list[Figure]:
    """Measure the same saga choreographed ÷ driven by the orchestrator, and ÷ the same three calls."""
    found: list[Figure] = []
    for fails in (False, True):
        case = "C always fails" if fails else "all succeed"
        flags = f"saga={HASTY}&fail=c" if fails else ""
        driven = Job("start", [stage.stack.url], seconds, flags=flags, fails=fails)
        jobs = {
            "floor": Job("floor", stage.services, seconds, fails=fails),
            "orchestrated": driven,
            "choreographed": replace(driven, flags=f"{flags}&mode=choreography"),
        }
        many = in_turns(stage, {name: replace(job, clients=CLIENTS) for name, job in jobs.items()}, rounds)
        alone = in_turns(stage, jobs, rounds)
        for to in ("orchestrated", "floor"):
            than = to.upper() if to == "floor" else to
            found += [
                ratio(f"choreographed sagas/s, {CLIENTS} clients ÷ {than}, {case}", stage, "", many["choreographed"],
                      many[to], rate),
                ratio(f"choreographed p50, 1 client ÷ {than}, {case}", stage, "", alone["choreographed"],
                      alone[to], p50),
            ]  # fmt: skip
        before = stage.published()
        run = stage.load.run(jobs["choreographed"])
        events = (stage.published() - before) / (run.done + 1)  # with the one that comes first, and is not counted
        found.append(Figure(f"events a choreographed saga, {case}", stage.kind, events, "", "events"))
    return found


def temporal(stage: Stage, rounds: int, seconds: float) -> list[Figure]:
    """Measure the same saga driven by a worker on Temporal's development server ÷ by the built-in engine."""
    url = stage.on_temporal()
    found: list[Figure] = []
    for fails in (False, True):
        case = "C always fails" if fails else "all succeed"
        built_in = Job("start", [stage.stack.url], seconds, flags=f"saga={HASTY}&fail=c" if fails else "", fails=fails)
        jobs = {"built-in": built_in, "Temporal": replace(built_in, urls=[url])}
        processes = ["worker", "orchestrator_on_temporal", "temporal"]
        before = stage.cpu(*processes)
        many = in_turns(stage, {name: replace(job, clients=CLIENTS) for name, job in jobs.items()}, rounds)
        used = stage.cpu(*processes) - before
        alone = in_turns(stage, jobs, rounds)
        on_it = many["Temporal"]
        found += [
            ratio(
                f"sagas/s on Temporal, {CLIENTS} clients ÷ built-in, {case}", stage, "", on_it, many["built-in"], rate
            ),
            ratio(
                f"p50 on Temporal, 1 client ÷ built-in, {case}", stage, "", alone["Temporal"], alone["built-in"], p50
            ),
        ]
        if not fails:
            done = sum(run.done for run in on_it) + min(SETTLE, seconds) * on_it[0].rate
            name = "CPU a saga of worker, orchestrator and Temporal's server"
            found.append(Figure(name, stage.kind, 1000 * used / done, "", "ms"))
    return found


def barrier(stage: Stage, rounds: int, seconds: float) -> list[Figure]:
    """Measure a participant ÷ the same without its barrier, and all three ÷ services that do nothing but insert."""
    unguarded = stage.neighbour("unguarded", "service_a", SERVICE_A_DB_URL=stage.stack.urls["service_a"])
    own = {
        "unguarded": Job("invoke", [unguarded], seconds, CLIENTS),
        "guarded": Job("invoke", stage.services[:1], seconds, CLIENTS),
    }
    runs = in_turns(stage, own, rounds)
    name = "calls/s of a participant ÷ without its barrier"
    cost = ratio(name, stage, "≥ 0.92", runs["guarded"], runs["unguarded"], rate)
    bare = [
        stage.neighbour("bare", process, SERVICE=name, DB_URL=stage.stack.urls[process])
        for name, process in SERVICES.items()
    ]
    both = {
        "bare": Job("floor", bare, seconds, CLIENTS),
        "floor": Job("floor", stage.services, seconds, CLIENTS),
    }
    runs = in_turns(stage, both, rounds)
    floor = ratio("FLOOR ÷ bare Flask and driver", stage, "≥ 0.85", runs["floor"], runs["bare"], rate)
    return [cost, floor]


def idle(stage: Stage, seconds: float) -> list[Figure]:
    """Measure what the stack uses while nobody asks anything of it."""
    processes = ["orchestrator", *SERVICES.values()]
    time.sleep(2)
    before = stage.cpu(*processes)
    say(f"{stage.kind}: idle for {seconds:.0f} s")
    time.sleep(seconds)
    used = stage.cpu(*processes) - before
    return [Figure("idle CPU of the whole stack", stage.kind, 100 * used / seconds, "≤ 1", "% of a core")]


def many_ended(stage: Stage, rounds: int, seconds: float, number: int) -> list[Figure]:
    """Measure with so many ended sagas in the log ÷ with none, on two orchestrators, each with a log of its own."""
    full = stage.another_orchestrator("orchestrator2", own_log=True)
    say(f"{stage.kind}: filling a log with {number:,} ended sagas")
    began = time.monotonic()
    fill.ended(stage.log("orchestrator2"), stage, number, lambda have: say(f"{stage.kind}: {have:,} sagas"))
    say(f"{stage.kind}: filled in {time.monotonic() - began:.0f} s")
    jobs = {
        "none": Job("start", [stage.stack.url], seconds, CLIENTS),
        f"{number:,}": Job("start", [full], seconds, CLIENTS),
    }
    runs = in_turns(stage, jobs, rounds)
    case = f"with {number:,} ended sagas"
    found = [ratio(f"sagas/s {case} ÷ with none", stage, "≥ 0.95", runs[f"{number:,}"], runs["none"], rate)]
    found[0].notes["bytes_per_saga"] = round(stage.log_size("orchestrator2") / number)
    for path, what in (("/sagas", "GET /sagas"), ("/", "the dashboard's list")):
        run = stage.load.run(Job("get", [full], min(seconds, 2), flags=path))
        found.append(Figure(f"{what} {case}", stage.kind, 1000 * p50(run), "≤ 20", "ms"))
    log, took = stage.log("orchestrator2"), []
    for _ in range(20):
        began = time.perf_counter()
        DueSagas(log).due(time.time(), 32)
        took.append(1000 * (time.perf_counter() - began))
    found.append(Figure(f"recovery's look {case}", stage.kind, statistics.median(took), "≤ 20", "ms"))
    return found


def many_unfinished(stage: Stage, number: int, seconds: float) -> list[Figure]:
    """Measure how fast so many sagas of a dead process are driven, and how new sagas fare meanwhile."""
    clients = 4
    usual = stage.load.run(Job("start", [stage.stack.url], 2 * seconds, clients))
    stage.stack.stop("orchestrator")
    log = stage.log()
    fill.unfinished(log, stage, number)
    stage.stack.start("orchestrator")
    began = time.monotonic()
    say(f"{stage.kind}: {number:,} unfinished sagas at start")
    latencies: list[float] = []
    while DueSagas(log).due(time.time() + 3600, 1):
        if time.monotonic() - began > 300:
            raise RuntimeError("the unfinished sagas are not driven")
        latencies += stage.load.run(Job("start", [stage.stack.url], seconds, clients)).latencies
    took = time.monotonic() - began
    eventually(lambda: not DueSagas(log).due(time.time() + 3600, 1))
    p99 = statistics.quantiles(latencies, n=100)[98] / statistics.quantiles(usual.latencies, n=100)[98]
    states = {str(state): count for state, count in count_states(log, 10**7).items() if count}
    return [
        Figure(
            f"new sagas' p99 while {number:,} unfinished ones are driven ÷ usual", stage.kind, p99, "≤ 3", "×",
            notes={"recovered_per_second": number / took, "states": states, "new": len(latencies)},
        )
    ]  # fmt: skip


def memory(stage: Stage, number: int, seconds: float) -> list[Figure]:
    """Measure the orchestrator's memory after so many sagas ÷ after a tenth of them."""
    done, first, seen = 0, 0.0, []
    while done < number:
        run = stage.load.run(Job("start", [stage.stack.url], 2 * seconds, CLIENTS))
        done += run.done
        seen.append((done, round(stage.memory("orchestrator"), 1)))
        first = first or (seen[-1][1] if done >= number / 10 else 0.0)
        say(f"{stage.kind}: {done:,} sagas, {seen[-1][1]:.0f} MiB")
    last = seen[-1][1]
    grown = Figure(
        f"orchestrator's memory after {number:,} sagas ÷ after a tenth", stage.kind, last / first, "≤ 1.1", "×",
        notes={"mib": seen},
    )  # fmt: skip
    return [grown]


PAYLOADS = (100, 1_000, 10_000, 100_000)  # bytes
ORCHESTRATORS = (1, 2, 3)


def growth(stage: Stage, rounds: int, seconds: float) -> list[Figure]:
    """Measure how sagas/s fall with the number of steps and the payload, and what more orchestrators add."""
    url, name = stage.stack.url, "ada"
    jobs = {
        f"{steps} steps": Job("start", [url], seconds, CLIENTS, f"saga=steps-{steps}", input={"username": name})
        for steps in STEPS
    }
    for size in PAYLOADS:
        body = {"username": name, "note": "x" * size}
        jobs[f"{size:,} bytes in each of 4 calls"] = Job("start", [url], seconds, CLIENTS, "saga=steps-4", input=body)
    urls = [url]
    for number in ORCHESTRATORS:
        if number > len(urls):
            urls.append(stage.another_orchestrator(f"orchestrator{number + 1}", own_log=False))
        jobs[f"{number} orchestrators, 3 services"] = Job("start", list(urls), seconds, 3 * CLIENTS)
    runs = in_turns(stage, jobs, rounds)
    return [
        Figure(
            case, stage.kind, statistics.median(map(rate, made)), "", "sagas/s", [run.rate for run in made],
            {"p50_ms": 1000 * statistics.median(map(p50, made))},
        )
        for case, made in runs.items()
    ]  # fmt: skip
