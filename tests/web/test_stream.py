"""Declared streams: they flow as they are produced, and are booked by what was measured, however they end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headgate.config import Config
from headgate.model.errors import StoreUnavailable
from headgate.service.facilitators import Witness
from headgate.service.flow import CUT_BEFORE_S
from headgate.store.ledger import Ledger
from headgate.store.operations import IntendPayment, MovePayment
from headgate.web.usage import usage
from headgate.x402.chain import Fate, Paid
from tests.store.auditing import audit
from tests.torture.fakechain import ASSET
from tests.web.shop import (
    ORIGIN,
    Row,
    Shop,
    Wire,
    bearer,
    client_of,
    failing,
    opened_shop,
    paid,
    scope,
    serving,
    unpacked,
    until,
)
from tests.x402.buyer import PAYER, SEPOLIA
from tests.x402.scripted import Step, drop, lying, refusing, settle_and_lose

pytestmark = pytest.mark.timeout(60)
SOLD = """
[actions."flow"]
title = "A stream"
unit = "byte"
price = "0.001"
max_units = 1000
measure = "bytes"
stream = true
routes = ["GET /v1/flow"]
[actions."chat"]
title = "Chat"
unit = "token"
price = "0.001"
max_units = 1000
measure = "json:/total"
stream = true
routes = ["GET /v1/chat"]
[actions."steps"]
title = "Steps"
unit = "step"
price = "0.001"
max_units = 1000
stream = true
routes = ["GET /v1/steps"]
[plans.open]
included = { flow = 300, chat = 300, steps = 300 }
beyond = "overage"
[plans.tight]
included = { flow = 300, chat = 300, steps = 300 }
beyond = "block"
"""
Message = dict[str, Any]


class Play:
    """An application whose messages a test hands out one by one; `None` ends it, an exception is raised."""

    def __init__(self) -> None:
        self.script: asyncio.Queue[Message | BaseException | None] = asyncio.Queue()
        self.taken: asyncio.Queue[None] = asyncio.Queue()
        self.steps: int | None = None
        self.voids = False

    async def __call__(self, scope_: Any, receive: Any, send: Any) -> None:
        await receive()
        while (message := await self.script.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            if self.voids:
                usage(scope_).void("it came to nothing")
            if self.steps is not None:
                usage(scope_).record(self.steps)
            await send(message)
            self.taken.put_nowait(None)

    def put(self, *messages: Message | BaseException | None) -> None:
        for message in messages:
            self.script.put_nowait(dict(message) if isinstance(message, dict) else message)

    async def do(self, *messages: Message) -> None:
        """Hand out messages, and wait until each was taken."""
        for message in messages:
            self.put(message)
            await self.taken.get()


def start(status: int = 200, **headers: str) -> Message:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": named}


def body(text: bytes = b"", *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": more}


def event(total: int) -> Message:
    return body(b"data: " + json.dumps({"total": total}).encode() + b"\n\n")


END = body(more=False)
SSE = start(content_type="text/event-stream")


@asynccontextmanager
async def playing(folder: Path, **more: Any) -> AsyncIterator[tuple[Shop, Play]]:
    play = Play()
    async with opened_shop(folder, app=lambda _calls: play, more=SOLD, **more) as shop:
        yield shop, play


class Running:
    """One request by bare ASGI, running beside the test."""

    def __init__(self, shop: Shop, path: str, headers: dict[str, str]) -> None:
        self.wire = Wire()
        self.gone = asyncio.Event()
        self.wire.receive = self._receive  # type: ignore[method-assign]
        self._asked = False
        self.task = asyncio.create_task(
            shop.app(scope(path=path, headers=headers), self._receive, self.wire.send)
        )

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}


def row(units: int, channel: str = "seat", charged: int = 0) -> Row:
    return Row("usage", channel, units, charged, "ada")


# --- flowing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["open", "tight"])
async def test_a_measured_stream_flows_and_its_end_waits_for_its_booking(plan: str, tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", plan)))
        await play.do(start())
        assert call.wire.sent == []
        await play.do(body(b"first"))
        assert call.wire.sent == [start(), body(b"first")]  # the application's own messages
        assert await shop.held() == (300 if plan == "tight" else 0)
        assert await shop.sql("SELECT units FROM streams") == [(5,)]
        await play.do(body(b"second"))
        assert call.wire.sent[2:] == [body(b"second")]
        assert await shop.ledger() == []
        await play.do(body(b"last", more=False))
        assert call.wire.sent[3:] == [body(b"last", more=False)]
        assert await shop.ledger() == [row(15)]
        assert await shop.held() == 0
        play.put(None)
        await call.task
        assert await shop.ledger() == [row(15)]
        assert await shop.sql("SELECT * FROM streams") == []


async def test_over_real_http(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play), client_of(shop.app, "http") as client:
        headers = bearer(await shop.customer("ada", "tight"))
        play.put(SSE, event(1))
        async with client.stream("GET", "/v1/chat", headers=headers) as answer:
            parts = answer.aiter_raw()
            assert b'{"total": 1}' in await anext(parts)
            play.put(event(40), END, None)
            assert b'{"total": 40}' in await anext(parts)
            assert [part async for part in parts] == []
            assert await shop.ledger() == [row(40)]


async def test_a_stream_straddles_the_boundary(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        headers = bearer(await shop.customer("ada", "open"))
        call = Running(shop, "/v1/flow", headers)
        play.put(start(), body(b"x" * 250), body(b"x" * 150), END, None)
        await call.task
        assert await shop.ledger() == [row(300), row(100, "overage", 100_000)]


async def test_use_beyond_the_hold_is_written_off(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", "tight")))
        play.put(start(), body(b"x" * 400), END, None)
        await call.task
        assert await shop.ledger() == [row(300)]
        assert await shop.sql("SELECT written_off FROM events") == [(100,)]


async def test_with_a_length_the_last_bytes_are_the_end(tmp_path: Path) -> None:
    """A client that knows the length is done with the last byte: that one waits."""
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", "tight")))
        await play.do(start(content_length="10"), body(b"first"), body(b"final"))
        assert call.wire.body == b"first"
        assert await shop.ledger() == []
        await play.do(END)
        assert call.wire.body == b"firstfinal"
        assert await shop.ledger() == [row(10)]
        play.put(None)
        await call.task


@pytest.mark.parametrize("status", [404, 500])
async def test_a_stream_that_is_not_billed(status: int, tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", "tight")))
        await play.do(start(status), body(b"sorry"))
        assert call.wire.body == b"sorry"
        assert await shop.held() == 0
        play.put(END, None)
        await call.task
        assert await shop.ledger() == []


async def test_an_unmeasured_stream_is_not_charged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/chat", bearer(await shop.customer("ada", "tight")))
        play.put(SSE, body(b"data: x\n\n"), END, None)
        await call.task
        assert call.wire.sent[-1] == END
        assert (await shop.ledger(), await shop.held()) == ([], 0)
        assert await shop.sql("SELECT * FROM streams") == []
    assert "could not be measured" in caplog.text


# --- abandoned ------------------------------------------------------------------------------------

CASES = [
    ("/v1/flow", None, [start(), body(b"12345"), body(b"678")], 8),
    ("/v1/flow", None, [start()], None),
    ("/v1/flow", None, [], None),
    ("/v1/chat", None, [SSE, event(3), event(8)], 8),
    ("/v1/chat", None, [SSE, body(b"data: x\n\n")], 300),  # nothing known, bytes sent: the ceiling, as held
    ("/v1/chat", None, [SSE, body(b"")], 0),
    ("/v1/steps", 4, [start(), body(b"x")], 4),
    ("/v1/steps", None, [start(), body(b"x")], 300),
]


@pytest.mark.parametrize(("path", "steps", "messages", "units"), CASES)
@pytest.mark.parametrize("how", ["raises", "returns", "cancelled", "gone"])
async def test_an_abandoned_stream_is_booked_by_what_was_measured(
    how: str, path: str, steps: int | None, messages: list[Message], units: int | None, tmp_path: Path
) -> None:
    async with playing(tmp_path) as (shop, play):
        play.steps = steps
        call = Running(shop, path, bearer(await shop.customer("ada", "tight")))
        await play.do(*[dict(message) for message in messages])
        if how == "returns":
            play.put(None)
            await call.task
        elif how == "cancelled":
            call.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call.task
        else:
            call.gone.set()
            play.put(OSError("client gone") if how == "gone" else RuntimeError("failed"))
            with pytest.raises((OSError, RuntimeError)):
                await call.task
        if not messages or len(messages) == 1:
            assert await shop.ledger() == []
        else:
            assert await shop.ledger() == [row(units or 0)]
        assert await shop.held() == 0
        assert await shop.sql("SELECT * FROM streams") == []


async def test_a_client_that_hangs_up_pays_for_what_it_was_sent(tmp_path: Path) -> None:
    """Over a real socket, with an application that notices nothing and goes on."""
    async with playing(tmp_path) as (shop, play), serving(shop.app) as url:
        headers = bearer(await shop.customer("ada", "tight"))
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = ["GET /v1/flow HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await play.do(start(), body(b"12345"))
        assert b"12345" in await reader.readuntil(b"12345")
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)  # the server's loop notices the closed socket
        await play.do(body(b"x" * 200))
        assert await shop.ledger() == [row(5)]
        await play.do(body(b"x" * 200), END)
        play.put(None)
        assert await shop.ledger() == [row(5)]
        assert await shop.held() == 0


async def test_gone_before_the_first_byte(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", "tight")))
        call.gone.set()
        play.put(start(), body(b"x"), END, None)
        await call.task
        assert (await shop.ledger(), await shop.held()) == ([], 0)


async def test_a_handler_may_void_its_stream(tmp_path: Path) -> None:
    async def app(scope_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        await send(body(b"x"))
        usage(scope_).void("it was nonsense")
        await send(END)

    async with opened_shop(tmp_path, app=lambda _calls: app, more=SOLD) as shop:
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", "tight")))
        await call.task
        assert call.wire.sent[-1] == END
        assert (await shop.ledger(), await shop.held()) == ([], 0)


# --- the store, and processes that die ------------------------------------------------------------


async def test_a_stream_whose_hold_is_not_on_disk_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", "tight")))
        await play.do(start())
        assert shop.gate.ledger is not None

        def out_of_reach() -> Any:
            raise StoreUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(shop.gate.ledger.driver, "write", out_of_reach)
            await play.do(body(b"x"))
        assert call.wire.status == 503
        assert json.loads(call.wire.body)["code"] == "store_unavailable"
        play.put(END, None)
        await call.task
        assert (await shop.ledger(), await shop.held()) == ([], 0)


@pytest.mark.parametrize("plan", ["open", "tight"])
async def test_a_stream_given_up_before_it_is_on_disk_holds_and_bills_nothing(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", plan)))
        await play.do(start())
        assert shop.gate.ledger is not None
        waiting = asyncio.Event()
        driver = shop.gate.ledger.driver
        write = driver.write

        @asynccontextmanager
        async def queued() -> AsyncIterator[Any]:
            monkeypatch.setattr(driver, "write", write)
            waiting.set()
            await asyncio.Event().wait()
            yield

        monkeypatch.setattr(driver, "write", queued)
        play.put(body(b"12345"))
        await waiting.wait()
        call.task.cancel()
        await asyncio.wait([call.task])
        assert call.wire.sent == []
        await shop.gate.desk.streams.work()
        assert (await shop.ledger(), await shop.held()) == ([], 0)
        assert await shop.sql("SELECT * FROM streams") == []


async def test_an_end_that_cannot_be_booked_stays_away_and_is_booked_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", "tight")))
        await play.do(start(), body(b"12345"))
        ledger = shop.gate.ledger
        assert isinstance(ledger, Ledger)

        def out_of_reach() -> Any:
            raise StoreUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(ledger.driver, "write", out_of_reach)
            await play.do(body(b"678"), END)
        assert call.wire.sent[-1] == body(b"678")
        play.put(None)
        await call.task
        assert await shop.ledger() == []
        await shop.gate.desk.streams.work()
        assert await shop.ledger() == [row(8)]
        assert await shop.held() == 0
        await audit(ledger.driver, held=0)


@pytest.mark.parametrize("same_slot", [True, False])
async def test_a_killed_process_s_streams_are_booked_by_who_takes_over(
    same_slot: bool, tmp_path: Path
) -> None:
    """The last measure on disk counts, within what was held; nobody else gets the room in between."""
    async with playing(tmp_path) as (shop, play):
        headers = bearer(await shop.customer("ada", "tight"))
        call = Running(shop, "/v1/flow", headers)
        await play.do(start(), body(b"12345"), body(b"x" * 95))
        await shop.gate.desk.streams.note()
        await play.do(body(b"never written down"))
        ledger = shop.gate.ledger
        assert ledger is not None
        slot = ledger.slot
        for task in shop.gate._background:
            task.cancel()
        await ledger.driver.close()  # its locks go, as with a process that is killed

        other = play if same_slot else Play()
        async with opened_shop(tmp_path, app=lambda _calls: other, more=SOLD) as heir:
            assert heir.gate.ledger is not None
            assert heir.gate.ledger.slot == slot
            assert await heir.gate.desk.streams.work() in (0, 1)
            assert await heir.ledger() == [row(100)]
            assert await heir.held() == 0
            assert await heir.sql("SELECT * FROM streams") == []
            await audit(heir.gate.ledger.driver, held=0)
        call.task.cancel()
        shop.gate.store = None


async def test_a_dead_neighbour_s_stream_keeps_its_hold_until_it_is_booked(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        headers = bearer(await shop.customer("ada", "tight"))
        async with opened_shop(tmp_path, app=lambda _calls: Play(), more=SOLD) as neighbour:
            call = Running(shop, "/v1/flow", headers)
            await play.do(start(), body(b"12345"))
            ledger, other = shop.gate.ledger, neighbour.gate.ledger
            assert ledger is not None
            assert other is not None
            assert ledger.slot != other.slot
            for task in (*shop.gate._background, *neighbour.gate._background):
                task.cancel()
            await ledger.driver.close()
            assert await other.recover_dead() == [ledger.slot]
            assert await neighbour.held() == 300
            assert await neighbour.gate.desk.streams.work() == 1
            assert await neighbour.ledger() == [row(5)]
            assert await neighbour.held() == 0
            await audit(other.driver, held=0)
        call.task.cancel()
        shop.gate.store = None


async def test_running_streams_write_their_measure_now_and_then(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", "tight")))
        await play.do(start(), body(b"12345"), body(b"678"))
        streams = shop.gate.desk.streams
        await streams.work()
        await play.do(body(b"9"))
        await streams.work()
        assert await shop.sql("SELECT units FROM streams") == [(8,)]
        shop.clock.ahead_us += 3_000_000
        await streams.work()
        assert await shop.sql("SELECT units FROM streams") == [(9,)]
        play.put(END, None)
        await call.task


# --- paid with a ceiling --------------------------------------------------------------------------

AGENT = PAYER.address.lower()


def sold(units: int) -> Row:
    return Row("usage", "x402", units, units * 1000, None, AGENT)


async def payment_for(shop: Shop, path: str) -> dict[str, str]:
    async with client_of(shop.app, "asgi") as client:
        answer = await client.get(path)
        while answer.status_code == 503:  # until the facilitator has said which account settles `upto`
            await asyncio.sleep(0.01)
            answer = await client.get(path)
        return paid(answer)


async def test_a_paid_stream_flows_and_settles_what_it_used(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play), client_of(shop.app, "http") as client:
        payment = await payment_for(shop, "/v1/chat")
        play.put(SSE, event(1))
        async with client.stream("GET", "/v1/chat", headers=payment) as answer:
            assert "payment-response" not in answer.headers
            assert answer.headers["cache-control"] == "private, no-store"
            parts = answer.aiter_raw()
            assert b'{"total": 1}' in await anext(parts)
            assert (await shop.payments(), shop.asked) == (["served"], ["verify"])
            play.put(event(40), END, None)
            assert b'{"total": 40}' in await anext(parts)
            assert [part async for part in parts] == []
        assert await shop.ledger() == [sold(40)]
        assert shop.asked == ["verify", "settle"]
        receipt = (await client.get(answer.headers["headgate-receipt"].removeprefix(ORIGIN))).json()
        assert (receipt["state"], receipt["charged_amount"], receipt["units"]) == ("settled", "0.040000", 40)
        again = await client.get("/v1/chat", headers=payment)
        assert again.status_code == 200
        assert again.content.count(b"data: ") == 2
        assert unpacked(again.headers["payment-response"])["amount"] == "40000"
        assert await shop.ledger() == [sold(40)]


@pytest.mark.parametrize(
    ("path", "messages", "units"),
    [
        ("/v1/flow", [start(), body(b"12345"), body(b"678")], 8),
        ("/v1/chat", [SSE, body(b"data: x\n\n")], 1000),
        ("/v1/chat", [SSE, body(b"")], 0),
        ("/v1/flow", [start()], None),
    ],
)
@pytest.mark.parametrize("how", ["raises", "returns", "cancelled"])
async def test_an_abandoned_paid_stream_settles_what_was_measured(
    how: str, path: str, messages: list[Message], units: int | None, tmp_path: Path
) -> None:
    async with playing(tmp_path) as (shop, play):
        payment = await payment_for(shop, path)
        call = Running(shop, path, payment)
        await play.do(*[dict(message) for message in messages])
        if how == "cancelled":
            call.task.cancel()
        play.put(None if how == "returns" else RuntimeError("failed"))
        await asyncio.wait([call.task])
        assert await shop.ledger() == ([] if units is None else [sold(units)])
        assert await shop.payments() == ["released" if units is None else "settled"]
        assert shop.asked == (["verify", "settle"] if units else ["verify"])
        if units is not None:  # nothing is to be had once more for it
            again = Running(shop, path, payment)
            await again.task
            assert (again.wire.status, json.loads(again.wire.body)["code"]) == (409, "payment_used")


async def test_the_end_of_a_stream_whose_settlement_is_refused_stays_away(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", await payment_for(shop, "/v1/flow"))
        shop.facilitator.script.settle.append(refusing("insufficient_funds"))
        await play.do(start(), body(b"12345"), END)
        play.put(None)
        await call.task
        assert call.wire.body == b"12345"
        assert END not in call.wire.sent
        assert (await shop.payments(), await shop.ledger()) == (["failed"], [])


@pytest.mark.parametrize("who", ["payer", "customer"])
async def test_what_was_held_back_was_not_sent(who: str, tmp_path: Path) -> None:
    """With a length announced the last bytes wait: whoever was sent none of them owes nothing."""
    async with playing(tmp_path) as (shop, play):
        key = bearer(await shop.customer("ada", "tight"))
        headers = key if who == "customer" else await payment_for(shop, "/v1/chat")
        call = Running(shop, "/v1/chat", headers)
        sized = start(content_type="text/event-stream", content_length="9")
        await play.do(sized, body(b"data: x\n\n"))
        play.put(RuntimeError("failed"))
        await asyncio.wait([call.task])
        assert call.wire.body == b""
        assert [(row.units, row.charged) for row in await shop.ledger()] == [(0, 0)]


async def test_a_stated_measure_counts_however_few_bytes_have_left(tmp_path: Path) -> None:
    """Bytes are counted only where nothing says more."""

    async def application(scope_: Any, receive: Any, send: Any) -> None:
        await receive()
        usage(scope_).record(200)
        await send(start())
        await send(body(b"1234567890"))
        raise RuntimeError("failed")

    async with opened_shop(tmp_path, app=lambda _calls: application, more=SOLD) as shop:
        key = await shop.customer("ada", "open")
        call = Running(shop, "/v1/flow", bearer(key))
        await asyncio.wait([call.task])
        assert await shop.ledger() == [row(200)]
        paying = Running(shop, "/v1/flow", await payment_for(shop, "/v1/flow"))
        await asyncio.wait([paying.task])
        assert (await shop.ledger())[-1] == sold(200)


async def test_what_was_not_to_be_settled_once_does_not_hold_up_the_payment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that failed before the intent was written: used again, it is resolved as any other."""
    async with playing(tmp_path) as (shop, play):
        payment = await payment_for(shop, "/v1/flow")
        for task in shop.gate._background:
            task.cancel()
        call = Running(shop, "/v1/flow", payment)
        await play.do(start())
        with monkeypatch.context() as patch:
            failing(patch, shop, (IntendPayment, MovePayment))
            play.put(body(b"12345"), RuntimeError("failed"))
            await asyncio.wait([call.task])
        cashier = shop.gate.payer.cashier
        ((identifier,),) = await shop.sql("SELECT id FROM payments")
        cashier.unowed[bytes(identifier)] = "said of a stream that never was"
        recovery = shop.gate._recovery
        assert recovery is not None
        await recovery.run_once()
        assert await shop.payments() == ["released"]
        shop.facilitator.script.settle.append(settle_and_lose)
        again = Running(shop, "/v1/flow", payment)
        play.put(start(), body(b"12345"), END, None)
        await again.task
        assert await shop.payments() == ["unknown"]
        assert await recovery.run_once() == 0
        assert (await shop.payments(), await shop.ledger()) == (["settled"], [sold(5)])


async def test_a_paid_stream_whose_first_bytes_cannot_be_sent_settles_nothing(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        payment = await payment_for(shop, "/v1/chat")
        call = Running(shop, "/v1/steps", {})
        call.task.cancel()

        async def broken(_message: Message) -> None:
            raise OSError("the connection is gone")

        play.put(SSE, body(b"data: x\n\n"))
        with pytest.raises(OSError, match="gone"):
            await shop.app(scope(path="/v1/chat", headers=payment), call._receive, broken)
        assert (await shop.ledger(), shop.asked) == ([sold(0)], ["verify"])


class Told:
    """A chain that says one thing."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate

    async def misfits(self, _asset: Any) -> None:
        return None

    async def fate(self, _signed: Any, _since_s: int, **_clock: Any) -> Fate:
        return self._fate

    async def close(self) -> None:
        return None


async def test_a_stream_that_is_refused_and_was_paid_all_the_same(tmp_path: Path) -> None:
    """The chain knows better: its end leaves, and the transfer is booked."""
    paid_by = Paid("0x" + "cd" * 32, 5, 0, 5_000, final=True)
    witness = Witness(Told(paid_by), ASSET)  # type: ignore[arg-type]
    async with playing(tmp_path, chains={SEPOLIA: witness}) as (shop, play):
        call = Running(shop, "/v1/flow", await payment_for(shop, "/v1/flow"))
        shop.facilitator.script.settle.append(refusing("insufficient_funds"))
        play.put(start(), body(b"12345"), END, None)
        await call.task
        assert call.wire.sent[-1] == END
        assert (await shop.payments(), await shop.ledger()) == (["settled"], [sold(5)])


@pytest.mark.parametrize("step", [drop, lying(transaction="")], ids=["lost", "unverified"])
async def test_the_end_of_a_stream_whose_settlement_is_not_known_stays_away(
    step: Step, tmp_path: Path
) -> None:
    """It can be had with the same payment as soon as it is known."""
    async with playing(tmp_path) as (shop, play):
        payment = await payment_for(shop, "/v1/flow")
        for task in shop.gate._background:
            task.cancel()
        call = Running(shop, "/v1/flow", payment)
        shop.facilitator.script.settle.append(step)
        play.put(start(), body(b"12345"), END, None)
        await call.task
        assert call.wire.sent[-1] == body(b"12345")
        assert (await shop.payments(), await shop.ledger()) == (["unknown"], [])
        assert shop.gate._recovery is not None
        await shop.gate._recovery.run_once()
        assert await shop.ledger() == [sold(5)]
        again = Running(shop, "/v1/flow", payment)
        await again.task
        assert (again.wire.status, again.wire.body) == (200, b"12345")


@pytest.mark.parametrize(("messages", "units"), [([event(40)], 40), ([], 0)])
async def test_what_a_stream_came_to_is_settled_when_the_store_comes_back(
    messages: list[Message], units: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its intent names the ceiling as long as nothing is known; its end, measured or not, is not lost."""
    async with playing(tmp_path) as (shop, play):
        payment = await payment_for(shop, "/v1/chat")
        for task in shop.gate._background:
            task.cancel()
        call = Running(shop, "/v1/chat", payment)
        await play.do(SSE, body(b"data: x\n\n"))

        def away() -> Any:
            raise StoreUnavailable

        ledger = shop.gate.ledger
        assert ledger is not None
        with monkeypatch.context() as patch:
            patch.setattr(ledger.driver, "write", away)
            play.put(*[dict(message) for message in messages], END, None)
            await call.task
            assert shop.gate._recovery is not None
            assert await shop.gate._recovery.run_once() == 1  # the store is still away
        assert call.wire.sent[-1] != END
        shop.clock.ahead_us += 2_000_000
        assert await shop.gate._recovery.run_once() == 0
        assert (await shop.payments(), await shop.ledger()) == (["settled"], [sold(units)])
        assert shop.asked == (["verify", "settle"] if units else ["verify"])


async def test_what_is_not_charged_is_not_settled_when_the_store_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that was voided, and a store that cannot be written at its end."""
    async with playing(tmp_path) as (shop, play):
        payment = await payment_for(shop, "/v1/flow")
        for task in shop.gate._background:
            task.cancel()
        call = Running(shop, "/v1/flow", payment)
        await play.do(start(), body(b"12345"))
        play.voids = True
        with monkeypatch.context() as patch:
            failing(patch, shop, MovePayment)
            play.put(END, None)
            await call.task
            assert shop.gate._recovery is not None
            assert await shop.gate._recovery.run_once() == 1  # the store is still away
        assert await shop.gate._recovery.run_once() == 0
        assert (await shop.payments(), await shop.ledger(), shop.asked) == (["released"], [], ["verify"])


async def test_use_beyond_the_ceiling_is_written_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", await payment_for(shop, "/v1/flow"))
        play.put(start(), body(b"x" * 1100), END, None)
        await call.task
        assert await shop.ledger() == [sold(1000)]
        assert await shop.sql("SELECT written_off FROM events") == [(100,)]
    assert "flow: 100 units beyond the ceiling are written off" in caplog.text


async def test_a_stream_is_settled_before_its_payment_expires(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", await payment_for(shop, "/v1/flow"))
        await play.do(start(), body(b"12345"))
        shop.clock.ahead_us += 295_000_000
        await play.do(body(b"678"), END)
        play.put(None)
        await call.task
        assert call.wire.body == b"12345"
        assert await shop.ledger() == [sold(5)]


@pytest.mark.parametrize("how", ["waits", "will not be stopped"])
async def test_a_silent_stream_is_settled_before_its_payment_expires(how: str, tmp_path: Path) -> None:
    """The application says nothing more: at the last moment it is stopped, and what was sent is settled."""

    def hasty(config: Config) -> Config:
        assert config.x402 is not None
        return replace(config, x402=replace(config.x402, max_timeout_seconds=12, min_validity_s=1))

    stopped = asyncio.Event()

    async def application(scope_: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        await send(body(b"12345"))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            if how == "waits":
                raise
            await send(body(b"678"))
            await send(END)

    async with opened_shop(tmp_path, app=lambda _calls: application, more=SOLD, change=hasty) as shop:
        call = Running(shop, "/v1/flow", await payment_for(shop, "/v1/flow"))
        await call.task
        assert stopped.is_set()
        assert call.wire.body == b"12345"
        assert END not in call.wire.sent
        assert (await shop.ledger(), await shop.payments()) == ([sold(5)], ["settled"])


async def test_a_paid_stream_given_up_while_it_is_written_down_settles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has left yet, whether or not the intent reached the disk."""
    async with playing(tmp_path) as (shop, play):
        payment = await payment_for(shop, "/v1/flow")
        call = Running(shop, "/v1/flow", payment)
        await play.do(start())
        ledger = shop.gate.ledger
        assert ledger is not None
        submit = ledger.submit

        def cancelling(operation: Any) -> Any:
            if isinstance(operation, IntendPayment):
                call.task.cancel()
            return submit(operation)

        monkeypatch.setattr(ledger, "submit", cancelling)
        play.put(body(b"12345"))
        await asyncio.wait([call.task])
        assert call.wire.sent == []
        recovery = shop.gate._recovery
        assert recovery is not None
        assert await recovery.run_once() == 0
        assert (await shop.ledger(), await shop.payments()) == ([], ["released"])
        assert shop.asked == ["verify"]


async def test_a_paid_stream_that_is_not_billed(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/chat", await payment_for(shop, "/v1/chat"))
        play.put(start(500), body(b"x"), END, None)
        await call.task
        assert call.wire.sent[-1] == END
        assert call.wire.body == b"x"
        assert (await shop.payments(), await shop.ledger()) == (["released"], [])


async def test_a_paid_stream_that_cannot_be_measured(tmp_path: Path) -> None:
    """It is served for nothing, counted as that, and its payment opens nothing else."""
    async with playing(tmp_path) as (shop, play):
        payment = await payment_for(shop, "/v1/chat")
        call = Running(shop, "/v1/chat", payment)
        play.put(SSE, body(b"data: x\n\n"), END, None)
        await call.task
        assert call.wire.sent[-1] == END
        assert (await shop.payments(), await shop.ledger()) == (["settled"], [sold(0)])
        assert await shop.sql("SELECT written_off FROM events") == [(1000,)]
        assert shop.asked == ["verify"]


async def test_an_answer_from_a_thread_is_settled_before_it_can_be_stopped(tmp_path: Path) -> None:
    """A server waits for a generator's thread whatever is cancelled; the payment would expire meanwhile."""
    blocked = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"x" * 900
        blocked.wait(30)
        yield b"y"

    async def flow(_request: Request) -> Response:
        return StreamingResponse(pieces(), media_type="text/plain")

    def soon(config: Config) -> Config:
        assert config.x402 is not None
        return replace(config, x402=replace(config.x402, min_validity_s=1))

    app = Starlette(routes=[Route("/v1/flow", flow)])
    async with (
        opened_shop(tmp_path, app=lambda _calls: app, more=SOLD, change=soon) as shop,
        client_of(shop.app, "http") as client,
    ):
        payment = await payment_for(shop, "/v1/flow")
        permit = unpacked(payment["PAYMENT-SIGNATURE"])["payload"]["permit2Authorization"]
        left_s = int(permit["deadline"]) - shop.clock() // 1_000_000
        shop.clock.ahead_us += (left_s - CUT_BEFORE_S - 2) * 1_000_000
        asking = asyncio.create_task(client.get("/v1/flow", headers=payment))
        try:
            await until(lambda: shop.asked == ["verify", "settle"])
            while await shop.payments() != ["settled"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            blocked.set()
        with pytest.raises(httpx.RemoteProtocolError):  # its end stays away
            await asking
        assert await shop.ledger() == [sold(900)]


async def test_a_killed_process_s_paid_stream_settles_its_last_measure(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play):
        payment = await payment_for(shop, "/v1/flow")
        call = Running(shop, "/v1/flow", payment)
        await play.do(start(), body(b"12345"))
        shop.clock.ahead_us += 3_000_000
        await play.do(body(b"678"), body(b"never written down"))
        ledger = shop.gate.ledger
        assert ledger is not None
        for task in shop.gate._background:
            task.cancel()
        await ledger.driver.close()  # its locks go, as with a process that is killed
        async with opened_shop(
            tmp_path, app=lambda _calls: Play(), more=SOLD, facilitator=shop.facilitator
        ) as heir:
            recovery = heir.gate._recovery
            assert recovery is not None
            await recovery.run_once()
            assert await heir.ledger() == [sold(8)]
            assert await heir.payments() == ["settled"]
            again = Running(heir, "/v1/flow", payment)
            await again.task
            assert json.loads(again.wire.body)["code"] == "payment_used"
        call.task.cancel()
        shop.gate.store = None


async def test_a_payer_that_hangs_up_pays_for_what_it_was_sent(tmp_path: Path) -> None:
    async with playing(tmp_path) as (shop, play), serving(shop.app) as url:
        payment = await payment_for(shop, "/v1/flow")
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = ["GET /v1/flow HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in payment.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await play.do(start(), body(b"12345"))
        assert b"12345" in await reader.readuntil(b"12345")
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(0.05)  # the server's loop notices the closed socket
        await play.do(body(b"x" * 200), END)
        play.put(None)
        assert await shop.ledger() == [sold(5)]


# --- fixed prices ---------------------------------------------------------------------------------


async def test_a_fixed_price_stream_whose_client_is_gone_stays_booked(tmp_path: Path) -> None:
    """However that shows in the application: some servers raise from `send`."""
    fixed = SOLD + '[actions."page"]\nprice = "0.1"\nstream = true\nroutes = ["GET /v1/page"]\n'
    play = Play()
    async with opened_shop(tmp_path, app=lambda _calls: play, more=fixed) as shop:
        for how, rows in (("gone", 1), ("failed", 3)):
            call = Running(
                shop,
                "/v1/page",
                bearer(shop.keys["ada"].key if rows == 3 else await shop.customer("ada", None)),
            )
            await play.do(start(), body(b"x"))
            if how == "gone":
                call.gone.set()
            play.put(OSError(how))
            with pytest.raises(OSError, match=how):
                await call.task
            assert len(await shop.ledger()) == rows


async def test_the_first_measure_is_written_by_background_work(tmp_path: Path) -> None:
    """Nobody calls `work` but the gate itself."""
    async with playing(tmp_path) as (shop, play):
        call = Running(shop, "/v1/flow", bearer(await shop.customer("ada", "tight")))
        await play.do(start(), body(b"12345"), body(b"678"))
        shop.clock.ahead_us += 10_000_000
        async with asyncio.timeout(20):
            while await shop.sql("SELECT units FROM streams") != [(8,)]:  # noqa: ASYNC110  a row, not an event
                await asyncio.sleep(0.05)
        play.put(END, None)
        await call.task


async def test_a_stream_whose_first_bytes_cannot_be_sent_ends_there(tmp_path: Path) -> None:
    """It is on disk by then: it is booked once, with nothing sent; neither its row nor its hold stays."""
    async with playing(tmp_path) as (shop, play):
        headers = bearer(await shop.customer("ada", "tight"))
        call = Running(shop, "/v1/steps", {})
        call.task.cancel()

        async def broken(message: Message) -> None:
            if message["type"] == "http.response.body":
                raise OSError("the connection is gone")

        play.put(start(), body(b"12345"))
        with pytest.raises(OSError, match="gone"):
            await shop.app(scope(path="/v1/flow", headers=headers), call._receive, broken)
        assert await shop.ledger() == [row(0)]
        assert await shop.held() == 0
        assert await shop.sql("SELECT * FROM streams") == []
        assert shop.gate.desk.streams._running == {}
