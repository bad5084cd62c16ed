"""Facilitators as the configuration wires them: nothing here is handed in but the file and its environment.

A network's headers reach every question, and its guard stands before every payment; networks of one
facilitator share that guard, and those that only look alike do not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header

from headgate import Headgate
from headgate.config import parse
from tests.web.shop import (
    Calls,
    Row,
    Shop,
    StoppedClock,
    application,
    client_of,
    config_text,
    paid,
    problem_of,
    until,
)
from tests.x402.buyer import PAYER, SEPOLIA, sdk_client
from tests.x402.scripted import ScriptedFacilitator, drop

pytestmark = pytest.mark.timeout(60)
AMOY = "eip155:80002"
KEY = "sk-facilitator-0123456789"
SECOND = 1_000_000
FAILURES = 5
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
WITH_KEY = 'facilitator_headers = { Authorization = "Bearer ${FACILITATOR_KEY}", X-Shop = "acme" }\n'


@asynccontextmanager
async def wired_shop(folder: Path, more: str, networks: str = "base-sepolia") -> AsyncIterator[Shop]:
    """A shop whose facilitators are those that its file names."""
    async with ScriptedFacilitator() as scripted:
        more = more.replace("URL", scripted.url)
        text = config_text(store=str(folder / "headgate.db"), facilitator=scripted.url, more=more)
        environ = {"FACILITATOR_KEY": KEY, "HEADGATE_NETWORK": networks}
        clock, calls = StoppedClock(), Calls()
        gate = Headgate(parse(text, file="headgate.toml", environ=environ), now_us=clock)
        inner = application(calls)
        app = gate.middleware(inner)
        await gate.open(inner)
        try:
            yield Shop(gate, app, calls, clock, scripted)
        finally:
            await gate.close()


async def payment(client: httpx.AsyncClient, network: str) -> dict[str, str]:
    """The header with which the official client takes up the offer on one network."""
    offer = await client.get("/v1/doc")
    required = decode_payment_required_header(offer.headers["PAYMENT-REQUIRED"])
    required.accepts = [each for each in required.accepts if each.network == network]
    payload = sdk_client().create_payment_payload(required)
    return {"PAYMENT-SIGNATURE": encode_payment_signature_header(payload)}


async def fail_five_times(shop: Shop, client: httpx.AsyncClient, network: str) -> None:
    """Five payments whose questions are cut off, each also when it is asked once more."""
    shop.facilitator.script.verify.extend([drop] * 2 * FAILURES)
    for _ in range(FAILURES):
        answer = await client.get("/v1/doc", headers=await payment(client, network))
        assert (answer.status_code, problem_of(answer)) == (503, "facilitator_unavailable")
    assert not shop.facilitator.script.verify


async def test_configured_headers_reach_every_question(tmp_path: Path) -> None:
    more = f'[x402.networks."{SEPOLIA}"]\n{WITH_KEY}'
    async with wired_shop(tmp_path, more) as shop, client_of(shop.app, "http") as client:
        asked = shop.facilitator.asked
        await until(lambda: shop.facilitator.count("supported"))
        assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200
        assert sorted(step for step, _ in asked) == ["settle", "supported", "verify"]
        told = [(each.get("authorization"), each.get("x-shop")) for each in shop.facilitator.headers]
        assert told == [(f"Bearer {KEY}", "acme")] * 3
        assert await shop.ledger() == [SOLD]


async def test_a_configured_facilitator_is_guarded(tmp_path: Path) -> None:
    """After five failures it is left alone for a while by the shop's own clock, and then asked again."""
    async with wired_shop(tmp_path, "") as shop, client_of(shop.app, "http") as client:
        await fail_five_times(shop, client, SEPOLIA)
        asked = shop.facilitator.count("verify")
        sixth = await payment(client, SEPOLIA)
        answer = await client.get("/v1/doc", headers=sixth)
        assert (answer.status_code, problem_of(answer)) == (503, "facilitator_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert shop.facilitator.count("verify") == asked == 2 * FAILURES
        assert (shop.calls.count, await shop.ledger()) == (0, [])
        shop.clock.ahead_us += int(answer.headers["retry-after"]) * SECOND
        assert (await client.get("/v1/doc", headers=sixth)).status_code == 200
        assert await shop.ledger() == [SOLD]


@pytest.mark.parametrize(
    ("more", "held_back"),
    [
        ("", True),
        (f'[x402.networks."{AMOY}"]\nfacilitator = "URL/"\n', True),
        (f'[x402.networks."{AMOY}"]\nfacilitator = "URL/amoy"\n', False),
        (f'[x402.networks."{AMOY}"]\n{WITH_KEY}', False),
    ],
    ids=["one URL", "one URL with a slash", "another URL", "one URL with another key"],
)
async def test_networks_of_one_facilitator_share_its_guard(
    more: str, held_back: bool, tmp_path: Path
) -> None:
    """What fails on one network is down on the other too, if it is the same facilitator with the same key."""
    networks = "base-sepolia,polygon-amoy"
    async with wired_shop(tmp_path, more, networks) as shop, client_of(shop.app, "http") as client:
        await fail_five_times(shop, client, SEPOLIA)
        asked = shop.facilitator.count("verify")
        answer = await client.get("/v1/doc", headers=await payment(client, AMOY))
        assert answer.status_code == (503 if held_back else 200)
        assert shop.facilitator.count("verify") == asked + (not held_back)
        held = await client.get("/v1/doc", headers=await payment(client, SEPOLIA))
        assert (held.status_code, problem_of(held)) == (503, "facilitator_unavailable")
