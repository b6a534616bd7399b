"""The saga library. Its own level is the core; read it first, in this order:

1. definition.py: a saga as data, its steps in order; definition_file.py and yaml_source.py read it from YAML
2. machine.py: which call comes next, and what each event makes of a saga: one table
3. call.py: one call, from its HTTP attempts to one outcome; retry.py says when to try again
4. progress.py: what an event changes in a saga's row and log; context.py: what the row says besides the state, with
   step_summary.py for each step and choreographed_notes.py for sagas that nobody drives
5. driver.py: asks the machine, makes the call, writes it down, goes on; lease.py: how long it may
6. saga_log.py: the rows and lines that survive a crash; saga_row.py: a row as a value; unreadable.py, set_aside.py: a
   row that this version cannot decode
7. errors.py: every exception, and what the caller does about it; payload.py, exact_json.py, urls.py: JSON and URLs
8. participant.py, local_transaction.py, barrier.py: the other side of a call, in a service

The life of a saga:

- `POST /start` calls `SagaStarter.run` (runtime/saga_starter.py), which checks the input against the definition, makes
  the saga's first row and line (`new_saga_row`), and gives both to the saga's coordinator.
- `SagaLog.begin` makes them durable. From then on the saga will end, whatever crashes. A start whose idempotency key is
  known writes nothing, and returns the saga that has the key.
- A `Driver` takes the saga. `machine.next_call` tells it the call to make: the action of the step at the cursor.
- `call.make_call` makes that call, in up to 1 + `retries` HTTP attempts, and sums up their answers: done, refused, or
  unknown. In the service, `Barrier` lets each action and each compensation take effect at most once.
- `progress.answered` turns the outcome into an event, `progress.after_event` applies it to the row (`machine.apply`
  moves the cursor), and `SagaLog.advance` writes the row and its lines in one transaction. Then comes the next call.
- Where an action is refused, or its outcome is unknown, the saga turns back: the calls are now compensations, from the
  furthest step that may have taken effect back to the first. After its pivot a saga only goes forward.
- A call that must succeed and does not stalls the saga: it rests (`retry.stall_delay`) until it is due again.
- It ends as completed or compensated. The last write says so before any caller is told.
- A driver holds its saga by a lease, which its process prolongs while a call is under way (`Driver.renew_when_old`).
  Where the process crashes, the lease runs out, and `Recovery` (runtime/recovery.py) of any orchestrator finds the saga
  due. `SagaLog.claim` raises its epoch, so that a late write of the old driver touches no row (LeaseLost).
- The new driver goes on from the row, and makes the call at the cursor again; it counts an attempt with an unknown
  outcome for the one that the crash may have interrupted. Nothing else is special about recovery: the row is what
  `context.replay` makes of the saga's lines, by the functions that wrote them.

Everything else has a folder of its own: storage/ and http_client/ are below the core, runtime/ drives many sagas at
once, and choreography/, temporal/, step_functions/, faults/ and kits/ are optional.

"Pure." in a docstring says that the module does no I/O, and reads neither a clock nor random numbers.
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
