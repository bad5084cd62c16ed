"""A customer sees no change: the application's own ASGI messages, as they were made and when they were made.

And what is not sold is not touched: the same `receive` and `send` objects arrive at the application.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.web.shop import Calls, Row, Shop, Wire, bearer, client_of, opened_shop, problem_of, scope, serving

pytestmark = pytest.mark.timeout(60)
Message = dict[str, Any]
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"Content-Type", b"text/plain"),
        (b"set-cookie", b"a=1"),
        (b"x-odd", b"\xff\x00 value"),
        (b"set-cookie", b"b=2"),
        (b"cache-control", b"public, max-age=60"),
    ],
}


def body(text: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": more}


ANSWERS: dict[str, list[Message]] = {
    "one body": [START, body(b"hello")],
    "no more_body member": [START, {"type": "http.response.body", "body": b"hello"}],
    "empty": [START, {"type": "http.response.body"}],
    "many bodies": [START, body(b"a", True), body(b"", True), body(b"b", True), body(b"c")],
    "trailers": [
        {**START, "trailers": True},
        body(b"hello"),
        {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False},
    ],
    "pathsend": [START, {"type": "http.response.pathsend", "path": __file__}],
    "zero copy": [START, {"type": "http.response.zerocopysend", "file": 7, "count": 10}],
    "no headers": [{"type": "http.response.start", "status": 200}, body(b"x")],
    "not found": [{**START, "status": 404}, body(b"not here")],
    "early hint": [{"type": "http.response.early_hint", "links": [b"</a>"]}, START, body(b"hello")],
}


def saying(messages: list[Message]) -> Any:
    """An application that sends exactly these messages."""

    async def app(_scope: Message, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        for message in messages:
            await send(message)

    return app


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda name: name)
@pytest.mark.parametrize("plan", ["team", "closed"])
async def test_a_customer_gets_the_application_s_own_messages(plan: str, answer: str, tmp_path: Path) -> None:
    messages = ANSWERS[answer]
    async with opened_shop(tmp_path, app=lambda _calls: saying(messages)) as shop:
        wire = Wire()
        headers = bearer(await shop.customer("ada", plan))
        await shop.app(scope(headers=headers), wire.receive, wire.send)
        assert wire.sent == messages
        for sent, made in zip(wire.sent, messages, strict=True):
            assert sent is made  # not even copied
        assert len(await shop.ledger()) == (answer != "not found")
        assert await shop.held() == 0


async def test_a_stream_flows_while_it_is_produced(tmp_path: Path) -> None:
    """The first chunk arrives before the last is made; booked before the first byte leaves."""
    goes_on = asyncio.Event()

    def app(_calls: Calls) -> Starlette:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            await goes_on.wait()
            yield b"last"

        async def handler(_request: Request) -> Response:
            return StreamingResponse(chunks(), media_type="text/plain")

        return Starlette(routes=[Route("/v1/doc", handler)])

    async with opened_shop(tmp_path, app=app) as shop, client_of(shop.app, "http") as client:
        headers = bearer(await shop.customer("ada", "team"))
        async with client.stream("GET", "/v1/doc", headers=headers) as answer:
            parts = answer.aiter_raw()
            assert await anext(parts) == b"first"
            assert await shop.ledger() == [Row("usage", "seat", 1, 0, "ada")]
            goes_on.set()
            assert await anext(parts) == b"last"


async def test_files_are_sent_by_the_server_s_own_means(tmp_path: Path) -> None:
    """Over real HTTP a FileResponse is whole, ranges included."""
    content = os.urandom(200_000)
    (tmp_path / "file.bin").write_bytes(content)

    def app(_calls: Calls) -> Starlette:
        async def handler(_request: Request) -> Response:
            return FileResponse(tmp_path / "file.bin")

        return Starlette(routes=[Route("/v1/doc", handler)])

    async with opened_shop(tmp_path, app=app) as shop, client_of(shop.app, "http") as client:
        headers = bearer(await shop.customer("ada", "team"))
        assert (await client.get("/v1/doc", headers=headers)).content == content
        part = await client.get("/v1/doc", headers={**headers, "Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, content[10:20])
        assert len(await shop.ledger()) == 2


async def test_a_request_body_reaches_the_application_as_it_came(tmp_path: Path) -> None:
    seen: list[Message] = []

    async def app(_scope: Message, receive: Any, send: Any) -> None:
        while True:
            seen.append(await receive())
            if not seen[-1].get("more_body"):
                break
        await send(START)
        await send(body(b"ok"))

    parts = [
        {"type": "http.request", "body": b"one", "more_body": True},
        {"type": "http.request", "body": b"two", "more_body": False},
    ]
    async with opened_shop(tmp_path, app=lambda _calls: app) as shop:
        wire = Wire(*parts)
        headers = bearer(await shop.customer("ada", "team"))
        await shop.app(scope("POST", headers=headers), wire.receive, wire.send)
        assert seen == parts
        assert all(got is given for got, given in zip(seen, parts, strict=True))


async def test_an_application_may_go_on_reading_while_it_answers(tmp_path: Path) -> None:
    """Looking whether the client is still there takes nothing from what the application has yet to read."""
    parts = [{"type": "http.request", "body": bytes([n]), "more_body": n < 3} for n in range(4)]
    seen: list[bytes] = []

    async def app(_scope: Message, receive: Any, send: Any) -> None:
        seen.append((await receive())["body"])
        await send(START)
        await send(body(b"x", more=True))
        while len(seen) < 4:
            seen.append((await receive())["body"])
        await send(body(b"y"))

    async with opened_shop(tmp_path, app=lambda _calls: app) as shop:
        wire = Wire(*[dict(part) for part in parts])
        headers = bearer(await shop.customer("ada", "team"))
        await shop.app(scope("POST", headers=headers), wire.receive, wire.send)
        assert seen == [b"\x00", b"\x01", b"\x02", b"\x03"]
        assert wire.body == b"xy"
        assert len(await shop.ledger()) == 1


# --- methods and routes ---------------------------------------------------------------------------


async def test_head_is_gated_as_its_get(shop: Shop, client: httpx.AsyncClient) -> None:
    offered = await client.head("/v1/doc")
    assert offered.status_code == 402
    assert offered.content == b""
    asked = await client.get("/v1/doc")
    assert offered.headers["payment-required"] == asked.headers["payment-required"]
    assert offered.headers["content-length"] == asked.headers["content-length"]
    assert shop.calls.count == 0
    served = await client.head("/v1/doc", headers=bearer(await shop.customer("ada", "team")))
    assert (served.status_code, served.content) == (200, b"")
    assert await shop.ledger() == [Row("usage", "seat", 1, 0, "ada")]


async def test_head_without_a_body_on_every_refusal(tmp_path: Path) -> None:
    async with opened_shop(tmp_path) as shop:
        blocked = bearer(await shop.customer("ada", "closed"))
        await shop.use_up("ada", 2)
        refused = [
            ({}, 402),
            (blocked, 429),
            ({"Authorization": "Bearer x"}, 401),
            ({"PAYMENT-SIGNATURE": "!"}, 400),
        ]
        for headers, status in refused:
            wire = Wire()
            await shop.app(scope("HEAD", headers=headers), wire.receive, wire.send)
            assert (wire.status, wire.body) == (status, b"")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}, {"PAYMENT-SIGNATURE": "!"}])
async def test_options_is_never_gated(headers: dict[str, str], tmp_path: Path) -> None:
    received: list[tuple[Any, Any]] = []

    async def app(_scope: Message, receive: Any, send: Any) -> None:
        received.append((receive, send))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send(body(b""))

    async with opened_shop(tmp_path, app=lambda _calls: app) as shop:
        wire = Wire()
        await shop.app(scope("OPTIONS", headers=headers), wire.receive, wire.send)
        assert wire.status == 204
        assert received == [(wire.receive, wire.send)]
        assert await shop.ledger() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/unlisted"),
        ("GET", "/healthz"),
        ("DELETE", "/v1/doc"),
        ("GET", "/v1/docs"),
        ("GET", "/V1/DOC"),
    ],
)
async def test_what_is_not_sold_is_not_touched(method: str, path: str, tmp_path: Path) -> None:
    received: list[tuple[Any, Any, Any]] = []

    async def app(scope_: Message, receive: Any, send: Any) -> None:
        received.append((scope_, receive, send))

    async with opened_shop(tmp_path, app=lambda _calls: app) as shop:
        wire = Wire()
        asked = scope(method, path, headers={"Authorization": "Bearer nonsense"})
        given = dict(asked)
        await shop.app(asked, wire.receive, wire.send)
        assert received == [(asked, wire.receive, wire.send)]
        assert received[0][0] is asked
        assert asked == given


@pytest.mark.parametrize(
    "path",
    ["/v1/doc/", "/v1/files/a", "/v1/files/%61"],
    ids=["trailing slash", "pattern", "encoded letter"],
)
async def test_spellings_that_lead_to_a_priced_route_are_gated(
    path: str, shop: Shop, client: httpx.AsyncClient
) -> None:
    assert (await client.get(path)).status_code == 402
    assert shop.calls.count == 0


@pytest.mark.parametrize(
    "path",
    [
        "//v1/doc",
        "/v1//doc",
        "/v1/x/../doc",
        "/v1/./doc",
        "/v1/doc;a=b",
        "/v1%2fdoc",
        "/v1\\doc",
        "/v1/doc%00",
    ],
)
async def test_spellings_that_servers_read_differently_are_refused(path: str, tmp_path: Path) -> None:
    """Or reach the application unread by it: never the priced handler for nothing (failure case 24)."""
    from urllib.parse import unquote

    async with opened_shop(tmp_path) as shop:
        wire = Wire()
        asked = scope(path=unquote(path), raw_path=path.encode())
        await shop.app(asked, wire.receive, wire.send)
        assert wire.status in (400, 402)
        assert shop.calls.count == 0


@pytest.mark.parametrize("path", ["/api/v1%2fdoc", "/api//v1/doc", "/api/v1/doc;a"])
async def test_ambiguous_spellings_below_a_root_path(path: str, tmp_path: Path) -> None:
    from urllib.parse import unquote

    async with opened_shop(tmp_path) as shop:
        wire = Wire()
        asked = scope(path=unquote(path), raw_path=path.encode(), root_path="/api")
        await shop.app(asked, wire.receive, wire.send)
        assert wire.status in (400, 402)
        assert shop.calls.count == 0


async def test_below_a_root_path(tmp_path: Path) -> None:
    """Behind a proxy that strips a prefix (uvicorn --root-path), routes are the application's own."""
    async with opened_shop(tmp_path) as shop:
        async with serving(shop.app, root_path="/api") as url, httpx.AsyncClient(base_url=url) as client:
            assert (await client.get("/v1/doc")).status_code == 402
        for path, status in (("/api/v1/doc", 402), ("/apix/v1/doc", 404), ("/api/unlisted", 200)):
            wire = Wire()
            await shop.app(scope(path=path, root_path="/api"), wire.receive, wire.send)
            assert (path, wire.status) == (path, status)


async def test_inside_a_mounted_application(tmp_path: Path) -> None:
    """Middleware of a mounted application sees the whole path and its mount point as root path."""
    async with opened_shop(tmp_path) as shop:
        whole = Starlette(routes=[Mount("/api", shop.app)])
        async with client_of(whole, "http") as client:
            assert (await client.get("/api/v1/doc")).status_code == 402
            key = await shop.customer("ada", "team")
            assert (await client.get("/api/v1/doc", headers=bearer(key))).status_code == 200
            assert (await client.get("/api/unlisted")).status_code == 200


async def test_around_a_mounted_application(tmp_path: Path) -> None:
    """Middleware of the outer application sees the whole path, which is what the routes then name."""

    def app(calls: Calls) -> Starlette:
        async def handler(_request: Request) -> Response:
            calls.count += 1
            return PlainTextResponse("ok")

        return Starlette(routes=[Mount("/v1", routes=[Route("/doc", handler)])])

    async with opened_shop(tmp_path, app=app) as shop, client_of(shop.app, "http") as client:
        assert (await client.get("/v1/doc")).status_code == 402
        assert shop.calls.count == 0


async def test_other_middleware_around_and_inside(tmp_path: Path) -> None:
    """Starlette's BaseHTTPMiddleware wraps `receive` and `send` on both sides."""

    class Marking(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            answer: Response = await call_next(request)
            answer.headers.append("x-seen", "1")
            return answer

    def wrap(app: Any, gate: Any) -> Any:
        app.add_middleware(Marking)
        app.add_middleware(gate.middleware)
        app.add_middleware(Marking)
        return app

    async with opened_shop(tmp_path, wrap=wrap) as shop, client_of(shop.app, "http") as client:
        key = await shop.customer("ada", "closed")
        for _ in range(2):
            answer = await client.post("/v1/doc", headers=bearer(key), content=b"text")
            assert answer.status_code == 200
            assert answer.headers.get_list("x-seen") == ["1", "1"]
        assert shop.calls.bodies == [b"text", b"text"]
        assert (await client.post("/v1/doc", headers=bearer(key))).status_code == 429
        assert len(await shop.ledger()) == 2


# --- WebSockets and lifespan ----------------------------------------------------------------------


@pytest.mark.parametrize(("path", "reached"), [("/v1/doc", False), ("/v1//doc", False), ("/ws", True)])
async def test_a_websocket_on_a_priced_route_is_refused(path: str, reached: bool, tmp_path: Path) -> None:
    opened: list[str] = []

    def app(_calls: Calls) -> Starlette:
        async def socket(websocket: WebSocket) -> None:
            opened.append(websocket.url.path)
            await websocket.accept()
            await websocket.close()

        return Starlette(routes=[WebSocketRoute("/v1/doc", socket), WebSocketRoute("/ws", socket)])

    async with opened_shop(tmp_path, app=app) as shop:
        wire = Wire({"type": "websocket.connect"})
        asked = {**scope(path=path), "type": "websocket", "scheme": "ws", "subprotocols": []}
        del asked["method"]
        await shop.app(asked, wire.receive, wire.send)
        assert bool(opened) == reached
        kinds = [message["type"] for message in wire.sent]
        assert kinds == (["websocket.accept", "websocket.close"] if reached else ["websocket.close"])


async def test_a_websocket_upgrade_over_real_http_is_refused(shop: Shop) -> None:
    import websockets

    async with serving(shop.app) as url:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(url.replace("http", "ws") + "/v1/doc")
    assert refused.value.response.status_code == 403


# --- problems of our own --------------------------------------------------------------------------


async def test_the_store_out_of_reach_is_503_and_nothing_is_served(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    from headgate.model.errors import StoreUnavailable

    key = await shop.customer("ada", "closed")

    async def fails() -> None:
        raise StoreUnavailable

    shop.gate.desk.directory.refresh = fails  # type: ignore[method-assign]
    answer = await client.get("/v1/doc", headers=bearer(key))
    assert (answer.status_code, problem_of(answer)) == (503, "store_unavailable")
    assert answer.headers["retry-after"].isdigit()
    assert (await client.get("/unlisted")).status_code == 200
    assert shop.calls.count == 0
