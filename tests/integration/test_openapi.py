"""The API against its own description: every route is in it, and what is answered fits it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator.app import create_app
from saga.process.settings import load_settings
from tests.support.stack import ROOT

CONFORMANCE = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The orchestrator's app; nobody is where its services should be."""
    log = tmp_path_factory.mktemp("api") / "log.db"
    nowhere = {f"SERVICE_{name}_URL": "http://127.0.0.1:9" for name in "ABC"}
    sagas = {"SAGAS_DIR": str(ROOT / "orchestrator" / "sagas")}
    made = create_app(load_settings({"SAGA_LOG_URL": f"sqlite:///{log}", **nowhere, **sagas, "NATS_URL": "off"}))
    yield made
    made.close()  # type: ignore[attr-defined]


def test_every_route_is_described_and_every_description_is_a_route(app: Flask) -> None:
    """Pitfall 18."""
    served = {
        (re.sub(r"<(?:int:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith(("/ui/", "/static/")) and rule.rule not in ("/", "/break-it")  # the pages
    }
    document: dict[str, Any] = app.test_client().get("/openapi.json").json
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert served == described


def test_what_is_answered_is_what_is_described(app: Flask) -> None:
    """For inputs that fit the description and for such that do not: no status code or body that is not in it."""
    document = schemathesis.openapi.from_wsgi("/openapi.json", app)
    for found in document.exclude(path="/events").get_all_operations():  # a stream has no end to wait for

        @settings(
            max_examples=20,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=found.ok().as_strategy())
        def check(case: Any) -> None:
            case.headers = {**(case.headers or {}), "Prefer": "respond-async"}  # nobody need wait for a saga's end
            case.call_and_validate(checks=CONFORMANCE)

        check()
