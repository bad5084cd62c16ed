"""What is not billed: other answers than 2xx, handlers that raise, clients that are gone, voided uses.

And the other way round: what was delivered stays billed, whatever happens afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from headgate import usage
from tests.web.shop import Calls, Row, Shop, Wire, bearer, client_of, opened_shop, paid, scope, serving

pytestmark = pytest.mark.timeout(60)
SEAT = Row("usage", "seat", 1, 0, "ada")
BACK = Row("reversal", "seat", -1, 0, "ada")
PLANS = ["team", "closed"]  # counted when booked; held first


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("status", [301, 304, 400, 404, 409, 422, 429, 500, 503])
async def test_only_2xx_is_billed(status: int, plan: str, shop: Shop, client: httpx.AsyncClient) -> None:
    headers = bearer(await shop.customer("ada", plan))
    answer = await client.get(f"/v1/doc?status={status}", headers=headers)
    assert answer.status_code == status
    assert await shop.ledger() == []
    assert await shop.held() == 0
    for _ in range(2):  # nothing of the allowance was lost by it
        assert (await client.get("/v1/doc", headers=headers)).status_code == 200
    assert await shop.ledger() == [SEAT, SEAT]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206])
async def test_every_2xx_is_billed(status: int, shop: Shop, client: httpx.AsyncClient) -> None:
    headers = bearer(await shop.customer("ada", "closed"))
    assert (await client.get(f"/v1/doc?status={status}", headers=headers)).status_code == status
    assert await shop.ledger() == [SEAT]


async def test_bill_on_narrows_it(shop: Shop, client: httpx.AsyncClient) -> None:
    headers = bearer(await shop.customer("ada", None))
    for status, rows in ((200, 0), (202, 0), (201, 1), (500, 1)):
        assert (await client.post(f"/v1/created?status={status}", headers=headers)).status_code == status
        assert len(await shop.ledger()) == rows


@pytest.mark.parametrize("status", [200, 202, 404])
async def test_bill_on_for_a_payer(status: int, shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.post("/v1/created"))
    answer = await client.post(f"/v1/created?status={status}", headers=payment)
    assert answer.status_code == status
    assert "payment-response" not in answer.headers
    assert shop.asked == ["verify"]
    assert await shop.payments() == ["released"]


@pytest.mark.parametrize("plan", PLANS)
async def test_a_handler_may_void(plan: str, shop: Shop, client: httpx.AsyncClient) -> None:
    headers = bearer(await shop.customer("ada", plan))
    assert (await client.get("/v1/doc?void=1", headers=headers)).status_code == 200
    assert await shop.ledger() == []
    assert await shop.held() == 0


async def test_a_handler_may_void_a_payment(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.get("/v1/doc"))
    answer = await client.get("/v1/doc?void=1", headers=payment)
    assert (answer.status_code, "payment-response" in answer.headers) == (200, False)
    assert shop.asked == ["verify"]
    assert await shop.ledger() == []
    assert await shop.payments() == ["released"]


# --- handlers that raise --------------------------------------------------------------------------


def failing(after: int, *, more: bool = True) -> Any:
    """An application that sends a start and `after` bodies, then raises."""

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if after:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(after):
            last = number == after - 1 and not more
            await send({"type": "http.response.body", "body": b"part", "more_body": not last})
        raise RuntimeError("the handler failed")

    return app


@pytest.mark.parametrize("plan", PLANS)
async def test_raising_before_the_answer_voids(plan: str, shop: Shop, client: httpx.AsyncClient) -> None:
    headers = bearer(await shop.customer("ada", plan))
    assert (await client.get("/v1/doc?raise=1", headers=headers)).status_code == 500
    assert await shop.ledger() == []
    assert await shop.held() == 0


@pytest.mark.parametrize("plan", PLANS)
async def test_raising_midway_is_reversed(plan: str, tmp_path: Path) -> None:
    """Booked before the first byte, taken back by a row that names it; the allowance is whole again."""
    async with opened_shop(tmp_path, app=lambda _calls: failing(2)) as shop:
        headers = bearer(await shop.customer("ada", plan))
        wire = Wire()
        with pytest.raises(RuntimeError, match="the handler failed"):
            await shop.app(scope(headers=headers), wire.receive, wire.send)
        assert await shop.ledger() == [SEAT, BACK]
        first, second = await shop.sql(
            "SELECT slot, seq, corrects_slot, corrects_seq FROM events ORDER BY seq"
        )
        assert second[2:] == first[:2]
        assert await shop.sql("SELECT used, held FROM counters") == [(0, 0)]


async def test_overage_that_fails_midway_is_reversed_with_its_money(tmp_path: Path) -> None:
    async with opened_shop(tmp_path, app=lambda _calls: failing(1)) as shop:
        headers = bearer(await shop.customer("ada", "capped"))
        await shop.use_up("ada", 3)
        wire = Wire()
        with pytest.raises(RuntimeError):
            await shop.app(scope(headers=headers), wire.receive, wire.send)
        charged = (await shop.sql("SELECT SUM(charged_micros) FROM events"))[0][0]
        assert charged == 100_000  # what `use_up` booked, and nothing else
        assert await shop.sql("SELECT spent_micros, held_micros FROM caps") == [(100_000, 0)]


async def test_raising_after_the_whole_answer_takes_nothing_back(tmp_path: Path) -> None:
    """The customer has its answer; what a background task does afterwards is the application's own affair."""

    def app(_calls: Calls) -> Starlette:
        def later() -> None:
            raise RuntimeError("the background task failed")

        async def handler(_request: Request) -> Response:
            return PlainTextResponse("whole", background=BackgroundTask(later))

        return Starlette(routes=[Route("/v1/doc", handler)])

    async with opened_shop(tmp_path, app=app) as shop:
        async with client_of(shop.app, "http") as client:
            headers = bearer(await shop.customer("ada", "closed"))
            assert (await client.get("/v1/doc", headers=headers)).text == "whole"
        assert await shop.ledger() == [SEAT]  # now that the task has failed


async def test_a_payer_s_background_task_does_not_cost_its_answer(tmp_path: Path) -> None:
    """The answer is complete: it is settled and sent, though a task after it fails or takes its time."""
    begun, goes_on = asyncio.Event(), asyncio.Event()

    def app(_calls: Calls) -> Starlette:
        async def later() -> None:
            begun.set()
            await goes_on.wait()
            raise RuntimeError("the background task failed")

        async def handler(_request: Request) -> Response:
            return PlainTextResponse("whole", background=BackgroundTask(later))

        return Starlette(routes=[Route("/v1/doc", handler)])

    async with opened_shop(tmp_path, app=app) as shop:
        async with client_of(shop.app, "http") as client:
            payment = paid(await client.get("/v1/doc"))
            answer = await client.get("/v1/doc", headers=payment)
            assert (answer.status_code, answer.text) == (200, "whole")
            assert "payment-response" in answer.headers
            await begun.wait()
            goes_on.set()
        assert await shop.payments() == ["settled"]  # now that the task has failed
        assert len(await shop.ledger()) == 1


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_payer_s_failing_handler_settles_nothing_and_leaks_nothing(
    after: int, tmp_path: Path
) -> None:
    async with opened_shop(tmp_path, app=lambda _calls: failing(after)) as shop:
        wire = Wire()
        await shop.app(scope(), wire.receive, wire.send)
        payment = paid(httpx.Response(402, headers=wire.sent[0]["headers"]))
        wire = Wire()
        with pytest.raises(RuntimeError):
            await shop.app(scope(headers=payment), wire.receive, wire.send)
        assert wire.sent == []
        assert shop.asked == ["verify"]
        assert await shop.payments() == ["released"]
        assert await shop.ledger() == []


async def test_an_application_that_says_nothing_is_not_billed(tmp_path: Path) -> None:
    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()

    async with opened_shop(tmp_path, app=lambda _calls: app) as shop:
        for headers in (bearer(await shop.customer("ada", "closed")),):
            wire = Wire()
            await shop.app(scope(headers=headers), wire.receive, wire.send)
            assert wire.sent == []
        assert await shop.ledger() == []
        assert await shop.held() == 0


# --- clients that are gone ------------------------------------------------------------------------


async def hang_up(url: str, headers: dict[str, str], begun: asyncio.Event, method: str = "GET") -> None:
    """Ask over a real socket, and close it while the handler works."""
    host, port = url.removeprefix("http://").split(":")
    _reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{method} /v1/doc HTTP/1.1", "Host: x", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await begun.wait()
    writer.close()
    await writer.wait_closed()


def working(begun: asyncio.Event, goes_on: asyncio.Event) -> Any:
    def app(calls: Calls) -> Starlette:
        async def handler(request: Request) -> Response:
            await request.body()
            begun.set()
            await goes_on.wait()
            calls.count += 1
            return PlainTextResponse("done")

        return Starlette(routes=[Route("/v1/doc", handler, methods=["GET", "POST"])])

    return app


@pytest.mark.parametrize("who", ["team", "closed", "payer"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_client_gone_before_the_work_is_done(who: str, method: str, tmp_path: Path) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    def wrap(app: Any, gate: Any) -> Any:
        inner = gate.middleware(app)

        async def outer(scope_: Any, receive: Any, send: Any) -> None:
            async def passed_on() -> Any:  # another middleware outside hides the server's own `receive`
                return await receive()

            await inner(scope_, passed_on if method == "POST" else receive, send)

        return outer

    made = working(begun, goes_on)
    async with opened_shop(tmp_path, app=made, wrap=wrap) as shop:
        async with serving(shop.app) as url:
            if who == "payer":
                async with httpx.AsyncClient(base_url=url) as client:
                    headers = paid(await client.get("/v1/doc"))
            else:
                headers = bearer(await shop.customer("ada", who))
            await hang_up(url, headers, begun, method)
            await asyncio.sleep(0.05)  # the server's loop notices the closed socket
            goes_on.set()
        assert shop.calls.count == 1
        assert await shop.ledger() == []
        assert await shop.held() == 0
        assert shop.asked == (["verify"] if who == "payer" else [])
        assert await shop.payments() == (["released"] if who == "payer" else [])


async def test_a_client_gone_before_the_work_is_done_by_message(tmp_path: Path) -> None:
    """As servers tell it that do not say it themselves: by an `http.disconnect` behind the body."""
    async with opened_shop(tmp_path) as shop:
        headers = bearer(await shop.customer("ada", "closed"))
        wire = Wire({"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"})
        await shop.app(scope(headers=headers), wire.receive, wire.send)
        assert shop.calls.count == 1
        assert await shop.ledger() == []
        assert await shop.held() == 0


async def test_a_client_gone_after_the_first_byte_pays(tmp_path: Path) -> None:
    """The work was done and began to be delivered."""
    gone = asyncio.Event()

    def app(_calls: Calls) -> Starlette:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            await gone.wait()
            yield b"last"

        async def handler(_request: Request) -> Response:
            return StreamingResponse(chunks())

        return Starlette(routes=[Route("/v1/doc", handler)])

    async with opened_shop(tmp_path, app=app) as shop, client_of(shop.app, "http") as client:
        headers = bearer(await shop.customer("ada", "team"))
        async with client.stream("GET", "/v1/doc", headers=headers) as answer:
            assert await anext(answer.aiter_raw()) == b"first"
        gone.set()
        assert await shop.ledger() == [SEAT]


async def test_a_cancelled_request_gives_its_hold_back(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with opened_shop(tmp_path, app=lambda _calls: app) as shop:
        headers = bearer(await shop.customer("ada", "closed"))
        wire = Wire()
        task = asyncio.create_task(shop.app(scope(headers=headers), wire.receive, wire.send))
        await begun.wait()
        assert await shop.held() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await shop.held() == 0
        assert await shop.ledger() == []


# --- variable cost --------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", ["-1", "1.5", "many", "", "9" * 40])
async def test_a_measure_that_is_none_charges_nothing(
    stated: str, shop: Shop, client: httpx.AsyncClient
) -> None:
    headers = bearer(await shop.customer("ada", "closed"))
    answer = await client.post("/v1/words", params={"h-headgate-units": stated}, headers=headers)
    assert answer.status_code == 200
    assert "headgate-units" not in answer.headers
    assert await shop.ledger() == []
    assert await shop.held() == 0


async def test_zero_units_are_a_row_that_costs_nothing(shop: Shop, client: httpx.AsyncClient) -> None:
    headers = bearer(await shop.customer("ada", "closed"))
    assert (await client.post("/v1/words?h-headgate-units=0", headers=headers)).status_code == 200
    assert await shop.ledger() == [Row("usage", "seat", 0, 0, "ada")]
    assert await shop.held() == 0


async def test_units_stated_in_code(tmp_path: Path) -> None:
    def app(_calls: Calls) -> Starlette:
        async def handler(request: Request) -> Response:
            use = usage(request)
            use.record(7)
            use.record(use.granted or 0)
            return RedirectResponse("/x", 302) if "away" in request.query_params else PlainTextResponse("ok")

        return Starlette(routes=[Route("/v1/words", handler, methods=["POST"])])

    async with opened_shop(tmp_path, app=app) as shop, client_of(shop.app, "http") as client:
        headers = bearer(await shop.customer("ada", "closed"))
        assert (await client.post("/v1/words?away=1", headers=headers)).status_code == 302
        assert await shop.ledger() == []
        assert (await client.post("/v1/words", headers=headers)).status_code == 200
        assert await shop.ledger() == [Row("usage", "seat", 100, 0, "ada")]
