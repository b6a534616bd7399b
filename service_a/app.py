"""Service A creates users: the first step of `signup`. Port 5001, table TABLE_A.

It consists of two functions, the action and its compensation. The kit runs each in one local transaction together with
the barrier's row, so that a call that is sent twice, late, or in the wrong order does no harm.
"""

from collections.abc import Mapping
from typing import Any

from flask import Flask
from sqlalchemy import Column, String

from saga.kits.flask import Participant, Settings, Transaction, business_table

users = business_table("TABLE_A", Column("username", String(255), nullable=False))


def create_user(tx: Transaction, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Create the user and return the `user_id` that later steps ask for: the action."""
    made = tx.execute(users.insert(), {"saga_id": tx.saga_id, "username": fields["username"]})
    return {"user_id": made.inserted_primary_key[0]}


def delete_user(tx: Transaction, fields: Mapping[str, Any]) -> None:
    """Remove this saga's user, and no other of that name: the compensation."""
    tx.execute(users.delete().where(users.c.saga_id == tx.saga_id))


service = Participant(
    name="A",
    table=users,
    action=create_user,
    compensation=delete_user,
    schema={
        "type": "object",
        "required": ["username"],
        "properties": {"username": {"type": "string", "minLength": 1, "maxLength": 255}},
    },
)


def create_app(settings: Settings | None = None) -> Flask:
    """Make the Flask app of this service."""
    return service.create_app(settings)
