"""The saga library. Its own level is the core; read it first, in this order:

1. definition.py: a saga as data, its steps in order; definition_file.py reads it from YAML
2. machine.py: which call comes next, and what each event makes of a saga: one table
3. call.py: one call, from its HTTP attempts to one outcome; retry.py says when to try again
4. progress.py: what an event changes in a saga's row and log; context.py: what the row says of each step
5. driver.py: asks the machine, makes the call, writes it down, goes on
6. saga_log.py: the rows and lines that survive a crash; saga_row.py: a row as a value; unreadable.py, set_aside.py: a
   row that this version cannot decode
7. errors.py: every exception, and what the caller does about it; payload.py, exact_json.py, urls.py: JSON and URLs
8. participant.py, local_transaction.py, barrier.py: the other side of a call, in a service

Everything else has a folder of its own: storage/ and http_client/ are below the core, runtime/ drives many sagas at
once, and choreography/, temporal/, step_functions/, faults/ and kits/ are optional.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saga.definition import SagaDefinition as SagaDefinition
    from saga.definition import Step as Step
    from saga.definition_file import load_definition as load_definition
    from saga.definition_file import load_definitions as load_definitions
    from saga.errors import Refused as Refused
    from saga.errors import SagaError as SagaError
    from saga.machine import Event as Event
    from saga.machine import State as State
    from saga.machine import apply as apply
    from saga.machine import begin as begin
    from saga.machine import next_call as next_call

# Where each of them is. They are loaded when they are asked for, so that `import saga` itself costs nothing.
_EXPORTS = {
    **dict.fromkeys(("SagaDefinition", "Step"), "saga.definition"),
    **dict.fromkeys(("load_definition", "load_definitions"), "saga.definition_file"),
    **dict.fromkeys(("Event", "State", "apply", "begin", "next_call"), "saga.machine"),
    **dict.fromkeys(("Refused", "SagaError"), "saga.errors"),
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    """Load one of the exports when it is asked for (PEP 562)."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
