"""Imports point downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.stack import ROOT

OURS = {"saga", "orchestrator", "service_a", "service_b", "service_c"}
PURE = {
    "machine": {"definition", "errors"},
    "step_functions.asl": {"definition", "errors", "machine", "step_functions"},
    "step_functions.http_task": {"definition", "machine", "retry", "step_functions"},
    "step_functions.jsonata": {"definition"},
    "retry": set(),
    "errors": set(),
    "exact_json": set(),
    "payload": {"errors", "exact_json"},
    "urls": {"payload"},
}


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports, dotted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in OURS}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def dotted(path: Path) -> str:
    """`temporal.client` for saga/temporal/client.py."""
    return ".".join(path.relative_to(ROOT / "saga").with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("service", ["service_a", "service_b", "service_c"])
def test_a_service_imports_the_kit_and_nothing_else_of_ours(service: str) -> None:
    for path in modules(service):
        names = {".".join(name.split(".")[:3]) for name in imported(path)}
        kit = {"saga.kits.flask", "saga.kits.flask.Participant", "saga.kits.flask.Refused"}
        assert names <= {*kit, service, f"{service}.app", f"{service}.app.service"}, path


def test_nothing_imports_the_orchestrator_or_a_service() -> None:
    for path in modules("saga"):
        assert {name.split(".")[0] for name in imported(path)} <= {"saga"}, path


@pytest.mark.parametrize("module", PURE)
def test_the_pure_modules_import_only_what_they_may(module: str) -> None:
    names = {name.split(".")[1] for name in imported(ROOT / "saga" / f"{module.replace('.', '/')}.py") if "." in name}
    assert names <= PURE[module]


def test_no_module_of_the_library_imports_in_a_circle() -> None:
    names = {dotted(path) for path in modules("saga")}
    graph = {
        dotted(path): {name.removeprefix("saga.") for name in imported(path)} & names - {dotted(path)}
        for path in modules("saga")
    }
    done: set[str] = set()
    while len(done) < len(graph):
        free = {name for name, needs in graph.items() if name not in done and needs <= done}
        assert free, f"a circle among {sorted(set(graph) - done)}"
        done |= free


def test_nothing_but_settings_reads_the_environment() -> None:
    readers = {dotted(path) for path in modules("saga") if "os.environ" in path.read_text()}
    assert readers == {"process.settings"}


def test_the_orchestrator_knows_no_table_of_a_service() -> None:
    """Pitfall 20: it asks the participants; it never reaches into their databases."""
    for path in modules("orchestrator"):
        assert not {
            name
            for name in imported(path)
            if name.startswith(("service_", "saga.barrier", "saga.participant", "saga.kits.flask."))
        }
        assert "TABLE_" not in path.read_text()
        assert "service_db_urls" not in path.read_text()


TEMPORALS_OWN = {"temporalio", "cryptography"}  # the extra's


def test_only_the_workflow_and_what_is_around_it_needs_temporal() -> None:
    """The base installation has no SDK of it; what decides and what is told is pure even beside it."""
    for path in modules("saga"):
        inside = dotted(path).startswith("temporal")
        assert inside or not any(name.startswith("saga.temporal") for name in imported(path)), path
        if not inside or dotted(path) in ("temporal", "temporal.messages", "temporal.journal", "temporal.projection"):
            assert not packages(path) & TEMPORALS_OWN, path


def packages(path: Path) -> set[str]:
    """The packages that a file imports, of ours or others'."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found
