"""The row that both sagas work on, in the laboratory's own service, and the notes of who read and wrote it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Integer, String, select, update

from orchestrator.isolation.history import Access
from saga.barrier import Transaction
from saga.participant import business_table

# `locked_by` is the semantic lock: the id of the saga that has marked the row.
accounts = business_table("accounts", Column("balance", Integer, nullable=False), Column("locked_by", String(255)))


class Account:
    """The row in the hands of one local transaction; what is done with its balance is added to `notes`."""

    def __init__(self, transaction: Transaction, number: int, notes: list[Access]):
        self._transaction = transaction
        self._this = accounts.c.id == number
        self._notes = notes

    def read(self) -> int:
        """Return the balance."""
        balance = self._balance()
        self._notes.append(Access(balance, balance, wrote=False))
        return balance

    def set(self, balance: int) -> None:
        """Write this balance, whatever the row holds."""
        found = self._balance()
        self._update(balance=balance)
        self._notes.append(Access(found, balance, wrote=True))

    def add(self, amount: int) -> None:
        """Change the balance by this amount, in one statement."""
        found = self._balance()
        self._update(balance=accounts.c.balance + amount)
        self._notes.append(Access(found, found + amount, wrote=True))

    def still_holds(self, balance: int) -> bool:
        """Tell whether the balance is still this one, which keeps the row from changing until the commit."""
        return self._update(accounts.c.balance == balance, balance=balance)

    def lock(self) -> bool:
        """Mark the row as this saga's own; return False where it is marked as another's."""
        mine = self._transaction.saga_id
        return self._update(accounts.c.locked_by.is_(None) | (accounts.c.locked_by == mine), locked_by=mine)

    def unlock(self) -> None:
        """Take this saga's own mark off the row."""
        self._update(accounts.c.locked_by == self._transaction.saga_id, locked_by=None)

    def _balance(self) -> int:
        return int(self._transaction.execute(select(accounts.c.balance).where(self._this)).scalar_one())

    def _update(self, *only_if: ColumnElement[bool], **values: Any) -> bool:
        """Update the row where it is as `only_if` says; return whether it was."""
        return self._transaction.execute(update(accounts).where(self._this, *only_if).values(values)).rowcount == 1
