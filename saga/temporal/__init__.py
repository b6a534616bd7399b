"""Sagas on Temporal: the same state machine, in a workflow. All but this module needs the extra `[temporal]`."""

from __future__ import annotations

from importlib.util import find_spec

from saga.errors import SettingsError


def temporal_installed() -> bool:
    """Whether the extra is."""
    return find_spec("temporalio") is not None


def require_temporal() -> None:
    """SettingsError unless the extra is installed."""
    if not temporal_installed():
        message = (
            "ENGINE=temporal needs Temporal's SDK: make setup ENGINE=temporal, or pip install 'saga-stack[temporal]'"
        )
        raise SettingsError(message, "ENGINE")
