"""A seller's webhook receiver on loopback: checks signatures, does as scripted, remembers what it took."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from headgate.overage.signature import read_secrets, verify

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def real_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Receiver:
    """`script` holds what to do with the next requests; when it is empty they are taken with 200.

    An int is a status to answer with (2xx: taken), a dict adds headers to 503, "hang" never answers, "lost"
    takes the events and drops the connection, "redirect" and "long" answer as they say.
    """

    url: str = ""
    script: deque[Any] = field(default_factory=deque)
    taken: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    now_us: Callable[[], int] = real_us
    on_taken: Callable[[], None] = lambda: None
    released: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.taken]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        verify(headers, body, read_secrets(SECRET), self.now_us())
        content = json.loads(body)
        self.requests.append((headers, content))
        doing = self.script.popleft() if self.script else 200
        if doing == "hang":
            await self.released.wait()
            return web.Response(status=500)
        if doing == "redirect":
            return web.Response(status=307, headers={"Location": str(request.url)})
        if doing == "long":
            return web.Response(status=500, body=b"\x1b[31mno\n" + b"x" * 10_000_000)
        if isinstance(doing, dict):
            return web.Response(status=503, headers=doing)
        if doing == "lost" or 200 <= doing < 300:
            self.taken += content if isinstance(content, list) else [content]
            self.on_taken()
        if doing == "lost":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(status=doing, text="as scripted" if doing >= 300 else "thanks")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a port of its own."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/overage", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/overage"
    try:
        yield receiver
    finally:
        receiver.released.set()
        await runner.cleanup()
