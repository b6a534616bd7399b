"""A service behind the participant kit whose two functions can be told to misbehave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from sqlalchemy import Column, Engine, String, func, select
from sqlalchemy.exc import OperationalError

from saga.barrier import saga_barrier
from saga.kits.flask import Participant, Refused, Transaction, business_table, load_settings
from saga.storage.database import connect, create_tables

things = business_table("TABLE_A", Column("username", String(255), nullable=False))
SCHEMA = {"type": "object", "required": ["username"], "properties": {"username": {"type": "string", "maxLength": 255}}}


class Service:
    """Service A's table behind the kit, with functions that can be told to misbehave."""

    def __init__(self, url: str, **environ: str):
        self.settings = load_settings(
            {"SERVICE_A_DB_URL": url, "FAULT_HOLD_SECONDS": "0.3", "NATS_URL": "off", **environ}
        )
        self.engine: Engine = connect(url)
        create_tables(self.engine, things.metadata)
        self.ran: list[str] = []
        self.instead: dict[str, Callable[[], Any]] = {}  # what a function does besides, by its name
        self.exits: list[int] = []
        self.app: Flask = Participant("A", things, self.action, self.compensation, SCHEMA).create_app(
            self.settings, exit=self.exit
        )

    def action(self, tx: Transaction, fields: Any) -> dict[str, Any]:
        self.ran.append("action")
        made = tx.execute(things.insert(), {"saga_id": tx.saga_id, "username": fields["username"]})
        self.instead.get("action", lambda: None)()
        return {"user_id": made.inserted_primary_key[0]}

    def compensation(self, tx: Transaction, fields: Any) -> None:
        self.ran.append("compensation")
        tx.execute(things.delete().where(things.c.saga_id == tx.saga_id))
        self.instead.get("compensation", lambda: None)()

    @property
    def own_engine(self) -> Engine:
        """The engine that the kit made for itself."""
        engine: Engine = self.app.extensions["saga"].transactions.engine
        return engine

    def exit(self, code: int) -> None:
        self.exits.append(code)
        raise SystemExit(code)

    def post(self, call: str, saga: str = "s1", body: Any = None, headers: Any = None, query: str = "") -> Any:
        sent = {"Saga-Id": saga, "Saga-Step": "A", **(headers or {})}
        client = self.app.test_client()
        return client.post(f"/{call}{query}", json={"username": "ada"} if body is None else body, headers=sent)

    def rows(self) -> int:
        with self.engine.begin() as connection:
            return int(connection.execute(select(func.count()).select_from(things)).scalar_one())

    def state(self, saga: str = "s1") -> str | None:
        with self.engine.begin() as connection:
            query = select(saga_barrier.c.state).where(saga_barrier.c.saga_id == saga)
            return connection.execute(query).scalar_one_or_none()


def refuse() -> None:
    raise Refused("no stock")


def fail() -> None:
    raise RuntimeError("a bug of the service's")


def deadlock() -> None:
    """As MySQL tells one of two transactions that wait for each other."""
    error = Exception("Deadlock found when trying to get lock")
    error.errno = 1213  # type: ignore[attr-defined]
    raise OperationalError("INSERT", {}, error)
