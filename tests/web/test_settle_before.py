"""Settled before the work: the payment opens the work until it was served once, and is charged once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from headgate import Headgate
from headgate.model.calendar import AccountingCalendar, format_month
from headgate.model.report import Span
from headgate.service.owed import NOTE
from headgate.service.payments import list_payments, show_payment
from headgate.service.report import report
from tests.web.shop import Calls, Row, Shop, client_of, opened_shop, paid, problem_of, serving, unpacked
from tests.x402.buyer import PAYER
from tests.x402.scripted import hang, refusing, settle_and_lose

pytestmark = pytest.mark.timeout(60)
SOLD = """
[actions."first"]
title = "Paid first"
price = "0.10"
settle = "before"
routes = ["GET /v1/first", "POST /v1/first"]
[actions."page"]
title = "A stream"
price = "0.10"
stream = true
routes = ["GET /v1/page"]
"""
BOOKED = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
HOUR_US = 3_600_000_000


class Work:
    """What the handlers do next."""

    def __init__(self) -> None:
        self.count = 0
        self.status = 200
        self.raises = self.early = False
        self.size = 10
        self.begun = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.asked: list[str] = []
        self.shop: Shop | None = None

    def application(self, _calls: Calls) -> Starlette:
        async def first(request: Request) -> Response:
            self.count += 1
            assert self.shop is not None
            self.asked = list(self.shop.asked)
            await request.body()
            self.begun.set()
            await self.goes_on.wait()
            if self.raises:
                raise RuntimeError("the handler failed")
            return JSONResponse({"call": self.count, "x": "x" * self.size}, self.status)

        async def page(_request: Request) -> Response:
            self.count += 1

            if self.early:
                raise RuntimeError("the handler failed")

            async def chunks() -> AsyncIterator[bytes]:
                yield b"first,"
                self.begun.set()
                await self.goes_on.wait()
                if self.raises:
                    raise RuntimeError("the handler failed")
                yield b"x" * self.size

            return StreamingResponse(chunks(), self.status)

        return Starlette(routes=[Route("/v1/first", first, methods=["GET", "POST"]), Route("/v1/page", page)])


@asynccontextmanager
async def selling(folder: Path, **more: Any) -> AsyncIterator[tuple[Shop, Work, httpx.AsyncClient]]:
    work = Work()
    async with (
        opened_shop(folder, app=work.application, more=SOLD, settle_timeout_ms=300, **more) as shop,
        client_of(shop.app, "http") as client,
    ):
        work.shop = shop
        yield shop, work, client


async def offered(client: httpx.AsyncClient, path: str = "/v1/first") -> dict[str, str]:
    return paid(await client.get(path))


async def test_settled_then_served(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = await offered(client)
        answer = await client.get("/v1/first", headers=payment)
        assert (answer.status_code, answer.json()["call"]) == (200, 1)
        assert work.asked == ["verify", "settle"]  # before the handler ran
        assert unpacked(answer.headers["payment-response"])["success"] is True
        assert answer.headers["cache-control"] == "private, no-store"
        assert await shop.ledger() == [BOOKED]
        assert await shop.payments() == ["settled"]
        again = await client.get("/v1/first", headers=payment)
        assert (again.status_code, again.content) == (200, answer.content)
        assert again.headers["payment-response"] == answer.headers["payment-response"]
        assert (work.count, shop.asked.count("settle")) == (1, 1)
        assert await shop.sql("SELECT * FROM owed") == []


@pytest.mark.parametrize("how", ["500", "404", "raises"])
async def test_work_that_fails_is_owed(how: str, tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = await offered(client)
        work.raises, work.status = how == "raises", int(how) if how.isdigit() else 200
        answer = await client.get("/v1/first", headers=payment)
        assert answer.status_code == (500 if how == "raises" else int(how))
        assert unpacked(answer.headers["payment-response"])["success"] is True  # it was charged: proof
        assert "headgate-receipt" in answer.headers
        assert await shop.ledger() == [BOOKED]
        assert await shop.payments() == ["reopened"]
        assert (await client.get("/v1/first", headers=payment)).status_code >= 400
        work.raises, work.status = False, 200
        shop.clock.ahead_us += HOUR_US // 2  # long after the authorization expired
        answer = await client.get("/v1/first", headers=payment)
        assert (answer.status_code, answer.json()["call"]) == (200, 3)
        assert await shop.ledger() == [BOOKED]
        assert await shop.payments() == ["settled"]
        assert shop.asked == ["verify", "settle"]
        assert (await client.get("/v1/first", headers=payment)).json()["call"] == 3
        assert work.count == 3


@pytest.mark.parametrize("path", ["/v1/first", "/v1/page"])
async def test_inside_an_application_its_failure_is_told_by_headgate(path: str, tmp_path: Path) -> None:
    """Added as middleware it stands inside the framework's own handler of errors, which knows no receipt."""

    def inside(app: Starlette, gate: Headgate) -> Starlette:
        app.add_middleware(gate.middleware)
        return app

    async with selling(tmp_path, wrap=inside) as (shop, work, client):
        payment = await offered(client, path)
        work.raises = True
        if path == "/v1/page":
            work.early = True  # it fails before the stream's first byte
        answer = await client.get(path, headers=payment)
        assert (answer.status_code, problem_of(answer)) == (500, "paid_work_failed")
        assert unpacked(answer.headers["payment-response"])["success"] is True
        receipt = httpx.URL(answer.headers["headgate-receipt"]).path
        assert (await client.get(receipt)).json()["state"] == "reopened"
        work.raises = work.early = False
        assert (await client.get(path, headers=payment)).status_code == 200
        assert await shop.ledger() == [BOOKED]
        assert (await client.get(receipt)).json()["state"] == "settled"


async def test_one_request_at_a_time(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = await offered(client)
        work.goes_on.clear()
        first = asyncio.create_task(client.get("/v1/first", headers=payment))
        await work.begun.wait()
        second = await client.get("/v1/first", headers=payment)
        assert (second.status_code, problem_of(second)) == (409, "payment_in_progress")
        work.goes_on.set()
        assert (await first).status_code == 200
        assert work.count == 1
        assert len(await shop.ledger()) == 1


async def test_another_request_is_not_opened(tmp_path: Path) -> None:
    async with selling(tmp_path) as (_, work, client):
        payment = await offered(client)
        work.status = 500
        await client.get("/v1/first", headers=payment)
        answer = await client.get("/v1/first?other=1", headers=payment)
        assert (answer.status_code, problem_of(answer)) == (409, "payment_bound_elsewhere")


async def test_the_body_it_was_served_for(tmp_path: Path) -> None:
    async with selling(tmp_path) as (_, work, client):
        payment = paid(await client.post("/v1/first"))
        assert (await client.post("/v1/first", headers=payment, content=b"one")).status_code == 200
        assert (await client.post("/v1/first", headers=payment, content=b"one")).status_code == 200
        other = await client.post("/v1/first", headers=payment, content=b"two")
        assert (other.status_code, problem_of(other)) == (409, "payment_bound_elsewhere")
        assert work.count == 1


async def test_refused_at_settle_no_work_is_done(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = await offered(client)
        shop.facilitator.script.settle.append(refusing("insufficient_funds"))
        answer = await client.get("/v1/first", headers=payment)
        assert answer.status_code == 402
        assert work.count == 0
        assert await shop.ledger() == []
        assert (await memo(shop)).unpaid_payments == 0  # no work was done


@pytest.mark.parametrize("fault", [hang, settle_and_lose], ids=["hangs", "settles and loses the answer"])
async def test_an_unknown_settlement_is_resolved_and_then_owed(fault: Any, tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = await offered(client)
        shop.facilitator.script.settle.extend([fault, fault])
        answer = await client.get("/v1/first", headers=payment)
        assert (answer.status_code, problem_of(answer)) == (503, "payment_pending")
        assert work.count == 0
        shop.facilitator.script.settle.clear()
        recovery = shop.gate._recovery
        assert recovery is not None
        for _ in range(3):
            shop.clock.ahead_us += 61_000_000
            await recovery.run_once()
        assert await shop.payments() == ["reopened"]
        answer = await client.get("/v1/first", headers=payment)
        assert (answer.status_code, work.count) == (200, 1)
        assert await shop.ledger() == [BOOKED]


async def test_a_process_that_dies_at_work_leaves_it_owed(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = await offered(client)
        work.goes_on.clear()
        first = asyncio.create_task(client.get("/v1/first", headers=payment))
        await work.begun.wait()
        assert await shop.payments() == ["repeating"]
        assert shop.gate.ledger is not None
        for task in shop.gate._background:
            task.cancel()
        await shop.gate.ledger.driver.close()  # its locks go, as with a process that is killed
        async with selling(tmp_path, facilitator=shop.facilitator) as (heir, other, its_client):
            answer = await its_client.get("/v1/first", headers=payment)
            assert (answer.status_code, other.count) == (200, 1)
            assert await heir.ledger() == [BOOKED]
        first.cancel()
        work.goes_on.set()
        shop.gate.store = None


async def memo(shop: Shop) -> Any:
    assert shop.gate.store is not None
    calendar = AccountingCalendar("UTC")
    span = Span.of_month(format_month(calendar.month_and_day(shop.clock())[0]))
    driver, registry = shop.gate.store.driver, shop.gate.store.registry
    return (await report(driver, registry, calendar=calendar, span=span)).memo


async def test_after_a_while_a_refund_is_due(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = await offered(client)
        work.status = 500
        await client.get("/v1/first", headers=payment)
        await shop.gate._recover()
        assert (await memo(shop)).refunds_due_micros == 0
        shop.clock.ahead_us += HOUR_US
        await shop.gate._recover()
        await shop.gate._recover()
        assert (await memo(shop)).refunds_due_micros == 100_000
        assert shop.gate.store is not None
        (view,) = await list_payments(shop.gate.store.driver)
        steps = (await show_payment(shop.gate.store.driver, view.payment_id)).timeline
        assert [step.note for step in steps].count(NOTE) == 1
        work.status = 200
        assert (await client.get("/v1/first", headers=payment)).status_code == 200
        assert (await memo(shop)).refunds_due_micros == 0


async def test_customers_do_not_notice(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, _, client):
        headers = {"X-API-Key": await shop.customer("ada", "team")}
        assert (await client.get("/v1/first", headers=headers)).status_code == 200
        assert await shop.ledger() == [Row("usage", "overage", 1, 100_000, "ada")]


async def test_an_answer_too_large_to_keep_runs_again_uncharged(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        work.size = 1_100_000
        payment = await offered(client)
        for count in (1, 2):
            answer = await client.get("/v1/first", headers=payment)
            assert (answer.status_code, answer.json()["call"]) == (200, count)
        assert await shop.ledger() == [BOOKED]


async def test_a_body_that_is_too_large(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, _, client):
        payment = paid(await client.post("/v1/first"))
        limit = shop.gate.config.limits.max_body_bytes
        answer = await client.post("/v1/first", headers=payment, content=b"x" * (limit + 1))
        assert (answer.status_code, problem_of(answer)) == (413, "body_too_large")
        assert await shop.payments() == ["reopened"]
        assert (await client.post("/v1/first", headers=payment, content=b"x")).status_code == 200


async def test_a_head_leaves_its_get_to_be_served(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = paid(await client.head("/v1/first"))
        answer = await client.head("/v1/first", headers=payment)
        assert (answer.status_code, unpacked(answer.headers["payment-response"])["amount"]) == (200, "100000")
        served = await client.get("/v1/first", headers=payment)
        assert (served.status_code, served.json()["call"]) == (200, 2)
        assert (await client.get("/v1/first", headers=payment)).content == served.content
        assert [(await client.head("/v1/first", headers=payment)).status_code for _ in range(3)] == [200] * 3
        assert (await shop.ledger(), await shop.payments(), work.count) == ([BOOKED], ["settled"], 2)


# --- streams at a fixed price ---------------------------------------------------------------------


async def test_a_paid_stream_flows_after_it_settled(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = await offered(client, "/v1/page")
        work.goes_on.clear()
        async with client.stream("GET", "/v1/page", headers=payment) as answer:
            assert unpacked(answer.headers["payment-response"])["amount"] == "100000"
            parts = answer.aiter_raw()
            assert await anext(parts) == b"first,"
            assert await shop.ledger() == [BOOKED]
            work.goes_on.set()
            assert b"".join([part async for part in parts]) == b"x" * 10
        receipt = httpx.URL(answer.headers["headgate-receipt"]).path
        assert (await client.get(receipt)).json()["state"] == "settled"
        again = await client.get("/v1/page", headers=payment)
        assert (again.content, work.count) == (b"first," + b"x" * 10, 1)


async def test_a_paid_stream_that_breaks_is_owed(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client):
        payment = await offered(client, "/v1/page")
        work.raises = True
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/v1/page", headers=payment)
        assert await shop.payments() == ["reopened"]
        work.raises = False
        assert (await client.get("/v1/page", headers=payment)).content == b"first," + b"x" * 10
        assert await shop.ledger() == [BOOKED]


async def test_a_client_that_hangs_up_on_a_paid_stream_was_served(tmp_path: Path) -> None:
    async with selling(tmp_path) as (shop, work, client), serving(shop.app) as url:
        payment = await offered(client, "/v1/page")
        work.goes_on.clear()
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = ["GET /v1/page HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in payment.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await reader.readuntil(b"first,")
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(20):
            while await shop.payments() != ["settled"]:  # noqa: ASYNC110  a row, not an event
                await asyncio.sleep(0.02)
        answer = await client.get("/v1/page", headers=payment)
        assert (answer.status_code, problem_of(answer)) == (409, "payment_used")
        assert await shop.ledger() == [BOOKED]
