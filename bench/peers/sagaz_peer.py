"""sagaz: a declarative saga on asyncio, whose state it saves in SQLite when it starts and when it has ended."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web
from sagaz import Saga, SagaConfig, action, compensate, configure
from sagaz.core.storage import create_storage

from bench.peers.calls import ATTEMPTS, Failed, post_async

Context = dict[str, Any]


class Signup(Saga):
    """The saga."""

    saga_name = "signup"

    def __init__(self, http: aiohttp.ClientSession):
        super().__init__()
        self._http = http

    async def _call(self, step: str, verb: str, ctx: Context) -> dict[str, Any]:
        for _ in range(ATTEMPTS - 1):  # a step's max_retries has no effect in 1.5.0
            try:
                return await post_async(self._http, ctx["saga_id"], step, verb, ctx, ctx["fail"])
            except Failed:
                continue
        return await post_async(self._http, ctx["saga_id"], step, verb, ctx, ctx["fail"])

    @action("A")
    async def create_user(self, ctx: Context) -> dict[str, Any]:
        """A's action."""
        return await self._call("A", "invoke", ctx)

    @compensate("A")
    async def delete_user(self, ctx: Context) -> None:
        """Its compensation."""
        await self._call("A", "compensate", ctx)

    @action("B", depends_on=["A"])
    async def store_address(self, ctx: Context) -> dict[str, Any]:
        """B's action."""
        return await self._call("B", "invoke", ctx)

    @compensate("B")
    async def delete_address(self, ctx: Context) -> None:
        """Its compensation."""
        await self._call("B", "compensate", ctx)

    @action("C", depends_on=["B"])
    async def take_payment(self, ctx: Context) -> dict[str, Any]:
        """C's action."""
        return await self._call("C", "invoke", ctx)


async def _running(app: web.Application) -> AsyncIterator[None]:
    async with create_storage("sqlite", db_path=os.environ["STATE"]) as storage, aiohttp.ClientSession() as http:
        configure(SagaConfig(storage=storage))
        app["http"] = http
        yield


async def _start(request: web.Request) -> web.Response:
    given = await request.json() | {"saga_id": str(uuid.uuid4()), "fail": request.query.get("fail", "")}
    try:
        await Signup(request.app["http"]).run(given)
    except Failed as error:  # raised once everything is compensated
        return web.json_response({"status": "COMPENSATED", "error": str(error)}, status=500)
    return web.json_response({"status": "COMPLETED"})


def main() -> None:
    """Serve POST /start."""
    app = web.Application()
    app.cleanup_ctx.append(_running)
    app.router.add_post("/start", _start)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]))


if __name__ == "__main__":
    main()
