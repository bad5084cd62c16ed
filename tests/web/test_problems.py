"""Headgate's own refusals on priced routes: no cache keeps them (case 26), browsers may read them (case 27).

Each is met over real HTTP as a caller meets it, also those that are made anew with another `Retry-After` or
with a receipt: a refusal that a cache handed to the next caller would refuse who has paid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.config import Config
from headgate.model.booking import Use
from tests.web.shop import (
    Shop,
    StoppedClock,
    bearer,
    client_of,
    failing,
    opened_shop,
    paid,
    problem_of,
    until,
)
from tests.x402.scripted import ScriptedFacilitator, answering, drop, hang, lying, refusing

pytestmark = pytest.mark.timeout(60)
Asking = Callable[[Shop, httpx.AsyncClient], Awaitable[httpx.Response]]
READABLE = {"payment-required", "payment-response", "headgate-receipt", "retry-after"}
FIRST = """
[actions."first"]
title = "Paid first"
price = "0.10"
settle = "before"
routes = ["GET /v1/files/x/{name}"]
"""


@dataclass(frozen=True)
class Case:
    """One refusal: its status and code, how it is met, and what of `[x402]` or `[limits]` it needs."""

    status: int
    code: str
    ask: Asking
    x402: tuple[tuple[str, int], ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    waits: bool = False


async def buy(client: httpx.AsyncClient, path: str = "/v1/doc") -> httpx.Response:
    return await client.get(path, headers=paid(await client.get(path)))


async def unreadable(_shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": "%%%"})


async def sent_twice(_shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    payment = paid(await client.get("/v1/doc"))["PAYMENT-SIGNATURE"]
    return await client.get("/v1/doc", headers=[("PAYMENT-SIGNATURE", payment)] * 2)


async def ambiguous(_shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/v1//doc")


async def unknown_key(_shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/v1/doc", headers=bearer("hg_test_unknown"))


async def no_contract(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/v1/doc", headers=bearer(await shop.customer("ada", None)))


async def exhausted(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    key = await shop.customer("ada", "closed")
    await shop.use_up("ada", 2)
    return await client.get("/v1/doc", headers=bearer(key))


async def while_one_is_at_work(
    shop: Shop, client: httpx.AsyncClient, ask: Callable[[dict[str, str]], Awaitable[httpx.Response]]
) -> httpx.Response:
    """What is answered while a paid request is at work; `ask` is given its payment."""
    shop.calls.gate = asyncio.Event()
    payment = paid(await client.get("/v1/doc"))
    working = asyncio.create_task(client.get("/v1/doc", headers=payment))
    await until(lambda: shop.calls.count)
    answer = await ask(payment)
    shop.calls.gate.set()
    assert (await working).status_code == 200
    return answer


async def in_progress(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    return await while_one_is_at_work(shop, client, lambda payment: client.get("/v1/doc", headers=payment))


async def busy(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    return await while_one_is_at_work(shop, client, lambda _payment: buy(client))


async def elsewhere(_shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    payment = paid(await client.get("/v1/doc"))
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    return await client.get("/v1/doc?page=2", headers=payment)


async def used(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    payment = paid(await client.get("/v1/doc"))
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    shop.clock.ahead_us += 16 * 60_000_000
    return await client.get("/v1/doc", headers=payment)


async def too_large(_shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    payment = paid(await client.post("/v1/doc"))
    return await client.post("/v1/doc", headers=payment, content=b"x" * 1_001)


async def throttled(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    shop.facilitator.script.verify.append(refusing("insufficient_funds"))
    assert (await buy(client)).status_code == 402
    return await buy(client)


async def facilitator_down(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    shop.facilitator.script.verify.extend([drop] * 2)
    return await buy(client)


async def facilitator_left_alone(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    """It has failed so often that the wait is longer than the usual one."""
    shop.facilitator.script.verify.extend([answering({}, 500)] * 9)
    for _ in range(8):
        wait_s = int((await buy(client)).headers["retry-after"])
        shop.clock.ahead_us += wait_s * 1_000_000
    answer = await buy(client)
    assert int(answer.headers["retry-after"]) > 2
    return answer


async def pending(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    shop.facilitator.script.settle.append(drop)
    return await buy(client)


async def unverified(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    shop.facilitator.script.settle.append(lying(transaction=""))
    return await buy(client)


async def not_ready(_shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    return await client.post("/v1/words")


async def failed_after_it_was_paid(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    async def failing_app(*_given: Any) -> None:
        raise RuntimeError("it failed before it said anything")

    shop.app.app = failing_app
    answer = await buy(client, "/v1/files/x/a")
    assert "payment-response" in answer.headers
    return answer


async def store_down(shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    key = await shop.customer("ada", "team")
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, shop, Use)
        return await client.get("/v1/doc", headers=bearer(key))


async def no_receipt(_shop: Shop, client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/.well-known/headgate/receipts/pay_00.11")


CASES = (
    Case(400, "invalid_payload", unreadable),
    Case(400, "duplicate_payment_header", sent_twice),
    Case(400, "ambiguous_path", ambiguous),
    Case(401, "invalid_credentials", unknown_key),
    Case(403, "no_subscription", no_contract),
    Case(404, "no_such_receipt", no_receipt),
    Case(409, "payment_in_progress", in_progress, waits=True),
    Case(409, "payment_bound_elsewhere", elsewhere),
    Case(409, "payment_used", used),
    Case(413, "body_too_large", too_large, limits=(("max_body_bytes", 1_000),)),
    Case(429, "allowance_exhausted", exhausted),
    Case(429, "too_many_payments_in_flight", busy, x402=(("payer_in_flight", 1),), waits=True),
    Case(429, "too_many_refused_payments", throttled, x402=(("client_refusals", 1),), waits=True),
    Case(500, "paid_work_failed", failed_after_it_was_paid),
    Case(502, "settlement_unverified", unverified, waits=True),
    Case(503, "facilitator_unavailable", facilitator_down, waits=True),
    Case(503, "facilitator_unavailable", facilitator_left_alone, waits=True),
    Case(503, "offers_not_ready", not_ready, waits=True),
    Case(503, "payment_pending", pending, waits=True),
    Case(503, "store_unavailable", store_down, waits=True),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.ask.__name__)
async def test_no_cache_keeps_a_refusal_and_browsers_may_read_it(case: Case, tmp_path: Path) -> None:
    def change(config: Config) -> Config:
        assert config.x402 is not None
        x402: Any = dict(case.x402)
        limits: Any = dict(case.limits)
        return replace(config, x402=replace(config.x402, **x402), limits=replace(config.limits, **limits))

    async with ScriptedFacilitator() as scripted:
        scripted.script.supported.append(hang)
        async with (
            opened_shop(
                tmp_path,
                facilitator=scripted,
                clock=StoppedClock(),
                change=change,
                no_subscription="block",
                more=FIRST,
            ) as shop,
            client_of(shop.app, "http") as client,
        ):
            answer = await case.ask(shop, client)
            assert (answer.status_code, problem_of(answer)) == (case.status, case.code)
            assert answer.headers.get_list("cache-control") == ["no-store"]
            (exposed,) = answer.headers.get_list("access-control-expose-headers")
            assert {each.strip().lower() for each in exposed.split(",")} >= READABLE
            assert ("retry-after" in answer.headers) == case.waits
