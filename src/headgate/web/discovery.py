"""Discovery: what is sold here, for agents and registries, generated from the catalog in force.

    /openapi.json        the application's own document with prices, or one made of the catalog's routes
    /.well-known/x402    every payable resource with its offers
    /llms.txt            the same in prose

What the application answers itself at these addresses wins, and a route that is priced there is sold like any
other. The pages say what offers say to anybody, so they need no credentials: where auth or the application
refuses, the generated page is given, never a document that stands behind the auth.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from headgate.model.catalog import Catalog
from headgate.model.routing import RouteTable
from headgate.service.storefront import Storefront
from headgate.web.listing import Sold, llms_txt, well_known
from headgate.web.openapi import decorated, generated
from headgate.web.problems import App, Headers, Message, Receive, Reply, Scope, Send

OPENAPI = "/openapi.json"
WELL_KNOWN = "/.well-known/x402"
LLMS = "/llms.txt"
PATHS = frozenset({OPENAPI, WELL_KNOWN, LLMS})

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
REFUSED = frozenset({401, 403, 404, 405, 410})
"""Answers by which an application, or the auth before it, says that it has nothing to show here."""
SEEN = "headgate.discovery"
_OPEN = (b"access-control-allow-origin", b"*")
_CACHED = (b"cache-control", b"public, max-age=60")
_ASKED_OTHERWISE = frozenset(
    {b"accept-encoding", b"range", b"if-none-match", b"if-modified-since", b"if-range"}
)
_OF_THE_BYTES = frozenset({b"content-length", b"etag", b"last-modified", b"content-md5", b"digest"})

Page = Callable[[Scope, Receive, Send], Awaitable[None]]


class Discovery:
    """The discovery pages of one process; made anew when the catalog or the offers change."""

    def __init__(self, seller: str, public_url: str, storefront: Storefront) -> None:
        self._seller = seller
        self._public_url = public_url.rstrip("/")
        self._storefront = storefront
        self._sold: Sold | None = None
        self._made: dict[str, Reply] = {}
        self._decorated: dict[bytes, bytes | None] = {}
        self._edition = -1

    def show(self, catalog: Catalog, routes: RouteTable) -> None:
        """Tell about this catalog, the routes of marked handlers included, from now on."""
        self._sold = Sold(self._seller, self._public_url, catalog, routes, self._storefront.sells)
        self._edition = -1

    def page(self, scope: Scope, path: str, app: App) -> Page | None:
        """The page at this path, if it is one of ours; `app` is asked for its own first."""
        if path not in PATHS or scope["method"] not in ("GET", "HEAD") or SEEN in scope:
            return None
        if self._sold is None:
            return None

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            overheard = Overheard(path, send, head=scope["method"] == "HEAD")
            await app(_asked_plainly(scope), receive, overheard.send)
            if not overheard.passed:
                reply = self._priced(overheard) if overheard.whole else self._own(path)
                reply = _conditional(reply, scope)
                await reply.send(send, head=scope["method"] == "HEAD" or reply.status == 304)

        return answer

    # --- pages ------------------------------------------------------------------------------------

    def _fresh(self) -> Sold:
        assert self._sold is not None
        if self._edition != self._storefront.edition:
            self._made.clear()
            self._decorated.clear()
            self._edition = self._storefront.edition
        return self._sold

    def _own(self, path: str) -> Reply:
        """The generated page."""
        sold = self._fresh()
        if path not in self._made:
            if path == OPENAPI:
                kind, body = b"application/json", msgspec.json.encode(generated(sold))
            elif path == WELL_KNOWN:
                kind, body = b"application/json", msgspec.json.encode(well_known(sold, self._storefront))
            else:
                kind, body = b"text/plain; charset=utf-8", llms_txt(sold, self._storefront).encode()
            self._made[path] = Reply(200, ((b"content-type", kind), _CACHED, _OPEN, _etag(body)), body)
        return self._made[path]

    def _priced(self, overheard: Overheard) -> Reply:
        """The application's own document with prices; as it came, if it cannot be read."""
        sold = self._fresh()
        body = bytes(overheard.body)
        digest = hashlib.sha256(body).digest()
        if digest not in self._decorated:
            if len(self._decorated) >= 8:  # one document each for a few audiences
                self._decorated.clear()
            self._decorated[digest] = _decorated_bytes(body, sold)
        priced = self._decorated[digest]
        if priced is None:
            return Reply(200, _without(overheard.headers, frozenset({b"content-length"})), body)
        headers = _without(overheard.headers, _OF_THE_BYTES)
        named = {name.lower() for name, _ in headers}
        added = [_etag(priced)]
        if b"cache-control" not in named:
            added.append((b"cache-control", b"no-cache"))  # it may depend on who asks
        if b"access-control-allow-origin" not in named:
            added.append(_OPEN)
        return Reply(200, (*headers, *added), priced)


def _decorated_bytes(body: bytes, sold: Sold) -> bytes | None:
    try:
        # The standard library's decoder: what is not ours to change keeps every digit of its numbers.
        document = decorated(json.loads(body), sold)
        return None if document is None else json.dumps(document, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return None


# --- what the application says ------------------------------------------------------------------------


class Overheard:
    """The application's answer: passed on at once, kept whole to be priced, or dropped for a generated page.

    After the application has returned: `passed`, or `whole` with `headers` and `body`, or neither.
    """

    def __init__(self, path: str, send: Send, *, head: bool) -> None:
        self._path = path
        self._send = send
        self._head = head
        self._start: Message = {}
        self.passed = False
        self.whole = False
        self.headers: Headers = ()
        self.body = bytearray()

    async def send(self, message: Message) -> None:
        """What the application calls."""
        if message["type"] == "http.response.start":
            await self._began(message)
        elif self.passed:
            await self._pass(message)
        elif self._start:
            self.body += message.get("body", b"")
            if len(self.body) > MAX_DOCUMENT_BYTES:
                self.passed = True
                await self._send(self._start)
                await self._pass({**message, "body": bytes(self.body)})
            else:
                self.whole = not message.get("more_body", False)

    async def _began(self, message: Message) -> None:
        self.headers = tuple((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
        said = {name.lower(): value.lower() for name, value in self.headers}
        kind = said.get(b"content-type", b"").partition(b";")[0].strip()
        page_of_an_app = message["status"] == 200 and kind in (b"text/html", b"application/xhtml+xml")
        if message["status"] in REFUSED or page_of_an_app:
            return  # a browser application answers every path with its one page
        readable = kind == b"application/json" or kind.endswith(b"+json")
        if (
            self._path == OPENAPI
            and message["status"] == 200
            and readable
            and b"content-encoding" not in said
        ):
            self._start = message
            return
        self.passed = True
        await self._send(message)

    async def _pass(self, message: Message) -> None:
        await self._send({**message, "body": b""} if self._head else message)


def _asked_plainly(scope: Scope) -> dict[str, Any]:
    """The request as a plain GET for the whole document, marked so that it is answered only once."""
    headers = [pair for pair in scope["headers"] if bytes(pair[0]).lower() not in _ASKED_OTHERWISE]
    changed = {"method": "GET", "headers": headers, "extensions": {}, SEEN: True}
    return {**scope, **changed}


def _without(headers: Headers, names: frozenset[bytes]) -> Headers:
    return tuple(pair for pair in headers if pair[0].lower() not in names)


def _etag(body: bytes) -> tuple[bytes, bytes]:
    return b"etag", b'"' + hashlib.sha256(body).hexdigest()[:32].encode() + b'"'


def _conditional(reply: Reply, scope: Scope) -> Reply:
    """304 where the asker has these bytes already (RFC 9110 section 13.1.2)."""
    etag = dict(reply.headers).get(b"etag")
    asked = b",".join(bytes(value) for name, value in scope["headers"] if name.lower() == b"if-none-match")
    known = {tag.strip().removeprefix(b"W/") for tag in asked.split(b",")}
    if etag is None or not (etag in known or b"*" in known):
        return reply
    return Reply(304, _without(reply.headers, frozenset({b"content-type"})), reply.body)
