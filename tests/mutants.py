"""The score of `mutmut run`: of how many changed lines do the tests notice the change? `make mutants` ends with it.

Exits with 1 below 95 %. docs/mutants.md lists what survives, and why.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict

WANTED = 0.95
NOTICED = ("killed", "timeout", "suspicious", "segfault", "caught by type check")


def main() -> None:
    """Print the score of each module and of all."""
    results = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"], capture_output=True, text=True, check=True
    )
    modules: dict[str, Counter[str]] = defaultdict(Counter)
    for line in results.stdout.splitlines():
        name, _, status = line.strip().partition(": ")
        if status:
            modules[".".join(name.split(".")[:2])][status] += 1
    for module, statuses in modules.items():
        sys.stdout.write(f"{module:14} {_score(statuses):6.1%}  {dict(statuses)}\n")
    score = _score(sum(modules.values(), Counter()))
    sys.stdout.write(f"{'all':14} {score:6.1%}\n")
    sys.exit(0 if score >= WANTED else f"less than {WANTED:.0%}: `mutmut results`, then `mutmut show <name>`")


def _score(statuses: Counter[str]) -> float:
    noticed = sum(statuses[status] for status in NOTICED)
    return noticed / max(1, statuses.total())


if __name__ == "__main__":
    main()
