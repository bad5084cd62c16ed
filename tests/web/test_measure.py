"""How units are read: from headers, JSON, event streams and bytes; and what happens to what is no number."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate import usage
from headgate.model.calendar import AccountingCalendar, format_month
from headgate.model.catalog import Action, Measure
from headgate.model.report import Memo, Span
from headgate.service.report import report
from headgate.web import answer, measure
from headgate.web.measure import EventReader, Meter, resolve
from headgate.web.usage import Usage
from tests.web.shop import (
    Calls,
    Row,
    Shop,
    Wire,
    bearer,
    client_of,
    opened_shop,
    paid,
    problem_of,
    scope,
    unpacked,
)
from tests.x402.buyer import PAYER

pytestmark = pytest.mark.timeout(60)
EVENTS = b'data: {"usage": null}\n\ndata: {"usage": {"total": 7}}\n\ndata: [DONE]\n\n'


def action(kind: str, **more: Any) -> Action:
    word, _, pointer = kind.partition(":")
    return Action("a", "A", "unit", 1000, max_units=100, measure=Measure(word, pointer), **more)


def meter_of(kind: str, *chunks: bytes, headers: dict[str, str] | None = None, **more: Any) -> Meter:
    """A meter that has seen a whole answer."""
    meter = Meter(action(kind, **more), Usage())
    named = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    meter.begin({"type": "http.response.start", "status": 200, "headers": named})
    for chunk in chunks:
        meter.feed({"type": "http.response.body", "body": chunk, "more_body": True})
    meter.end()
    return meter


def sse(*chunks: bytes, pointer: str = "/usage/total") -> int | None:
    reader = EventReader(pointer)
    for chunk in chunks:
        reader.feed(chunk)
    reader.end()
    return reader.units


# --- pointers (RFC 6901 §5: the document of the specification, and what names nothing) ------------

RFC = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7,
       "m~n": 8}  # fmt: skip


@pytest.mark.parametrize(
    ("pointer", "found"),
    [("/foo/0", "bar"), ("/foo/1", "baz"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/e^f", 3), ("/g|h", 4),
     ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8), ("", RFC)],
)  # fmt: skip
def test_a_pointer_names(pointer: str, found: Any) -> None:
    assert resolve(RFC, pointer) == found


@pytest.mark.parametrize(
    "pointer",
    ["/foo/2", "/foo/-", "/foo/-1", "/foo/01", "/foo/+1", "/foo/1_0", "/foo/٠", "/foo/0/0", "/nothing",
     "/foo/", "//", "/a/b"],
)  # fmt: skip
def test_a_pointer_names_nothing(pointer: str) -> None:
    assert resolve(RFC, pointer) is measure._ABSENT


@pytest.mark.parametrize("value", ["-1", "1.0", "true", '"7"', "[7]", "{}", "1e3", str(10**12 + 1), "NaN"])
def test_what_is_no_number_of_units(value: str) -> None:
    body = b'{"n": ' + value.encode() + b"}"
    assert meter_of("json:/n", body).billable(200) is None
    assert meter_of("json:/n", body, on_unmeasured="ceiling").billable(200) == 100


@pytest.mark.parametrize(
    ("kind", "body", "headers", "units"),
    [
        ("json:/n", b'{"n": 0}', {}, 0),
        ("json:/n", b'{"n": 12}', {}, 12),
        ("json:/0/n", b'[{"n": 12}]', {}, 12),
        ("json:/n", b'{"n": 12', {}, None),
        ("json:/n", b"", {}, None),
        ("json:/n", b"\xff", {}, None),
        ("json:/n", b"[" * 100_000, {}, None),
        ("json:/n", b'{"n": 3, "x": [' + b'{"y": "]"},' * 5000 + b"0]}", {}, 3),
        ("json:/n", gzip.compress(b'{"n": 12}', mtime=0), {"content-encoding": "gzip"}, 12),
        ("json:/n", zlib.compress(b'{"n": 12}'), {"Content-Encoding": "deflate"}, 12),
        ("json:/n", gzip.compress(b'{"n": 12}', mtime=0)[:-9], {"content-encoding": "gzip"}, None),
        ("json:/n", b"not gzip", {"content-encoding": "gzip"}, None),
        ("json:/usage/total", EVENTS, {"content-type": "text/event-stream; charset=utf-8"}, 7),
        ("json:/usage/total", gzip.compress(EVENTS, mtime=0), {"content-type": "text/event-stream",
                                                      "content-encoding": "gzip"}, 7),
        ("json:/usage/total", EVENTS, {"content-type": "text/plain"}, None),
        ("bytes", b"12345", {}, 5),
        ("bytes", b"", {}, 0),
        ("header", b"", {"headgate-units": "5"}, 5),
        ("header", b"", {"Headgate-Units": "-5"}, None),
        ("header", b"", {}, None),
        ("code", b"", {}, None),
    ],
)  # fmt: skip
def test_measures(kind: str, body: bytes, headers: dict[str, str], units: int | None) -> None:
    assert meter_of(kind, body, headers=headers).billable(200) == units
    parts = [body[n : n + 7] for n in range(0, len(body), 7)]
    assert meter_of(kind, *parts, headers=headers).billable(200) == units
    assert meter_of(kind, body, headers=headers).billable(404) is None


def test_two_units_headers_that_differ_are_no_number() -> None:
    meter = Meter(action("header"), Usage())
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"Headgate-Units", b"5"), (b"x", b"y"), (b"headgate-units", b"6")],
    }
    meter.begin(start)
    assert start["headers"] == [(b"x", b"y")]
    assert meter.billable(200) is None


# --- event streams --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (EVENTS, 7),
        (EVENTS.replace(b"\n", b"\r\n"), 7),
        (EVENTS.replace(b"\n", b"\r"), 7),
        (b"\xef\xbb\xbf" + b'data: {"usage": {"total": 3}}\n\n', 3),
        (b'data: {"usage":\ndata: {"total": 4}}\n\n', 4),
        (b'event: x\nid: 1\ndata:{"usage":{"total":5}}\nretry: 1\n\n: comment\n\n', 5),
        (b'data: {"usage": {"total": 1}}\n\ndata: {"usage": {"total": 2}}\n\n', 2),
        (b'data: {"usage": {"total": 6}}', 6),  # cut off from its empty line
        (b'data: {"usage": {"total": 6}}\n\ndata: {"usage": {"tot', 6),
        (b'data: {"usage": {"total": 6}}\n\ndata: {"usage": {"total": -2}}\n\n', measure.NO_NUMBER),
        (b'data: {"usage": {"total": null}}\n\n', None),
        (b'dat: {"usage": {"total": 6}}\n\n', None),
        (b': data: {"usage": {"total": 6}}\n\n', None),
        (b"data: " + b"x" * (2 * measure.EVENT_BYTES) + b'\n\ndata: {"usage": {"total": 9}}\n\n', 9),
        (b"x" * (2 * measure.EVENT_BYTES) + b'\ndata: {"usage": {"total": 9}}\n\n', None),
    ],
)
def test_the_last_event_that_has_it(text: bytes, units: int | None) -> None:
    assert sse(text) == units
    assert sse(*(text[n : n + 50_021] for n in range(0, len(text), 50_021))) == units


@given(st.data())
def test_an_event_stream_reads_the_same_however_it_is_cut(data: st.DataObject) -> None:
    ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
    lines = data.draw(st.lists(st.sampled_from(
        [b"", b'data: {"usage":', b'data: {"total": 4}}', b'data: {"usage": {"total": 8}}', b": x", b"data"]
    )))  # fmt: skip
    text = b"".join(line + data.draw(ends) for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert sse(*parts) == sse(text)


def test_an_endless_event_costs_bounded_memory() -> None:
    reader = EventReader("/n")
    for _ in range(100):
        reader.feed(b"data: " + b"x" * 100_000)
        reader.feed(b"\n" * (_ % 2))
    assert len(reader._line) + len(reader._data) <= measure.EVENT_BYTES


# --- on their way through the house ---------------------------------------------------------------

SOLD = """
[actions."chat"]
title = "Chat"
unit = "token"
price = "0.002"
per = 1000
max_units = 25000
measure = "json:/usage/total_tokens"
routes = ["POST /v1/chat"]
[actions."raw"]
unit = "byte"
price = "0.001"
per = 1000
max_units = 60_000_000
measure = "bytes"
on_unmeasured = "ceiling"
routes = ["GET /v1/raw"]
[plans.tokens]
included = { chat = 20_000, raw = 30_000_000 }
beyond = "block"
"""
AGENT = PAYER.address.lower()


def chatting(calls: Calls) -> Starlette:
    async def chat(request: Request) -> Response:
        calls.count += 1
        body = await request.body()
        if "code" in request.query_params:
            usage(request).record(int(request.query_params["code"]))
        return Response(body, headers={"content-type": request.query_params.get("type", "application/json")})

    async def raw(request: Request) -> Response:
        return Response(b"x" * int(request.query_params["size"]))

    return Starlette(
        routes=[Route("/v1/chat", chat, methods=["POST"]), Route("/v1/raw", raw, methods=["GET"])]
    )


def told(tokens: Any) -> bytes:
    return json.dumps({"usage": {"total_tokens": tokens}}).encode()


@pytest.mark.parametrize(
    ("body", "query", "units", "written_off"),
    [
        (told(1500), "", 1500, 0),
        (told(0), "", 0, 0),
        (told(30_000), "", 20_000, 10_000),
        (told(1500), "?code=7", 7, 0),
        (b"data: " + told(1500) + b"\n\n", "?type=text/event-stream", 1500, 0),
    ],
)
async def test_a_customer_s_measured_use(
    body: bytes, query: str, units: int, written_off: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened_shop(tmp_path, app=chatting, more=SOLD) as shop, client_of(shop.app, "http") as client:
        headers = bearer(await shop.customer("ada", "tokens"))
        answer_ = await client.post(f"/v1/chat{query}", content=body, headers=headers)
        assert (answer_.status_code, answer_.content) == (200, body)
        assert await shop.ledger() == [Row("usage", "seat", units, 0, "ada")]
        assert await shop.sql("SELECT written_off FROM events") == [(written_off,)]
        assert await shop.held() == 0
    assert ("written off" in caplog.text) == bool(written_off)


@pytest.mark.parametrize(
    ("body", "charged", "units", "written_off"),
    [
        (told(1500), 3000, 1500, 0),
        (told(25_000), 50_000, 25_000, 0),
        (told(26_000), 50_000, 25_000, 1000),
        (told(0), 0, 0, 0),
        (told(1), 2, 1, 0),
    ],
)
async def test_a_payer_s_measured_use(
    body: bytes, charged: int, units: int, written_off: int, tmp_path: Path
) -> None:
    """`upto`: the ceiling is offered and verified, the actual settled; nothing used settles nothing."""
    async with opened_shop(tmp_path, app=chatting, more=SOLD) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.post("/v1/chat", content=body))
        answer_ = await client.post("/v1/chat", content=body, headers=payment)
        assert answer_.status_code == 200
        assert await shop.ledger() == [Row("usage", "x402", units, charged, None, AGENT)]
        assert await shop.sql("SELECT written_off, authorized_micros FROM events") == [(written_off, 50_000)]
        assert shop.asked == (["verify", "settle"] if charged else ["verify"])
        assert unpacked(answer_.headers["payment-response"])["amount"] == str(charged)


@pytest.mark.parametrize("value", [-1, 1.5, None, "7"])
async def test_a_payer_s_use_that_is_no_number(
    value: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened_shop(tmp_path, app=chatting, more=SOLD) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.post("/v1/chat", content=told(value)))
        answer_ = await client.post("/v1/chat", content=told(value), headers=payment)
        assert answer_.status_code == 200
        assert unpacked(answer_.headers["payment-response"])["amount"] == "0"
        # Served for nothing, and counted as that; the signature opens no other work.
        assert await shop.ledger() == [Row("usage", "x402", 0, 0, None, AGENT)]
        assert await shop.sql("SELECT written_off FROM events") == [(25_000,)]
        assert (await shop.payments(), shop.asked) == (["settled"], ["verify"])
        again = await client.post("/v1/chat", content=told(value), headers=payment)
        assert (again.status_code, again.content, shop.asked) == (200, answer_.content, ["verify"])
        other = await client.post("/v1/chat", content=told(5), headers=payment)
        assert (other.status_code, problem_of(other)) == (409, "payment_bound_elsewhere")
        memo = await memo_of(shop)
        assert (memo.unmeasured_events, memo.unmeasured_micros) == (1, 50_000)
        assert (memo.beyond_events, memo.unpaid_payments, memo.pending_payments) == (0, 0, 0)
        notes = await shop.sql("SELECT note FROM payment_steps WHERE state = 5")
        assert notes == [("its use could not be measured: nothing is settled",)]
    assert "could not be measured" in caplog.text


async def memo_of(shop: Shop) -> Memo:
    """What stands below this month's report."""
    assert shop.gate.store is not None
    driver, registry = shop.gate.store.driver, shop.gate.store.registry
    calendar = AccountingCalendar("UTC")
    span = Span.of_month(format_month(calendar.month_and_day(shop.clock())[0]))
    return (await report(driver, registry, calendar=calendar, span=span)).memo


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/told", "/v1/counted"])
async def test_a_head_opens_no_measured_work_for_nothing(path: str, stream: bool, tmp_path: Path) -> None:
    """It has no body to measure: nothing is charged for it, and its payment buys the GET."""

    async def body(request: Request) -> Response:
        if request.method == "HEAD":  # as files are answered
            return Response(b"", headers={"content-type": "application/json"})
        return Response(told(20), headers={"content-type": "application/json"})

    sold = SOLD + "".join(
        f'[actions."{name}"]\nunit = "x"\nprice = "0.001"\nmax_units = 100\nmeasure = "{how}"\n'
        f'routes = ["GET /v1/{name}"]\n' + "stream = true\n" * stream
        for name, how in (("told", "json:/usage/total_tokens"), ("counted", "bytes"))
    )
    units = 20 if path == "/v1/told" else len(told(20))
    app = Starlette(routes=[Route(path, body)])
    async with (
        opened_shop(tmp_path, app=lambda _calls: app, more=sold) as shop,
        client_of(shop.app, "http") as client,
    ):
        payment = paid(await client.get(path))
        for _ in range(2):
            answer_ = await client.head(path, headers=payment)
            assert (answer_.status_code, "payment-response" in answer_.headers) == (200, False)
        assert (await shop.payments(), await shop.ledger()) == (["released"], [])
        assert (await client.get(path, headers=payment)).content == told(20)
        assert await shop.ledger() == [Row("usage", "x402", units, units * 1000, None, AGENT)]
        assert (await client.head(path, headers=payment)).status_code == 200
        assert len(await shop.ledger()) == 1


async def test_what_nothing_was_paid_for_is_not_served_again(tmp_path: Path) -> None:
    """Too large to be kept, and not measured: what was paid for would be served once more, uncharged."""
    served = 0

    async def body(request: Request) -> Response:
        nonlocal served
        served += 1
        await request.body()
        return Response(b'{"x": "' + b"y" * 2_000_000 + b'"}', headers={"content-type": "application/json"})

    app = Starlette(routes=[Route("/v1/chat", body, methods=["POST"])])
    async with (
        opened_shop(tmp_path, app=lambda _calls: app, more=SOLD) as shop,
        client_of(shop.app, "http") as client,
    ):
        payment = paid(await client.post("/v1/chat"))
        assert (await client.post("/v1/chat", headers=payment)).status_code == 200
        again = await client.post("/v1/chat", headers=payment)
        assert (again.status_code, problem_of(again), served) == (409, "payment_used", 1)
        assert await shop.ledger() == [Row("usage", "x402", 0, 0, None, AGENT)]


async def test_use_beyond_a_payer_s_ceiling_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened_shop(tmp_path, app=chatting, more=SOLD) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.post("/v1/chat", content=told(30_000)))
        assert (await client.post("/v1/chat", content=told(30_000), headers=payment)).status_code == 200
        memo = await memo_of(shop)
        assert (memo.beyond_events, memo.beyond_micros, memo.unmeasured_events) == (1, 10_000, 0)
    assert "chat: 5000 units beyond the ceiling are written off" in caplog.text


ACCEPTED = [
    # (what the caller accepts, what the application is told)
    ("gzip, deflate, br, zstd", "gzip, deflate"),
    ("br", "identity"),
    ("*", "identity"),
    ("br;q=1, GZIP;q=0.5", "GZIP;q=0.5"),
    ("gzip", "gzip"),
    ("", "identity"),
    (None, ""),  # nothing said is left so
]


@pytest.mark.parametrize(("accepted", "told_of"), ACCEPTED)
@pytest.mark.parametrize("who", ["payer", "customer", "payer of a stream"])
async def test_an_answer_is_packed_as_it_can_be_read(
    who: str, accepted: str | None, told_of: str, tmp_path: Path
) -> None:
    """Otherwise whoever accepts brotli alone is served for nothing."""
    seen: list[str] = []

    async def packing(scope: Any, receive: Any, send: Any) -> None:
        seen.append(", ".join(v.decode() for k, v in scope["headers"] if k == b"accept-encoding"))
        await chatting(Calls())(scope, receive, send)

    more = SOLD.replace('[actions."chat"]', '[actions."chat"]\nstream = true') if "stream" in who else SOLD
    async with (
        opened_shop(tmp_path, app=lambda _calls: packing, more=more) as shop,
        client_of(shop.app, "http") as client,
    ):
        if who == "customer":
            headers = bearer(await shop.customer("ada", "tokens"))
        else:
            headers = paid(await client.post("/v1/chat", content=told(7)))
        if accepted is None:
            del client.headers["Accept-Encoding"]
        else:
            headers["Accept-Encoding"] = accepted
        assert (await client.post("/v1/chat", content=told(7), headers=headers)).status_code == 200
        assert seen == [told_of]
        assert [row.units for row in await shop.ledger()] == [7]


async def test_what_is_counted_is_packed_as_the_caller_likes(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def packing(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(v for k, v in scope["headers"] if k == b"accept-encoding")
        await chatting(Calls())(scope, receive, send)

    async with (
        opened_shop(tmp_path, app=lambda _calls: packing, more=SOLD) as shop,
        client_of(shop.app, "http") as client,
    ):
        headers = paid(await client.get("/v1/raw?size=5")) | {"Accept-Encoding": "br"}
        assert (await client.get("/v1/raw?size=5", headers=headers)).status_code == 200
    assert seen == [b"br"]


async def test_a_large_answer_is_measured_as_it_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound of what is held back whole, an answer flows, and only its end waits to be booked."""
    monkeypatch.setattr(answer, "MEASURED_BYTES", 1000)

    async def chunks(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(5):
            await send({"type": "http.response.body", "body": b"x" * 400, "more_body": n < 4})

    async with opened_shop(tmp_path, app=lambda _calls: chunks, more=SOLD) as shop:
        headers = bearer(await shop.customer("ada", "tokens"))
        async with client_of(shop.app, "http") as client:
            got = await client.get("/v1/raw", headers=headers)
            assert len(got.content) == 2000
        assert await shop.ledger() == [Row("usage", "seat", 2000, 0, "ada")]
        assert await shop.sql("SELECT * FROM streams") == []


async def test_a_json_document_beyond_its_bound_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(measure, "JSON_BYTES", 1000)
    body = told(5)[:-1] + b" " * 2000 + b"}"
    async with opened_shop(tmp_path, app=chatting, more=SOLD) as shop, client_of(shop.app, "http") as client:
        headers = bearer(await shop.customer("ada", "tokens"))
        got = await client.post("/v1/chat", content=body, headers=headers)
        assert (got.status_code, got.content) == (200, body)
        assert await shop.ledger() == []
        assert await shop.held() == 0
    assert "cannot be measured" in caplog.text


async def test_a_file_sent_by_the_server_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(b"x" * 1234)

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(file)})

    async with opened_shop(tmp_path, app=lambda _calls: app, more=SOLD) as shop:
        wire = Wire()
        headers = bearer(await shop.customer("ada", "tokens"))
        await shop.app(scope(path="/v1/raw", headers=headers), wire.receive, wire.send)
        assert [message["type"] for message in wire.sent] == ["http.response.start", "http.response.pathsend"]
        assert await shop.ledger() == [Row("usage", "seat", 1234, 0, "ada")]


async def test_a_client_cannot_state_units(tmp_path: Path) -> None:
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "http") as client:
        headers = {**bearer(await shop.customer("ada", "closed")), "Headgate-Units": "0"}
        assert (await client.post("/v1/words?h-headgate-units=3", headers=headers)).status_code == 200
        assert await shop.ledger() == [Row("usage", "seat", 3, 0, "ada")]


async def test_a_large_paid_answer_is_measured_whole(tmp_path: Path) -> None:
    """However large an answer is, its bytes are counted: one that is too large to hold is not free."""
    size = 17 * 1024 * 1024
    async with opened_shop(tmp_path, app=chatting, more=SOLD) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.get(f"/v1/raw?size={size}"))
        got = await client.get(f"/v1/raw?size={size}", headers=payment)
        assert (got.status_code, len(got.content)) == (200, size)
        ((units, charged),) = await shop.sql("SELECT units, charged_micros FROM events")
        assert units == size
        assert charged == (size * 1000 + 500) // 1000


async def test_a_paid_file_sent_by_the_server_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(b"x" * 1234)

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(file)})

    async with opened_shop(tmp_path, app=lambda _calls: app, more=SOLD) as shop:
        async with client_of(shop.app, "http") as client:
            payment = paid(await client.get("/v1/raw"))
        wire = Wire()
        await shop.app(scope(path="/v1/raw", headers=payment), wire.receive, wire.send)
        assert await shop.sql("SELECT units FROM events") == [(1234,)]
