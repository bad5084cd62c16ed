"""A seller as the x402 SDK's documentation shows it: its FastAPI middleware, `exact` and `upto`, unmodified.

python -m tests.interop.sdk_seller FACILITATOR_URL PAY_TO     prints its origin once it answers
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastapi import FastAPI, Response
from x402 import x402ResourceServer
from x402.http import HTTPFacilitatorClient
from x402.http.middleware.fastapi import payment_middleware, set_settlement_overrides
from x402.mechanisms.evm.exact import ExactEvmServerScheme
from x402.mechanisms.evm.upto import UptoEvmServerScheme

from tests.web.shop import serving

NETWORK = "eip155:84532"


def application(facilitator_url: str, pay_to: str) -> FastAPI:
    server = x402ResourceServer(HTTPFacilitatorClient({"url": facilitator_url}))
    server.register(NETWORK, ExactEvmServerScheme())
    server.register(NETWORK, UptoEvmServerScheme())
    terms = {"network": NETWORK, "payTo": pay_to}
    routes: dict[str, Any] = {
        "GET /weather": {"accepts": {"scheme": "exact", "price": "$0.01", **terms}},
        "GET /tokens": {"accepts": {"scheme": "upto", "price": "$0.10", **terms}},
    }
    app = FastAPI()
    app.middleware("http")(payment_middleware(routes, server))

    @app.get("/weather")
    async def weather() -> dict[str, str]:
        return {"weather": "sunny"}

    @app.get("/tokens")
    async def tokens(response: Response) -> dict[str, int]:
        set_settlement_overrides(response, {"amount": "30000"})
        return {"tokens": 30}

    return app


async def main(facilitator_url: str, pay_to: str) -> None:
    async with serving(application(facilitator_url, pay_to)) as url:
        sys.stdout.write(url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
