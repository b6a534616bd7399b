"""How data becomes what is in Temporal's histories: as the SDK does it, but with characters and numbers as they are.

Escaped, as the SDK has it, a text that is not ASCII grows threefold, and Temporal refuses what is large. A number that
a double would change is a Decimal on both sides, and has all its digits in between.
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
        """As JSON."""
        return Payload(metadata={"encoding": self.encoding.encode()}, data=_written(value).encode())


class Payloads(CompositePayloadConverter):
    """Reads what the SDK's own wrote, and is read by it."""

    def __init__(self) -> None:
        known = DefaultPayloadConverter.default_encoding_payload_converters
        plain = _Exact()
        super().__init__(*[plain if each.encoding == plain.encoding else each for each in known])
