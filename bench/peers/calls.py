"""The calls that every peer makes to A, B and C: what is sent, and what comes of the answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

STEPS: Mapping[str, tuple[str, ...]] = {
    "A": ("username",),
    "B": ("user_id", "address"),
    "C": ("user_id", "payment"),
}  # in their order: what of the saga's input and earlier answers each is sent
ATTEMPTS = 3  # without a rest between them


class Failed(Exception):
    """A service did not answer 200."""


def post(http: Any, saga_id: str, step: str, verb: str, known: Mapping[str, Any], fail: str = "") -> dict[str, Any]:
    """Call a service's /invoke or /compensate by `requests`, or by a session of it; Failed if it does not say 200."""
    url, headers, fields = _request(saga_id, step, verb, known, fail)
    answer = http.post(url, headers=headers, json=fields, timeout=30)
    if answer.status_code != 200:
        raise Failed(f"{step}: {answer.status_code}")
    return answer.json()


async def post_async(
    http: aiohttp.ClientSession, saga_id: str, step: str, verb: str, known: Mapping[str, Any], fail: str = ""
) -> dict[str, Any]:
    """The same on asyncio."""
    url, headers, fields = _request(saga_id, step, verb, known, fail)
    async with http.post(url, headers=headers, json=fields) as answer:
        if answer.status != 200:
            raise Failed(f"{step}: {answer.status}")
        return await answer.json()


def _request(
    saga_id: str, step: str, verb: str, known: Mapping[str, Any], fail: str
) -> tuple[str, dict[str, str], dict[str, Any]]:
    query = "?fail=before" if verb == "invoke" and fail == step.lower() else ""
    url = f"{os.environ[f'SERVICE_{step}_URL']}/{verb}{query}"
    return url, {"Saga-Id": saga_id, "Saga-Step": step}, {name: known[name] for name in STEPS[step]}
