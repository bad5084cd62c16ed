"""`headgate check` against applications, facilitators and published catalogs that fit, and that do not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web
from fastapi import APIRouter, FastAPI
from litestar import Litestar
from litestar import get as litestar_get
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route, WebSocketRoute

from headgate.app import Headgate
from headgate.config import Config, parse
from headgate.model.routing import RouteTable
from headgate.service.app_routes import app_routes
from headgate.service.check import _header_sizes, run_check
from headgate.service.check_app import EXPOSED_HEADERS, middleware_order_findings, route_findings
from headgate.service.finding import Finding, Level
from headgate.service.storefront import Storefront
from headgate.web.problems import EXPOSED

NOW_S = 1_790_000_000
PAY_TO = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"

BASE = f"""
[seller]
public_url = "https://api.example.com"
[x402]
pay_to = "{PAY_TO}"
"""
ACTION = """
[actions.process]
price = "0.10"
routes = ["POST /v1/process", "GET /v1/files/{id}"]
[routes]
free = ["GET /healthz"]
"""


MEASURED = '[actions.chat]\nprice = "0.1"\nmax_units = 3\nroutes = ["POST /v1/chat/{id}/{name}"]\n'
SEPOLIA = 'x402.networks."eip155:84532"'


def now_us() -> int:
    return NOW_S * 1_000_000


async def check(config: Config, **given: Any) -> list[Finding]:
    return await run_check(config, now_us=now_us, **given)


def of(findings: list[Finding], level: Level) -> list[str]:
    return [f"{finding.where}: {finding.message}" for finding in findings if finding.level is level]


def errors(findings: list[Finding]) -> list[str]:
    return of(findings, Level.ERROR)


def warnings(findings: list[Finding]) -> list[str]:
    return of(findings, Level.WARNING)


# --- configuration, offers, drift -------------------------------------------------------------------


async def test_a_configuration_that_sells_has_no_errors_or_warnings() -> None:
    config = parse(BASE + ACTION)
    findings = await check(config, published=config.catalog)
    assert errors(findings) == warnings(findings) == []


async def test_errors_come_first() -> None:
    config = parse('[auth]\njwks_url = "https://i.example/jwks"')
    levels = [finding.level for finding in await check(config)]
    assert levels == sorted(levels, key=list(Level).index)
    assert levels[0] is Level.ERROR
    assert levels[-1] is Level.INFO


async def test_nothing_sold_is_an_error_and_an_open_audience_a_warning() -> None:
    findings = await check(parse('[auth]\njwks_url = "https://i.example/jwks"'))
    assert errors(findings) == ["actions: nothing is sold"]
    assert [line.partition(":")[0] for line in warnings(findings)] == ["auth.audience"]


@pytest.mark.parametrize(("price", "warned"), [('"1.00"', False), ('"1.000001"', True)])
async def test_a_price_above_what_common_clients_pay_is_a_warning(price: str, warned: bool) -> None:
    findings = await check(parse(BASE + ACTION.replace('"0.10"', price)))
    assert any("1 USD" in line for line in warnings(findings)) is warned


async def test_a_ceiling_counts_as_the_price() -> None:
    text = '[actions.chat]\nprice = "0.01"\nper = 10\nmax_units = 1001\n'
    assert any("max_units" in finding.fix for finding in await check(parse(BASE + text)))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ('measure = "json:/usage/total"', True),
        ('measure = "json:/usage/total"\non_unmeasured = "ceiling"', False),
        ('measure = "bytes"', False),
        ("", False),
    ],
)
async def test_what_is_served_for_nothing_without_a_measure_is_said(how: str, said: bool) -> None:
    findings = await check(parse(BASE + MEASURED + how))
    told = [each for each in findings if each.where == "actions.chat.on_unmeasured"]
    assert [(each.level, "/usage/total" in each.message) for each in told] == [(Level.INFO, True)] * said


async def test_what_is_not_built_yet_is_said() -> None:
    text = 'idempotency = "replay"\n' + BASE + '[store]\non_failure = "serve"\n'
    text += ACTION.replace('"0.10"', '"0.10"\nsettle = "before"\nstream = true')
    places = [line.partition(": ")[0] for line in errors(await check(parse(text)))]
    assert places == ["store.on_failure", "idempotency"]


async def test_a_token_clients_do_not_know_is_a_warning() -> None:
    text = BASE + 'network = "polygon-amoy"\nfacilitator = "http://127.0.0.1:9"\n' + ACTION
    assert any("do not know USDC" in line for line in warnings(await check(parse(text))))


async def test_a_known_token_with_another_domain_is_an_error() -> None:
    text = (
        BASE
        + '[x402.networks.base-sepolia.asset]\naddress = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"\n'
        + 'name = "USD Coin"\nversion = "2"\n'
        + ACTION
    )
    findings = errors(await check(parse(text)))
    assert len(findings) == 1
    assert "no signature will be valid" in findings[0]


async def test_a_main_network_in_test_mode_is_a_warning() -> None:
    text = BASE + 'network = "polygon"\nfacilitator = "http://127.0.0.1:9"\n' + ACTION
    assert any("takes real money, and mode is test" in line for line in warnings(await check(parse(text))))


async def test_offers_too_large_for_proxies_are_a_warning_and_beyond_the_bound_an_error() -> None:
    def config(networks: int) -> Config:
        ids = [f"eip155:{90_000 + number}" for number in range(networks)]
        tables = "".join(
            f'[x402.networks."{caip2}"]\nfacilitator = "http://127.0.0.1:9"\n'
            f'asset = {{ address = "{PAY_TO}", name = "USDC", version = "2", title = "x" }}\n'
            for caip2 in ids
        ).replace(f'address = "{PAY_TO}"', 'address = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"')
        title = 'title = "' + "Document processed " * 5 + '"\n'
        return parse(
            BASE
            + f"network = {ids}\n"
            + tables
            + ACTION.replace('price = "0.10"', 'price = "0.10"\n' + title)
        )

    assert not any("PAYMENT-REQUIRED" in line for line in warnings(await check(config(3))))
    assert any("PAYMENT-REQUIRED" in line for line in warnings(await check(config(8))))
    assert any("cannot be offered" in line for line in errors(await check(config(30))))


@pytest.mark.parametrize("sold", [ACTION, MEASURED, ACTION + MEASURED])
@pytest.mark.parametrize("discovery", ["true", "false"])
def test_the_header_that_is_measured_is_the_one_that_is_sent(sold: str, discovery: str) -> None:
    """As a storefront writes it: identifier, permit for gas, and how the route is called."""
    config = parse(f"discovery = {discovery}\n" + BASE + sold)
    assert config.x402 is not None
    networks = [
        replace(each, facilitator_address=PAY_TO, gas_sponsored=True) for each in config.x402.offers()
    ]
    front = Storefront(config.seller.public_url, 0)
    front.stock([config.catalog], [(0, networks)], now_us())
    if config.discovery:
        front.declare(RouteTable(config.catalog))
    for action in config.catalog.actions.values():
        sent = [
            len(front.challenge(action.name, route.method, path, "payment_required").header_value)
            for route in action.routes
            for path in [re.sub(r"{.*?}", "f" * 36, route.pattern)]
        ]
        assert list(_header_sizes(config, config.x402, action)) == sent


async def test_drift_between_file_and_published_catalog() -> None:
    config = parse(BASE + ACTION)
    published = replace(parse(BASE + ACTION.replace('"0.10"', '"0.12"')).catalog, version=3)
    (line,) = warnings(await check(config, published=published))
    assert "0.120000" in line
    assert "0.100000" in line
    assert "catalog 3" in line


async def test_the_checklist_for_real_money() -> None:
    assert any(
        line.startswith("mode: is test") for line in errors(await check(parse(BASE + ACTION), live=True))
    )
    text = 'mode = "live"\n' + BASE + 'network = "polygon"\nfacilitator = "https://127.0.0.1:9"\n' + ACTION
    findings = await check(parse(text), live=True)
    places = {line.partition(": ")[0] for line in warnings(findings)}
    assert places == {'x402.networks."eip155:137".rpc_url', "store.url"}


# --- facilitators -------------------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(routes: dict[tuple[str, str], Handler]) -> AsyncIterator[str]:
    app = web.Application()
    for (method, path), handler in routes.items():
        app.router.add_route(method, path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def facilitator(
    kinds: list[dict[str, Any]], *, date_s: int = NOW_S, status: int = 200
) -> dict[tuple[str, str], Handler]:
    async def supported(request: web.Request) -> web.Response:
        if request.headers.get("X-Key") != "k3y":
            return web.Response(status=401, text="who are you")
        body = {"kinds": kinds, "extensions": [], "signers": {}}
        return web.json_response(body, status=status, headers={"Date": formatdate(date_s, usegmt=True)})

    return {("GET", "/base/supported"): supported}


def with_facilitator(url: str, more: str = "") -> Config:
    return parse(
        BASE
        + f'facilitator = "{url}/base/"\nfacilitator_headers = {{ X-Key = "${{KEY}}" }}\n{more}'
        + ACTION,
        environ={"KEY": "k3y"},
    )


EXACT = {"x402Version": 2, "scheme": "exact", "network": "eip155:84532"}
UPTO = {
    "x402Version": 2,
    "scheme": "upto",
    "network": "eip155:84532",
    "extra": {"facilitatorAddress": PAY_TO},
}


async def test_a_facilitator_that_can_is_asked_with_its_key() -> None:
    async with serving(facilitator([EXACT])) as url:
        findings = await check(with_facilitator(url))
    assert errors(findings) == []
    assert [line.partition(": is not set")[0] for line in warnings(findings)] == [f"{SEPOLIA}.rpc_url"]
    (found,) = [finding for finding in findings if "settles exact on eip155:84532" in finding.message]
    assert (found.level, found.where) == (Level.INFO, f"{SEPOLIA}.facilitator")


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        ([], "does not settle exact"),
        ([{**EXACT, "network": "eip155:137"}], "does not settle exact"),
        ([{**EXACT, "x402Version": 1}], "does not settle exact"),
        ([UPTO], "does not settle exact"),
    ],
)
async def test_a_facilitator_that_cannot_is_an_error(kinds: list[dict[str, Any]], says: str) -> None:
    async with serving(facilitator(kinds)) as url:
        (line,) = errors(await check(with_facilitator(url)))
    assert says in line


@pytest.mark.parametrize(
    ("kinds", "says"),
    [
        ([EXACT], ["does not settle upto"]),
        ([EXACT, {**UPTO, "extra": {}}], ["does not say which account settles upto"]),
        ([EXACT, UPTO], []),
    ],
)
async def test_variable_cost_needs_upto_and_who_settles_it(
    kinds: list[dict[str, Any]], says: list[str]
) -> None:
    async with serving(facilitator(kinds)) as url:
        config = parse(
            BASE
            + f'facilitator = "{url}/base"\nfacilitator_headers = {{ X-Key = "${{KEY}}" }}\n'
            + ACTION
            + '[actions.chat]\nprice = "0.1"\nmax_units = 3\n',
            environ={"KEY": "k3y"},
        )
        lines = errors(await check(config))
    assert len(lines) == len(says)
    assert all(word in line for word, line in zip(says, lines, strict=True))


@pytest.mark.parametrize(("offset_s", "word"), [(-31, "ahead of"), (31, "behind"), (-20, None)])
async def test_clocks_that_differ_are_a_warning(offset_s: int, word: str | None) -> None:
    async with serving(facilitator([EXACT], date_s=NOW_S + offset_s)) as url:
        lines = [line for line in warnings(await check(with_facilitator(url))) if "rpc_url" not in line]
    assert [str(word) in line for line in lines] == ([] if word is None else [True])


async def test_a_facilitator_that_is_away_or_talks_nonsense_is_an_error() -> None:
    async def nonsense(request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    async with serving({("GET", "/base/supported"): nonsense}) as url:
        (line,) = errors(await check(with_facilitator(url)))
        assert line.startswith(f"{SEPOLIA}.facilitator: {url}/base gave no list")
    (line,) = errors(await check(with_facilitator(url)))  # it is gone now
    assert line.startswith(f"{SEPOLIA}.facilitator: {url}/base gave no list")


AWAY = (
    "fixed prices are offered, and payments may answer 503",
    "measured actions are not offered here: their routes answer 503 until it does",
)


@pytest.mark.parametrize(
    ("sold", "says"),
    [
        (ACTION, "fixed prices are offered, and payments may answer 503 until it does"),
        (MEASURED, "measured actions are not offered here: their routes answer 503 until it does"),
        (
            ACTION + MEASURED,
            ", ".join(AWAY),
        ),
    ],
)
async def test_what_a_facilitator_that_is_away_means(sold: str, says: str) -> None:
    (line,) = errors(await check(parse(BASE + 'facilitator = "http://127.0.0.1:9"\n' + sold)))
    assert line.endswith("; " + says)


async def test_without_a_node_outcomes_can_stay_unknown() -> None:
    """Said of every facilitator that is somebody else's, and once with the checklist for real money too."""
    for given in ({}, {"live": True}):
        findings = await check(parse(BASE + 'facilitator = "http://127.0.0.1:9"\n' + ACTION), **given)
        (line,) = [line for line in warnings(findings) if "rpc_url" in line]
        assert line.startswith(f"{SEPOLIA}.rpc_url: is not set: the outcome of a settlement")
    embedded = await check(parse(BASE + ACTION))
    assert not any("rpc_url" in str(finding) for finding in embedded)


async def test_a_node_with_the_token_configured_is_good_news() -> None:
    pytest.importorskip("eth")
    from headgate.devnet import DevChain
    from headgate.devnet.rpc import Rpc

    rpc = Rpc(DevChain())

    async def node(request: web.Request) -> web.Response:
        return web.json_response(rpc.answer(await request.json()))

    async with serving({("POST", "/"): node}) as url:
        findings = await check(parse(BASE + f'rpc_url = "{url}"\n' + ACTION))
    (found,) = [finding for finding in findings if finding.where == f"{SEPOLIA}.rpc_url"]
    assert (found.level, found.message) == (Level.INFO, "the node answers; the token is the one configured")


async def test_nothing_is_said_of_what_nothing_uses() -> None:
    assert not any("ADMIN" in str(finding) for finding in await check(parse(BASE + ACTION), live=True))


async def test_a_node_that_knows_another_token_is_an_error() -> None:
    async def node(request: web.Request) -> web.Response:
        asked = await request.json()
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": "0x89"})

    async with serving({("POST", "/"): node, **facilitator([EXACT])}) as url:
        (line,) = errors(await check(with_facilitator(url, f'rpc_url = "{url}"\n')))
    assert "chain 137" in line
    assert len(errors(await check(parse(BASE + f'rpc_url = "{url}"\n' + ACTION)))) == 1


# --- applications ---------------------------------------------------------------------------------------


def gate() -> Headgate:
    return Headgate(parse(BASE + ACTION))


async def handler() -> None: ...


def lines_of(app: Any, text: str = ACTION) -> dict[str, str]:
    return {f.where: f.message for f in route_findings(app, parse(text).catalog)}


def test_routes_of_fastapi_with_included_routers_and_mounts() -> None:
    app, router, inner, sub = FastAPI(), APIRouter(prefix="/v1"), APIRouter(prefix="/files"), FastAPI()
    inner.get("/{id:int}")(handler)
    router.include_router(inner)
    router.post("/process")(handler)
    router.get("/process")(handler)
    app.include_router(router)
    sub.get("/y/")(handler)
    app.mount("/sub", sub)
    app.get("/healthz")(handler)
    found = lines_of(app)
    assert found["POST /v1/process"] == "priced: process, 0.100000 USD for 1 request"
    assert found["GET /v1/files/{id}"].startswith("priced")
    assert found["GET /healthz"] == "free"
    assert found["GET /v1/process"].startswith("not listed: left to the application, unpriced")
    assert found["GET /sub/y"].startswith("not listed")
    assert "framework's own" in found["GET /docs"]
    assert not any(where.startswith(("actions", "routes")) for where in found)


def test_routes_of_starlette_with_endpoints_mounts_and_files() -> None:
    class Thing(HTTPEndpoint):
        async def get(self, request: Any) -> None: ...

        async def post(self, request: Any) -> None: ...

    async def files(scope: Any, receive: Any, send: Any) -> None: ...

    app = Starlette(
        routes=[
            Mount(
                "/v1", routes=[Route("/process", handler, methods=["POST"]), Route("/thing/{a}-{b}", Thing)]
            ),
            Mount("/static", app=files),
            WebSocketRoute("/ws", handler),
            Route("/odd/{x:path}", handler),
        ]
    )
    listed = [str(route) for route in app_routes(app)]
    assert listed[:3] == ["POST /v1/process", "GET /v1/thing/{a}-{b}", "POST /v1/thing/{a}-{b}"]
    assert "GET /static/{path:path}" in listed
    assert "GET /odd/{x:path}" in listed
    assert not any("/ws" in route for route in listed)
    assert lines_of(app)["actions.process.routes"] == '"GET /v1/files/{id}" is no route of the application'


def test_routes_of_litestar() -> None:
    @litestar_get(["/v1/files/{id:uuid}", "/all/{rest:path}"])
    async def read() -> str:
        return ""

    listed = [str(route) for route in app_routes(Litestar([read], openapi_config=None))]
    assert sorted(listed) == ["GET /all/{rest:path}", "GET /v1/files/{id}"]


def test_a_route_that_is_wider_than_the_one_listed_is_told() -> None:
    async def rest(request: Any) -> None: ...

    app = Starlette(
        routes=[
            Route("/v1/process", handler, methods=["POST"]),
            Route("/v1/files/{name:path}", rest),
            Route("/healthz", handler),
        ]
    )
    (found,) = [each for each in route_findings(app, parse(ACTION).catalog) if "files" in str(each)]
    assert (found.level, found.where) == (Level.WARNING, "GET /v1/files/{name:path}")
    assert found.message.startswith('is only in part what "GET /v1/files/{id}" lists')
    assert found.fix == 'write "GET /v1/files/{name:path}"'
    wide = ACTION.replace("{id}", "{rest:path}")
    assert lines_of(app, wide)["GET /v1/files/{name:path}"].startswith("priced")
    narrow = Starlette(routes=[Route("/v1/files/a-{x}", rest)])  # narrower is no fault
    assert lines_of(narrow)["GET /v1/files/a-{x}"].startswith("priced")


async def test_an_action_that_a_handler_is_marked_with_needs_no_routes() -> None:
    text = BASE + ACTION + '[actions.other]\nprice = "2"\n[actions.none]\nprice = "2"\n'
    config = parse(text)
    app = Starlette(routes=[Route("/marked", Headgate(config).action("other")(lambda request: None))])

    def without_routes(findings: list[Finding]) -> list[str]:
        return [each.where for each in findings if each.message.startswith("has no routes: it is sold")]

    assert without_routes(await check(config)) == ["actions.other", "actions.none"]
    assert without_routes(await check(config, app=app)) == ["actions.none"]


def test_marks_price_a_route_and_contradictions_are_errors() -> None:
    text = ACTION + '[actions.other]\nprice = "2"\nunit = "page"\nper = 5\n'
    config = parse(BASE + text)
    mark = Headgate(config).action("other")
    app = Starlette(
        routes=[
            Route("/marked", mark(lambda request: None)),
            Route("/v1/process", mark(lambda request: None), methods=["POST"]),
        ]
    )
    findings = list(route_findings(app, config.catalog))
    found = {finding.where: finding for finding in findings}
    assert found["GET /marked"].message == "priced: other, 2.000000 USD for 5 page"
    assert found["POST /v1/process"].level is Level.ERROR
    without = list(route_findings(app, parse(ACTION).catalog))
    assert "no action" in next(finding.message for finding in without if finding.where == "GET /marked")


class BearerAuth:
    def __init__(self, app: Any) -> None:
        self.app = app


def order(*middleware: Any, sells_x402: bool = True) -> list[tuple[Level, str]]:
    """Findings for middleware given the outermost first."""
    app = Starlette(middleware=[Middleware(entry) for entry in middleware])
    return [
        (finding.level, finding.message) for finding in middleware_order_findings(app, sells_x402=sells_x402)
    ]


def test_the_documented_order_has_no_faults() -> None:
    g = gate()
    app = FastAPI()
    app.add_middleware(g.middleware, identify=lambda request: None)
    app.add_middleware(g.optional_auth(BearerAuth))
    app.add_middleware(CORSMiddleware)
    assert list(middleware_order_findings(app)) == []


def test_what_is_wrong_with_an_order() -> None:
    g = gate()
    assert [level for level, _ in order(g.middleware, BearerAuth)] == [Level.ERROR]
    assert [level for level, _ in order(g.middleware, g.optional_auth(BearerAuth))] == [Level.ERROR]
    assert [level for level, _ in order(BearerAuth)] == [Level.ERROR]
    assert order()[0][1].startswith("Headgate is not installed")
    assert [level for level, _ in order(BearerAuth, g.middleware)] == [Level.WARNING]
    assert order(BearerAuth, g.middleware, sells_x402=False) == []
    assert [level for level, _ in order(AuthenticationMiddleware, g.middleware, g.middleware)] == [
        Level.ERROR,
        Level.WARNING,
    ]
    cors = order(g.optional_auth(BearerAuth), g.middleware, CORSMiddleware)
    assert [level for level, _ in cors] == [Level.WARNING]
    assert "browsers" in cors[0][1]
    assert [level for level, _ in order(g.middleware)] == [Level.INFO]


OURS = ["PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "Headgate-Receipt"]
CORS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),  # lets no origin in
    ({"allow_headers": ["*"]}, []),  # exposes nothing: what Headgate exposes stays
    ({"allow_headers": ["payment-signature"]}, []),
    ({"allow_headers": ["*"], "expose_headers": OURS}, []),
    ({"allow_headers": ["*"], "expose_headers": [each.lower() for each in OURS] + ["X-Own"]}, []),
    ({"allow_headers": ["*"], "expose_headers": ["*"]}, []),
    (
        {"allow_headers": ["*"], "expose_headers": ["*"], "allow_credentials": True},
        ["keeps PAYMENT-REQUIRED, PAYMENT-RESPONSE, Headgate-Receipt from browsers"],
    ),
    (
        {"allow_headers": ["*"], "expose_headers": ["PAYMENT-RESPONSE"]},
        ["keeps PAYMENT-REQUIRED, Headgate-Receipt"],
    ),
    ({"allow_headers": ["Authorization"]}, ["does not let browsers send PAYMENT-SIGNATURE"]),
    ({"expose_headers": OURS}, ["does not let browsers send PAYMENT-SIGNATURE"]),
    ({"expose_headers": ["X-Own"]}, ["keeps PAYMENT-REQUIRED", "does not let browsers send"]),
]


@pytest.mark.parametrize(("given", "told"), CORS, ids=repr)
def test_what_browsers_may_send_and_read(given: dict[str, Any], told: list[str]) -> None:
    app = Starlette()
    app.add_middleware(gate().middleware)
    app.add_middleware(
        CORSMiddleware, **({"allow_origins": ["https://shop.example"], **given} if given else {})
    )
    found = [each for each in middleware_order_findings(app) if each.level is Level.WARNING]
    assert len(found) == len(told)
    assert all(words in finding.message for words, finding in zip(told, found, strict=True))
    assert not any("CORS" in str(each) for each in middleware_order_findings(app, sells_x402=False))


def test_what_browsers_should_read_is_what_headgate_exposes() -> None:
    exposed = EXPOSED[1].decode().split(", ")
    assert set(EXPOSED_HEADERS) < set(exposed)


async def test_the_application_is_part_of_the_check() -> None:
    found = await check(parse(BASE + ACTION), app=FastAPI())
    assert any("Headgate is not installed" in line for line in errors(found))
    assert any("is no route of the application" in line for line in warnings(found))
