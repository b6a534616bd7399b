"""`ExactJson` lets Flask's jsonify write our own JSON: a Decimal is a number, and a date is ISO 8601."""

from __future__ import annotations

from typing import Any

from flask.json.provider import DefaultJSONProvider

from saga.payload import compact


class ExactJson(DefaultJSONProvider):
    """A JSON provider; an app uses it once it is set as `app.json`."""

    def dumps(self, obj: Any, **options: Any) -> str:
        """Write `obj` as one line of JSON that keeps the order of keys and escapes no more characters than it must."""
        return compact(obj)
