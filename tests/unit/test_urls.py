"""URLs with a user and a password: sent as Basic, shown masked."""

from __future__ import annotations

import pytest

from saga.urls import credentials, masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://b:5002/x", "http://b:5002/x"),
        ("http://b:5002/a@b", "http://b:5002/a@b"),
        ("http://b/?to=a@b", "http://b/?to=a@b"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ("a@b", "a@b"),
        ("http://u:p@b/x", "http://***@b/x"),
        ("http://u@b/x", "http://***@b/x"),
        ("http://u:p@q@b/x", "http://***@b/x"),
        ("http://u:p%2Fq@b/a@b", "http://***@b/a@b"),
        ("http://u:p/q@b/x", "http://***@b/x"),
        ("http://u:p?q@b/x", "http://***@b/x"),
        ("http://u:p#q@b/x", "http://***@b/x"),
        ("no answer from 'https://u:p@b/x', nor https://v:q@c", "no answer from 'https://***@b/x', nor https://***@c"),
    ],
)
def test_a_user_and_a_password_are_not_shown(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("http://b/", None),
        ("http://b/?to=a@b", None),
        ("http://@b/", None),
        ("http://Aladdin:open%20sesame@b/", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),  # RFC 7617, section 2
        ("http://test:123%C2%A3@b/", "Basic dGVzdDoxMjPCow=="),  # RFC 7617, section 2.1
        ("http://u@b/", "Basic dTo="),
        ("http://u%40x:a%3Ab@b/", "Basic dUB4OmE6Yg=="),
    ],
)
def test_they_are_percent_decoded_and_sent_as_basic(url: str, value: str | None) -> None:
    assert credentials(url) == value
