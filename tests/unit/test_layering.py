"""Imports point downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.stack import ROOT

OURS = {"saga", "orchestrator", "service_a", "service_b", "service_c"}
PURE = {
    "machine": {"definition", "errors"},
    "asl": {"definition", "errors", "machine"},
    "retry": set(),
    "errors": set(),
    "payload": {"errors"},
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
    return sorted((ROOT / package).glob("*.py"))


@pytest.mark.parametrize("service", ["service_a", "service_b", "service_c"])
def test_a_service_imports_the_kit_and_nothing_else_of_ours(service: str) -> None:
    for path in modules(service):
        names = {".".join(name.split(".")[:2]) for name in imported(path)}
        assert names <= {"saga.participant", service, f"{service}.app"}, path


def test_nothing_imports_the_orchestrator_or_a_service() -> None:
    for path in modules("saga"):
        assert {name.split(".")[0] for name in imported(path)} <= {"saga"}, path


@pytest.mark.parametrize("module", PURE)
def test_the_pure_modules_import_only_what_they_may(module: str) -> None:
    names = {name.split(".")[1] for name in imported(ROOT / "saga" / f"{module}.py") if "." in name}
    assert names <= PURE[module]


def test_no_module_of_the_library_imports_in_a_circle() -> None:
    graph = {
        path.stem: {name.split(".")[1] for name in imported(path) if name.count(".")} - {path.stem}
        for path in modules("saga")
    }
    done: set[str] = set()
    while len(done) < len(graph):
        free = {name for name, needs in graph.items() if name not in done and needs & set(graph) <= done}
        assert free, f"a circle among {sorted(set(graph) - done)}"
        done |= free


def test_nothing_but_settings_reads_the_environment() -> None:
    readers = {path.stem for path in modules("saga") if "os.environ" in path.read_text()}
    assert readers == {"settings"}


def test_the_orchestrator_knows_no_table_of_a_service() -> None:
    """Pitfall 20: it asks the participants; it never reaches into their databases."""
    for path in modules("orchestrator"):
        assert not {
            name for name in imported(path) if name.startswith(("service_", "saga.barrier", "saga.participant"))
        }
        assert "TABLE_" not in path.read_text()
        assert "service_db_urls" not in path.read_text()
