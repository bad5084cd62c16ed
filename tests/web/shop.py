"""A shop to test: a Starlette application behind Headgate, its customers, and a facilitator that obeys.

Everything runs in the test's own event loop: the application as real HTTP (uvicorn, ephemeral port) or as
bare ASGI, the scripted facilitator on loopback. `Shop.ledger()` reads back what was booked.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header

from headgate import Headgate, usage
from headgate.app import clock_us
from headgate.config import Config, parse
from headgate.model.errors import StoreUnavailable
from headgate.model.event import Channel, Kind
from headgate.model.payment import State
from headgate.service.customers import create_customer
from headgate.service.facilitators import Witness
from headgate.service.forget import forget
from headgate.service.keys import CreatedKey, create_key
from headgate.service.subscribe import Agreement, create_subscription
from headgate.x402.facilitator import FacilitatorClient, GuardedFacilitator
from tests.x402.buyer import PAY_TO, PAYER, SEPOLIA, sdk_client
from tests.x402.scripted import ScriptedFacilitator

ORIGIN = "https://api.example.com"
DAY_US = 86_400_000_000
CONFIG = Template("""
mode = "test"
[seller]
name = "Acme"
public_url = "$origin"
no_subscription = "$no_subscription"
renewal_grace = "14 days"
[store]
url = "sqlite:///$store"
[x402]
pay_to = "$pay_to"
network = "base-sepolia"
facilitator = "$facilitator"
[actions."doc.read"]
title = "Document read"
unit = "document"
price = "$price"
routes = ["GET /v1/doc", "POST /v1/doc", "GET /v1/files/{name}"]
[actions."doc.paid"]
title = "Billed for 201 only"
unit = "document"
price = "0.10"
routes = ["POST /v1/created"]
bill_on = [201]
[actions."words"]
title = "Words"
unit = "word"
price = "0.01"
max_units = 100
measure = "header"
routes = ["POST /v1/words"]
[routes]
free = ["GET /healthz"]
$more
[plans.team]
title = "Team"
included = { "doc.read" = 2, "words" = 150 }
beyond = "overage"
[plans.agents]
title = "Agents"
included = { "doc.read" = 2, "words" = 150 }
beyond = "x402"
[plans.closed]
title = "Closed"
included = { "doc.read" = 2, "words" = 150 }
beyond = "block"
[plans.capped]
title = "Capped"
included = { "doc.read" = 2 }
beyond = "overage"
overage_cap = "0.20"
beyond_cap = "x402"
[plans.stopped]
title = "Stopped"
included = { "doc.read" = 2 }
beyond = "overage"
overage_cap = "0.20"
beyond_cap = "block"
""")


class Clock:
    """The wall clock, moved by a test: signatures are made by clients that read the real one."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def __call__(self) -> int:
        return clock_us() + self.ahead_us


class StoppedClock(Clock):
    """It moves when a test moves it and at no other time: for what a second more would decide otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped_us = clock_us()

    def __call__(self) -> int:
        return self.stopped_us + self.ahead_us


class Row(NamedTuple):
    """One ledger row, as far as these tests look at it."""

    kind: str
    channel: str
    units: int
    charged: int
    customer: str | None = None
    payer: str | None = None


@dataclass
class Calls:
    """What the application was asked to do, and what it saw."""

    count: int = 0
    channels: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gate: asyncio.Event | None = None
    callers: list[Any] = field(default_factory=list)


def application(calls: Calls) -> Starlette:
    """Handlers for every route above; the query says how they answer."""

    async def handler(request: Request) -> Response:
        calls.count += 1
        calls.bodies.append(await request.body())
        caller = usage(request).caller
        calls.callers.append(caller)
        calls.channels.append("" if caller is None else caller.channel)
        asked = request.query_params
        if calls.gate is not None:
            await calls.gate.wait()
        if "raise" in asked:
            raise RuntimeError("the handler failed")
        if "void" in asked:
            usage(request).void(asked["void"])
        headers = {name[2:]: value for name, value in asked.items() if name.startswith("h-")}
        status = int(asked.get("status", "200"))
        body = {"ok": status, "call": calls.count}
        return Response(b"", status, headers) if status in (204, 304) else JSONResponse(body, status, headers)

    async def free(_request: Request) -> Response:
        return JSONResponse({"free": True})

    priced = ["GET", "POST"]
    return Starlette(
        routes=[
            Route("/v1/doc", handler, methods=priced),
            Route("/v1/files/{name:path}", handler, methods=priced),
            Route("/v1/created", handler, methods=priced),
            Route("/v1/words", handler, methods=priced),
            Route("/healthz", free),
            Route("/unlisted", free, methods=["GET", "POST"]),
        ]
    )


@dataclass
class Shop:
    """The seller's side of a test."""

    gate: Headgate
    app: Any
    calls: Calls
    clock: Clock
    facilitator: ScriptedFacilitator
    keys: dict[str, CreatedKey] = field(default_factory=dict)

    async def customer(self, ref: str, plan: str | None, *, seat: str | None = None, **terms: Any) -> str:
        """A customer, on a plan or without any; its API key."""
        store = self.gate.store
        assert store is not None
        await create_customer(store.registry, ref, now_us=self.clock())
        if plan is not None:
            agreement = Agreement(plan=plan, **terms)
            await create_subscription(store.registry, ref, agreement, now_us=self.clock(), grace_us=0)
        key = await create_key(
            store.registry, ref, mode="test", entropy=os.urandom(32), now_us=self.clock(), seat=seat
        )
        self.keys[ref] = key
        return key.key

    @property
    def asked(self) -> list[str]:
        """What the facilitator was asked to do, oldest first."""
        return [step for step, _ in self.facilitator.asked if step != "supported"]

    async def sql(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        assert self.gate.store is not None
        return await self.gate.store.driver.rows_sql(statement, params)

    async def ledger(self) -> list[Row]:
        """Every row, oldest first."""
        rows = await self.sql(
            "SELECT e.kind, e.channel, e.units, e.charged_micros, c.ref, e.payer FROM events e "
            "LEFT JOIN customers c ON c.id = e.customer ORDER BY e.slot, e.seq"
        )
        return [
            Row(
                Kind(kind).name.lower(),
                Channel(channel).name.lower(),
                units,
                charged,
                customer,
                None if payer is None else "0x" + payer.hex(),
            )
            for kind, channel, units, charged, customer, payer in rows
        ]

    async def payments(self) -> list[str]:
        """The states of all payments, oldest first."""
        rows = await self.sql("SELECT state FROM payments ORDER BY occurred_us")
        return [State(state).name.lower() for (state,) in rows]

    async def held(self) -> int:
        """Units set aside at this moment, by the counters and by the slots alike."""
        counters = (await self.sql("SELECT COALESCE(SUM(held), 0) FROM counters"))[0][0]
        slots = (await self.sql("SELECT COALESCE(SUM(units), 0) FROM held"))[0][0]
        assert counters == slots
        return int(counters)

    async def forget(self) -> int:
        """What is over is forgotten, as the background work does it."""
        assert self.gate.store is not None
        return await forget(self.gate.store.driver, self.clock())

    async def use_up(self, ref: str, units: int, action: str = "doc.read") -> None:
        """Use that was no HTTP request."""
        await self.gate.record(ref, action, units, id=f"used-{ref}-{units}-{os.urandom(4).hex()}")


def config_text(**values: str) -> str:
    given = {
        "origin": ORIGIN,
        "no_subscription": "pass",
        "price": "0.10",
        "pay_to": PAY_TO,
        "facilitator": "http://127.0.0.1:9",
        "more": "",
        **values,
    }
    return CONFIG.substitute(given)


def configured(folder: Path, facilitator: str = "http://127.0.0.1:9", **values: str) -> Config:
    text = config_text(store=str(folder / "headgate.db"), facilitator=facilitator, **values)
    return parse(text, file="headgate.toml", environ={})


@asynccontextmanager
async def opened_shop(
    folder: Path,
    *,
    app: Callable[[Calls], Any] = application,
    wrap: Callable[[Any, Headgate], Any] | None = None,
    facilitator: ScriptedFacilitator | None = None,
    clock: Clock | None = None,
    settle_timeout_ms: int = 2_000,
    verify_timeout_ms: int = 2_000,
    change: Callable[[Config], Config] = lambda config: config,
    chains: Mapping[str, Witness] | None = None,
    **values: str,
) -> AsyncIterator[Shop]:
    """A shop on a store in `folder`, open for business."""
    async with contextlib.AsyncExitStack() as stack:
        scripted = facilitator or await stack.enter_async_context(ScriptedFacilitator())
        clock = clock or Clock()
        client = FacilitatorClient(
            scripted.url, settle_timeout_ms=settle_timeout_ms, verify_timeout_ms=verify_timeout_ms
        )
        gate = Headgate(
            change(configured(folder, scripted.url, **values)),
            now_us=clock,
            facilitators={SEPOLIA: GuardedFacilitator(client, clock)},
            chains=chains,
        )
        calls = Calls()
        inner = app(calls)
        outer = (wrap or (lambda application, gate: gate.middleware(application)))(inner, gate)
        await gate.open(inner)
        try:
            yield Shop(gate, outer, calls, clock, scripted)
        finally:
            await gate.close()


class Server(uvicorn.Server):
    """uvicorn inside a running event loop: it leaves the signal handlers alone, and stops at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stop.wait()


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[str]:
    """The application over real HTTP for as long as the block lasts; its origin."""
    # With its protocol said, asyncio sets TCP_NODELAY on what it accepts; without, every answer costs 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    given = {"lifespan": "off", "log_level": "critical", "access_log": False, **options}
    server = Server(uvicorn.Config(app, **given))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if task.done():
                task.result()
                raise RuntimeError("the server did not start")
            await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop.set()
        await task
        listener.close()


@asynccontextmanager
async def client_of(app: Any, transport: str) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of an application: `http` through a real server, `asgi` without one."""
    if transport == "http":
        async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
            yield client
    else:
        direct = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=direct, base_url="http://api.example.com") as client:
            yield client


def failing(patch: pytest.MonkeyPatch, shop: Shop, kind: type[Any] | tuple[type[Any], ...]) -> None:
    """From now on, and until `patch` is undone, the store cannot write operations of a kind."""
    ledger = shop.gate.ledger
    assert ledger is not None
    submit = ledger.submit

    def submitted(operation: Any) -> Any:
        if not isinstance(operation, kind):
            return submit(operation)
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreUnavailable())
        return future

    patch.setattr(ledger, "submit", submitted)


async def until(holds: Callable[[], Any], timeout_s: int = 30) -> None:
    """Let the event loop run until something holds; `holds` may be a coroutine function."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = holds()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.005)


def paid(response: httpx.Response, account: Any = PAYER) -> dict[str, str]:
    """The header with which the official client takes up the offer of a 402."""
    assert response.status_code == 402, (response.status_code, response.text)
    required = decode_payment_required_header(response.headers["PAYMENT-REQUIRED"])
    payload = sdk_client(account).create_payment_payload(required)
    return {"PAYMENT-SIGNATURE": encode_payment_signature_header(payload)}


def unpacked(value: str) -> dict[str, Any]:
    """A payment header's content."""
    found: dict[str, Any] = json.loads(base64.b64decode(value, validate=True))
    return found


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def problem_of(response: httpx.Response) -> str:
    """The code of a problem document, which must be well formed."""
    assert response.headers["content-type"] == "application/problem+json"
    body: Mapping[str, Any] = response.json()
    assert body["status"] == response.status_code
    assert body["type"] == f"urn:headgate:problem:{body['code']}"
    return str(body["code"])


# --- bare ASGI ------------------------------------------------------------------------------------


def scope(method: str = "GET", path: str = "/v1/doc", **changes: Any) -> dict[str, Any]:
    """An HTTP scope as a server makes it."""
    headers = [(name.lower().encode(), value.encode()) for name, value in changes.pop("headers", {}).items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 80),
        **changes,
    }


class Wire:
    """Both ends of a bare ASGI call: what the application may receive, and what it sent."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.incoming = list(messages or [{"type": "http.request", "body": b"", "more_body": False}])
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if self.incoming:
            return self.incoming.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"] == "http.response.body")
