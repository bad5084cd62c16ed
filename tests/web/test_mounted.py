"""Applications below a prefix: what is priced is what their router finds; addresses say where buyers go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from headgate import Headgate
from tests.web.shop import Calls, Row, Wire, client_of, opened_shop, paid, scope, unpacked
from tests.x402.buyer import PAYER

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated"),  # it still works
]
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
SOLD_HERE = """
[actions."here"]
title = "Sold"
price = "0.10"
routes = ["GET /v1/paid", "GET /api-keys/paid"]
"""
BELOW = "https://api.example.com/api"


def fastapi(calls: Calls) -> FastAPI:
    """Knows its prefix, and answers with and without it, as FastAPI does."""
    app = FastAPI(root_path="/api")

    async def sold() -> dict[str, int]:
        calls.count += 1
        return {"call": calls.count}

    for path in ("/v1/paid", "/api-keys/paid"):
        app.get(path)(sold)
    return app


def outside(app: FastAPI, gate: Headgate) -> Any:
    return gate.middleware(app)


def outside_with_cors(app: FastAPI, gate: Headgate) -> Any:
    return gate.middleware(CORSMiddleware(app, allow_origins=["*"]))


def inside(app: FastAPI, gate: Headgate) -> Any:
    app.add_middleware(gate.middleware)
    return app


@pytest.mark.parametrize("wrap", [outside, outside_with_cors, inside])
@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("/api/v1/paid", "/v1/paid"),
        ("/v1/paid", "/v1/paid"),
        ("/api-keys/paid", "/api-keys/paid"),
        ("/api/api-keys/paid", "/api-keys/paid"),
    ],
)
async def test_an_application_that_knows_its_prefix(wrap: Any, path: str, local: str, tmp_path: Path) -> None:
    """Whatever reaches the handler is sold; `/api` is no prefix of `/api-keys`."""
    async with (
        opened_shop(tmp_path, app=fastapi, wrap=wrap, more=SOLD_HERE, origin=BELOW) as shop,
        client_of(shop.app, "http") as client,
    ):
        offer = await client.get(path)
        assert offer.status_code == 402
        assert offer.json()["resource"]["url"] == BELOW + local
        refused = await client.head(path)
        assert refused.status_code == 402
        # FastAPI answers no HEAD: it is gated as its GET, and then nothing is charged for the 405
        assert (await client.head(path, headers=paid(refused))).status_code == 405
        assert await shop.payments() == ["released"]
        assert await shop.ledger() == []
        answer = await client.get(path, headers=paid(offer))
        assert (answer.status_code, answer.json()) == (200, {"call": 1})
        assert await shop.ledger() == [SOLD]
        assert (await client.get(f"{path}/other")).status_code == 404


def mounted(app: Any, gate: Headgate) -> Starlette:
    return Starlette(routes=[Mount("/api", gate.middleware(app))])


async def test_below_a_mount_every_address_is_below_it(tmp_path: Path) -> None:
    async with (
        opened_shop(tmp_path, wrap=mounted, origin=BELOW) as shop,
        client_of(shop.app, "http") as client,
    ):
        await addresses_are_right(client, "/api")
        assert (await client.get("/v1/doc")).status_code == 404
        (settled,) = [asked for step, asked in shop.facilitator.asked if step == "settle"]
        assert settled["paymentPayload"]["resource"]["url"] == f"{BELOW}/v1/files/a%20b.txt"


@pytest.mark.parametrize("prefixed", [True, False])
async def test_below_a_prefix_that_the_server_is_told(prefixed: bool, tmp_path: Path) -> None:
    """`uvicorn --root-path /api`: the path has the prefix in it, or (a proxy cut it off) it has not."""
    async with opened_shop(tmp_path, origin=BELOW) as shop:

        async def served(asked: Any, receive: Any, send: Any) -> None:
            await shop.app({**asked, "root_path": "/api"}, receive, send)

        async with client_of(served, "http") as client:
            await addresses_are_right(client, "/api" if prefixed else "")


async def addresses_are_right(client: httpx.AsyncClient, prefix: str) -> None:
    offer = await client.get(prefix + "/v1/files/a%20b.txt")
    assert offer.json()["resource"]["url"] == f"{BELOW}/v1/files/a%20b.txt"
    resources = (await client.get(prefix + "/.well-known/x402")).json()["resources"]
    assert f"{BELOW}/v1/doc" in str(resources)
    assert f"{BELOW}/api/" not in str(resources)
    answer = await client.get(prefix + "/v1/files/a%20b.txt", headers=paid(offer))
    assert answer.status_code == 200
    receipt = answer.headers["headgate-receipt"]
    assert receipt.startswith(f"{BELOW}/.well-known/headgate/receipts/pay_")
    page = await client.get(prefix + receipt.removeprefix(BELOW))
    assert (page.status_code, page.json()["state"]) == (200, "settled")
    assert page.json()["transaction"] == unpacked(answer.headers["payment-response"])["transaction"]


async def test_a_prefix_is_one_where_a_segment_ends_with_it(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, app=fastapi, more=SOLD_HERE) as shop:
        for root, path, status in [
            ("/api", "/api-keys/paid", 402),
            ("/api", "/api/v1/paid", 402),
            ("/other", "/v1/paid", 402),
            ("", "/api/v1/paid", 402),
        ]:
            wire = Wire()
            await shop.app(scope(path=path, root_path=root), wire.receive, wire.send)
            assert wire.status == status, (root, path)
