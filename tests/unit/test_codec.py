"""What lies in Temporal's histories where there is a key."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.api.common.v1 import Payload

from saga.temporal.codec import Encryption

PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"payment": "4111-1111"}')
ONE, OTHER = Encryption(bytes(32)), Encryption(bytes(31) + b"1")


def test_what_is_encrypted_is_read_again_and_never_looks_the_same() -> None:
    first, second = asyncio.run(ONE.encode([PLAIN, PLAIN]))
    assert b"4111" not in first.SerializeToString()
    assert first.data != second.data
    assert asyncio.run(ONE.decode([first, second])) == [PLAIN, PLAIN]


def test_another_key_is_told_so() -> None:
    with pytest.raises(ValueError, match="TEMPORAL_CODEC_KEY"):
        asyncio.run(OTHER.decode(asyncio.run(ONE.encode([PLAIN]))))


def test_what_was_written_before_there_was_a_key_is_read_as_it_is() -> None:
    assert asyncio.run(ONE.decode([PLAIN])) == [PLAIN]
