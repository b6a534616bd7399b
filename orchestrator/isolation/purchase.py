"""The saga of the laboratory, and all that its switches change: a few lines each, which its page shows.

A purchase looks at the balance of an account, takes an amount, and sends the goods, with the new balance on the
delivery note. The countermeasures are those of Frank and Zahle, "Semantic ACID properties in multidatabases using
remote procedure calls and update propagations" (Software: Practice and Experience 28, 1998), as Richardson names them
in "Microservices Patterns" (2018), section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.isolation.account import Account
from saga.definition import SagaDefinition, Step
from saga.errors import Refused

Fields = Mapping[str, Any]
StepCode = Callable[[Account, Fields], Mapping[str, Any] | None]

LOOK, TAKE, SEND, UNLOCK = "Look", "Take", "Send", "Unlock"
FIELDS = ("account", "amount", "sold_out", "seen")  # of the input, and of what Look has answered


@dataclass(frozen=True)
class Switches:
    """Which countermeasures are on."""

    lock: bool = False
    commutative: bool = False
    reread: bool = False
    pessimistic: bool = False


@dataclass(frozen=True)
class PurchaseStep:
    """One step: the function that is its action, and the one that undoes it, where there is something to undo."""

    name: str
    action: StepCode
    compensation: StepCode | None = None
    pivot: bool = False


# Without a countermeasure


def look(account: Account, fields: Fields) -> Fields:
    """Read the balance, for the steps that follow."""
    return {"seen": account.read()}


def take(account: Account, fields: Fields) -> None:
    """Write what is left of the balance that was seen."""
    account.set(fields["seen"] - fields["amount"])


def put_back(account: Account, fields: Fields) -> None:
    """Restore the balance that was seen."""
    account.set(fields["seen"])


def send(account: Account, fields: Fields) -> Fields:
    """Send the goods, with the balance on the delivery note."""
    if fields["sold_out"]:
        raise Refused("sold out")
    return {"printed": account.read()}


# Semantic lock


def lock_and_look(account: Account, fields: Fields) -> Fields:
    """Mark the row as this saga's own, and read the balance."""
    if not account.lock():
        raise Refused("another saga is at work on this account")
    return {"seen": account.read()}


def unlock(account: Account, fields: Fields) -> None:
    """Take the mark off the row."""
    account.unlock()


# Commutative update


def subtract(account: Account, fields: Fields) -> None:
    """Make the balance smaller, whatever it is."""
    account.add(-fields["amount"])


def add_back(account: Account, fields: Fields) -> None:
    """Make the balance larger, whatever it is."""
    account.add(fields["amount"])


# Reread value


def if_unchanged(take: StepCode) -> StepCode:
    """Return `take` with a second look before it."""

    def take_if_unchanged(account: Account, fields: Fields) -> None:
        if not account.still_holds(fields["seen"]):
            raise Refused("the balance has changed since it was read")
        take(account, fields)

    return take_if_unchanged


# Pessimistic view, and which of the functions above are the steps


def steps_of(on: Switches) -> list[PurchaseStep]:
    """Return the steps of a purchase with these countermeasures."""
    first = PurchaseStep(LOOK, lock_and_look, unlock) if on.lock else PurchaseStep(LOOK, look)
    plain, undone = (subtract, add_back) if on.commutative else (take, put_back)
    taken = if_unchanged(plain) if on.reread else plain
    pivot = PurchaseStep(SEND, send, pivot=True)
    if on.pessimistic:  # what others must not see too early comes last, when nothing can fail any more
        steps = [first, pivot, PurchaseStep(TAKE, taken)]
    else:
        steps = [first, PurchaseStep(TAKE, taken, undone), pivot]
    return [*steps, PurchaseStep(UNLOCK, unlock)] if on.lock else steps


def definition_of(steps: Sequence[PurchaseStep]) -> SagaDefinition:
    """Return the saga with these steps as the driver knows it; in its URLs, a step's name is the host."""
    return SagaDefinition("purchase", tuple(map(_called, steps)))


def _called(step: PurchaseStep) -> Step:
    compensation = f"http://{step.name}/compensate" if step.compensation else None
    return Step(step.name, f"http://{step.name}/invoke", compensation, FIELDS, retries=0, pivot=step.pivot)
