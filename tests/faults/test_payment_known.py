"""Whoever may have paid is never asked to sign again, whatever else is wrong with the payment by now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from headgate.config import Config
from headgate.model.errors import StoreUnavailable
from headgate.store.ledger import Ledger
from tests.web.shop import (
    Row,
    Shop,
    Wire,
    bearer,
    client_of,
    opened_shop,
    paid,
    problem_of,
    scope,
    until,
)
from tests.x402.buyer import PAYER, SEPOLIA
from tests.x402.scripted import ScriptedFacilitator, answering, drop, late, refusing

pytestmark = pytest.mark.timeout(60)
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
ANOTHER_SETTLER = "0x0000000000000000000000000000000000FAc222"


def stop_recovery(shop: Shop) -> None:
    for task in shop.gate._background:
        if task.get_name() in ("headgate-recovery", "headgate-watcher"):
            task.cancel()


async def test_the_account_that_settles_changes_while_a_payment_is_open(tmp_path: Path) -> None:
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "http") as client:
        await until(lambda: shop.gate.payer.storefront.sells("words"))
        stop_recovery(shop)
        payment = paid(await client.post("/v1/words"))
        shop.facilitator.script.settle.append(drop)
        asked = "/v1/words?h-headgate-units=5"
        assert problem_of(await client.post(asked, headers=payment)) == "payment_pending"
        kinds: list[dict[str, Any]] = [{"x402Version": 2, "scheme": "exact", "network": SEPOLIA}]
        settler = {"extra": {"facilitatorAddress": ANOTHER_SETTLER}}
        kinds.append({"x402Version": 2, "scheme": "upto", "network": SEPOLIA, **settler})
        shop.facilitator.script.supported.append(answering({"kinds": kinds}))
        networks = shop.gate._networks
        assert networks is not None
        networks._next_us = 0
        assert await networks.refresh()
        shop.clock.ahead_us += 320_000_000  # the old quote is over
        shop.gate._stock(shop.gate.desk.directory)
        again = await client.post(asked, headers=payment)
        assert (again.status_code, problem_of(again)) == (503, "payment_pending")


async def test_a_payer_that_was_blocked_since_has_its_answer(tmp_path: Path) -> None:
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.get("/v1/doc"))
        assert (await client.get("/v1/doc", headers=payment)).status_code == 200
        cashier = shop.gate.payer.cashier
        blocked = frozenset({bytes.fromhex(PAYER.address[2:])})
        cashier.settings = replace(cashier.settings, blocked_payers=blocked)
        assert (await client.get("/v1/doc", headers=payment)).json()["call"] == 1
        refused = await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))
        assert (refused.status_code, refused.json()["error"]) == (402, "payer_blocked")


async def test_refused_here_a_moment_ago_and_taken_elsewhere(tmp_path: Path) -> None:
    """Two processes on one store: what one remembers of a refusal is not the last word."""
    async with (
        ScriptedFacilitator() as facilitator,
        opened_shop(tmp_path, facilitator=facilitator) as one,
        opened_shop(tmp_path, facilitator=facilitator) as two,
        client_of(one.app, "http") as here,
        client_of(two.app, "http") as there,
    ):
        stop_recovery(one)
        stop_recovery(two)
        payment = paid(await here.get("/v1/doc"))
        facilitator.script.verify.append(refusing("insufficient_funds"))
        assert (await here.get("/v1/doc", headers=payment)).status_code == 402
        facilitator.script.settle.append(drop)
        assert problem_of(await there.get("/v1/doc", headers=payment)) == "payment_pending"
        assert problem_of(await here.get("/v1/doc", headers=payment)) == "payment_pending"


async def test_what_is_being_settled_is_waited_for_at_the_end(tmp_path: Path) -> None:
    """Its request was cancelled, and the process ends in an orderly way: the yes is not lost."""
    async with ScriptedFacilitator() as facilitator:
        async with opened_shop(tmp_path, facilitator=facilitator) as shop:
            async with client_of(shop.app, "asgi") as client:
                payment = paid(await client.get("/v1/doc"))
            facilitator.script.settle.append(late(0.3))
            wire = Wire()
            asking = asyncio.create_task(shop.app(scope(headers=payment), wire.receive, wire.send))
            await until(lambda: facilitator.count("settle"))
            asking.cancel()
            await asyncio.wait([asking])
        async with opened_shop(tmp_path, facilitator=facilitator) as shop:
            assert (await shop.payments(), await shop.ledger()) == (["settled"], [SOLD])
            assert facilitator.count("settle") == 1


# --- who goes on with what the dead left ------------------------------------------------------------


def sells_nothing(config: Config) -> Config:
    return replace(config, x402=None)


@pytest.mark.parametrize("takes", ["another's slot", "its own slot"])
async def test_a_process_that_sells_nothing_keeps_no_payment_from_those_that_do(
    takes: str, tmp_path: Path
) -> None:
    """A worker that only records use takes the slot over, and lives: somebody else resolves its payments."""
    async with ScriptedFacilitator() as facilitator:
        async with (
            opened_shop(tmp_path, facilitator=facilitator) as shop,
            client_of(shop.app, "asgi") as client,
        ):
            stop_recovery(shop)
            facilitator.script.settle.append(drop)
            payment = paid(await client.get("/v1/doc"))
            assert problem_of(await client.get("/v1/doc", headers=payment)) == "payment_pending"
            assert shop.gate.ledger is not None
            dead = shop.gate.ledger.slot
        order = (sells_nothing, lambda config: config)
        changes = order if takes == "its own slot" else order[::-1]
        async with opened_shop(tmp_path, facilitator=facilitator, change=changes[0]) as first:
            stop_recovery(first)
            assert first.gate.ledger is not None
            assert first.gate.ledger.slot == dead
            async with opened_shop(tmp_path, facilitator=facilitator, change=changes[1]) as second:
                for worker in (first, second):
                    assert worker.gate.ledger is not None
                    await worker.gate.ledger.recover_dead()
                seller = second if takes == "its own slot" else first
                assert seller.gate._recovery is not None
                await seller.gate._recovery.run_once()
                assert (await seller.payments(), await seller.ledger()) == (["settled"], [SOLD])


# --- customers --------------------------------------------------------------------------------------


OK, TIMED_OUT = {"ok": 1}, {"error": "time-out"}


@asynccontextmanager
async def hurried(
    folder: Path, monkeypatch: pytest.MonkeyPatch, then: Callable[..., Any] | None
) -> AsyncIterator[tuple[Shop, Callable[[str], Any]]]:
    """An application whose own time-out cancels its answer while that is booked; then it does `then`."""

    async def application(scope_: Any, receive: Any, send: Any) -> None:
        try:
            async with asyncio.timeout(0.1):
                await JSONResponse(OK)(scope_, receive, send)
        except TimeoutError:
            if then is not None:
                await then(scope_, receive, send)

    commit, slowly = Ledger._commit, True

    async def slow(self: Ledger, operations: Any) -> Any:
        nonlocal slowly
        if slowly and any(type(each).__name__ == "Use" for each in operations):
            slowly = False
            await asyncio.sleep(0.3)  # another process has the store
        return await commit(self, operations)

    async with opened_shop(folder, app=lambda _calls: application) as shop:
        monkeypatch.setattr(Ledger, "_commit", slow)

        async def ask(plan: str) -> Wire:
            wire = Wire()
            await shop.app(scope(headers=bearer(await shop.customer("ada", plan))), wire.receive, wire.send)
            return wire

        yield shop, ask


@pytest.mark.parametrize("plan", ["team", "closed"])
async def test_a_time_out_inside_the_application_is_no_use(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first answer is cancelled while it is booked; the second, a 504, leaves alone and unbilled."""
    then = JSONResponse(TIMED_OUT, 504)
    async with hurried(tmp_path, monkeypatch, then) as (shop, ask):
        wire = await ask(plan)
        assert (wire.status, wire.body) == (504, b'{"error":"time-out"}')
        assert len([m for m in wire.sent if m["type"] == "http.response.start"]) == 1
        assert sum(row.units for row in await shop.ledger()) == 0
        assert await shop.held() == 0


@pytest.mark.parametrize("plan", ["team", "closed"])
@pytest.mark.parametrize("then", [JSONResponse(OK), None], ids=["answers again", "returns"])
async def test_one_request_is_one_use_however_often_it_is_answered(
    then: Any, plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hurried(tmp_path, monkeypatch, then) as (shop, ask):
        wire = await ask(plan)
        assert (wire.status, wire.body) == (200, b'{"ok":1}')
        assert await shop.ledger() == [Row("usage", "seat", 1, 0, "ada")]
        assert await shop.held() == 0


async def test_a_booking_that_failed_unseen_leaves_the_applications_own_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hurried(tmp_path, monkeypatch, JSONResponse(TIMED_OUT, 504)) as (shop, ask):
        slow = Ledger._commit

        async def failing(self: Ledger, operations: Any) -> Any:
            if any(type(each).__name__ == "Use" for each in operations):
                await asyncio.sleep(0.3)
                raise StoreUnavailable
            return await slow(self, operations)

        monkeypatch.setattr(Ledger, "_commit", failing)
        wire = await ask("team")
        assert (wire.status, wire.body) == (504, b'{"error":"time-out"}')
        assert await shop.ledger() == []


async def test_a_payers_second_answer_is_all_that_is_sold(tmp_path: Path) -> None:
    """The same for a payer: the first answer, cancelled halfway, is no part of the second."""

    async def application(scope_: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"OLD", "more_body": True})
        await JSONResponse(OK)(scope_, _receive, send)

    async with opened_shop(tmp_path, app=lambda _calls: application) as shop:
        async with client_of(shop.app, "asgi") as client:
            payment = paid(await client.get("/v1/doc"))
            for _ in range(2):
                answer = await client.get("/v1/doc", headers=payment)
                assert (answer.status_code, answer.content) == (200, b'{"ok":1}')
        assert await shop.ledger() == [SOLD]
