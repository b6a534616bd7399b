"""Imports point downwards only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import saga
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


def test_what_only_the_plain_stack_needs_is_not_imported_without_it() -> None:
    program = """
import sys, orchestrator.__main__, orchestrator.app, saga.process.granian_worker, service_a.app
from saga.http_client import new_transport
new_transport()
print(sorted({"requests", "urllib3", "saga.http_client.plain", "saga.process.plain_server"} & sys.modules.keys()))
"""
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (made.stdout, made.returncode) == ("[]\n", 0), made.stderr


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
        if not inside or dotted(path) in (
            "temporal",
            "temporal.temporal_coordinator",
            "temporal.messages",
            "temporal.journal",
            "temporal.projection",
        ):
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


# From the bottom up, by the first part of a module's name in `saga`. A module imports its own level and those below it.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "exact_json", "payload", "retry", "urls"}),  # values, and how they are checked and shown
    frozenset({"storage", "http_client", "process"}),
    frozenset(
        {"definition", "definition_file", "yaml_source", "machine", "context", "step_summary", "choreographed_notes"}
        | {"progress", "call", "lease", "driver"}
        | {"saga_row", "saga_log", "set_aside", "unreadable"}
    ),  # the core
    frozenset({"runtime", "views", "barrier", "local_transaction", "participant", "kits"}),
    frozenset({"faults"}),
    frozenset({"choreography", "temporal", "step_functions", "testing"}),
    frozenset({"cli"}),
)
WITH_THE_CORE = {
    "storage.log_sql",
    "storage.search_sql",
    "storage.filter_sql",
    "storage.log_writes",
}  # the saga log's statements know the names of states
OPTIONAL = frozenset({"choreography", "temporal", "step_functions", "faults", "kits", "runtime", "testing", "cli"})


def at_module_level(path: Path) -> tuple[set[str], set[str]]:
    """The names that a file imports when it is imported itself: (ours, as in `saga.x.y`; packages of others)."""
    ours, others = set(), set()
    left: list[ast.AST] = [ast.parse(path.read_text())]
    while left:
        node = left.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left += node.orelse
        elif isinstance(node, ast.Import):
            others |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            others |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            left += ast.iter_child_nodes(node)
    ours = {name for name in others if name.split(".")[0] in OURS}
    return ours, {name.split(".")[0] for name in others - ours}


def graph() -> dict[str, set[str]]:
    """What each module of the library imports of the library, as `temporal.client`."""
    paths = {dotted(path): path for path in modules("saga")}
    return {
        name: {other.removeprefix("saga.") for other in at_module_level(path)[0]} & paths.keys() - {name}
        for name, path in paths.items()
    }


def packages_around(name: str) -> list[str]:
    """The packages that are loaded before a module is: `temporal` for `temporal.client`, and the library itself."""
    parts = name.split(".")
    return ["__init__", *(".".join(parts[:end]) for end in range(1, len(parts)))]


def closure(*roots: str) -> set[str]:
    """These modules and all that are loaded with them."""
    imports, found, left = graph(), set[str](), list(roots)
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += [*imports[name], *packages_around(name)]
    return found


@pytest.mark.parametrize("root", ["machine", "driver", "definition_file", "saga_log"])
def test_the_core_loads_nothing_optional(root: str) -> None:
    loaded = closure(root)
    assert not {name for name in loaded if name.split(".")[0] in OPTIONAL}
    packages_of_others = set().union(*(at_module_level(path)[1] for path in modules("saga") if dotted(path) in loaded))
    assert not packages_of_others & {"nats", "temporalio", "flask", "granian", "cryptography"}


@pytest.mark.parametrize("root", ["participant", "kits.flask", "kits.wiring"])
def test_the_participant_kit_loads_nothing_that_is_not_a_participants(root: str) -> None:
    """No broker, no failure injection, no engine and no orchestrator; what is configured is loaded when it is wired."""
    loaded = closure(root)
    assert not {name for name in loaded if name.split(".")[0] in OPTIONAL - {"kits"}}
    assert not {"driver", "call", "saga_log", "http_client"} & loaded
    packages_of_others = set().union(*(at_module_level(path)[1] for path in modules("saga") if dotted(path) in loaded))
    assert "nats" not in packages_of_others
    assert root != "participant" or not packages_of_others & {"flask", "granian", "werkzeug"}


def test_the_machine_loads_no_database_and_no_http_client() -> None:
    """It decides, and does nothing."""
    assert closure("machine") == {"__init__", "machine", "definition", "payload", "exact_json", "errors", "retry"}


def test_the_command_loads_no_database_no_server_and_no_broker() -> None:
    """It only asks the API, and an operator does not wait for what it does not need."""
    loaded = closure("cli.main")
    packages_of_others = set().union(*(at_module_level(path)[1] for path in modules("saga") if dotted(path) in loaded))
    assert not packages_of_others & {"sqlalchemy", "flask", "granian", "nats", "temporalio"}


def test_no_import_points_upwards() -> None:
    def level(name: str) -> int:
        first = "driver" if name in WITH_THE_CORE else name.split(".")[0]
        return next(index for index, level in enumerate(LEVELS) if first in level)

    upwards = {
        f"{name} -> {other}"
        for name, others in graph().items()
        if name != "__init__"
        for other in others
        if level(other) > level(name) and not any(each.startswith(f"{other}.") for each in others)
    }
    assert upwards == set()


# What tests for a mode or an engine: a comparison with one of their names, or a look at `definition.choreographed`.
MODES_AND_ENGINES = {"ORCHESTRATION", "CHOREOGRAPHY", "BUILTIN", "TEMPORAL"}
THEIR_ROOMS_AND_THE_WIRING = {
    "saga/choreography",
    "saga/temporal",
    "orchestrator/bootstrap.py",
    "orchestrator/__main__.py",
    "up.py",
}


def asks_for_a_mode_or_an_engine(source: str) -> bool:
    def is_a_name_of_one(node: ast.AST) -> bool:
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str) and node.value.upper() in MODES_AND_ENGINES
        return isinstance(node, ast.Name) and node.id in MODES_AND_ENGINES

    return any(
        (isinstance(node, ast.Attribute) and ast.unparse(node).endswith("definition.choreographed"))
        or (isinstance(node, (ast.Compare, ast.Match)) and any(map(is_a_name_of_one, ast.walk(node))))
        for node in ast.walk(ast.parse(source))
    )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("if saga.mode == CHOREOGRAPHY: pass", True),
        ("if engine in ('temporal', None): pass", True),
        ("held = row.definition.choreographed", True),
        ("rows = ROWS[saga.mode]", False),
        ("coordinators = {TEMPORAL: coordinator}", False),
    ],
)
def test_a_test_for_a_mode_is_told_from_a_look_into_a_dict(source: str, found: bool) -> None:
    assert asks_for_a_mode_or_an_engine(source) == found


def test_few_files_ask_in_which_mode_or_on_which_engine_a_saga_runs() -> None:
    """All others ask the saga's coordinator, or look the mode up in a dict."""
    paths = [ROOT / "up.py", *(path for package in sorted(OURS) for path in modules(package))]
    asking = {str(path.relative_to(ROOT)) for path in paths if asks_for_a_mode_or_an_engine(path.read_text())}
    outside = {path for path in asking if not path.startswith(tuple(THEIR_ROOMS_AND_THE_WIRING))}
    assert outside == {  # never more than five
        "saga/definition.py",
        "saga/choreographed_notes.py",
        "saga/views/representation.py",
        "orchestrator/parts.py",
        "orchestrator/dashboard/stuck.py",
    }


def test_importing_the_library_loads_nothing_else() -> None:
    """Its exports are loaded one by one, when they are asked for."""
    program = "import sys, saga; print(*(name for name in sys.modules if name.startswith('saga.')))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == []


@pytest.mark.parametrize("name", saga.__all__)
def test_each_export_of_the_library_is_what_it_is_called(name: str) -> None:
    assert getattr(saga, name).__name__ == name
