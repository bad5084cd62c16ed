"""Headgate in real applications: FastAPI, Starlette and Litestar, with prices written where the handlers are.

Each application is started through its lifespan by a real server, as it would be in production.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException
from litestar import Controller, Litestar, get, post
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router

from headgate import Headgate, usage
from headgate.model.caller import Caller
from headgate.model.errors import ConfigError, UnknownAction
from headgate.x402.facilitator import FacilitatorClient
from tests.web.shop import (
    Calls,
    Clock,
    Row,
    Server,
    Shop,
    Wire,
    bearer,
    configured,
    paid,
    scope,
    serving,
)
from tests.x402.buyer import SEPOLIA
from tests.x402.scripted import ScriptedFacilitator

pytestmark = pytest.mark.timeout(60)
SEAT = Row("usage", "seat", 1, 0, "ada")


@asynccontextmanager
async def running(folder: Path, make: Any) -> AsyncIterator[tuple[Shop, httpx.AsyncClient]]:
    """`make(gate)` gives the application; it opens the gate by its own lifespan."""
    async with ScriptedFacilitator() as scripted:
        client = FacilitatorClient(scripted.url)
        gate = Headgate(configured(folder, scripted.url), facilitators={SEPOLIA: client})
        app = make(gate)
        shop = Shop(gate, app, Calls(), Clock(), scripted)
        async with serving(app, lifespan="on") as url, httpx.AsyncClient(base_url=url) as http:
            yield shop, http
        assert gate.store is None  # closed by the lifespan


async def sold_to_all(shop: Shop, client: httpx.AsyncClient, method: str, path: str, **body: Any) -> None:
    """A route is sold: stranger 402, customer 200, agent 200, bad key 401."""
    offer = await client.request(method, path)
    assert offer.status_code == 402, (path, offer.status_code, offer.text)
    if "ada" not in shop.keys:
        await shop.customer("ada", "team")
    before = len(await shop.ledger())
    served = await client.request(method, path, headers=bearer(shop.keys["ada"].key), **body)
    assert served.is_success, served.text
    bought = await client.request(method, path, headers=paid(offer), **body)
    assert bought.is_success, bought.text
    assert "payment-response" in bought.headers
    refused = await client.request(method, path, headers={"Authorization": "Bearer no"}, **body)
    assert refused.status_code == 401
    rows = (await shop.ledger())[before:]
    assert [row.channel for row in rows][1] == "x402"
    assert rows[0].customer == "ada"


# --- FastAPI --------------------------------------------------------------------------------------


class Text(BaseModel):
    text: str


def fastapi_app(gate: Headgate) -> FastAPI:
    app = FastAPI()
    app.add_middleware(gate.middleware)
    v2 = APIRouter(prefix="/v2")
    inner = APIRouter(prefix="/inner")

    @app.post("/v1/summaries")
    @gate.action("doc.read")
    async def summarise(body: Text, caller: Caller = Depends(gate.caller)) -> dict[str, Any]:
        return {
            "channel": caller.channel,
            "customer": caller.customer,
            "payer": caller.payer,
            "text": body.text,
        }

    @v2.get("/items/{item_id:int}")
    @gate.action("doc.read")
    def item(item_id: int) -> dict[str, int]:  # a sync handler, in FastAPI's thread pool
        return {"item": item_id}

    @inner.get("/deep")
    @gate.action("doc.read")
    async def deep(background: BackgroundTasks) -> str:
        background.add_task(lambda: None)
        return "deep"

    @v2.post("/words")
    @gate.action("words")
    async def words(request: Request) -> dict[str, int]:
        usage(request).record(7)
        return {"words": 7}

    @app.get("/open")
    async def open_route() -> str:
        return "open"

    v2.include_router(inner)
    app.include_router(v2, prefix="/api")
    return app


async def test_fastapi(tmp_path: Path) -> None:
    async with running(tmp_path, fastapi_app) as (shop, client):
        await sold_to_all(shop, client, "POST", "/v1/summaries", json={"text": "Hello."})
        await sold_to_all(shop, client, "GET", "/api/v2/items/7")
        await sold_to_all(shop, client, "GET", "/api/v2/inner/deep")
        assert (await client.get("/open")).status_code == 200
        assert (await client.get("/docs")).status_code == 200
        ada = bearer(shop.keys["ada"].key)
        told = (await client.post("/v1/summaries", headers=ada, json={"text": "x"})).json()
        assert told == {"channel": "seat", "customer": "ada", "payer": None, "text": "x"}
        before = await shop.ledger()
        invalid = await client.post("/v1/summaries", headers=ada, json={"nothing": 1})
        assert invalid.status_code == 422
        assert await shop.ledger() == before
        assert (await client.post("/api/v2/words", headers=ada)).status_code == 200
        assert (await shop.ledger())[-1] == Row("usage", "seat", 7, 0, "ada")


async def test_fastapi_with_auth_as_a_dependency(tmp_path: Path) -> None:
    """Headgate asks the same function as the dependency does, and lets through whom it serves."""

    def customer_of(request: Request) -> str | None:
        return {"Bearer ada": "ada"}.get(request.headers.get("authorization", ""))

    def make(gate: Headgate) -> FastAPI:
        app = FastAPI()
        app.add_middleware(gate.middleware, identify=customer_of)

        def current(request: Request) -> str:
            caller = usage(request).caller
            if caller is not None:  # Headgate has let it in: a customer, or who has paid
                return caller.customer or f"agent {caller.payer}"
            found = customer_of(request)
            if found is None:
                raise HTTPException(401, "Who are you?")
            return found

        @app.get("/v1/sold")
        @gate.action("doc.read")
        async def sold(who: str = Depends(current)) -> str:
            return who

        @app.get("/private")
        async def private(who: str = Depends(current)) -> str:
            return who

        return app

    async with running(tmp_path, make) as (shop, client):
        await shop.customer("ada", "team")
        assert (await client.get("/v1/sold", headers={"Authorization": "Bearer ada"})).json() == "ada"
        assert (await client.get("/v1/sold", headers={"Authorization": "Bearer eve"})).status_code == 401
        assert (await client.get("/private")).status_code == 401
        assert (await client.get("/private", headers={"Authorization": "Bearer ada"})).json() == "ada"
        bought = await client.get("/v1/sold", headers=paid(await client.get("/v1/sold")))
        assert bought.json().startswith("agent 0x")
        assert [row.channel for row in await shop.ledger()] == ["seat", "x402"]


async def test_an_auth_dependency_that_knows_nothing_of_agents_costs_them_nothing(tmp_path: Path) -> None:
    def make(gate: Headgate) -> FastAPI:
        app = FastAPI()
        app.add_middleware(gate.middleware)

        def strict(authorization: Annotated[str | None, Header()] = None) -> None:
            if authorization is None:
                raise HTTPException(401, "Who are you?")

        @app.get("/v1/sold", dependencies=[Depends(strict)])
        @gate.action("doc.read")
        async def sold() -> str:
            return "sold"

        return app

    async with running(tmp_path, make) as (shop, client):
        refused = await client.get("/v1/sold", headers=paid(await client.get("/v1/sold")))
        assert refused.status_code == 401
        assert "payment-response" not in refused.headers
        assert shop.facilitator.settled == {}
        assert await shop.payments() == ["released"]


# --- Starlette ------------------------------------------------------------------------------------


async def test_starlette(tmp_path: Path) -> None:
    def make(gate: Headgate) -> Starlette:
        @gate.action("doc.read")
        async def sold(request: Request) -> Response:
            caller = gate.caller(request)
            return PlainTextResponse(caller.channel)

        class Things(HTTPEndpoint):
            @gate.action("doc.read")
            async def get(self, request: Request) -> Response:
                return PlainTextResponse("got")

            async def post(self, request: Request) -> Response:
                return PlainTextResponse("free")

        @gate.action("doc.read")
        class Sold(HTTPEndpoint):
            async def get(self, request: Request) -> Response:
                return PlainTextResponse("got")

        app = Starlette(
            routes=[
                Route("/sold", sold),
                Route("/class", Sold),
                Mount(
                    "/sub",
                    routes=[Route("/sold/{n:int}", sold, methods=["POST"]), Route("/x/{p:path}", sold)],
                ),
                Mount("/router", app=Router(routes=[Route("/sold", sold)])),
            ]
        )
        app.add_middleware(gate.middleware)
        return app

    async with running(tmp_path, make) as (shop, client):
        for method, path in (
            ("GET", "/sold"),
            ("GET", "/class"),
            ("POST", "/sub/sold/3"),
            ("GET", "/sub/x/a/b"),
            ("GET", "/router/sold"),
        ):
            await sold_to_all(shop, client, method, path)


# --- Litestar -------------------------------------------------------------------------------------


def litestar_app(gate: Headgate) -> Litestar:
    @post("/v1/summaries", status_code=200)
    @gate.action("doc.read")
    async def summarise(data: dict[str, str], request: Any) -> dict[str, Any]:
        caller = usage(request).caller
        assert caller is not None
        return {"channel": caller.channel, "text": data["text"]}

    class Things(Controller):
        path = "/things"

        @get("/{number:int}")
        @gate.action("doc.read")
        async def thing(self, number: int) -> dict[str, int]:
            return {"number": number}

    @get("/open", sync_to_thread=False)
    def open_route() -> str:
        return "open"

    return Litestar([summarise, Things, open_route])


async def test_litestar(tmp_path: Path) -> None:
    """Headgate stands around the whole application, which it reads its prices from all the same."""
    async with running(tmp_path, lambda gate: gate.middleware(litestar_app(gate))) as (shop, client):
        await sold_to_all(shop, client, "POST", "/v1/summaries", json={"text": "Hello."})
        await sold_to_all(shop, client, "GET", "/things/7")
        assert (await client.get("/open")).status_code == 200


@pytest.mark.parametrize("framework", ["fastapi", "litestar"])
async def test_wrapped_from_outside_without_a_lifespan(framework: str, tmp_path: Path) -> None:
    """The first request opens the gate, and finds the prices in the application it is wrapped around."""
    make = fastapi_app if framework == "fastapi" else litestar_app
    gate = Headgate(configured(tmp_path))
    inner: Any = make(gate)
    if framework == "fastapi":
        inner.user_middleware.clear()
    app = gate.middleware(inner)
    async with serving(app, lifespan="off") as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/v1/summaries", json={"text": "x"})).status_code == 402
        assert (await client.get("/open")).status_code == 200
    await gate.close()


async def test_a_price_on_a_handler_that_nothing_leads_to_refuses_to_start(tmp_path: Path) -> None:
    """A mark that is not found would be a route given away."""
    unlisted = '[actions."words.marked"]\ntitle = "W"\nunit = "word"\nprice = "0.01"'
    gate = Headgate(configured(tmp_path, more=unlisted))

    @gate.action("words.marked")
    async def sold(_scope: Any, receive: Any, _send: Any) -> None:
        """No framework whose routes can be read."""
        await receive()

    app = gate.middleware(sold)
    wire = Wire({"type": "lifespan.startup"})
    await app({"type": "lifespan"}, wire.receive, wire.send)
    assert [message["type"] for message in wire.sent] == ["lifespan.startup.failed"]
    assert "words.marked" in wire.sent[0]["message"]
    wire = Wire()
    await app(scope(), wire.receive, wire.send)
    assert wire.status == 503
    await gate.close()


def test_a_mark_for_an_action_that_does_not_exist(tmp_path: Path) -> None:
    gate = Headgate(configured(tmp_path))
    with pytest.raises(UnknownAction, match=r"no action 'doc.raed'.*add \[actions"):
        gate.action("doc.raed")


# --- lifespan -------------------------------------------------------------------------------------


def with_lifespan(told: list[str], gate: Headgate, *, failing: str = "") -> Starlette:
    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, str]]:
        told.append(f"start, gate {'open' if gate.store else 'closed'}")
        if failing == "start":
            raise RuntimeError("no database")
        yield {"own": "state"}
        told.append(f"stop, gate {'open' if gate.store else 'closed'}")
        if failing == "stop":
            raise RuntimeError("no goodbye")

    async def handler(request: Request) -> Response:
        return PlainTextResponse(request.state.own)

    app = Starlette(routes=[Route("/own", handler)], lifespan=lifespan)
    app.add_middleware(gate.middleware)
    return app


async def test_lifespan_order_and_state(tmp_path: Path) -> None:
    """The gate is open before the application starts and closed after it has stopped."""
    told: list[str] = []
    gate = Headgate(configured(tmp_path))
    app = with_lifespan(told, gate)
    async with serving(app, lifespan="on") as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/own")).text == "state"
    assert told == ["start, gate open", "stop, gate open"]
    assert gate.store is None


@pytest.mark.parametrize("failing", ["start", "stop"])
async def test_an_application_that_fails_in_its_lifespan(failing: str, tmp_path: Path) -> None:
    gate = Headgate(configured(tmp_path))
    app = with_lifespan([], gate, failing=failing)
    wire = Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    with pytest.raises(RuntimeError, match="no "):
        await app({"type": "lifespan", "state": {}}, wire.receive, wire.send)
    assert wire.sent[-1]["type"] == f"lifespan.{'startup' if failing == 'start' else 'shutdown'}.failed"
    assert "RuntimeError" in wire.sent[-1]["message"]
    assert gate.store is None  # nothing is left open either way


async def test_a_gate_that_cannot_open_refuses_to_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the message in the server's log, and before the application's own start."""
    store = tmp_path / "headgate.db"
    store.write_bytes(b"this is no database, but a text long enough to be taken for one" * 100)
    told: list[str] = []
    gate = Headgate(configured(tmp_path))
    app = with_lifespan(told, gate)
    wire = Wire({"type": "lifespan.startup"})
    await app({"type": "lifespan", "state": {}}, wire.receive, wire.send)
    (failed,) = wire.sent
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"]
    assert told == []

    import uvicorn

    server = Server(uvicorn.Config(app, lifespan="on", port=0, log_level="info"))
    with contextlib.suppress(SystemExit):
        await server.serve()
    assert not server.started


async def test_wrong_order_refuses_to_start(tmp_path: Path) -> None:
    """Auth as a middleware that was added before Headgate runs inside it, where Headgate sees nobody."""
    from tests.web.test_identity import ExistingAuth

    gate = Headgate(configured(tmp_path))
    app = Starlette(routes=[])
    app.add_middleware(gate.optional_auth(ExistingAuth))
    app.add_middleware(gate.middleware, identify=lambda request: request.state.customer_id)
    wire = Wire({"type": "lifespan.startup"})
    with contextlib.suppress(ConfigError):
        await app({"type": "lifespan", "app": app}, wire.receive, wire.send)
    (failed,) = wire.sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "runs first" in failed["message"]
    asked = Wire()
    await app(scope("/free"), asked.receive, asked.send)
    assert asked.status == 503  # served by a host that starts it all the same: closed, and the log says why


async def test_wrong_order_stops_a_server_that_guesses_at_lifespan(tmp_path: Path) -> None:
    """uvicorn's default takes an error at `lifespan` for an application without one, and would go on."""
    import uvicorn

    from tests.web.test_identity import ExistingAuth

    gate = Headgate(configured(tmp_path))
    app = Starlette(routes=[])
    app.add_middleware(gate.optional_auth(ExistingAuth))
    app.add_middleware(gate.middleware, identify=lambda request: request.state.customer_id)
    server = Server(uvicorn.Config(app, port=0, log_level="info"))
    with contextlib.suppress(SystemExit):
        await server.serve()
    assert not server.started


async def test_an_application_without_lifespan(tmp_path: Path) -> None:
    """It raises at `lifespan`, as the specification allows: servers then go on, and so does the gate."""

    async def app(scope_: Any, receive: Any, send: Any) -> None:
        if scope_["type"] != "http":
            raise NotImplementedError
        await PlainTextResponse("ok")(scope_, receive, send)

    gate = Headgate(configured(tmp_path))
    wrapped = gate.middleware(app)
    async with serving(wrapped, lifespan="auto") as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/v1/doc")).status_code == 402
        assert (await client.get("/else")).status_code == 200
    await gate.close()


async def test_a_store_that_cannot_be_opened_later(tmp_path: Path) -> None:
    """Without a lifespan the first request finds out: priced or not, nothing is given away unseen."""
    (tmp_path / "headgate.db").write_bytes(b"no database at all" * 500)
    gate = Headgate(configured(tmp_path))
    served: list[str] = []

    async def app(scope_: Any, _receive: Any, send: Any) -> None:
        served.append(scope_["type"])

    wrapped = gate.middleware(app)
    wire = Wire()
    await wrapped(scope(), wire.receive, wire.send)
    assert wire.status == 503
    wire = Wire({"type": "websocket.connect"})
    await wrapped({**scope(), "type": "websocket"}, wire.receive, wire.send)
    assert [message["type"] for message in wire.sent] == ["websocket.close"]
    assert served == []
    await gate.close()


async def test_problem_of_a_caller_that_nobody_asked_for(tmp_path: Path) -> None:
    """`Depends(gate.caller)` on a route that is not sold says so."""
    from headgate.model.errors import InputError

    gate = Headgate(configured(tmp_path))
    with pytest.raises(InputError, match="/unlisted is not a priced route"):
        gate.caller(Request(scope(path="/unlisted")))
