"""Sagas on Temporal: a workflow drives the same state machine that the built-in driver obeys.

Read `workflow.py` first, then `journal.py` (what the workflow knows), `activities.py` (what it has done outside) and
`client.py` (how the orchestrator starts it). Every module but this one needs the extra `[temporal]`.
"""

from __future__ import annotations

from importlib.util import find_spec

from saga.errors import SettingsError


def temporal_installed() -> bool:
    """Return whether the extra `[temporal]` is installed."""
    return find_spec("temporalio") is not None


def require_temporal() -> None:
    """Raise SettingsError unless the extra is installed."""
    if not temporal_installed():
        message = (
            "ENGINE=temporal needs Temporal's SDK: make setup ENGINE=temporal, or pip install 'saga-stack[temporal]'"
        )
        raise SettingsError(message, "ENGINE")
