"""Bodies of payers that do not arrive: answered after a while, and the payment is as good as before."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from headgate.config import Config
from headgate.web.receiver import BodyRefused, Receiver
from tests.web.shop import Row, Shop, Wire, opened_shop, paid, scope, unpacked, until
from tests.x402.buyer import PAYER

pytestmark = pytest.mark.timeout(60)
AGENT = PAYER.address.lower()
SOLD = Row("usage", "x402", 1, 100_000, None, AGENT)
MORE = """
[actions."first"]
title = "Paid first"
price = "0.10"
settle = "before"
routes = ["POST /v1/files/first"]
[actions."flow"]
title = "A measured stream"
unit = "byte"
price = "0.01"
max_units = 100
measure = "bytes"
stream = true
routes = ["POST /v1/files/flow"]
"""
PART = {"type": "http.request", "body": b"par", "more_body": True}
WHOLE = {"type": "http.request", "body": b"part", "more_body": False}


def hurried(config: Config) -> Config:
    return replace(config, limits=replace(config.limits, body_time_us=50_000, kept_answer_bytes=200))


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened_shop(tmp_path, change=hurried, more=MORE) as opened:
        await until(lambda: opened.gate.payer.storefront.sells("flow"))
        yield opened


async def sent(shop: Shop, path: str, headers: dict[str, str], *messages: dict[str, Any]) -> Wire:
    """A POST, and nothing more after these messages: the client holds the connection and is silent."""
    wire = Wire(*(dict(message) for message in messages))
    path, _, query = path.partition("?")
    asked = scope("POST", path, headers=headers, query_string=query.encode())
    await shop.app(asked, wire.receive, wire.send)
    return wire


async def offered(shop: Shop, path: str) -> dict[str, str]:
    wire = await sent(shop, path, {}, WHOLE)
    return paid(httpx.Response(402, headers=wire.sent[0]["headers"]))


def code(wire: Wire) -> tuple[int, str]:
    return wire.status, json.loads(wire.body)["code"]


@pytest.mark.parametrize("begun", [[PART], [PART, PART], []], ids=["a part", "two parts", "nothing"])
@pytest.mark.parametrize("path", ["/v1/doc", "/v1/files/flow"])
async def test_a_body_that_stays_away(path: str, begun: list[dict[str, Any]], shop: Shop) -> None:
    payment = await offered(shop, path)
    wire = Wire(*begun)
    wire.incoming = [dict(message) for message in begun]  # none of them at all, if there are none
    await shop.app(scope("POST", path, headers=payment), wire.receive, wire.send)
    assert code(wire) == (408, "body_too_slow")
    assert len([message for message in wire.sent if message["type"] == "http.response.start"]) == 1
    assert await shop.payments() == ["released"]
    assert (shop.asked, shop.calls.bodies, await shop.ledger()) == (["verify"], [], [])
    assert shop.gate.payer.cashier._in_flight._payments == {}
    good = await sent(shop, path, payment, WHOLE)  # the same payment
    assert (good.status, shop.calls.bodies) == (200, [b"part"])
    assert await shop.payments() == ["settled"]


async def test_a_repetition_is_bounded_too(shop: Shop) -> None:
    """Its body is compared before the kept answer is given."""
    payment = await offered(shop, "/v1/doc")
    first = await sent(shop, "/v1/doc", payment, WHOLE)
    assert first.status == 200
    assert code(await sent(shop, "/v1/doc", payment, PART)) == (408, "body_too_slow")
    again = await sent(shop, "/v1/doc", payment, WHOLE)
    assert (again.status, again.body) == (200, first.body)
    assert (shop.calls.count, await shop.ledger()) == (1, [SOLD])


async def test_what_is_served_again_is_bounded_too(shop: Shop) -> None:
    """The answer was too large to keep: the same payment runs again, once its body is there."""
    path = "/v1/doc?h-x=1"
    payment = await offered(shop, path)
    shop.gate.payer._limits = replace(shop.gate.payer.limits, kept_answer_bytes=1)
    assert (await sent(shop, path, payment, WHOLE)).status == 200
    assert code(await sent(shop, path, payment, PART)) == (408, "body_too_slow")
    assert shop.calls.count == 1
    assert (await sent(shop, path, payment, WHOLE)).status == 200
    assert (shop.calls.count, await shop.ledger()) == (2, [SOLD])


async def test_work_that_was_paid_first_stays_owed(shop: Shop) -> None:
    payment = await offered(shop, "/v1/files/first")
    wire = await sent(shop, "/v1/files/first", payment, PART)
    assert code(wire) == (408, "body_too_slow")
    headers = {bytes(name).lower(): bytes(value) for name, value in wire.sent[0]["headers"]}
    assert unpacked(headers[b"payment-response"].decode())["success"] is True  # it has paid, and is told so
    assert b"headgate-receipt" in headers
    assert b"charged" not in wire.body
    assert (await shop.payments(), await shop.ledger()) == (["reopened"], [SOLD])
    assert (await sent(shop, "/v1/files/first", payment, WHOLE)).status == 200
    assert (await shop.payments(), await shop.ledger()) == (["settled"], [SOLD])


# --- how long -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body_time_s", "valid_for_s", "within_s"),
    [
        (60, 300, 60),
        (300, 300, 270),  # `min_validity`, 30 s, is left for the work
        (300, 100, 70),
        (300, 35, 10),  # but a body that comes at all gets a moment
        (300, 0, 10),
        (3, 35, 3),
        (300, None, 300),  # settled already
    ],
)
async def test_a_payment_s_last_moments_are_for_the_work(
    body_time_s: int, valid_for_s: int | None, within_s: int, shop: Shop
) -> None:
    payer, loop = shop.gate.payer, asyncio.get_running_loop()
    payer._limits = replace(payer.limits, body_time_us=body_time_s * 1_000_000)
    payer._now_us = lambda: 1_000 * 1_000_000
    signed = SimpleNamespace(valid_before_s=1_000 + (valid_for_s or 0))
    payment: Any = None if valid_for_s is None else SimpleNamespace(signed=signed)
    before = loop.time()
    receiver = payer._watched(Wire().receive, payment)
    assert before + within_s <= receiver._until <= loop.time() + within_s


async def test_a_body_in_time_is_never_cut_off() -> None:
    """The bound is for the body: what is received afterwards is a disconnect, however late."""
    wire = Wire(PART, WHOLE)
    receiver = Receiver(wire.receive)
    receiver.watch_body(1_000, 0.05)
    assert [(await receiver())["body"] for _ in range(2)] == [b"par", b"part"]
    waiting = asyncio.ensure_future(receiver())
    await asyncio.sleep(0.15)
    assert not waiting.done()
    waiting.cancel()
    assert receiver.refused is None


async def test_after_its_time_the_body_is_refused_again_and_again() -> None:
    """An application that asks once more after the refusal is refused once more, and does not hang."""
    receiver = Receiver(Wire(PART).receive)
    receiver.watch_body(1_000, 0.05)
    assert (await receiver())["body"] == b"par"
    for _ in range(3):
        with pytest.raises(BodyRefused):
            await receiver()
    assert receiver.refused is not None
    assert receiver.refused.status == 408
