"""What one payer can have at work at a time, and when to come back while a facilitator is not asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account

from headgate.config import Config
from headgate.service.forget import forget_all
from headgate.store.operations import MovePayment
from headgate.x402.breaker import Breakers
from tests.web.shop import Shop, Wire, client_of, failing, opened_shop, paid, problem_of, scope, until
from tests.x402.buyer import PAYER, SEPOLIA, changed, opened, sealed
from tests.x402.scripted import answering, drop, refusing

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


def smart_wallets(payment: dict[str, str]) -> dict[str, str]:
    """The same payment with a signature that only a chain can judge: it may be anybody's."""
    found = opened(payment["PAYMENT-SIGNATURE"].encode())
    changes = {
        "payload.signature": "0x" + "ab" * 96,
        "payload.authorization.nonce": "0x" + os.urandom(32).hex(),
    }
    for path, value in changes.items():
        found = changed(found, path, value)
    return {"PAYMENT-SIGNATURE": sealed(found).decode()}


async def test_nobody_fills_somebody_elses_work_in_flight(tmp_path: Path) -> None:
    """Whoever names a payer without being it holds it up neither while it asks nor afterwards."""
    async with opened_shop(tmp_path, change=two_at_a_time) as shop, client_of(shop.app, "http") as client:
        shop.facilitator.script.verify.extend(
            [answering({"isValid": False, "invalidReason": "invalid_signature"}, delay_s=0.3)] * 4
        )
        forged = [smart_wallets(paid(await client.get("/v1/doc"))) for _ in range(4)]
        asking = [asyncio.create_task(client.get("/v1/doc", headers=each)) for each in forged]
        while shop.asked.count("verify") < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200
        assert [(await each).status_code for each in asking] == [402] * 4


async def test_a_smart_wallet_has_its_own_work_in_flight(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, change=two_at_a_time) as shop, client_of(shop.app, "http") as client:
        shop.calls.gate = asyncio.Event()
        payments = [smart_wallets(paid(await client.get("/v1/doc"))) for _ in range(3)]
        asking = [asyncio.create_task(client.get("/v1/doc", headers=each)) for each in payments]
        done, working = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        (busy,) = done
        assert problem_of(busy.result()) == "too_many_payments_in_flight"
        while shop.calls.count < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        shop.calls.gate.set()
        assert sorted([(await each).status_code for each in working]) == [200, 200]
        again = payments[asking.index(busy)]
        assert (await client.get("/v1/doc", headers=again)).status_code == 200


async def test_a_request_ends_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that fails, and fails again, takes one request off the payer's count and not two."""
    async with opened_shop(tmp_path, change=two_at_a_time) as shop, client_of(shop.app, "http") as client:
        shop.calls.gate = asyncio.Event()
        working = asyncio.create_task(client.get("/v1/doc", headers=paid(await client.get("/v1/doc"))))
        while shop.calls.count < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        with monkeypatch.context() as patch:
            failing(patch, shop, MovePayment)
            shop.facilitator.script.verify.append(refusing("insufficient_funds"))
            refused = await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))
            assert problem_of(refused) == "store_unavailable"
        in_flight = shop.gate.payer.cashier._in_flight
        in_flight.begin(b"another", bytes.fromhex(PAYER.address[2:]))
        assert in_flight.is_full(bytes.fromhex(PAYER.address[2:]))
        shop.calls.gate.set()
        assert (await working).status_code == 200


# --- clients whose payments are refused -----------------------------------------------------------


def five_refusals(config: Config) -> Config:
    assert config.x402 is not None
    return replace(config, x402=replace(config.x402, client_refusals=5))


async def ask(
    shop: Shop, payment: dict[str, str], address: str | None = "203.0.113.9"
) -> tuple[int, str, int]:
    """Status, code or reason, Retry-After of a request from an address."""
    wire = Wire()
    where = None if address is None else (address, 4000)
    await shop.app(scope(headers=payment, client=where), wire.receive, wire.send)
    told = httpx.Response(wire.status, headers=wire.sent[0]["headers"], content=wire.body).json()
    headers = dict(wire.sent[0]["headers"])
    return wire.status, told.get("code") or told.get("error", ""), int(headers.get(b"retry-after", b"0"))


async def stranger(client: httpx.AsyncClient) -> dict[str, str]:
    """A payment of a wallet that nobody has seen, with a good signature."""
    return paid(await client.get("/v1/doc"), Account.create())


async def test_a_client_whose_payments_are_refused_has_to_wait(tmp_path: Path) -> None:
    """Case 32: a good signature costs a stranger nothing, and each question costs the seller."""
    async with opened_shop(tmp_path, change=five_refusals) as shop, client_of(shop.app, "asgi") as client:
        known = paid(await client.get("/v1/doc"))
        assert (await ask(shop, known))[0] == 200
        shop.facilitator.script.verify.extend([refusing("insufficient_funds")] * 100)
        told = [await ask(shop, await stranger(client)) for _ in range(8)]
        assert told[:5] == [(402, "insufficient_funds", 0)] * 5
        assert [each[:2] for each in told[5:]] == [(429, "too_many_refused_payments")] * 3
        assert all(2 <= wait <= 12 for *_, wait in told[5:])
        assert shop.asked.count("verify") == 6
        # Others are not held up: another address, and whoever has paid from this one.
        assert (await ask(shop, await stranger(client), "203.0.113.10"))[0] == 402
        shop.facilitator.script.verify.clear()
        assert (await ask(shop, known))[0] == 200
        assert (await ask(shop, paid(await client.get("/v1/doc"))))[0] == 200
        # And the client itself may ask again in time, one payment for each that is forgotten.
        late = await stranger(client)
        assert (await ask(shop, late))[0] == 429
        shop.clock.ahead_us += 12_000_000
        assert (await ask(shop, late))[0] == 200


async def test_refusals_of_one_client_over_http(tmp_path: Path) -> None:
    """A repeated refusal costs no question, others one each; who has paid before goes on."""
    async with opened_shop(tmp_path, change=five_refusals) as shop, client_of(shop.app, "http") as client:
        known = paid(await client.get("/v1/doc"))
        assert (await client.get("/v1/doc", headers=known)).status_code == 200
        asked = len(shop.asked)
        shop.facilitator.script.verify.extend([refusing("insufficient_funds")] * 5)
        for _ in range(5):
            payment = await stranger(client)
            for _ in range(2):
                refused = await client.get("/v1/doc", headers=payment)
                assert (refused.status_code, refused.json()["error"]) == (402, "insufficient_funds")
        assert len(shop.asked) == asked + 5
        payment = await stranger(client)
        refused = await client.get("/v1/doc", headers=payment)
        assert (refused.status_code, problem_of(refused)) == (429, "too_many_refused_payments")
        assert 2 <= int(refused.headers["retry-after"]) <= 12
        assert "payment-required" not in refused.headers
        assert len(shop.asked) == asked + 5
        assert (await client.get("/v1/doc", headers=known)).status_code == 200
        assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200
        shop.clock.ahead_us += 12_000_000
        assert (await client.get("/v1/doc", headers=payment)).status_code == 200


async def test_an_unpaid_work_counts_as_a_refusal(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, change=five_refusals) as shop, client_of(shop.app, "asgi") as client:
        for _ in range(5):
            shop.facilitator.script.settle.append(refusing("insufficient_funds"))
            assert (await ask(shop, paid(await client.get("/v1/doc"))))[0] == 402
        assert (await ask(shop, paid(await client.get("/v1/doc"))))[1] == "too_many_refused_payments"
        assert len([state for state in await shop.payments() if state == "failed"]) == 5


@pytest.mark.parametrize("how", ["served", "not billed", "facilitator down", "no address", "switched off"])
async def test_what_is_no_refusal_holds_nobody_up(how: str, tmp_path: Path) -> None:
    def unlimited(config: Config) -> Config:
        assert config.x402 is not None
        return replace(config, x402=replace(config.x402, client_refusals=0))

    change: Callable[[Config], Config] = unlimited if how == "switched off" else five_refusals
    async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "asgi") as client:
        for _ in range(8):
            if how == "facilitator down":
                shop.facilitator.script.verify.append(drop)
                shop.clock.ahead_us += 1_000_000  # past what a failing facilitator is spared
            elif how in ("no address", "switched off"):
                shop.facilitator.script.verify.append(refusing("insufficient_funds"))
            elif how == "not billed":
                shop.facilitator.script.settle.clear()
            payment = await stranger(client)
            status, *_ = await ask(shop, payment, None if how == "no address" else "203.0.113.9")
            assert status != 429


async def test_nobody_passes_by_naming_a_payer_that_is_known(tmp_path: Path) -> None:
    """A signature that only a chain can judge proves nobody, whatever address is in it."""
    async with opened_shop(tmp_path, change=five_refusals) as shop, client_of(shop.app, "asgi") as client:
        assert (await ask(shop, paid(await client.get("/v1/doc"))))[0] == 200
        shop.facilitator.script.verify.extend([refusing("invalid_signature")] * 100)
        forged = [smart_wallets(paid(await client.get("/v1/doc"))) for _ in range(8)]
        told = [await ask(shop, each) for each in forged]
        assert [each[0] for each in told] == [402] * 5 + [429] * 3
        assert shop.asked.count("verify") == 6


async def test_many_at_once_are_bounded_as_one_after_the_other(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, change=five_refusals) as shop, client_of(shop.app, "asgi") as client:
        shop.facilitator.script.verify.extend([refusing("insufficient_funds")] * 100)
        payments = [await stranger(client) for _ in range(20)]
        told = await asyncio.gather(*(ask(shop, each) for each in payments))
        assert sorted(each[0] for each in told) == [402] * 5 + [429] * 15
        assert shop.asked.count("verify") == 5
        assert all(wait <= 60 for *_, wait in told)


async def test_a_doubtful_refusal_counts_too(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, change=five_refusals) as shop, client_of(shop.app, "asgi") as client:
        for task in shop.gate._background:
            task.cancel()
        for _ in range(5):
            shop.facilitator.script.settle.append(refusing("transaction_failed"))
            assert (await ask(shop, paid(await client.get("/v1/doc"))))[1] == "payment_pending"
            shop.gate._facilitators[SEPOLIA].settling = Breakers()  # type: ignore[attr-defined]
        assert (await ask(shop, paid(await client.get("/v1/doc"))))[1] == "too_many_refused_payments"


async def test_neighbours_in_one_ipv6_network_are_one_client(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, change=five_refusals) as shop, client_of(shop.app, "asgi") as client:
        shop.facilitator.script.verify.extend([refusing("insufficient_funds")] * 100)
        told = [await ask(shop, await stranger(client), f"2001:db8:0:1::{n:x}") for n in range(6)]
        assert [each[0] for each in told] == [402] * 5 + [429]
        assert (await ask(shop, await stranger(client), "2001:db8:0:2::1"))[0] == 402


# --- payments that came to nothing ----------------------------------------------------------------


async def test_released_payments_are_forgotten_after_a_day(tmp_path: Path) -> None:
    """And nothing else is: what was settled, failed or is unknown stays."""
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "asgi") as client:

        async def buy(step: str | None = None, behaviour: Any = None, query: str = "") -> dict[str, str]:
            if step is not None:
                getattr(shop.facilitator.script, step).append(behaviour)
            payment = paid(await client.get("/v1/doc"))
            await client.get("/v1/doc" + query, headers=payment)
            return payment

        await buy()
        await buy("settle", refusing("insufficient_funds"))
        released = await buy("verify", refusing("insufficient_funds"))
        await buy(query="?status=500")
        assert await shop.payments() == ["settled", "failed", "released", "released"]
        shop.clock.ahead_us += 23 * 3_600_000_000
        assert await shop.forget() == 0
        shop.clock.ahead_us += 2 * 3_600_000_000
        assert await shop.forget() == 2
        assert await shop.payments() == ["settled", "failed"]
        orphans = "SELECT COUNT(*) FROM payment_steps WHERE payment NOT IN (SELECT id FROM payments)"
        assert await shop.sql(orphans) == [(0,)]
        shop.clock.ahead_us = 10_000_000
        assert (await client.get("/v1/doc", headers=released)).status_code == 200  # it is simply new
        assert PAYER.address.lower() in {row.payer for row in await shop.ledger()}


async def test_the_background_forgets_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody calls it: kept answers go after their time, and after a day what came to nothing."""
    monkeypatch.setattr("headgate.service.forget.EVERY_S", 0.005)
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "asgi") as client:
        await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))
        await client.get("/v1/doc?status=422", headers=paid(await client.get("/v1/doc")))
        assert await shop.payments() == ["settled", "released"]
        assert len(await shop.sql("SELECT payment FROM answers")) == 1
        shop.clock.ahead_us += 16 * 60_000_000

        async def answers_are_gone() -> bool:
            return not await shop.sql("SELECT payment FROM answers")

        await until(answers_are_gone)
        assert await shop.payments() == ["settled", "released"]
        shop.clock.ahead_us += 25 * 3_600_000_000

        async def only_the_settled_stays() -> bool:
            return await shop.payments() == ["settled"]

        await until(only_the_settled_stays)
        assert len(await shop.ledger()) == 1


async def test_a_payment_that_is_shown_again_and_again_has_a_short_history(tmp_path: Path) -> None:
    """A request the application refuses releases its payment, so one signature can be sent for ever."""
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "asgi") as client:
        payment = paid(await client.get("/v1/doc"))
        for _ in range(120):
            assert (await client.get("/v1/doc?status=422", headers=payment)).status_code == 422
        assert (await client.get("/v1/doc", headers=payment)).status_code == 200
        steps = await shop.sql("SELECT note FROM payment_steps ORDER BY n")
        assert 50 < len(steps) < 110
        notes = [str(note) for (note,) in steps]
        assert notes[:3] == ["None", "not billed: status 422", "again"]
        assert "again; earlier lines are left out" in notes
        assert notes[-6:-4] == ["not billed: status 422", "again"]


async def test_forgetting_keeps_up_with_what_strangers_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.service.forget.AT_ONCE", 2)
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "asgi") as client:
        for _ in range(7):
            await client.get("/v1/doc?status=422", headers=paid(await client.get("/v1/doc")))
        shop.clock.ahead_us += 25 * 3_600_000_000
        await forget_all(shop.gate.desk.ledger.driver, shop.clock())
        assert await shop.payments() == []


async def test_a_client_whose_payments_cannot_be_judged_is_bounded(tmp_path: Path) -> None:
    """New keys are free, and so is whatever makes a facilitator stumble: it counts like a refusal."""
    async with opened_shop(tmp_path, change=five_refusals) as shop, client_of(shop.app, "asgi") as client:
        shop.facilitator.script.verify.extend([answering(b"Traceback", 500)] * 4)
        told = [(await ask(shop, await stranger(client)))[1] for _ in range(4)]
        shop.facilitator.script.verify.extend([refusing("insufficient_funds")] * 4)
        told += [(await ask(shop, await stranger(client)))[1] for _ in range(2)]
        assert told == ["facilitator_unavailable"] * 4 + ["insufficient_funds", "too_many_refused_payments"]
        shop.facilitator.script.verify.clear()
        assert (await ask(shop, await stranger(client), "198.51.100.3"))[0] == 200
