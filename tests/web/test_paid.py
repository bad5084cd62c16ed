"""Paid answers message by message, as bare ASGI: what leaves, what is kept, what is cut short."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from headgate.config import Config
from headgate.web.paid import with_receipt
from tests.web.shop import Calls, Row, Shop, Wire, client_of, opened_shop, paid, scope, until
from tests.x402.buyer import PAYER
from tests.x402.scripted import ScriptedFacilitator, Step, drop, refusing

pytestmark = pytest.mark.timeout(60)
SOLD = Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())
Json = dict[str, Any]
FIRST = """
[actions."first"]
title = "Paid first"
price = "0.10"
settle = "before"
routes = ["GET /v1/files/first"]
"""


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Json:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes, *, more: bool = False) -> Json:
    return {"type": "http.response.body", "body": content, "more_body": more}


def saying(*messages: Json) -> Any:
    """An application that says this, however it is asked, and returns."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        for message in messages:
            await send({**message, "headers": list(message["headers"])} if "headers" in message else message)

    return lambda _calls: app


async def bought(shop: Shop, path: str = "/v1/doc", payment: dict[str, str] | None = None) -> Wire:
    if payment is None:
        payment = await offered(shop, path)
    wire = Wire()
    await shop.app(scope(path=path, headers=payment), wire.receive, wire.send)
    return wire


async def offered(shop: Shop, path: str = "/v1/doc") -> dict[str, str]:
    wire = Wire()
    await shop.app(scope(path=path), wire.receive, wire.send)
    return paid(httpx.Response(402, headers=wire.sent[0]["headers"]))


def names(wire: Wire) -> list[str]:
    return [name.lower().decode() for name, _ in wire.sent[0]["headers"]]


# --- cut short ------------------------------------------------------------------------------------

CUT = {
    "ten bytes of a thousand": [start(200, (b"content-length", b"1000")), body(b"x" * 10, more=True)],
    "ten bytes, no length": [start(), body(b"x" * 10, more=True)],
    "the start only": [start(200, (b"content-length", b"1000"))],
    "two parts": [start(), body(b"x" * 5, more=True), body(b"y" * 5, more=True)],
}


@pytest.mark.parametrize("case", CUT)
async def test_an_answer_that_is_cut_short_is_not_sold(case: str, tmp_path: Path) -> None:
    async with opened_shop(tmp_path, app=saying(*CUT[case])) as shop:
        payment = await offered(shop)
        for _ in range(2):  # the payment is as good as before
            wire = await bought(shop, payment=payment)
            assert wire.status == 200
            assert wire.body == b"".join(message.get("body", b"") for message in CUT[case])
            assert all(message["more_body"] for message in wire.sent[1:])
            assert "payment-response" not in names(wire)
            assert await shop.payments() == ["released"]
        assert shop.asked == ["verify", "verify"]
        assert (await shop.ledger(), await shop.sql("SELECT * FROM answers")) == ([], [])


@pytest.mark.parametrize("case", CUT)
async def test_its_client_sees_that_it_was_cut(case: str, tmp_path: Path) -> None:
    async with opened_shop(tmp_path, app=saying(*CUT[case])) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.get("/v1/doc"))
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/v1/doc", headers=payment)


# --- before the start -----------------------------------------------------------------------------


async def test_a_hint_before_the_start_never_comes_after_it(tmp_path: Path) -> None:
    hint = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
    app = saying(hint, start(), body(b"done"))
    async with opened_shop(tmp_path, app=app) as shop:
        payment = await offered(shop)
        wire = await bought(shop, payment=payment)
        assert [message["type"] for message in wire.sent] == ["http.response.start", "http.response.body"]
        assert wire.body == b"done"
        assert "payment-response" in names(wire)
        again = await bought(shop, payment=payment)  # it does not keep the answer from being kept
        assert (again.status, again.body) == (200, b"done")
        assert await shop.ledger() == [SOLD]


async def test_trailers_still_come_last(tmp_path: Path) -> None:
    trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False}
    async with opened_shop(
        tmp_path, app=saying({**start(), "trailers": True}, body(b"done"), trailers)
    ) as shop:
        wire = await bought(shop)
        assert [message["type"].rpartition(".")[2] for message in wire.sent] == ["start", "body", "trailers"]


# --- caches, and how a kept answer is framed ------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ([b'private="set-cookie"'], [b"private, no-store"]),  # keeps that header out, not the answer
        ([b'private="x", max-age=600'], [b"private, no-store"]),
        ([b'no-store, private="set-cookie"'], [b'no-store, private="set-cookie"']),
        ([b"private, max-age=60"], [b"private, max-age=60"]),
        ([b"PRIVATE"], [b"PRIVATE"]),
        ([b"private", b"max-age=60"], [b"private, no-store"]),
        ([b"private, public"], [b"private, no-store"]),
        ([b"no-cache"], [b"private, no-store"]),
        ([], [b"private, no-store"]),
    ],
)
def test_what_a_shared_cache_is_told(said: list[bytes], left: list[bytes]) -> None:
    headers = with_receipt([(b"Cache-Control", value) for value in said], ())
    assert [value for name, value in headers if name.lower() == b"cache-control"] == left


@pytest.mark.parametrize(
    "name",
    ["CDN-Cache-Control", "Surrogate-Control", "Cloudflare-CDN-Cache-Control", "Akamai-CDN-Cache-Control"],
)
async def test_no_policy_goes_past_cache_control(name: str, shop: Shop, client: httpx.AsyncClient) -> None:
    query = {f"h-{name}": "max-age=600", "h-cache-control": "private, max-age=5"}
    payment = paid(await client.get("/v1/doc"))
    for _ in range(2):  # the answer, and the kept answer
        answer = await client.get("/v1/doc", params=query, headers=payment)
        assert answer.status_code == 200
        assert name.lower() not in answer.headers
        assert answer.headers.get_list("cache-control") == ["private, max-age=5"]
    key = await shop.customer("ada", "team")
    free = await client.get("/v1/doc", params=query, headers={"X-API-Key": key})
    assert free.headers[name] == "max-age=600"  # a customer's answer is the application's affair


async def test_a_kept_204_has_no_length(shop: Shop) -> None:
    payment = await offered(shop)
    wires = []
    for _ in range(2):
        wire = Wire()
        asked = scope(query_string=b"status=204", headers=payment)
        await shop.app(asked, wire.receive, wire.send)
        wires.append(wire)
        assert (wire.status, wire.body) == (204, b"")
        assert "payment-response" in names(wire)
        assert "content-length" not in names(wire)
    assert (shop.calls.count, await shop.ledger()) == (1, [SOLD])


async def test_a_kept_answer_is_framed_anew(tmp_path: Path) -> None:
    """How the first one was framed on its connection is nothing that the next one has to do with."""
    framing = [(b"Transfer-Encoding", b"chunked"), (b"Connection", b"close"), (b"Trailer", b"x-sum")]
    app = saying(start(200, *framing, (b"X-Own", b"1")), body(b"one,", more=True), body(b"two"))
    async with opened_shop(tmp_path, app=app) as shop:
        payment = await offered(shop)
        first, again = await bought(shop, payment=payment), await bought(shop, payment=payment)
        assert (first.body, again.body) == (b"one,two", b"one,two")
        assert "transfer-encoding" in names(first)
        assert not {"transfer-encoding", "connection", "trailer"} & set(names(again))
        assert "x-own" in names(again)
        assert [value for name, value in again.sent[0]["headers"] if name == b"content-length"] == [b"7"]


# --- paid before the work, and too large to keep --------------------------------------------------


async def test_a_prepaid_answer_too_large_to_keep_leaves_as_it_is_made(tmp_path: Path) -> None:
    left: list[int] = []
    wire = Wire()

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(start())
        for _ in range(6):
            await send(body(b"x" * 40, more=True))
            left.append(len(wire.body))
        await send(body(b""))

    def small(config: Config) -> Config:
        return replace(config, limits=replace(config.limits, kept_answer_bytes=100))

    async with opened_shop(tmp_path, app=lambda _calls: app, more=FIRST, change=small) as shop:
        payment = await offered(shop, "/v1/files/first")
        await shop.app(scope(path="/v1/files/first", headers=payment), wire.receive, wire.send)
        assert left == [0, 0, 120, 160, 200, 240]  # held back while it can be kept, and then no more
        assert [len(message.get("body", b"")) for message in wire.sent[1:]] == [40] * 6 + [0]
        assert await shop.payments() == ["settled"]
        assert await shop.sql("SELECT body FROM answers") == [(None,)]


async def test_a_large_prepaid_answer_whose_client_goes_stays_owed(tmp_path: Path) -> None:
    """It was no stream: whoever got half of it can have the whole, with the same payment."""
    whole = False

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        await send(body(b"x" * 200, more=True))
        if not whole:
            assert (await receive())["type"] == "http.disconnect"
            raise OSError("nobody is there")
        await send(body(b"y"))

    def small(config: Config) -> Config:
        return replace(config, limits=replace(config.limits, kept_answer_bytes=100))

    asked = {"type": "http.request", "body": b"", "more_body": False}
    async with opened_shop(tmp_path, app=lambda _calls: app, more=FIRST, change=small) as shop:
        payment = await offered(shop, "/v1/files/first")
        cut = Wire(asked, {"type": "http.disconnect"}, {"type": "http.disconnect"})
        with pytest.raises(OSError, match="nobody"):
            await shop.app(scope(path="/v1/files/first", headers=payment), cut.receive, cut.send)
        assert cut.body == b"x" * 200
        assert await shop.payments() == ["reopened"]
        whole = True
        again = Wire(asked)
        await shop.app(scope(path="/v1/files/first", headers=payment), again.receive, again.send)
        assert again.body == b"x" * 200 + b"y"
        assert await shop.payments() == ["settled"]
        assert len(await shop.ledger()) == 1


# --- too large for memory -------------------------------------------------------------------------

LARGE = bytes(range(256)) * 12_000  # 3 MB
SPOOLED: dict[str, tuple[Step, str, int]] = {
    "served": (ScriptedFacilitator.yes, "", 200),
    "not billed": (ScriptedFacilitator.yes, "?status=404", 404),
    "the work fails": (ScriptedFacilitator.yes, "?raise=1", 500),
    "refused at settlement": (refusing("insufficient_funds"), "", 402),
    "settlement unknown": (drop, "", 503),
}


def large(calls: Calls) -> Starlette:
    """An application whose answers are larger than what is held in memory."""

    async def handler(request: Request) -> Response:
        calls.count += 1

        async def chunks() -> Any:
            for first in range(0, len(LARGE), 100_000):
                yield LARGE[first : first + 100_000]
            if "raise" in request.query_params:
                raise RuntimeError("the handler failed at its end")

        return StreamingResponse(chunks(), int(request.query_params.get("status", "200")))

    return Starlette(routes=[Route("/v1/doc", handler)])


class Spools:
    """The files in which answers were held, and whether they were on disk."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.made: list[Any] = []
        self.on_disk = 0
        folder.mkdir()
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(tempfile, "SpooledTemporaryFile", self.make)

    def make(self, *given: Any, **named: Any) -> Any:
        spools = self

        class Spool(SpooledTemporaryFile[bytes]):
            def rollover(self) -> None:
                spools.on_disk += 1
                super().rollover()

        self.made.append(Spool(*given, **named))
        return self.made[-1]

    def nothing_is_left(self) -> bool:
        return all(each.closed for each in self.made) and not any(self.folder.iterdir())


@pytest.mark.parametrize("case", SPOOLED)
async def test_an_answer_on_disk_leaves_whole_or_not_at_all_and_no_file_stays(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    does, query, status = SPOOLED[case]
    spools = Spools(tmp_path / "spool", monkeypatch)
    async with opened_shop(tmp_path, app=large) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.get("/v1/doc"))
        shop.facilitator.script.settle.append(does)
        answer = await client.get("/v1/doc" + query, headers=payment)
        assert (answer.status_code, spools.on_disk, shop.calls.count) == (status, 1, 1)
        if case in ("served", "not billed"):
            assert answer.content == LARGE
        else:
            assert LARGE[:256] not in answer.content
        await until(spools.nothing_is_left)
        assert await shop.ledger() == ([SOLD] if case == "served" else [])
        if case == "served":  # and once more, since it was too large to be kept
            again = await client.get("/v1/doc", headers=payment)
            assert (again.status_code, again.content, spools.on_disk) == (200, LARGE, 2)
            await until(spools.nothing_is_left)
            assert await shop.ledger() == [SOLD]


async def test_a_small_answer_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spools = Spools(tmp_path / "spool", monkeypatch)
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "http") as client:
        assert (await client.get("/v1/doc", headers=paid(await client.get("/v1/doc")))).status_code == 200
        await until(spools.nothing_is_left)
        assert (len(spools.made), spools.on_disk) == (1, 0)
