"""The seller's process: `python -m tests.torture.seller CONFIG`; prints its origin, waits to be killed."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate import Headgate
from headgate.app import clock_us
from headgate.config import load
from headgate.x402.facilitator import FacilitatorClient, GuardedFacilitator
from tests.web.shop import serving

_LIFE = os.urandom(4).hex()
_calls = itertools.count(1)


async def handler(request: Request) -> Response:
    """Every run of the work gives another answer, so that one who is served twice can be told."""
    await request.body()
    call = f"{_LIFE}-{next(_calls)}"
    if "raise" in request.query_params:
        raise RuntimeError("the handler was told to fail")
    if "slow" in request.query_params:
        await asyncio.sleep(0.05)
    return JSONResponse({"call": call}, int(request.query_params.get("status", "200")))


async def main(path: str) -> None:
    config = load(path, {})
    assert config.x402 is not None
    network = config.x402.networks[0]
    client = FacilitatorClient(network.facilitator_url, verify_timeout_ms=400, settle_timeout_ms=400)
    guarded = GuardedFacilitator(client, clock_us)
    gate = Headgate(config, facilitators={network.caip2: guarded})
    inner = Starlette(routes=[Route("/v1/doc", handler, methods=["GET", "POST"])])
    app = gate.middleware(inner)
    await gate.open(inner)
    async with serving(app) as url:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    assert Path(sys.argv[1]).exists()
    asyncio.run(main(sys.argv[1]))
