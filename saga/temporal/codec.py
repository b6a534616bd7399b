"""The encryption (AES-256-GCM) of what Temporal's histories hold: inputs, calls, answers, messages of failures."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import DefaultFailureConverterWithEncodedAttributes, PayloadCodec

ENCODING = b"binary/encrypted"
NONCE = 12  # bytes

EncryptedFailures = DefaultFailureConverterWithEncodedAttributes


class Encryption(PayloadCodec):
    """Encrypts each payload under a nonce of its own.

    A payload that is not encrypted, because it was written before there was a key, is read as it is.
    """

    def __init__(self, key: bytes):
        self._cipher = AESGCM(key)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return the payloads encrypted."""
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return the payloads decrypted. Raises ValueError where they were encrypted with another key."""
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        nonce = os.urandom(NONCE)
        data = nonce + self._cipher.encrypt(nonce, payload.SerializeToString(), ENCODING)
        return Payload(metadata={"encoding": ENCODING}, data=data)

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        try:
            plain = self._cipher.decrypt(payload.data[:NONCE], payload.data[NONCE:], ENCODING)
        except InvalidTag:
            raise ValueError("TEMPORAL_CODEC_KEY is not the key that this was encrypted with") from None
        return Payload.FromString(plain)
