"""Holding an application against the configuration: its routes, and where Headgate stands in its middleware.

Middleware added last runs first. Headgate has to run after the seller's auth, or it sees nobody (failure
case 54); CORS has to run before Headgate, or no browser can read a 402.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headgate.config import Config
from headgate.config.reader import path_of
from headgate.model.catalog import Action, Catalog, Route
from headgate.model.money import format_usd
from headgate.model.path_pattern import RouteFault, parse_pattern
from headgate.model.routing import Match, RouteTable, routes_of
from headgate.service.app_routes import AppRoute, app_routes
from headgate.service.finding import Finding

ACTION_MARK = "__headgate_action__"
"""The attribute `@gate.action` leaves on a handler."""
EXPOSED_HEADERS = ("PAYMENT-REQUIRED", "PAYMENT-RESPONSE", "Headgate-Receipt")
PAYMENT_HEADER = "PAYMENT-SIGNATURE"
_FRAMEWORKS = ("fastapi.", "starlette.", "litestar.")
_AUTH = re.compile(r"auth|jwt|oidc|login|identity|session|token", re.IGNORECASE)
_ORDER = (
    "add Headgate first and the auth after it (the last one added runs first): "
    "app.add_middleware(gate.middleware, …); app.add_middleware(gate.optional_auth(YourAuth))"
)


def app_findings(app: Any, config: Config) -> list[Finding]:
    """Every route of the application: priced, free or not listed; then the order of its middleware."""
    return [
        *route_findings(app, config.catalog),
        *middleware_order_findings(app, sells_x402=config.x402 is not None),
    ]


def route_findings(app: Any, catalog: Catalog) -> Iterator[Finding]:
    """One finding per route, and one for each route of the file that the application does not have."""
    table, served = RouteTable(catalog), set()
    routes = list(app_routes(app))
    if not routes:
        yield Finding.warning(
            "application", "has no routes that can be listed", "name the application object itself"
        )
    for route in routes:
        marked = marked_action(route.handler)
        if marked is not None and marked not in catalog.actions:
            yield Finding.error(
                str(route), f'is marked "{marked}", which is no action', f"add [{path_of('actions', marked)}]"
            )
            continue
        match = _match(table, route)
        if match.route is not None:
            served.add(match.route)
        yield _route_finding(route, match, catalog.actions.get(marked or ""))
    for listed, action in routes_of(catalog):
        if listed not in served:
            where = path_of("routes", "free") if action is None else path_of("actions", action.name, "routes")
            yield Finding.warning(
                where, f'"{listed}" is no route of the application', "correct it, or remove it"
            )


def marked_action(handler: Any) -> str | None:
    """The action a handler is marked with, also under decorators."""
    for _ in range(20):
        found = getattr(handler, ACTION_MARK, None)
        if isinstance(found, str):
            return found
        handler = getattr(handler, "__wrapped__", None) or getattr(handler, "func", None)
        if handler is None:
            break
    return None


def marked_actions(app: Any) -> frozenset[str]:
    """The actions that handlers of the application are marked with."""
    return frozenset(filter(None, (marked_action(route.handler) for route in app_routes(app))))


def _match(table: RouteTable, route: AppRoute) -> Match:
    """What the file says of a route of the application, wildcards taken for ordinary text."""
    try:
        return table.match(route.method, parse_pattern(route.path).sample)
    except RouteFault:  # a path Headgate could not be told of, so it was not
        return Match()


def _covers(listed: Route, route: AppRoute) -> bool:
    """Whether everything a route of the application answers is what the file lists."""
    return parse_pattern(listed.pattern).contains(parse_pattern(route.path))


def _route_finding(route: AppRoute, match: Match, marked: Action | None) -> Finding:
    if marked is not None and match.action is not None and match.action.name != marked.name:
        return Finding.error(
            str(route),
            f"is marked {marked.name}, and the file lists it for {match.action.name}",
            "keep the mark or the route, not both",
        )
    if marked is None and match.route is not None and not _covers(match.route, route):
        return Finding.warning(
            str(route),
            f'is only in part what "{match.route}" lists: the rest of it is left to the application',
            f'write "{match.route.method} {route.path}"',
        )
    action = marked or match.action
    if action is not None:
        price = (
            "free" if action.free else f"{format_usd(action.price_micros)} USD for {action.per} {action.unit}"
        )
        return Finding.info(str(route), f"priced: {action.name}, {price}")
    if match.free:
        return Finding.info(str(route), "free")
    module = getattr(route.handler, "__module__", None) or ""
    if module.startswith(_FRAMEWORKS):
        return Finding.info(str(route), "not listed: the framework's own, left to the application")
    return Finding.warning(
        str(route),
        "not listed: left to the application, unpriced",
        "add it to an action's routes, or to [routes] free to say that this is meant",
    )


# --- middleware -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layer:
    """One middleware of an application. `role`: gate, optional_auth, auth, cors or other."""

    name: str
    role: str


def middleware_order_findings(app: Any, *, sells_x402: bool = True) -> Iterator[Finding]:
    """Whether Headgate stands inside the auth and inside CORS, in a Starlette or FastAPI application."""
    declared = getattr(app, "user_middleware", None)
    if declared is None:
        yield Finding.info(
            "middleware",
            "cannot be listed for this kind of application",
            "see that Headgate runs after the auth",
        )
        return
    layers = [_layer(getattr(entry, "cls", entry)) for entry in declared]
    gates = [place for place, layer in enumerate(layers) if layer.role == "gate"]
    if not gates:
        yield Finding.error(
            "middleware",
            "Headgate is not installed: nothing is gated",
            "app.add_middleware(gate.middleware, …)",
        )
        return
    if len(gates) > 1:
        yield Finding.error("middleware", "Headgate is installed more than once", "add gate.middleware once")
    for place, layer in enumerate(layers):
        yield from _layer_findings(layer, outside=place < gates[0], sells_x402=sells_x402)
        if layer.role == "cors" and place < gates[0] and sells_x402:
            yield from _cors_findings(layer.name, getattr(declared[place], "kwargs", None) or {})
    if not any(layer.role in ("auth", "optional_auth") for layer in layers):
        yield Finding.info(
            "middleware",
            "no auth was recognised: customers are known by `identify`, [auth] or Headgate's own keys",
            "if auth is a dependency of the routes, identify must find the caller by itself",
        )


def _layer_findings(layer: _Layer, *, outside: bool, sells_x402: bool) -> Iterator[Finding]:
    if layer.role in ("auth", "optional_auth") and not outside:
        yield Finding.error(
            "middleware", f"{layer.name} runs inside Headgate, which so never sees who calls", _ORDER
        )
    elif layer.role == "auth" and sells_x402:
        yield Finding.warning(
            "middleware",
            f"{layer.name} may turn away callers without credentials before Headgate can make them an offer",
            "wrap it if it does: app.add_middleware(gate.optional_auth(…))",
        )
    elif layer.role == "cors" and not outside:
        yield Finding.warning(
            "middleware",
            f"{layer.name} runs inside Headgate: browsers cannot read a 402",
            "add it after Headgate, so that it runs first",
        )


def _cors_findings(name: str, given: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether browsers may send a payment and read what it was answered, by Starlette's CORSMiddleware.

    Where it is told what to expose, that replaces what Headgate says; where it is not, Headgate's stays.
    """
    if not {"allow_origins", "allow_origin_regex"} & given.keys():
        return
    literal = bool(given.get("allow_credentials"))  # with credentials `*` is a name like any other
    exposed = {str(each).lower() for each in given.get("expose_headers") or ()}
    missing = [each for each in EXPOSED_HEADERS if each.lower() not in exposed]
    if exposed and missing and (literal or "*" not in exposed):
        yield Finding.warning(
            "middleware",
            f"{name} keeps {', '.join(missing)} from browsers: expose_headers replaces what Headgate exposes",
            f"add them to expose_headers, or leave it out: {list(EXPOSED_HEADERS)}",
        )
    allowed = {str(each).lower() for each in given.get("allow_headers") or ()}
    if not {PAYMENT_HEADER.lower(), "*"} & allowed:
        yield Finding.warning(
            "middleware",
            f"{name} does not let browsers send {PAYMENT_HEADER}: they can read an offer and not pay",
            f'add "{PAYMENT_HEADER}" to allow_headers',
        )


def _layer(cls: Any) -> _Layer:
    """A middleware by what was given to `add_middleware`: a class, a function, a bound method, a partial."""
    while not hasattr(cls, "__name__") and hasattr(cls, "func"):
        cls = cls.func
    name = getattr(cls, "__name__", type(cls).__name__)
    module = getattr(cls, "__module__", "") or ""
    if module == "headgate.web.optional_auth":
        return _Layer(name, "optional_auth")
    if module.startswith("headgate.") and name.lower() == "middleware":
        return _Layer("Headgate", "gate")
    if "cors" in name.lower():
        return _Layer(name, "cors")
    return _Layer(name, "auth" if _AUTH.search(name) else "other")
