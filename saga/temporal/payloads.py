"""The converter to the JSON that Temporal's histories hold; it is the SDK's, with two differences.

Text that is not ASCII is not escaped: escaped it would grow threefold, and Temporal refuses large payloads. A number
that a double cannot hold is written with all its digits, and read as a Decimal.
"""

from __future__ import annotations

from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    AdvancedJSONEncoder,
    CompositePayloadConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
)

from saga.exact_json import Decoder, writer

_written = writer(AdvancedJSONEncoder().default, sort_keys=True)


class _Exact(JSONPlainPayloadConverter):
    def __init__(self) -> None:
        super().__init__(decoder=Decoder)

    def to_payload(self, value: Any) -> Payload | None:
        """Return the value as JSON."""
        return Payload(metadata={"encoding": self.encoding.encode()}, data=_written(value).encode())


class Payloads(CompositePayloadConverter):
    """The payload converter of our clients; the SDK's own converter can read what it writes, and the reverse."""

    def __init__(self) -> None:
        known = DefaultPayloadConverter.default_encoding_payload_converters
        plain = _Exact()
        super().__init__(*[plain if each.encoding == plain.encoding else each for each in known])
