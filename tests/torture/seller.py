"""The seller's process; prints its origin, waits to be killed.

    python -m tests.torture.seller CONFIG LIFE SEED

LIFE names this process among all of a run; what its handlers do by chance follows from SEED.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from headgate import Headgate, usage
from headgate.app import clock_us
from headgate.config import load
from headgate.x402.facilitator import FacilitatorClient, GuardedFacilitator
from tests.torture.sold import DOC, FIRST, FLOW, HANDLED, WORDS
from tests.web.shop import serving


class Told(RuntimeError):
    """A handler fails because it was told to."""


class Work:
    """What the handlers do. Every run of it gives another answer, so that who is served twice can be told."""

    def __init__(self, life: str, seed: int, handled: Path) -> None:
        self._life = life
        self._seed = seed
        self._handled = os.open(handled, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._calls = itertools.count(1)
        self._tries: Counter[str] = Counter()

    async def answer(self, request: Request) -> Response:
        """As the query says: fail, wait, state units, give a status."""
        body = await request.body()
        call, asked = self._begin(request), request.query_params
        if "raise" in asked:
            raise Told("whenever it is asked")
        if "sometimes" in asked and self._fails(request):
            raise Told("now and then")
        if "slow" in asked:
            await asyncio.sleep(float(asked["slow"]))
        headers = {"Headgate-Units": asked["units"]} if "units" in asked else None
        answer = {"call": call, "body": body.decode()}
        return JSONResponse(answer, int(asked.get("status", "200")), headers)

    async def flow(self, request: Request) -> Response:
        """A stream of as many bytes as are asked for, the first of them another in each run."""
        call, size = f"{self._begin(request)}:".encode(), int(request.query_params["units"])

        async def parts() -> AsyncIterator[bytes]:
            text = (call + b"x" * size)[:size]
            for place in range(0, size, 16):
                yield text[place : place + 16]
                await asyncio.sleep(0)

        return StreamingResponse(parts())

    def _begin(self, request: Request) -> str:
        """This run's name. A customer's request is noted: its event names the same request id."""
        caller, asked = usage(request).caller, request.query_params.get("ask")
        if caller is not None and asked is not None:
            os.write(self._handled, f"{asked} {caller.request_id}\n".encode())
        return f"{self._life}-{next(self._calls)}"

    def _fails(self, request: Request) -> bool:
        """Four times of ten, by payment and try."""
        caller = usage(request).caller
        name = "" if caller is None else caller.operation_id
        self._tries[name] += 1
        text = f"{self._seed} {name} {self._tries[name]}".encode()
        return hashlib.sha256(text).digest()[0] < 102


async def main(path: str, life: str, seed: int) -> None:
    config = load(path, {})
    assert config.x402 is not None
    network = config.x402.networks[0]
    client = FacilitatorClient(network.facilitator_url, verify_timeout_ms=400, settle_timeout_ms=400)
    guarded = GuardedFacilitator(client, clock_us)
    gate = Headgate(config, facilitators={network.caip2: guarded})
    work = Work(life, seed, Path(path).with_name(HANDLED))
    methods = ["GET", "POST"]
    inner = Starlette(
        routes=[
            *(Route(path, work.answer, methods=methods) for path in (DOC, WORDS, FIRST)),
            Route(FLOW, work.flow),
        ]
    )
    app = gate.middleware(inner)

    async def quiet(scope: Scope, receive: Receive, send: Send) -> None:
        """All is said: uvicorn would close the connection, and lose a request that is on its way."""
        with contextlib.suppress(Told):
            await app(scope, receive, send)

    await gate.open(inner)
    async with serving(quiet) as url:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    assert Path(sys.argv[1]).exists()
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
