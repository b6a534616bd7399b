"""What Flask's jsonify writes: our own JSON, in which a Decimal is a number, digit for digit, and a date ISO 8601."""

from __future__ import annotations

from typing import Any

from flask.json.provider import DefaultJSONProvider

from saga.payload import compact


class ExactJson(DefaultJSONProvider):
    """For `app.json`."""

    def dumps(self, obj: Any, **options: Any) -> str:
        """As one line of JSON, with its keys in their order and characters as they are."""
        return compact(obj)
