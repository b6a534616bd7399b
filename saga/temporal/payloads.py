"""How data becomes what is in Temporal's histories: as the SDK does it, but with characters as they are.

Escaped, as the SDK has it, a text that is not ASCII grows threefold, and Temporal refuses what is large.
"""

from __future__ import annotations

from typing import Any

from temporalio.converter import (
    AdvancedJSONEncoder,
    CompositePayloadConverter,
    DefaultPayloadConverter,
    JSONPlainPayloadConverter,
)


class _Unescaped(AdvancedJSONEncoder):
    def __init__(self, **options: Any):
        super().__init__(**{**options, "ensure_ascii": False})


class Payloads(CompositePayloadConverter):
    """Reads what the SDK's own wrote, and is read by it."""

    def __init__(self) -> None:
        known = DefaultPayloadConverter.default_encoding_payload_converters
        plain = JSONPlainPayloadConverter(encoder=_Unescaped)
        super().__init__(*[plain if each.encoding == plain.encoding else each for each in known])
