"""A settled payment served once more, uncharged: reopened by its seller, or its answer was too large."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from headgate.cli.program import app as cli
from headgate.config import Config
from headgate.model.calendar import AccountingCalendar
from headgate.model.errors import InputError, NotFound
from headgate.model.payment import State
from headgate.service.reopen import reopen_payment
from headgate.service.verify import verify
from headgate.store.operations import ServeAgain
from tests.web.shop import ORIGIN, Row, Shop, client_of, config_text, opened_shop, paid, problem_of, unpacked
from tests.x402.buyer import PAYER, changed, sealed
from tests.x402.scripted import refusing

pytestmark = pytest.mark.timeout(60)
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
HOUR = 3_600_000_000


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened_shop(tmp_path) as opened:
        yield opened


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shop.app, "http") as opened:
        yield opened


async def reopened(shop: Shop, client: httpx.AsyncClient, content: bytes = b"one") -> dict[str, str]:
    """A payment that settled, whose answer is long gone, and that the seller has reopened."""
    payment = paid(await client.post("/v1/doc"))
    answer = await client.post("/v1/doc", headers=payment, content=content)
    assert answer.status_code == 200
    shop.clock.ahead_us += HOUR
    await shop.forget()
    gone = await client.post("/v1/doc", headers=payment, content=content)
    assert (gone.status_code, problem_of(gone)) == (409, "payment_used")
    await reopen(shop, answer.headers["headgate-receipt"])
    return payment


async def reopen(shop: Shop, receipt: str, reason: str = "the file was damaged") -> None:
    assert shop.gate.store is not None
    identifier = receipt.rpartition("/")[2].partition(".")[0]
    view = await reopen_payment(shop.gate.store.driver, identifier, reason, now_us=shop.clock())
    assert (view.state, view.timeline[-1].note) == ("reopened", f"reopened: {reason}")


async def books_agree(shop: Shop) -> None:
    assert shop.gate.store is not None
    found = await verify(shop.gate.store.driver, calendar=AccountingCalendar("UTC"))
    assert found.differences == ()


async def test_served_once_more_and_uncharged(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await reopened(shop, client)
    await books_agree(shop)
    answer = await client.post("/v1/doc", headers=payment, content=b"one")
    assert (answer.status_code, answer.json()["call"]) == (200, 2)
    assert unpacked(answer.headers["payment-response"])["success"] is True
    assert answer.headers["cache-control"] == "private, no-store"
    kept = await client.post("/v1/doc", headers=payment, content=b"one")
    assert (kept.status_code, kept.content) == (200, answer.content)
    assert shop.calls.count == 2
    assert shop.calls.bodies == [b"one", b"one"]
    assert [caller.payer for caller in shop.calls.callers] == [PAYER.address.lower()] * 2
    assert len({caller.operation_id for caller in shop.calls.callers}) == 1
    assert shop.asked == ["verify", "settle"]
    assert await shop.payments() == ["settled"]
    assert await shop.ledger() == [SOLD]
    await books_agree(shop)


async def test_for_the_same_request_only(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await reopened(shop, client)
    for path, body in (("/v1/doc", b"two"), ("/v1/doc", b""), ("/v1/doc?x=1", b"one")):
        other = await client.post(path, headers=payment, content=body)
        assert (other.status_code, problem_of(other)) == (409, "payment_bound_elsewhere")
    assert shop.calls.count == 1
    assert await shop.payments() == ["reopened"]


async def test_for_who_can_show_the_payment_only(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await reopened(shop, client)
    forged = changed(unpacked(payment["PAYMENT-SIGNATURE"]), "payload.signature", "0x" + "22" * 64 + "1b")
    header = {"PAYMENT-SIGNATURE": sealed(forged).decode()}
    assert (await client.post("/v1/doc", headers=header, content=b"one")).status_code == 402
    assert shop.calls.count == 1
    assert await shop.payments() == ["reopened"]


async def test_work_that_fails_can_be_asked_for_again(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.get("/v1/doc?status=200"))
    first = await client.get("/v1/doc?h-x=1", headers=payment)
    await reopen(shop, first.headers["headgate-receipt"])
    shop.calls.gate = asyncio.Event()
    asking = asyncio.create_task(client.get("/v1/doc?h-x=1", headers=payment))
    while shop.calls.count < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    busy = await client.get("/v1/doc?h-x=1", headers=payment)
    assert (busy.status_code, problem_of(busy)) == (409, "payment_in_progress")
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    shop.calls.gate.set()
    async with asyncio.timeout(20):
        while await shop.payments() != ["reopened"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    again = await client.get("/v1/doc?h-x=1", headers=payment)
    assert (again.status_code, again.json()["call"]) == (200, 3)
    assert await shop.ledger() == [SOLD]


@pytest.mark.parametrize("query", ["?raise=1", "?status=503", "?void=1"])
async def test_work_that_is_not_billed_leaves_it_open(query: str, tmp_path: Path) -> None:
    """Sold by one version of the application, and the next one fails at it."""
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.get("/v1/doc"))
        answer = await client.get("/v1/doc", headers=payment)
        await reopen(shop, answer.headers["headgate-receipt"])

        async def failing(scope: dict[str, object], receive: object, send: object) -> None:
            await inner({**scope, "query_string": query[1:].encode()}, receive, send)

        middleware = shop.app
        name = next(key for key in ("app", "_app") if hasattr(middleware, key))
        inner = getattr(middleware, name)
        setattr(middleware, name, failing)
        failed = await client.get("/v1/doc", headers=payment)
        assert "payment-response" not in failed.headers
        assert failed.status_code == {"?raise=1": 500, "?status=503": 503, "?void=1": 200}[query]
        assert await shop.payments() == ["reopened"]
        setattr(middleware, name, inner)
        assert (await client.get("/v1/doc", headers=payment)).status_code == 200
        assert await shop.payments() == ["settled"]
        assert await shop.ledger() == [SOLD]


async def test_a_process_that_dies_at_it(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await reopened(shop, client)
    ((identifier,),) = await shop.sql("SELECT id FROM payments")
    assert shop.gate.ledger is not None
    assert await shop.gate.ledger.submit(ServeAgain(identifier))  # taken, and never heard of again
    assert not await shop.gate.ledger.submit(ServeAgain(identifier))
    assert await shop.payments() == ["repeating"]
    assert shop.gate._recovery is not None
    await shop.gate._recovery.run_once()
    assert await shop.payments() == ["reopened"]
    assert (await client.post("/v1/doc", headers=payment, content=b"one")).status_code == 200


async def test_an_answer_too_large_to_keep_is_made_again(tmp_path: Path) -> None:
    def change(config: Config) -> Config:
        return replace(config, limits=replace(config.limits, kept_answer_bytes=5))

    async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.post("/v1/doc"))
        for call in (1, 2, 3):
            answer = await client.post("/v1/doc", headers=payment, content=b"one")
            assert (answer.status_code, answer.json()["call"]) == (200, call)
            assert "headgate-receipt" in answer.headers
        other = await client.post("/v1/doc", headers=payment, content=b"two")
        assert problem_of(other) == "payment_bound_elsewhere"
        assert shop.calls.count == 3
        assert shop.asked == ["verify", "settle"]
        assert await shop.ledger() == [SOLD]
        shop.clock.ahead_us += (
            16 * 60_000_000
        )  # for as long as an answer is kept, and no longer for being asked
        late = await client.post("/v1/doc", headers=payment, content=b"one")
        assert (late.status_code, problem_of(late)) == (409, "payment_used")
        await books_agree(shop)


async def test_what_cannot_be_reopened(shop: Shop, client: httpx.AsyncClient) -> None:
    assert shop.gate.store is not None
    driver, now_us = shop.gate.store.driver, shop.clock()
    shop.facilitator.script.settle.append(refusing("insufficient_funds"))
    await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))
    ((identifier,),) = await shop.sql("SELECT id FROM payments")
    with pytest.raises(InputError, match="is failed, not settled"):
        await reopen_payment(driver, "pay_" + identifier.hex(), "please", now_us=now_us)
    with pytest.raises(InputError, match="--reason"):
        await reopen_payment(driver, "pay_" + identifier.hex(), "  ", now_us=now_us)
    with pytest.raises(NotFound):
        await reopen_payment(driver, "pay_" + "00" * 16, "please", now_us=now_us)
    assert await shop.payments() == ["failed"]


def test_every_other_state_has_its_hint() -> None:
    from headgate.service import reopen as module

    assert set(module._HINTS) == set(State) - {State.SETTLED, State.REOPENED}


async def test_from_the_command_line(tmp_path: Path) -> None:
    config = tmp_path / "headgate.toml"
    await asyncio.to_thread(config.write_text, config_text(store=str(tmp_path / "headgate.db")))

    def headgate(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli, ["payments", *words, "-c", str(config)])
        return result.exit_code, result.output

    async with opened_shop(tmp_path) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.get("/v1/doc"))
        answer = await client.get("/v1/doc", headers=payment)
        identifier = answer.headers["headgate-receipt"].rpartition("/")[2].partition(".")[0]
        command = ("reopen", identifier, "--reason", "it was empty", "--format", "json")
        code, output = await asyncio.to_thread(headgate, *command)
        assert code == 0
        shown = json.loads(output)
        assert (shown["state"], shown["timeline"][-1]["note"]) == ("reopened", "reopened: it was empty")
        receipt = (await client.get(answer.headers["headgate-receipt"].removeprefix(ORIGIN))).json()
        assert (receipt["state"], receipt["charged_amount"]) == ("reopened", "0.100000")
        again = await client.get("/v1/doc", headers=payment)
        assert (again.status_code, again.json()["call"]) == (200, 2)
        code, output = await asyncio.to_thread(headgate, "list", "--state", "settled")
        assert (code, identifier in output) == (0, True)
        assert (await asyncio.to_thread(headgate, "reopen", identifier))[0] == 2  # without a reason
