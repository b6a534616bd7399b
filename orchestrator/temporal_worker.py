"""`python -m orchestrator.temporal_worker`: does the work of the sagas that are on Temporal. Any number, anywhere."""

from __future__ import annotations

import logging
import sys

from saga.errors import BadInput
from saga.process.restarting import restart_forever
from saga.process.settings import load_settings
from saga.temporal import require_temporal


def main() -> None:
    """Check what can be checked, then work until SIGTERM; a process that dies is started again."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        load_settings()
        require_temporal()
    except BadInput as error:
        sys.exit(f"temporal_worker: {error}")
    from orchestrator.temporal_work import work  # needs what was just asked for

    restart_forever(work)


if __name__ == "__main__":
    main()
