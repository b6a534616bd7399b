"""Service B stores a user's address: the second step of `signup`. Port 5002, table TABLE_B."""

from collections.abc import Mapping
from typing import Any

from flask import Flask
from sqlalchemy import BigInteger, Column, String

from saga.kits.flask import Participant, Settings, Transaction, business_table

addresses = business_table(
    "TABLE_B",
    Column("user_id", BigInteger, nullable=False),
    Column("address", String(255)),
)


def store_address(tx: Transaction, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Store the address and return its id for later steps: the action."""
    row = {"saga_id": tx.saga_id, "user_id": fields["user_id"], "address": fields.get("address")}
    made = tx.execute(addresses.insert(), row)
    return {"address_id": made.inserted_primary_key[0]}


def remove_address(tx: Transaction, fields: Mapping[str, Any]) -> None:
    """Remove this saga's address, and no other: the compensation."""
    tx.execute(addresses.delete().where(addresses.c.saga_id == tx.saga_id))


service = Participant(
    name="B",
    table=addresses,
    action=store_address,
    compensation=remove_address,
    schema={
        "type": "object",
        "required": ["user_id"],
        "properties": {
            "user_id": {"type": "integer", "minimum": 0, "maximum": 9223372036854775807},
            "address": {"type": ["string", "null"], "maxLength": 255},
        },
    },
)


def create_app(settings: Settings | None = None) -> Flask:
    """Make the Flask app of this service."""
    return service.create_app(settings)
