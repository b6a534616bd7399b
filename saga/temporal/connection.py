"""How a Temporal client is made from the settings: its address, TLS, and how data is converted and encrypted."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import TLSConfig

from saga.process.settings import TemporalSettings
from saga.temporal.payloads import Payloads


async def connect(settings: TemporalSettings, lazy: bool) -> Client:
    """Return a client. Raises RuntimeError where the server does not answer within 5 seconds.

    A `lazy` client connects when it is first used, so it can be made while the server is away.
    """
    return await Client.connect(
        settings.address,
        namespace=settings.namespace,
        api_key=settings.api_key,
        tls=_tls(settings),
        data_converter=_converter(settings),
        connect_timeout=timedelta(seconds=5),
        lazy=lazy,
    )


def _tls(settings: TemporalSettings) -> TLSConfig | bool:
    if not settings.tls:
        return False
    files = (settings.tls_ca, settings.tls_cert, settings.tls_key)
    ca, cert, key = (path.read_bytes() if path else None for path in files)
    return TLSConfig(server_root_ca_cert=ca, client_cert=cert, client_private_key=key)


def _converter(settings: TemporalSettings) -> DataConverter:
    converter = dataclasses.replace(DataConverter.default, payload_converter_class=Payloads)
    if settings.codec_key is None:
        return converter
    from saga.temporal.codec import EncryptedFailures, Encryption

    return dataclasses.replace(
        converter,
        payload_codec=Encryption(settings.codec_key),
        failure_converter_class=EncryptedFailures,
    )
