"""A seller for unmodified buyers: a real server, the embedded facilitator and its chain of play money."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headgate import Headgate, usage
from headgate.devnet import EmbeddedFacilitator, Wallet
from headgate.x402.facilitator import InProcessFacilitator
from tests.web.shop import Calls, Clock, Shop, configured, serving
from tests.x402.buyer import SEPOLIA


@dataclass
class Seller:
    """Where it is, what it booked, and the chain that pays it."""

    url: str
    shop: Shop
    embedded: EmbeddedFacilitator

    @property
    def wallets(self) -> tuple[Wallet, ...]:
        return self.embedded.chain.wallets


def application() -> Starlette:
    async def read(request: Request) -> Response:
        caller = usage(request).caller
        assert caller is not None
        return JSONResponse({"read": True, "payer": caller.payer})

    async def count(request: Request) -> Response:
        return JSONResponse({"words": len((await request.json())["text"].split())})

    async def words(request: Request) -> Response:
        count = len((await request.json())["text"].split())
        return JSONResponse({"words": count}, headers={"Headgate-Units": str(count)})

    async def broken(_request: Request) -> Response:
        return JSONResponse({"sorry": True}, 500)

    return Starlette(
        routes=[
            Route("/v1/doc", read),
            Route("/v1/doc", count, methods=["POST"]),
            Route("/v1/words", words, methods=["POST"]),
            Route("/v1/files/broken", broken),
        ]
    )


@pytest.fixture
async def seller(tmp_path: Path) -> AsyncIterator[Seller]:
    with EmbeddedFacilitator() as embedded:
        gate = Headgate(
            configured(tmp_path, "embedded"), facilitators={SEPOLIA: InProcessFacilitator(embedded)}
        )
        app = gate.middleware(application())
        shop = Shop(gate, app, Calls(), Clock(), None)  # type: ignore[arg-type]  the chain is real here
        async with serving(app, lifespan="on") as url:
            yield Seller(url, shop, embedded)
