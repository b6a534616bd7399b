"""`python -m bench`: measure, print one table, save it and a picture of it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from bench import figures, report
from bench.figures import Figure, say
from bench.stage import Stage, hardware, stage

RESULTS = Path(__file__).parent / "results"
KINDS = ("mysql", "sqlite")
UNASKED = ("growth", "choreography", "temporal")  # only when it is asked for: for docs/performance.md


def parts(long: bool, quick: bool) -> dict[str, tuple[tuple[str, ...], Callable[[Stage], list[Figure]]]]:
    """Return what can be measured: on which databases, and how."""
    rounds, seconds = (1, 0.15) if quick else (4, 2.5)
    ended = 300 if quick else 1_000_000
    left = 20 if quick else 10_000
    many = 100_000 if long else 60 if quick else 10_000
    return {
        "sagas": (KINDS, lambda on: figures.sagas(on, rounds, seconds)),
        "choreography": (KINDS, lambda on: figures.choreography(on, min(rounds, 3), seconds)),
        "temporal": (KINDS, lambda on: figures.temporal(on, min(rounds, 3), seconds)),
        "barrier": (KINDS, lambda on: figures.barrier(on, min(rounds, 3), seconds)),
        "idle": (KINDS, lambda on: figures.idle(on, 1 if quick else 10)),
        "ended": (("sqlite",), lambda on: figures.many_ended(on, min(rounds, 3), seconds, ended)),
        "unfinished": (("sqlite",), lambda on: figures.many_unfinished(on, left, seconds)),
        "memory": (("sqlite",), lambda on: figures.memory(on, many, seconds)),
        "growth": (KINDS, lambda on: figures.growth(on, min(rounds, 3), seconds)),
    }


def main() -> int:
    """Return the exit code: 0 once measured, whatever came of it."""
    names = list(parts(False, False))
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    only = f"measure only this, may be given again (without it: all but {', '.join(UNASKED)})"
    parser.add_argument("--only", action="append", choices=names, help=only)
    parser.add_argument("--db", action="append", choices=KINDS, help="only on this database")
    parser.add_argument("--long", action="store_true", help="memory over 100,000 sagas, which takes minutes more")
    parser.add_argument("--quick", action="store_true", help="one short round of each: to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are saved (%(default)s)")
    options = parser.parse_args()
    began = time.monotonic()
    every = parts(options.long, options.quick)
    chosen = {name: every[name] for name in options.only or [name for name in names if name not in UNASKED]}
    found: list[Figure] = []
    for kind in options.db or KINDS:
        wanted = {name: measure for name, (kinds, measure) in chosen.items() if kind in kinds}
        if not wanted:
            continue
        say(f"{kind}: starting the stack")
        with stage(kind) as on:
            for name, measure in wanted.items():
                say(f"{kind}: {name} ({time.monotonic() - began:.0f} s so far)")
                found += measure(on)
    machine = hardware()
    stamp = datetime.now(UTC)
    options.out.mkdir(parents=True, exist_ok=True)
    results = {
        "at": stamp.isoformat(timespec="seconds"),
        "machine": machine,
        "took_seconds": round(time.monotonic() - began),
        "figures": [figure.to_json() for figure in found],
    }
    path = options.out / f"{stamp:%Y-%m-%dT%H%M%S}.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    report.draw(found, path.with_suffix(".svg"))
    sys.stdout.write(report.table(found, machine))
    say(f"took {time.monotonic() - began:.0f} s; saved in {path} and {path.with_suffix('.svg').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
