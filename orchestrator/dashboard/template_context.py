"""What every template may use: the orchestrator's health, the curl line, and filters for times and values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import Flask, request
from markupsafe import Markup, escape

from orchestrator.dashboard.curl import Curl, curl
from orchestrator.dashboard.formatting import ago, length
from orchestrator.dashboard.glossary import explained, term
from orchestrator.parts import Orchestrator
from saga.choreography.coordinator_without_broker import CHOREOGRAPHY_OFF
from saga.definition import SagaDefinition
from saga.payload import compact, iso, pretty, stored
from saga.urls import masked
from saga.views.step_words import status_of_step

OLD = 15.0  # seconds after which the lights are grey: they tell of another time


def add(app: Flask, orchestrator: Orchestrator) -> None:
    """Add the context and the filters to the app."""

    def curl_line(
        saga: str,
        flags: Sequence[tuple[str, str]],
        body: Mapping[str, Any],
        definition: SagaDefinition | None = None,
        key: str | None = None,
    ) -> Curl:
        """The command that starts such a saga here; what `definition` keeps secret is left to variables."""
        named = [("saga", saga)] if saga != orchestrator.default_saga else []
        return curl(f"{request.host_url}start", [*named, *flags], body, definition, key)

    @app.context_processor
    def everywhere() -> dict[str, Any]:
        health, now = orchestrator.health.latest(), orchestrator.starter.deps.clock()
        return {
            "health": health,
            "health_old": health is not None and now - health.at > OLD,
            "now": iso(now),
            "curl": curl_line,
            "here": request.full_path,
            "choreography_off": None if orchestrator.choreographer else CHOREOGRAPHY_OFF,
            "definitions": orchestrator.definitions,
            "default_saga": orchestrator.default_saga,
        }

    app.add_template_global(term)
    app.add_template_global(status_of_step)
    app.add_template_filter(explained)
    app.add_template_filter(length, "length_of_time")
    app.add_template_filter(ago)
    app.add_template_filter(local_times)
    app.add_template_filter(shown_value)
    app.add_template_filter(pretty, "pretty")
    app.add_template_filter(query)
    app.add_template_filter(masked, "without_password")
    app.add_template_filter(pretty_text)
    app.add_template_filter(without_parts)
    app.add_template_filter(iso, "iso")
    app.add_template_filter(seconds_of, "seconds")


def seconds_of(at: str) -> float:
    """One of the API's times, in seconds since the epoch."""
    return datetime.fromisoformat(at).timestamp()


def query(filters: Mapping[str, str]) -> str:
    """The query of a URL with these arguments; empty ones are left out."""
    return urlencode({name: value for name, value in filters.items() if value})


PARTS = ("step", "seq", "of", "before")  # what the inspector and the log of a saga's page are asked for


def without_parts(filters: Mapping[str, str]) -> dict[str, str]:
    """The arguments of a saga's page without those of its parts that are loaded by themselves."""
    return {name: value for name, value in filters.items() if name not in PARTS}


def pretty_text(text: str) -> str:
    """A kept body as people read it: JSON with a line for each field, any other text as it is."""
    try:
        return pretty(stored(text))
    except ValueError:
        return text


def local_times(text: object) -> Markup:
    """A text, escaped, in which each time is a <time>: the page's script shows it in the reader's own zone."""
    return Markup(_TIMES.sub(_timed, str(escape(str(text)))))  # noqa: S704  # escaped before


def shown_value(value: object) -> Markup:
    """A JSON value as a reader sees it: neither None nor True."""
    if isinstance(value, (dict, list)):
        return local_times(compact(value))
    if value is None or isinstance(value, bool):
        return local_times({None: "–", True: "yes", False: "no"}[value])
    return local_times(value)


_TIMES = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:Z|\+00:00| UTC)")


def _timed(found: re.Match[str]) -> str:
    day, clock, fraction = found[1], found[2], found[3] or ""
    return f'<time datetime="{day}T{clock}{fraction[:4]}Z">{day} {clock} UTC</time>'
