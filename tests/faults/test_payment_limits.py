"""What one payer can have at work at a time, and when to come back while a facilitator is not asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account

from headgate.config import Config
from tests.web.shop import client_of, opened_shop, paid, problem_of
from tests.x402.scripted import answering

pytestmark = pytest.mark.timeout(60)
OTHER = Account.from_key("0x" + "22" * 32)


def two_at_a_time(config: Config) -> Config:
    assert config.x402 is not None
    return replace(config, x402=replace(config.x402, payer_in_flight=2))


async def test_work_in_flight_per_payer(tmp_path: Path) -> None:
    """Case 6: each work in flight may end unpaid, so one payer has only so many; others are not held up."""
    async with opened_shop(tmp_path, change=two_at_a_time) as shop, client_of(shop.app, "http") as client:
        settled = paid(await client.get("/v1/doc"))
        assert (await client.get("/v1/doc", headers=settled)).status_code == 200
        shop.calls.gate = asyncio.Event()
        payments = [paid(await client.get("/v1/doc")) for _ in range(3)]
        working = [asyncio.create_task(client.get("/v1/doc", headers=each)) for each in payments[:2]]
        while shop.calls.count < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        refused = await client.get("/v1/doc", headers=payments[2])
        assert (refused.status_code, problem_of(refused)) == (429, "too_many_payments_in_flight")
        assert refused.headers["retry-after"].isdigit()
        assert "payment-required" not in refused.headers
        assert (
            await client.get("/v1/doc", headers=settled)
        ).status_code == 200  # who has paid has its answer
        stranger = paid(await client.get("/v1/doc"), OTHER)
        working.append(asyncio.create_task(client.get("/v1/doc", headers=stranger)))
        while shop.calls.count < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        shop.calls.gate.set()
        assert [(await each).status_code for each in working] == [200, 200, 200]
        assert (await client.get("/v1/doc", headers=payments[2])).status_code == 200
        assert len(await shop.ledger()) == len(shop.facilitator.settled) == 5


async def test_failed_work_is_in_flight_no_more(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, change=two_at_a_time) as shop, client_of(shop.app, "http") as client:
        for query in ("?status=500", "?raise=1", "?void=1") * 2:
            await client.get("/v1/doc" + query, headers=paid(await client.get("/v1/doc")))
        assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200


async def test_retry_after_tells_when_the_facilitator_is_asked_again(tmp_path: Path) -> None:
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "http") as client:
        shop.facilitator.script.verify.extend([answering({}, 500)] * 9)
        waits = []
        for _ in range(9):
            answer = await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))
            assert problem_of(answer) == "facilitator_unavailable"
            waits.append(int(answer.headers["retry-after"]))
            shop.clock.ahead_us += 1_000_000 * waits[-1]
        assert waits[:5] == [2] * 5
        assert waits[5:] == sorted(waits[5:])
        assert waits[-1] >= 8
        assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200
