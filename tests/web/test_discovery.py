"""Discovery: one configuration, told to agents and registries; the application's own documents win."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from x402.extensions.bazaar import (
    extract_discovery_info,
    validate_and_extract,
    validate_discovery_extension_spec,
)
from x402.http.utils import decode_payment_required_header

from headgate import Headgate
from headgate.config import Config, parse
from headgate.model.catalog import Catalog
from headgate.model.catalog import Route as CatalogRoute
from headgate.model.errors import ConfigError
from headgate.service.networks import ASK_EVERY_US
from headgate.web.listing import EACH_ITS_OWN, MEASURED_STREAM, NOT_CHARGED, PAID_FIRST
from headgate.x402.bazaar import declaration
from headgate.x402.offer import HEADER_LIMIT
from tests.web.shop import (
    ORIGIN,
    Calls,
    Shop,
    bearer,
    client_of,
    config_text,
    opened_shop,
    paid,
    unpacked,
    until,
)
from tests.x402.buyer import SEPOLIA, sealed
from tests.x402.scripted import Answer, ScriptedFacilitator

PATHS = ["/openapi.json", "/.well-known/x402", "/llms.txt"]
FIXED = {"price": {"mode": "fixed", "currency": "USD", "amount": "0.100000"}, "protocols": [{"x402": {}}]}
WORDS = {
    "price": {"mode": "dynamic", "currency": "USD", "min": "0.000000", "max": "1.000000"},
    "protocols": [{"x402": {}}],
}


@asynccontextmanager
async def asking(folder: Path, **given: Any) -> AsyncIterator[tuple[Shop, httpx.AsyncClient]]:
    """A shop and a client of it over HTTP."""
    async with opened_shop(folder, **given) as shop, client_of(shop.app, "http") as client:
        yield shop, client


def exact_only(_facilitator: ScriptedFacilitator, _endpoint: str, _asked: Any) -> Answer:
    """What a facilitator supports that settles nothing of variable cost."""
    kinds = [{"x402Version": 2, "scheme": "exact", "network": SEPOLIA}]
    return Answer(json.dumps({"kinds": kinds, "extensions": [], "signers": {}}).encode())


@pytest.fixture
async def modest() -> AsyncIterator[ScriptedFacilitator]:
    async with ScriptedFacilitator() as facilitator:
        facilitator.script.supported.extend([exact_only] * 100)
        yield facilitator


def answering(**answers: Response | Callable[[Request], Response]) -> Callable[[Calls], Starlette]:
    """An application that has something at `openapi`, `x402`, `llms`, or at `rest`: everywhere."""
    places = {
        "openapi": "/openapi.json",
        "x402": "/.well-known/x402",
        "llms": "/llms.txt",
        "rest": "/{rest:path}",
    }

    def build(calls: Calls) -> Starlette:
        def at(answer: Any) -> Any:
            async def endpoint(request: Request) -> Response:
                calls.count += 1
                made: Response = answer if isinstance(answer, Response) else answer(request)
                return made

            return endpoint

        return Starlette(routes=[Route(places[name], at(answer)) for name, answer in answers.items()])

    return build


def fastapi(_calls: Calls) -> FastAPI:
    app = FastAPI(title="Acme", version="7.1")

    @app.get("/v1/doc", responses={402: {"description": "our own words"}})
    def read(limit: int = 1) -> dict[str, int]:
        return {"limit": limit}

    @app.get(
        "/v1/files/{name:path}", openapi_extra={"x-payment-info": {"offers": [1], "protocols": [{"mpp": {}}]}}
    )
    def file(name: str) -> dict[str, str]:
        return {"name": name}

    @app.post("/v1/words", openapi_extra={"security": [{"token": ["read"]}]})
    def words(text: dict[str, str]) -> dict[str, str]:
        return text

    @app.get("/healthz")
    def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/unlisted")
    def unlisted() -> dict[str, float]:
        return {"x": 1.0}

    return app


# --- without any document of the application's -------------------------------------------------------


async def test_the_generated_openapi_is_valid_and_priced(client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    document = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": ORIGIN}]
    assert set(document["paths"]) == {
        "/v1/doc", "/v1/files/{name}", "/v1/created", "/healthz", "/v1/words",
    }  # fmt: skip
    read = document["paths"]["/v1/doc"]["get"]
    assert read["x-payment-info"] == FIXED
    assert read["security"] == []
    assert "402" in read["responses"]
    assert document["paths"]["/v1/doc"]["post"]["x-payment-info"] == FIXED
    health = document["paths"]["/healthz"]["get"]
    assert health["security"] == []
    assert "x-payment-info" not in health
    assert "402" not in health["responses"]


async def test_each_address_in_the_well_known_document_is_sold_as_it_says(client: httpx.AsyncClient) -> None:
    document = (await client.get("/.well-known/x402")).json()
    assert document["version"] == 1
    addresses = {f"{ORIGIN}/v1/created", f"{ORIGIN}/v1/doc", f"{ORIGIN}/v1/files/{{name}}"}
    assert addresses <= set(document["resources"])
    assert len(document["items"]) >= 4
    for item in document["items"]:
        path = item["resource"].removeprefix(ORIGIN)
        challenge = (await client.request(item["method"], path)).json()
        assert item["accepts"] == challenge["accepts"]
        assert item["resource"] in document["resources"]


async def test_llms_txt_names_every_price(client: httpx.AsyncClient) -> None:
    answer = await client.get("/llms.txt")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith("# Acme\n")
    price = f"0.100000 USD per document (x402: exact on {SEPOLIA})"
    line = f"- [POST /v1/doc]({ORIGIN}/v1/doc): Document read. {price}."
    assert line in answer.text.splitlines()
    assert "GET /healthz" in answer.text
    assert f"{ORIGIN}/openapi.json" in answer.text


FIRST = """
[actions."first"]
title = "Paid first"
price = "0.10"
settle = "before"
routes = ["GET /v1/first"]
[actions."sung"]
title = "Sung"
price = "0.10"
stream = true
routes = ["GET /v1/sung"]
[actions."told"]
title = "Told"
unit = "word"
price = "0.01"
max_units = 100
measure = "header"
stream = true
routes = ["GET /v1/told"]
"""
CHARGED = {
    "/v1/doc": NOT_CHARGED,
    "/v1/words": NOT_CHARGED,
    "/v1/first": PAID_FIRST,
    "/v1/sung": PAID_FIRST,
    "/v1/told": MEASURED_STREAM,
}


async def test_what_a_failed_request_costs_is_said_of_each_action(tmp_path: Path) -> None:
    async with asking(tmp_path, more=FIRST) as (shop, client):
        await until(lambda: shop.gate.payer.storefront.sells("words"))
        items = (await client.get("/.well-known/x402")).json()
        openapi = (await client.get("/openapi.json")).json()
        prose = (await client.get("/llms.txt")).text
    validate(openapi)
    said = {item["resource"].removeprefix(ORIGIN): item["charged"] for item in items["items"]}
    assert CHARGED.items() <= said.items()
    for path, text in CHARGED.items():
        (operation, *_) = openapi["paths"][path].values()
        assert operation["description"].endswith(f". {text}")
        assert all(line.endswith(text) for line in prose.splitlines() if f"({ORIGIN}{path})" in line)
    for guidance in (items["instructions"], openapi["info"]["x-guidance"], prose.splitlines()[2]):
        assert EACH_ITS_OWN in guidance
        assert NOT_CHARGED not in guidance


async def test_where_all_are_alike_it_is_said_once(tmp_path: Path, client: httpx.AsyncClient) -> None:
    assert NOT_CHARGED in (await client.get("/.well-known/x402")).json()["instructions"]
    assert (await client.get("/llms.txt")).text.count(NOT_CHARGED) == 1
    only = ("doc.read", "doc.paid", "words")

    def first(config: Config) -> Config:
        actions = {name: each for name, each in config.catalog.actions.items() if name not in only}
        return replace(config, catalog=Catalog(actions, {}))

    (tmp_path / "first").mkdir()
    async with asking(tmp_path / "first", more=FIRST.partition('[actions."told"]')[0], change=first) as (
        _,
        other,
    ):
        prose = (await other.get("/llms.txt")).text
    assert PAID_FIRST in prose.splitlines()[2]
    assert NOT_CHARGED not in prose


@pytest.mark.parametrize("path", PATHS)
async def test_the_pages_are_cacheable_and_open_to_every_origin(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert answer.headers["access-control-allow-origin"] == "*"
    head = await client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))
    again = await client.get(path, headers={"If-None-Match": f'"other", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    other = await client.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status_code, other.content) == (200, answer.content)


@pytest.mark.parametrize("path", PATHS)
async def test_other_methods_are_the_applications(client: httpx.AsyncClient, path: str) -> None:
    for method in ("POST", "OPTIONS", "DELETE"):
        assert (await client.request(method, path)).status_code == 404


# --- the application's own documents ------------------------------------------------------------------


async def test_fastapis_document_is_decorated_and_keeps_everything_else(
    tmp_path: Path, modest: ScriptedFacilitator
) -> None:
    async with asking(tmp_path, app=fastapi, facilitator=modest) as (shop, client):
        answer = await client.get("/openapi.json")
        before = fastapi(shop.calls).openapi()
    document = answer.json()
    validate({**document, "components": {**document["components"], "securitySchemes": {}}})
    read = document["paths"]["/v1/doc"]["get"]
    assert read["x-payment-info"] == FIXED
    assert read["security"] == []
    assert read["responses"]["402"] == before["paths"]["/v1/doc"]["get"]["responses"]["402"]
    file = document["paths"]["/v1/files/{name}"]["get"]
    assert file["x-payment-info"] == {**FIXED, "offers": [1], "protocols": [{"x402": {}}, {"mpp": {}}]}
    assert "402" in file["responses"]
    words = document["paths"]["/v1/words"]["post"]
    assert words["security"] == [{"token": ["read"]}]  # not offered: no facilitator told who settles `upto`
    assert document["paths"]["/healthz"]["get"]["security"] == []

    def plain(item: Any) -> Any:
        """The document without what was added."""
        found = json.loads(json.dumps(item))
        for path in found["paths"].values():
            for operation in path.values():
                operation.pop("x-payment-info", None)
                operation.pop("security", None)
                operation["responses"].pop("402", None)
        return found

    assert plain(document) == plain(before)
    assert list(document) == list(before)
    assert document["paths"]["/unlisted"] == before["paths"]["/unlisted"]
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"] == "no-cache"  # not known to be the same for everybody


DECLARED: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Own", "version": "1"},
    "security": [{"key": []}],
    "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    "x-number": 12345678901234567890123,
    "paths": {
        "/doc": {"parameters": [], "get": {"responses": {"200": {"description": "ok"}}}},
        "/plain": {"get": {"responses": {"200": {"description": "ok"}}}},
    },
    "servers": [{"url": "https://api.example.com/v1"}],
}


async def test_a_document_may_lie_below_a_server_path_and_ask_for_keys(tmp_path: Path) -> None:
    app = answering(openapi=JSONResponse(DECLARED, headers={"cache-control": "max-age=5", "etag": '"x"'}))
    async with asking(tmp_path, app=app) as (_, client):
        answer = await client.get(
            "/openapi.json", headers={"If-None-Match": '"x"', "Accept-Encoding": "gzip"}
        )
        document = answer.json()
    validate(document)
    priced = document["paths"]["/doc"]["get"]
    assert priced["x-payment-info"] == FIXED
    assert priced["security"] == [{}, {"key": []}]  # keys are good, and paying without one is
    assert document["paths"]["/plain"] == DECLARED["paths"]["/plain"]
    assert document["x-number"] == DECLARED["x-number"]
    assert answer.headers["cache-control"] == "max-age=5"
    assert answer.headers["etag"] != '"x"'


@pytest.mark.parametrize(
    "own",
    [
        PlainTextResponse("openapi: 3.1.0", media_type="application/yaml"),
        PlainTextResponse("{not json", media_type="application/json"),
        JSONResponse({"swagger": "2.0", "paths": {}}),
        JSONResponse(["a", "list"]),
        JSONResponse({"openapi": "3.1.0", "paths": {"/v1/doc": None, "/v1/x": {"get": "?"}}}),
        RedirectResponse("/docs/openapi.json"),
        PlainTextResponse("broken", status_code=500),
    ],
)
async def test_what_is_no_openapi_document_passes_as_it_is(tmp_path: Path, own: Response) -> None:
    async with asking(tmp_path, app=answering(openapi=own)) as (_, client):
        answer = await client.get("/openapi.json")
    assert answer.status_code == own.status_code
    assert answer.content == own.body


@pytest.mark.parametrize(("name", "path"), [("llms", "/llms.txt"), ("x402", "/.well-known/x402")])
async def test_the_applications_own_page_wins(tmp_path: Path, name: str, path: str) -> None:
    own = PlainTextResponse('{"mine": true}', headers={"x-mine": "1"})
    async with asking(tmp_path, app=answering(**{name: own})) as (shop, client):
        answer, head = await client.get(path), await client.head(path)
    assert (answer.text, answer.headers["x-mine"]) == ('{"mine": true}', "1")
    assert "access-control-allow-origin" not in answer.headers
    assert (head.status_code, head.content, head.headers["x-mine"]) == (200, b"", "1")
    assert shop.calls.count == 2


@pytest.mark.parametrize("path", PATHS)
async def test_a_browser_application_that_answers_everything_has_no_documents(
    tmp_path: Path, path: str
) -> None:
    app = answering(rest=HTMLResponse("<title>app</title>"))
    async with asking(tmp_path, app=app) as (_, client):
        answer = await client.get(path)
    assert "<title>" not in answer.text
    assert "/v1/doc" in answer.text


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_that_is_priced_is_sold(tmp_path: Path, path: str) -> None:
    more = f'[actions."page"]\ntitle = "Page"\nunit = "page"\nprice = "1"\nroutes = ["GET {path}"]'
    own = JSONResponse({"openapi": "3.1.0", "info": {}, "paths": {"/v1/doc": {"get": {}}}})
    async with asking(tmp_path, app=answering(rest=own), more=more) as (_, client):
        unpaid = await client.get(path)
        answer = await client.get(path, headers=paid(unpaid))
    assert unpaid.status_code == 402
    assert answer.json() == json.loads(bytes(own.body))


@pytest.mark.parametrize("path", PATHS)
async def test_discovery_can_be_switched_off(tmp_path: Path, path: str) -> None:
    async with asking(tmp_path, change=lambda config: replace(config, discovery=False)) as (_, client):
        assert (await client.get(path)).status_code == 404
        assert list((await client.get("/v1/doc")).json()["extensions"]) == ["payment-identifier"]


async def test_without_x402_there_is_nothing_to_discover(tmp_path: Path) -> None:
    async with asking(tmp_path, change=lambda config: replace(config, x402=None)) as (_, client):
        assert [(await client.get(path)).status_code for path in PATHS] == [404, 404, 404]


async def test_below_a_mount_the_pages_are_the_mounted_applications(tmp_path: Path) -> None:
    def mounted(app: Any, gate: Headgate) -> Starlette:
        return Starlette(routes=[Mount("/api", gate.middleware(app))])

    async with asking(tmp_path, wrap=mounted) as (_, client):
        assert (await client.get("/api/openapi.json")).json()["openapi"] == "3.1.0"
        assert (await client.get("/openapi.json")).status_code == 404


# --- behind the seller's auth ---------------------------------------------------------------------------


class Guard:
    """An auth that lets nobody in without a key, and hides the application's document from strangers."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and not any(name == b"authorization" for name, _ in scope["headers"]):
            await PlainTextResponse("who are you?", status_code=401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def test_strangers_get_the_generated_document_and_customers_the_applications(tmp_path: Path) -> None:
    def guarded(app: Any, gate: Headgate) -> Any:
        return gate.optional_auth(Guard)(gate.middleware(app))

    async with asking(tmp_path, app=fastapi, wrap=guarded) as (_, client):
        stranger = (await client.get("/openapi.json")).json()
        customer = (await client.get("/openapi.json", headers=bearer("any"))).json()
        assert (await client.get("/llms.txt")).text.startswith("# Acme")
        assert (await client.get("/unlisted")).status_code == 401
    assert "/unlisted" not in stranger["paths"]
    assert stranger["paths"]["/v1/doc"]["get"]["x-payment-info"] == FIXED
    assert customer["info"]["version"] == "7.1"
    assert customer["paths"]["/v1/doc"]["get"]["x-payment-info"] == FIXED


async def test_a_document_that_the_auth_leaves_open_is_the_applications(tmp_path: Path) -> None:
    class Lenient(Guard):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            open_to_all = scope["type"] == "http" and scope["path"] == "/openapi.json"
            await (self.app if open_to_all else super().__call__)(scope, receive, send)

    def lenient(app: Any, gate: Headgate) -> Any:
        return gate.optional_auth(Lenient)(gate.middleware(app))

    async with asking(tmp_path, app=fastapi, wrap=lenient) as (_, client):
        document = (await client.get("/openapi.json")).json()
    assert document["info"]["version"] == "7.1"
    assert document["paths"]["/v1/doc"]["get"]["x-payment-info"] == FIXED


# --- the catalog in force -------------------------------------------------------------------------------


async def test_a_variable_cost_is_told_once_it_is_offered(
    tmp_path: Path, modest: ScriptedFacilitator
) -> None:
    async with asking(tmp_path, facilitator=modest) as (shop, client):
        before = (await client.get("/openapi.json")).json()["paths"]["/v1/words"]["post"]
        assert "x-payment-info" not in before
        assert before["security"] == [{"key": []}]
        modest.script.supported.clear()
        shop.clock.ahead_us = 2 * ASK_EVERY_US
        while "upto" not in (told := (await client.get("/llms.txt")).text):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        document = (await client.get("/openapi.json")).json()
    validate(document)
    after = document["paths"]["/v1/words"]["post"]
    assert after["x-payment-info"] == WORDS
    assert after["security"] == []
    assert "Words. 0.010000 USD per word, at most 1.000000 USD a request (x402: upto on" in told


# --- the Bazaar extension -------------------------------------------------------------------------------


def bazaar_of(answer: httpx.Response) -> dict[str, Any]:
    required = decode_payment_required_header(answer.headers["PAYMENT-REQUIRED"])
    assert required.extensions is not None
    found: dict[str, Any] = required.extensions["bazaar"]
    return found


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("GET", "/v1/doc", None),
        ("HEAD", "/v1/doc", None),
        ("POST", "/v1/doc", None),
        ("GET", "/v1/files/a.txt", "/v1/files/:name"),
    ],
)
async def test_the_official_sdk_accepts_the_declaration_of_every_offer(
    client: httpx.AsyncClient, method: str, path: str, template: str | None
) -> None:
    answer = await client.request(method, path)
    declared = bazaar_of(answer)
    result = validate_and_extract(declared)
    assert (result.valid, result.errors) == (True, [])
    assert validate_discovery_extension_spec(declared).errors == []
    signed = unpacked(paid(answer)["PAYMENT-SIGNATURE"])
    seen = extract_discovery_info(signed, signed["accepted"])
    assert seen is not None
    assert seen.method == ("GET" if method == "HEAD" else method)
    assert seen.route_template == template
    assert seen.resource_url == ORIGIN + (template or path)
    assert seen.description == "Document read"


async def test_a_payment_with_the_declaration_is_served(client: httpx.AsyncClient, shop: Shop) -> None:
    unpaid = await client.get("/v1/files/a.txt")
    answer = await client.get("/v1/files/a.txt", headers=paid(unpaid))
    assert answer.status_code == 200
    (settled,) = [asked for endpoint, asked in shop.facilitator.asked if endpoint == "settle"]
    assert settled["paymentPayload"]["extensions"]["bazaar"] == bazaar_of(unpaid)


async def test_facilitators_are_told_the_seller_s_declaration_and_not_the_buyer_s(
    client: httpx.AsyncClient, shop: Shop
) -> None:
    """They list resources by it: a buyer could have others pay for something else."""
    unpaid = await client.get("/v1/files/a.txt")
    payment = unpacked(paid(unpaid)["PAYMENT-SIGNATURE"])
    payment["extensions"]["bazaar"] = {"routeTemplate": "/evil/:x", "info": {"input": {"method": "DELETE"}}}
    payment["extensions"]["surprise"] = {"info": {}}
    answer = await client.get("/v1/files/a.txt", headers={"PAYMENT-SIGNATURE": sealed(payment).decode()})
    assert answer.status_code == 200
    told = [asked["paymentPayload"] for step, asked in shop.facilitator.asked if step != "supported"]
    assert [each["extensions"] for each in told] == [{"bazaar": bazaar_of(unpaid)}] * 2


@pytest.mark.parametrize(
    ("route", "path", "template", "values"),
    [
        ("GET /a/{x}/b/{rest:path}", "/a/1/b/2/3", "/a/:x/b/:rest", {"x": "1", "rest": "2/3"}),
        ("DELETE /a/{x}", "/a/1/", "/a/:x", {"x": "1"}),
        ("PUT /models/{name}:generate", "/models/m:generate", None, {"name": "m"}),
        ("PATCH /ü/{x}", "/ü/1", None, {"x": "1"}),
        ("GET /x{b}y", "/x1y", None, {"b": "1"}),
        ("GET /a/{x}", "/a/" + "v" * 5000, "/a/:x", None),
        ("GET /a/{x}", "/elsewhere", "/a/:x", None),
    ],
)
def test_a_wildcard_becomes_a_path_parameter(
    route: str, path: str, template: str | None, values: dict[str, str] | None
) -> None:
    method, pattern = route.split(" ")
    declared = declaration(CatalogRoute(method, pattern), path)
    assert declared is not None
    assert declared.get("routeTemplate") == template
    assert declared["info"]["input"].get("pathParams") == values
    assert validate_and_extract(declared).errors == []
    assert validate_discovery_extension_spec(declared).errors == []


def test_methods_the_bazaar_does_not_know_are_not_declared() -> None:
    assert declaration(CatalogRoute("PURGE", "/cache"), "/cache") is None


@pytest.mark.parametrize(
    ("mime_type", "output"),
    [
        ("application/json", {"type": "json"}),
        ("application/problem+json; charset=utf-8", {"type": "json"}),
        ("text/csv", {"type": "text", "format": "text/csv"}),
        ("image/png", {"type": "binary", "format": "image/png"}),
    ],
)
def test_the_answers_kind_is_declared(mime_type: str, output: dict[str, str]) -> None:
    declared = declaration(CatalogRoute("GET", "/x"), "/x", mime_type)
    assert declared is not None
    assert declared["info"]["output"] == output
    assert validate_and_extract(declared).valid


LONG = "x" * 1500


@pytest.mark.parametrize("path", [f"/v1/files/{LONG}", "/v1/files/" + "é" * 1500])
async def test_the_header_stays_below_its_bound(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 402
    assert len(answer.headers["PAYMENT-REQUIRED"]) < HEADER_LIMIT
    assert "bazaar" in answer.json()["extensions"]


@pytest.fixture
async def many_wildcards(tmp_path: Path) -> AsyncIterator[Shop]:
    pattern = "/w/" + "/".join(f"{{a_name_{number}}}" for number in range(60))
    more = f'[actions."many"]\ntitle = "Many"\nunit = "m"\nprice = "1"\nroutes = ["GET {pattern}"]'
    async with opened_shop(tmp_path, more=more) as shop:
        yield shop


async def test_a_declaration_that_is_too_large_goes_first(many_wildcards: Shop) -> None:
    async with client_of(many_wildcards.app, "asgi") as client:
        answer = await client.get("/w/" + "/".join("v" * 20 for _ in range(60)))
    assert answer.status_code == 402
    assert len(answer.headers["PAYMENT-REQUIRED"]) < HEADER_LIMIT
    assert list(answer.json()["extensions"]) == ["payment-identifier"]


def test_the_switch_is_read_from_the_configuration() -> None:
    text = config_text(store="headgate.db")
    assert parse(text).discovery is True
    assert parse("discovery = false\n" + text).discovery is False
    with pytest.raises(ConfigError, match=r"discovery.*true"):
        parse('discovery = "off"\n' + text)
