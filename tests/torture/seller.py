"""The seller's process: `python -m tests.torture.seller CONFIG`; prints its origin, waits to be killed."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from headgate import Headgate
from headgate.app import clock_us
from headgate.config import load
from headgate.x402.facilitator import FacilitatorClient, GuardedFacilitator
from tests.torture.plan import DOC, FIRST, FLOW, WORDS
from tests.web.shop import serving

_LIFE = os.urandom(4).hex()
_calls = itertools.count(1)


async def handler(request: Request) -> Response:
    """Every run of the work gives another answer, so that one who is served twice can be told."""
    await request.body()
    call = f"{_LIFE}-{next(_calls)}"
    asked = request.query_params
    if "raise" in asked:
        raise RuntimeError("the handler was told to fail")
    if "sometimes" in asked and random.random() < 0.4:
        raise RuntimeError("the handler fails now and then")
    if "slow" in asked:
        await asyncio.sleep(float(asked["slow"]))
    headers = {"Headgate-Units": asked["units"]} if "units" in asked else None
    return JSONResponse({"call": call}, int(asked.get("status", "200")), headers)


async def flow(request: Request) -> Response:
    """A stream of as many bytes as are asked for, the first of them another in each run."""
    call, size = f"{_LIFE}-{next(_calls)}:".encode(), int(request.query_params["units"])

    async def parts() -> AsyncIterator[bytes]:
        text = (call + b"x" * size)[:size]
        for place in range(0, size, 16):
            yield text[place : place + 16]
            await asyncio.sleep(0)

    return StreamingResponse(parts())


async def main(path: str) -> None:
    config = load(path, {})
    assert config.x402 is not None
    network = config.x402.networks[0]
    client = FacilitatorClient(network.facilitator_url, verify_timeout_ms=400, settle_timeout_ms=400)
    guarded = GuardedFacilitator(client, clock_us)
    gate = Headgate(config, facilitators={network.caip2: guarded})
    methods = ["GET", "POST"]
    inner = Starlette(
        routes=[*(Route(path, handler, methods=methods) for path in (DOC, WORDS, FIRST)), Route(FLOW, flow)]
    )
    app = gate.middleware(inner)
    await gate.open(inner)
    async with serving(app) as url:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    assert Path(sys.argv[1]).exists()
    asyncio.run(main(sys.argv[1]))
