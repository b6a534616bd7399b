"""`python -m orchestrator`: checks the settings and the sagas' files, then serves the orchestrator."""

import sys

from orchestrator.stream import SUBSCRIBERS
from saga.choreography import require_nats
from saga.definition import TEMPORAL
from saga.definition_file import load_definitions
from saga.errors import BadInput
from saga.process.server import serve
from saga.process.settings import load_settings
from saga.temporal import require_temporal

THREADS = 192  # requests served at once; each POST /start keeps one until its saga ends or `wait` is over


def main() -> None:
    """Check what can be checked, then serve until SIGTERM."""
    try:
        settings = load_settings()
        definitions = load_definitions(settings.sagas_dir, settings.environ)
        if settings.engine == TEMPORAL:
            require_temporal()
        if settings.nats_url:
            require_nats()
    except BadInput as error:
        sys.exit(f"orchestrator: {error}")
    for definition in definitions.values():
        for doubt in definition.warnings:
            sys.stderr.write(f"orchestrator: warning: the saga {definition.name}: {doubt}\n")
    serve(
        "orchestrator.app:create_app",
        host=settings.host,
        port=settings.orchestrator_port,
        variable="ORCHESTRATOR_PORT",
        threads=THREADS + SUBSCRIBERS,  # a thread is made when it is needed
        plain=settings.plain,
    )


if __name__ == "__main__":
    main()
