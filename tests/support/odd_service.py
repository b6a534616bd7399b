"""A service whose results are odd: `python -m tests.support.odd_service`, and the saga that calls it.

What it gives is said by the field `want`: a result that is too deep for the kit, an answer that is too deep for who
asked over HTTP, or numbers of more digits than a double has.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from flask import Flask, Response
from sqlalchemy import Column, String

from saga.kits.flask import Participant, Settings, Transaction, business_table

PRICE = "12345678901234567890.123"
DEEP = "[" * 99 + "]" * 99  # with the object that it is in: 100
SAGA = """
name: odd
deadline: 60
steps:
  - name: A
    action: ${SERVICE_A_URL}/invoke
    compensation: ${SERVICE_A_URL}/compensate
    send: [username]
  - name: Odd
    action: ${SERVICE_ODD_URL}/invoke
    compensation: ${SERVICE_ODD_URL}/compensate
    send: [want, amount]
    retries: 1
    backoff: 0.1
"""

odd = business_table("odd", Column("want", String(20), nullable=False))


def give(tx: Transaction, fields: Mapping[str, Any]) -> dict[str, Any]:
    tx.execute(odd.insert(), {"saga_id": tx.saga_id, "want": fields["want"]})
    if fields["want"] == "deep result":
        return {"got": json.loads(DEEP)}
    return {"want": fields["want"], "price": Decimal(PRICE), "sent": fields.get("amount")}


def take_back(tx: Transaction, fields: Mapping[str, Any]) -> None:
    tx.execute(odd.delete().where(odd.c.saga_id == tx.saga_id))


service = Participant("Odd", odd, give, take_back, {"type": "object", "required": ["want"]})


def create_app(settings: Settings | None = None) -> Flask:
    app = service.create_app(settings)

    @app.after_request
    def answer_deep(response: Response) -> Response:
        if b'"want":"deep answer"' in response.get_data() and response.status_code == 200:
            response.set_data(f'{{"got":{DEEP}}}')
        return response

    return app


if __name__ == "__main__":
    service.serve("tests.support.odd_service:create_app")
