"""Going on with open payments: of this process, of dead ones, and never those of the living."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.model.errors import StoreUnavailable
from headgate.model.payment import State, payment_text
from headgate.service.recover import Recovery
from headgate.service.resolve import resolve_payment
from headgate.store.ledger import Ledger
from headgate.store.operations import SettlePayment
from tests.web.shop import Clock, Row, Shop, client_of, opened_shop, paid, problem_of, until
from tests.x402.buyer import PAYER
from tests.x402.scripted import (
    ScriptedFacilitator,
    answering,
    drop,
    lying,
    refusing,
    settle_and_lose,
)

pytestmark = pytest.mark.timeout(60)
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
SECOND, HOUR = 1_000_000, 3_600_000_000


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened_shop(tmp_path) as opened:
        stop_background(opened)
        yield opened


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shop.app, "asgi") as opened:
        yield opened


def stop_background(shop: Shop) -> None:
    """From now on recovery runs when the test says so."""
    for task in shop.gate._background:
        task.cancel()
    shop.gate._background.clear()


def recovery_of(shop: Shop) -> Recovery:
    found = shop.gate._recovery
    assert found is not None
    return found


async def unknown_payment(shop: Shop, client: httpx.AsyncClient) -> dict[str, str]:
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(drop)
    answer = await client.get("/v1/doc", headers=payment)
    assert problem_of(answer) == "payment_pending"
    return payment


async def test_nothing_to_do(shop: Shop) -> None:
    assert await recovery_of(shop).run_once() == 0
    assert shop.asked == []


async def test_asked_again_after_growing_pauses(shop: Shop, client: httpx.AsyncClient) -> None:
    await unknown_payment(shop, client)
    shop.facilitator.script.settle.extend([drop] * 1000)
    asked_at: list[int] = []
    began = len(shop.asked)
    for second in range(300):
        assert await recovery_of(shop).run_once() == 1
        if len(shop.asked) > began + len(asked_at):
            asked_at.append(second)
        shop.clock.ahead_us += SECOND
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    assert pauses[:4] == sorted(pauses[:4])
    assert pauses[0] <= 2
    assert 55 <= max(pauses) <= 62
    assert await shop.payments() == ["unknown"]
    shop.facilitator.script.settle.clear()
    shop.clock.ahead_us += 61 * SECOND
    assert await recovery_of(shop).run_once() == 0
    assert await shop.payments() == ["settled"]
    assert await shop.ledger() == [SOLD]


@pytest.mark.parametrize(
    "reason",
    [
        "insufficient_funds",  # it was the payer's last money
        "invalid_payload",  # how some refuse what they have settled
        "invalid_exact_evm_payload_authorization_valid_before",  # looked at before its nonce is
    ],
)
async def test_a_refusal_proves_nothing_where_no_chain_can_be_asked(
    reason: str, shop: Shop, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The first attempt may have settled: its payer is never told to sign again, however late it is."""
    payment = await unknown_payment(shop, client)
    shop.facilitator.script.settle.extend([refusing(reason)] * 1000)
    for ahead in (*[61 * SECOND] * 10, HOUR, HOUR, 24 * HOUR, 48 * HOUR):
        shop.clock.ahead_us += ahead
        assert await recovery_of(shop).run_once() == 1
    assert await shop.payments() == ["unknown"]
    assert problem_of(await client.get("/v1/doc", headers=payment)) == "payment_pending"
    assert await shop.ledger() == []
    assert "set `rpc_url`" in caplog.text
    assert "headgate payments resolve pay_" in caplog.text


async def test_what_is_long_over_is_asked_about_seldom(shop: Shop, client: httpx.AsyncClient) -> None:
    await unknown_payment(shop, client)
    shop.facilitator.script.settle.extend([refusing("insufficient_funds")] * 1000)
    shop.clock.ahead_us += 2 * HOUR
    asked = shop.facilitator.count("settle")
    for _ in range(120):
        shop.clock.ahead_us += 60 * SECOND
        await recovery_of(shop).run_once()
    assert 10 < shop.facilitator.count("settle") - asked < 30


async def test_what_was_resolved_during_a_pass_stays_so(shop: Shop, client: httpx.AsyncClient) -> None:
    """A pass over many takes its time: meanwhile the seller tells what became of one that it has listed."""
    await unknown_payment(shop, client)
    ((identifier,),) = await shop.sql("SELECT id FROM payments")
    assert shop.gate.store is not None
    view = await resolve_payment(
        *(shop.gate.store, shop.gate.config, payment_text(identifier)),
        tx="0x" + "7" * 64,
        reason="seen",
        now_us=shop.clock,
        chains={},  # type: ignore[arg-type]
    )
    assert view.state == "settled"
    asked = shop.facilitator.count("settle")
    assert await recovery_of(shop)._try(identifier, State.UNKNOWN, 0) is True
    assert (await shop.payments(), await shop.ledger()) == (["settled"], [SOLD])
    assert shop.facilitator.count("settle") == asked


async def test_what_cannot_be_resolved_holds_up_nobody_else(shop: Shop, client: httpx.AsyncClient) -> None:
    """Asked again and again, one payment that a facilitator stumbles over says nothing about others."""
    await unknown_payment(shop, client)
    shop.facilitator.script.settle.extend([answering(b"reverted", 500)] * 50)
    for _ in range(50):
        shop.clock.ahead_us += 61 * SECOND
        await recovery_of(shop).run_once()
    assert await shop.payments() == ["unknown"]
    shop.facilitator.script.settle.clear()
    shop.clock.ahead_us = 0
    assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200


async def test_says_that_it_was_used_and_not_by_what(shop: Shop, client: httpx.AsyncClient) -> None:
    """A facilitator that forgot its own settlement: the payment may well be paid, so it stays open."""
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(settle_and_lose)
    await client.get("/v1/doc", headers=payment)
    shop.facilitator.script.settle.extend([refusing("invalid_exact_evm_nonce_already_used")] * 1000)
    for ahead in (61 * SECOND, HOUR, 24 * HOUR):
        shop.clock.ahead_us += ahead
        assert await recovery_of(shop).run_once() == 1
    assert await shop.payments() == ["unknown"]
    assert "payment-required" not in (await client.get("/v1/doc", headers=payment)).headers


async def test_used_at_the_first_attempt_may_mean_used_by_us(shop: Shop, client: httpx.AsyncClient) -> None:
    """Nobody but the facilitator can tell: what it settled is not asked for a second time (cases 1, 2)."""
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.append(refusing("invalid_exact_evm_nonce_already_used", 400))
    answer = await client.get("/v1/doc", headers=payment)
    assert (answer.status_code, problem_of(answer)) == (503, "payment_pending")
    assert "payment-required" not in answer.headers
    assert await shop.payments() == ["unknown"]
    shop.clock.ahead_us += 2 * SECOND
    assert await recovery_of(shop).run_once() == 0
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    assert await shop.ledger() == [SOLD]


async def test_a_payment_at_work_is_left_alone(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.get("/v1/doc"))
    shop.calls.gate = asyncio.Event()
    asking = asyncio.create_task(client.get("/v1/doc", headers=payment))
    async with asyncio.timeout(20):
        while not shop.calls.count:
            await recovery_of(shop).run_once()  # also while it is being claimed and verified
            await asyncio.sleep(0)
    for _ in range(3):
        shop.clock.ahead_us += 61 * SECOND
        await recovery_of(shop).run_once()
    assert await shop.payments() == ["claimed"]
    shop.calls.gate.set()
    assert (await asking).status_code == 200
    assert await shop.ledger() == [SOLD]


async def test_recovery_and_payments_at_the_same_time(shop: Shop, client: httpx.AsyncClient) -> None:
    """However the two fall together, each payment is worked for once, settled once and booked once."""
    payments = [paid(await client.get("/v1/doc")) for _ in range(30)]
    ended = asyncio.Event()

    async def recovering() -> None:
        while not ended.is_set():
            shop.clock.ahead_us += 1
            await recovery_of(shop).run_once()
            await asyncio.sleep(0)

    task = asyncio.create_task(recovering())
    answers = await asyncio.gather(*(client.get("/v1/doc", headers=payment) for payment in payments))
    ended.set()
    await task
    assert [answer.status_code for answer in answers] == [200] * 30
    assert shop.calls.count == 30
    assert await shop.ledger() == [SOLD] * 30
    assert len(shop.facilitator.settled) == 30


async def test_two_processes_on_one_store(tmp_path: Path) -> None:
    """The living are left alone; what one left open when it went, the other goes on with."""
    clock = Clock()
    async with ScriptedFacilitator() as scripted:  # noqa: SIM117  it outlives both shops
        async with opened_shop(tmp_path, facilitator=scripted, clock=clock) as ben:
            stop_background(ben)
            async with opened_shop(tmp_path, facilitator=scripted, clock=clock) as ada:
                stop_background(ada)
                async with client_of(ada.app, "asgi") as to_ada, client_of(ben.app, "asgi") as to_ben:
                    payment = paid(await to_ada.get("/v1/doc"))
                    ada.calls.gate = asyncio.Event()
                    asking = asyncio.create_task(to_ada.get("/v1/doc", headers=payment))
                    await until(lambda: ada.calls.count)
                    await recovery_of(ben).run_once()
                    running = await to_ben.get("/v1/doc", headers=payment)
                    assert problem_of(running) == "payment_in_progress"
                    scripted.script.settle.append(drop)
                    ada.calls.gate.set()
                    assert problem_of(await asking) == "payment_pending"
                    await recovery_of(ben).run_once()
                    assert await ben.payments() == ["unknown"]
                    assert problem_of(await to_ben.get("/v1/doc", headers=payment)) == "payment_pending"
            clock.ahead_us += 61 * SECOND
            assert await recovery_of(ben).run_once() == 0
            assert await ben.payments() == ["settled"]
            async with client_of(ben.app, "asgi") as to_ben:
                answer = await to_ben.get("/v1/doc", headers=payment)
            assert (answer.status_code, answer.json()["call"]) == (200, 1)
            assert ben.calls.count == 0  # ada had done the work
            assert await ben.ledger() == [SOLD]


async def test_a_network_that_is_configured_no_more(shop: Shop, client: httpx.AsyncClient) -> None:
    """Nothing can be known about it, so nothing is decided, and the operator is told."""
    await unknown_payment(shop, client)
    cashier = recovery_of(shop)._cashier
    facilitators, cashier.facilitators = cashier.facilitators, {}
    shop.clock.ahead_us += 61 * SECOND
    assert await recovery_of(shop).run_once() == 1
    assert await shop.payments() == ["unknown"]
    cashier.facilitators = facilitators
    shop.clock.ahead_us += 61 * SECOND
    assert await recovery_of(shop).run_once() == 0
    assert await shop.ledger() == [SOLD]


async def test_a_settlement_that_could_not_be_written_down_is_booked_with_its_transaction(
    shop: Shop, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A facilitator that settles once and then says "used" would leave a payment unknown that we saw paid."""
    payment = paid(await client.get("/v1/doc"))
    ledger = recovery_of(shop)._cashier.ledger
    submit = ledger.submit

    def full(operation: Any) -> Any:
        if isinstance(operation, SettlePayment):
            raise StoreUnavailable
        return submit(operation)

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "submit", full)
        assert problem_of(await client.get("/v1/doc", headers=payment)) == "payment_pending"
    shop.facilitator.script.settle.extend([refusing("invalid_exact_evm_nonce_already_used")] * 1000)
    assert await recovery_of(shop).run_once() == 0
    assert await shop.payments() == ["settled"]
    assert await shop.ledger() == [SOLD]
    assert (await client.get("/v1/doc", headers=payment)).json()["call"] == 1
    assert shop.facilitator.count("settle") == 1


async def test_a_success_that_names_no_transaction_never_becomes_a_failure(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    """Somebody says that it was paid: without a chain to ask it stays open, however long that is said."""
    payment = paid(await client.get("/v1/doc"))
    shop.facilitator.script.settle.extend([lying(transaction="")] * 1000)
    assert problem_of(await client.get("/v1/doc", headers=payment)) == "settlement_unverified"
    for ahead in (61 * SECOND, HOUR, 24 * HOUR):
        shop.clock.ahead_us += ahead
        assert await recovery_of(shop).run_once() == 1
    assert await shop.payments() == ["unknown"]


async def test_a_payment_claimed_again_during_a_pass_is_left_alone(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    """A pass over many payments takes its time; what it saw at its beginning may be at work by then."""
    payment = paid(await client.get("/v1/doc"))
    shop.calls.gate = asyncio.Event()
    asking = asyncio.create_task(client.get("/v1/doc", headers=payment))
    await until(lambda: shop.calls.count)
    ((identifier,),) = await shop.sql("SELECT id FROM payments")
    await recovery_of(shop)._try(identifier, State.CLAIMED, 0)
    assert await shop.payments() == ["claimed"]
    shop.calls.gate.set()
    assert (await asking).status_code == 200
    assert await shop.ledger() == [SOLD]


async def test_a_store_that_fails_while_it_is_opened_is_opened_anew(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.gate.close()

    async def out_of_reach(_ledger: Ledger) -> list[int]:
        raise StoreUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "recover_dead", out_of_reach)
        with pytest.raises(StoreUnavailable):
            await shop.gate.open()
    async with client_of(shop.app, "asgi") as again:
        assert (await again.get("/v1/doc", headers=paid(await again.get("/v1/doc")))).status_code == 200
