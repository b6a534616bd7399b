"""Service C takes a user's payment: the last step of `signup`, its pivot. Port 5003, table TABLE_C.

A payment that was taken cannot be undone. So the compensation refuses (409) once the action has committed, and the
saga goes forward. Where the action has not come yet, the kit seals the step, and a later action does nothing.
"""

from collections.abc import Mapping
from typing import Any

from flask import Flask
from sqlalchemy import BigInteger, Column, String

from saga.kits.flask import Participant, Refused, Settings, Transaction, business_table

payments = business_table(
    "TABLE_C",
    Column("user_id", BigInteger, nullable=False),
    Column("payment", String(255)),
)


def take_payment(tx: Transaction, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Take the payment and return its id: the action."""
    row = {"saga_id": tx.saga_id, "user_id": fields["user_id"], "payment": fields.get("payment")}
    made = tx.execute(payments.insert(), row)
    return {"payment_id": made.inserted_primary_key[0]}


def refuse_to_undo(tx: Transaction, fields: Mapping[str, Any]) -> None:
    """Refuse: the compensation of a pivot, which the kit calls only where the payment was taken."""
    raise Refused("the payment was taken, and cannot be undone")


service = Participant(
    name="C",
    table=payments,
    action=take_payment,
    compensation=refuse_to_undo,
    schema={
        "type": "object",
        "required": ["user_id"],
        "properties": {
            "user_id": {"type": "integer", "minimum": 0, "maximum": 9223372036854775807},
            "payment": {"type": ["string", "null"], "maxLength": 255},
        },
    },
    secret=("payment",),
)


def create_app(settings: Settings | None = None) -> Flask:
    """Make the Flask app of this service."""
    return service.create_app(settings)
