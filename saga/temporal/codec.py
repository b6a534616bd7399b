"""Encrypts what is in Temporal's histories: input, calls, answers, messages of failures. AES-256-GCM."""

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
    """Each payload with a nonce of its own; one that was written before there was a key is read as it is."""

    def __init__(self, key: bytes):
        self._cipher = AESGCM(key)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypted."""
        return [self._encrypted(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """As they were; ValueError where the key is another."""
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
