"""What Node checks of an exported state machine: `python -m tests.support.node` installs its packages, once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parents[1] / "asl"
LOCK, INSTALLED = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"


def checked(machines: Sequence[Any] = (), expressions: Sequence[str] = ()) -> dict[str, list[Any]]:
    """{"errors", "values"}, as tests/asl/check.mjs tells; skips without Node."""
    if not (shutil.which("node") and INSTALLED.exists()):
        pytest.skip("no Node, or not its packages: run `make test`")
    asked = json.dumps({"machines": machines, "expressions": expressions})
    run = subprocess.run(
        ["node", "check.mjs"], cwd=HERE, input=asked, capture_output=True, text=True, timeout=60, check=True
    )
    return dict(json.loads(run.stdout))


def main() -> None:
    """Install what the lock file names, where npm is there and that was not done yet."""
    if not shutil.which("npm"):
        sys.stderr.write("No npm: two tests of the exported state machine are left out. Install Node to run them.\n")
    elif not INSTALLED.exists() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
        sys.stderr.write("Installing a validator of the Amazon States Language into tests/asl (once) ...\n")
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        subprocess.run(["npm", "ci", *options], cwd=HERE, check=False)
        INSTALLED.touch(exist_ok=True) if INSTALLED.parent.exists() else None


if __name__ == "__main__":
    main()
