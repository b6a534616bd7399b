"""`make chaos`: real processes, injected faults, and kill -9, SIGSTOP and restarts of all of them, the database too.

With MODE=choreography the broker as well: then every outbox must be drained in the end. What was parked meanwhile is
replayed, as an operator would, until nothing is. With ENGINE=temporal its workers and its server, whose state is in a
file: then no workflow may be left open in the end.

At the end the services' own tables are held against what the orchestrator says of every saga. Exit code 1 unless
half-done, undone twice, lost and the like are all 0. The seed decides what is injected and what is killed when; what
the machine makes of it differs from run to run.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import requests
from sqlalchemy import create_engine, text
from temporalio.client import Client
from temporalio.service import RPCError

from saga.definition import CHOREOGRAPHY, ORCHESTRATION
from tests.support import mysql_server
from tests.support.mysql_server import mysql_schemas
from tests.support.stack import PROCESSES, ROOT, SERVICES, Stack, eventually, free_port, own_ports
from tests.support.temporal_server import TemporalServer

CLIENTS = 6
FAULTS = [
    "", "", "", "fail=a", "fail=b", "fail=c", "fail=a:after:1", "fail=b:after", "fail=b:after:1", "fail=c:after:1",
    "fail=c:before:2", "fail=b:refuse", "fail=c:refuse", "fail=b:garbage:1", "fail=c:lost:1", "fail=c:lost",
    "fail=c:late", "fail=b:late", "fail=b:crash:1", "fail=a:crash-after:1", "fail=c:crash-after:1",
    "fail=b&fail=a:undo:2", "fail=c&fail=b:undo:4", "fail=orchestrator:before-B", "fail=orchestrator:after-C",
    "fail=c&fail=orchestrator:after-undo-B", "delay=b:300", "delay=c:700",
]  # fmt: skip


ZEROS = ("half-done", "undone twice", "lost", "deaf to SIGTERM", "not published", "left parked", "workflows left open")
ENGINES = BUILTIN, TEMPORAL = "builtin", "temporal"

Database = mysql_server.Process | mysql_server.Container


class Chaos:
    """A stack, the clients that start sagas on it, and the enemy that kills its processes."""

    def __init__(
        self,
        stack: Stack,
        seed: int,
        orchestrators: list[str],
        database: Database | None,
        temporal: TemporalServer | None = None,
    ):
        self.stack = stack
        self.random = random.Random(seed)
        self.orchestrators = orchestrators
        self.broker = [name for name in stack.processes if name == "nats"]
        servers = {"database": database, "temporal": temporal}
        self.servers = {name: server for name, server in servers.items() if server}
        self.temporal = temporal
        self.over = threading.Event()  # no more sagas, no more harm
        self.settled = threading.Event()  # nothing more is expected to die
        self.started: dict[str, str | None] = {}  # idempotency key: the saga's id, where the answer arrived
        self.count: collections.Counter[str] = collections.Counter()
        self._lock = threading.Lock()

    def client(self, number: int) -> None:
        """Start sagas with mixed faults, one after another; what is not answered is asked for again at the end."""
        mine = random.Random(f"{self.random.random()} {number}")
        for turn in itertools.count():
            if self.over.is_set():
                return
            key = f"chaos-{number}-{turn}"
            flags = mine.choice(FAULTS)
            url = self.stack.url_of(mine.choice(self.orchestrators))
            body = {"username": key, "address": "x", "payment": "y"}
            with self._lock:
                self.started[key] = None
            try:
                answer = requests.post(
                    f"{url}/start?mode={self.stack.mode}&wait=5&{flags}",
                    json=body,
                    headers={"Idempotency-Key": key},
                    timeout=20,
                )
                self.count[f"HTTP {answer.status_code}"] += 1
                if "saga_id" in answer.json():
                    self.started[key] = answer.json()["saga_id"]
                else:
                    self.over.wait(0.3)
            except (requests.RequestException, ValueError):
                self.count["no answer"] += 1
                self.over.wait(0.3)

    def enemy(self) -> None:
        """Kill, pause and restart processes, one at a time."""
        victims = [*PROCESSES[:3], *self.orchestrators, *self.broker, *self.stack.workers, *self.servers]
        while not self.over.wait(self.random.uniform(0.5, 2.5)):
            victim = self.random.choice(victims)
            deed = self.random.choice(["kill -9", "kill -9", "SIGSTOP", "SIGTERM"])
            self.count[f"{deed} {victim}"] += 1
            self.count["kills"] += 1
            if victim in self.servers:
                self._harm(self.servers[victim], deed)
            elif deed == "SIGSTOP":
                self._pause(self.stack.running[victim].pid)
            else:
                self._end(victim, deed)
                self.over.wait(self.random.choice([0, 0, 1.5]))
                self.stack.launch(victim)

    def _end(self, victim: str, deed: str) -> None:
        process = self.stack.running.pop(victim)
        process.send_signal(signal.SIGKILL if deed == "kill -9" else signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            self.count["deaf"] += 1
            say(f"DEAF {victim} did not end within 30 s of a {deed}")
            process.kill()
            process.wait()

    def _harm(self, server: Database | TemporalServer, deed: str) -> None:
        if deed == "SIGSTOP":
            server.send(signal.SIGSTOP)
            self.over.wait(self.random.uniform(1, 5))
            server.send(signal.SIGCONT)
        else:
            server.send(signal.SIGKILL if deed == "kill -9" else signal.SIGTERM)
            server.restart()

    def _pause(self, pid: int) -> None:
        """Stand still past a lease, with all its children, then go on."""
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            for process in family:
                process.suspend()
            self.over.wait(self.random.uniform(1, 5))
            for process in family:
                process.resume()
        except psutil.NoSuchProcess:
            self.count["it was gone"] += 1

    def watch(self) -> None:
        """Start again what has died by itself, as `make up` and Docker do: an injected crash."""
        while not self.settled.wait(0.2):
            for name, process in list(self.stack.running.items()):
                if process.poll() is not None:
                    self.stack.launch(name)

    def run(self, seconds: float) -> None:
        """Everything at once, for `seconds`, with a line of progress every five."""
        threading.Thread(target=self.watch, daemon=True).start()
        threads = [threading.Thread(target=self.client, args=(number,)) for number in range(CLIENTS)]
        threads.append(threading.Thread(target=self.enemy))
        for thread in threads:
            thread.start()
        began = time.monotonic()
        while (gone := time.monotonic() - began) < seconds:
            say(f"{gone:5.0f}/{seconds:.0f} s  {len(self.started)} sagas  {self.count['kills']} kills")
            time.sleep(min(5, max(0.1, seconds - gone)))
        self.over.set()
        for thread in threads:
            thread.join()

    def settle(self, within: float = 240) -> list[dict[str, Any]]:
        """Start all processes again, and return every saga that was asked for once it has ended."""
        for name in [*self.broker, *PROCESSES[:3], *self.orchestrators, *self.stack.workers]:
            if name not in self.stack.running or self.stack.running[name].poll() is not None:
                self.stack.launch(name)
            self.stack.await_ready(name)
        deadline = time.monotonic() + within
        open_keys = set(self.started)
        ended: dict[str, dict[str, Any]] = {}
        while open_keys and time.monotonic() < deadline:
            for key in list(open_keys):
                try:
                    found = self.stack.get(f"/sagas?q={key}").json()["sagas"]
                except (requests.RequestException, KeyError):
                    time.sleep(0.5)  # it is starting again: an injected crash may still be to come
                    continue
                if not found:
                    if self.started[key] is None:
                        open_keys.discard(key)  # its request never arrived
                        self.count["never started"] += 1
                    continue
                if found[0]["status"] in ("COMPLETED", "COMPENSATED"):
                    ended[key] = found[0]
                    open_keys.discard(key)
            say(f"settling: {len(open_keys)} sagas are still open")
            self._replay()
            time.sleep(0.5 if open_keys else 0)
        while self.broker and self._unfinished() and time.monotonic() < deadline:
            self._replay()
            time.sleep(0.5)
        for key in sorted(open_keys)[:10]:
            say(f"NOT ENDED {key} {self.started[key]}")
        self.settled.set()
        self.count["lost"] = len(open_keys)
        return list(ended.values())

    def _open_workflows(self, within: float = 30) -> int:
        """Return how many sagas Temporal has that have not ended there."""
        assert self.temporal
        address = self.temporal.address

        async def count() -> int:
            return (await (await Client.connect(address)).count_workflows("ExecutionStatus = 'Running'")).count

        def look() -> bool:  # what is counted may be a second old, and a server that was killed just now, away
            with suppress(RPCError, RuntimeError):
                found.append(asyncio.run(count()))
            return bool(found) and found[-1] == 0

        found: list[int] = []
        with suppress(AssertionError):
            eventually(look, within, every=0.5)
        return found[-1] if found else -1

    def _replay(self) -> None:
        """Replay what is parked, as an operator would."""
        for letter in self._letters():
            say(f"PARKED {letter['subject']} at {letter['service']}: {letter['message']}")
            self.count["replayed"] += 1
            with suppress(requests.RequestException):  # a crash may take the answer: it is asked again
                requests.post(f"{self.stack.url}/dead-letters/{letter['letter']}/replay", timeout=20)

    def _letters(self) -> list[dict[str, Any]]:
        if not self.broker:
            return []
        try:
            return list(self.stack.get("/dead-letters?limit=500").json()["dead_letters"])
        except (requests.RequestException, KeyError):
            return []

    def _unfinished(self) -> int:
        """Events that are not published."""
        return sum(
            self._count(name, "SELECT COUNT(*) FROM saga_outbox WHERE published_at IS NULL") for name in PROCESSES
        )

    def judge(self, sagas: list[dict[str, Any]]) -> bool:
        """Hold the services' tables against every saga, and print the scoreboard."""
        rows = {name: collections.Counter(row["saga_id"] for row in self.stack.rows(name)) for name in SERVICES}
        known = {saga["saga_id"] for saga in sagas}
        half_done = twice = 0
        for saga in sagas:
            found = [rows[name][saga["saga_id"]] for name in SERVICES]
            twice += max(found) > 1
            expected = 1 if saga["status"] == "COMPLETED" else 0
            if any(count != expected for count in found):
                half_done += 1
                say(f"HALF DONE {saga['saga_id']} {saga['status']} {dict(zip(SERVICES, found, strict=True))}")
            undone = [
                line["step"] for line in self.stack.lines(saga["saga_id"]) if line["event"] == "compensation_done"
            ]
            order = sorted(set(undone), reverse=True)
            self.count["compensations"] += len(undone)
            if undone != order:
                self.count["undone twice"] += 1
                say(f"UNDONE TWICE OR OUT OF ORDER {saga['saga_id']} {undone}")
        orphans = {saga_id for name in SERVICES for saga_id in rows[name]} - known
        calls = self._log("SELECT COUNT(*) FROM saga_log WHERE event = 'attempt'")
        retries = self._log("SELECT COUNT(*) FROM saga_log WHERE event = 'attempt' AND attempt > 1")
        takeovers = self._log("SELECT COUNT(*) FROM saga_log WHERE event = 'claimed'")
        statuses = collections.Counter(saga["status"] for saga in sagas)
        board: dict[str, int] = {
            "sagas": len(sagas), **statuses, "kills and pauses": self.count["kills"], "calls": calls,
            "retries": retries, "take-overs": takeovers, "compensations": self.count["compensations"],
            "half-done": half_done + len(orphans), "undone twice": self.count["undone twice"] + twice,
            "lost": self.count["lost"], "deaf to SIGTERM": self.count["deaf"],
        }  # fmt: skip
        if self.broker:
            board["events"] = sum(self._count(name, "SELECT COUNT(*) FROM saga_outbox") for name in PROCESSES)
            board["parked, replayed"] = self.count["replayed"]
            board["not published"], board["left parked"] = self._unfinished(), len(self._letters())
        if self.temporal:
            board["workflows left open"] = self._open_workflows()
        sys.stdout.write("\n" + "\n".join(f"{name:>18}  {value}" for name, value in board.items()) + "\n")
        return bool(sagas) and not any(board.get(name) for name in ZEROS)

    def _log(self, query: str) -> int:
        return self._count("orchestrator", query)

    def _count(self, process: str, query: str) -> int:
        engine = create_engine(self.stack.urls[process])
        try:
            with engine.connect() as connection:
                return int(connection.execute(text(query)).scalar_one())
        finally:
            engine.dispose()


def say(line: str) -> None:
    """Print a line of progress."""
    sys.stderr.write(f"chaos: {line}\n")


def databases(kind: str, directory: Path, server: Database | None) -> dict[str, str]:
    """Return the URL of each process's empty database."""
    if server is None:
        return {name: f"sqlite:///{directory / name}.db" for name in PROCESSES}
    return mysql_schemas(server.url, f"chaos{os.getpid()}_")


def main() -> int:
    """Parse, run, judge."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--db", choices=["sqlite", "mysql"], default="sqlite")
    parser.add_argument("--mode", choices=[ORCHESTRATION, CHOREOGRAPHY], default=ORCHESTRATION)
    parser.add_argument("--engine", choices=ENGINES, default=BUILTIN)
    parser.add_argument("--orchestrators", type=int, default=1)
    options = parser.parse_args()
    if options.mode == CHOREOGRAPHY and options.engine == TEMPORAL:
        parser.error("a choreographed saga has no engine: choose MODE=choreography or ENGINE=temporal")
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    say(f"SEED={seed} MODE={options.mode} DB={options.db}")
    say(f"ENGINE={options.engine} ORCHESTRATORS={options.orchestrators} SECONDS={options.seconds:g}")
    directory = Path(tempfile.mkdtemp(prefix="saga-chaos-"))
    (directory / "sagas").mkdir()
    signup = (ROOT / "orchestrator" / "sagas" / "signup.yaml").read_text()
    quick = signup.replace("    timeout: 5 ", "    timeout: 1 ").replace("pivot: true", "pivot: true\n    timeout: 1")
    (directory / "sagas" / "signup.yaml").write_text(quick)
    environ = {
        "SAGAS_DIR": str(directory / "sagas"), "FAULT_HOLD_SECONDS": "5", "LEASE_SECONDS": "3",
        "STALL_BASE_SECONDS": "0.3", "STALL_MAX_SECONDS": "5",
    }  # fmt: skip
    server = mysql_server.private([]) if options.db == "mysql" else None
    stack = temporal = None
    try:
        urls = databases(options.db, directory, server)
        names = ["orchestrator", *(f"orchestrator_{number}" for number in range(2, options.orchestrators + 1))]
        ports: Iterator[int] = own_ports()
        broker = options.mode == CHOREOGRAPHY
        temporal = TemporalServer(free_port(ports)) if options.engine == TEMPORAL else None
        address, workers = (temporal.address, ["worker_2"]) if temporal else (None, [])
        stack = Stack(urls.__getitem__, directory, ports, environ, names[1:], broker, options.mode, address, workers)
        stack.start_all()
        chaos = Chaos(stack, seed, names, server, temporal)
        chaos.run(options.seconds)
        good = chaos.judge(chaos.settle())
        say(f"{'all is well' if good else 'BROKEN'}; SEED={seed}; the processes' output is in {directory}")
        return 0 if good else 1
    finally:
        if stack:
            stack.stop_all()
        for each in (temporal, server):
            if each:
                each.close()


if __name__ == "__main__":
    sys.exit(main())
