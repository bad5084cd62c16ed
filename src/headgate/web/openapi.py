"""OpenAPI with prices: the application's own document decorated, or one made of the catalog's routes.

Each operation that can be paid for carries `x-payment-info` in the structured form that agents' discovery
reads (`price` with an ISO currency, `protocols` as objects), a 402 answer, and `security` that lets a caller
in without credentials. Nothing else of the application's document is touched.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from headgate.model.catalog import Action, Route
from headgate.model.money import format_usd
from headgate.model.routing import Match, routes_of
from headgate.web.listing import Sold, charged_text, price_text, spelled_out

Json = dict[str, Any]
METHODS = ("get", "put", "post", "delete", "patch", "head", "options", "trace")
PAYMENT_INFO = "x-payment-info"
_WILD = re.compile(r"\{([^{}]*)\}")
PAYMENT_REQUIRED: Json = {
    "description": "Payment required: the x402 offer, in the PAYMENT-REQUIRED header and as the body.",
    "headers": {"PAYMENT-REQUIRED": {"description": "base64", "schema": {"type": "string"}}},
    "content": {"application/json": {"schema": {"type": "object"}}},
}
UNAUTHORIZED: Json = {"description": "The credentials are missing or not valid."}


def payment_info(action: Action) -> Json:
    """`x-payment-info` of an action; a variable cost is anything from nothing up to its ceiling."""
    ceiling = format_usd(action.x402_ceiling_micros)
    price = (
        {"mode": "dynamic", "currency": "USD", "min": format_usd(0), "max": ceiling}
        if action.variable
        else {"mode": "fixed", "currency": "USD", "amount": ceiling}
    )
    return {"price": price, "protocols": [{"x402": {}}]}


# --- the application's own document -----------------------------------------------------------------


def decorated(document: Any, sold: Sold) -> Json | None:
    """The document with prices on what is sold; None where it is no OpenAPI 3 document to be read."""
    if not isinstance(document, dict) or not str(document.get("openapi", "")).startswith("3."):
        return None
    if not isinstance(document.get("paths"), dict):
        return None
    everywhere = document.get("security")
    bases = ["", *_base_paths(document.get("servers"))]
    paths: Json = {}
    for path, item in document["paths"].items():
        paths[path] = item
        if isinstance(item, dict):
            paths[path] = {
                key: _operation(operation, _matched(sold, key, path, bases), sold, everywhere)
                if key in METHODS and isinstance(operation, dict)
                else operation
                for key, operation in item.items()
            }
    return {**document, "paths": paths}


def _base_paths(servers: Any) -> list[str]:
    """The paths below which a document's own paths lie."""
    listed = servers if isinstance(servers, list) else []
    urls = [server.get("url") for server in listed if isinstance(server, dict)]
    found = [urlsplit(url).path.rstrip("/") for url in urls if isinstance(url, str) and "{" not in url]
    return [path for path in dict.fromkeys(found) if path]


def _matched(sold: Sold, method: str, path: str, bases: list[str]) -> Match:
    found = Match()
    for base in bases:
        found = sold.asked_by(method, base + path)
        if found.listed:
            break
    return found


def _operation(operation: Json, match: Match, sold: Sold, everywhere: Any) -> Json:
    """One operation, with its price if it is sold; where security is not spoken of, that is said."""
    action = match.action
    declared = operation.get("security", everywhere)
    if match.free or (action is not None and action.free):
        return operation if declared else {**operation, "security": []}
    if action is None or not sold.payable(action.name):
        return operation
    ours = payment_info(action)
    theirs = operation.get(PAYMENT_INFO)
    if isinstance(theirs, dict):  # another payment protocol's dialect may share the route
        others = theirs.get("protocols")
        kept = [
            each
            for each in (others if isinstance(others, list) else [])
            if each not in ("x402", {"x402": {}})
        ]
        ours = {**theirs, **ours, "protocols": [*ours["protocols"], *kept]}
    responses = operation.get("responses")
    return {
        **operation,
        "responses": {"402": PAYMENT_REQUIRED} | (responses if isinstance(responses, dict) else {}),
        "security": _optional(declared),
        PAYMENT_INFO: ours,
    }


def _optional(security: Any) -> list[Any]:
    """A security requirement that a caller without credentials meets too: with an empty one among them."""
    if not isinstance(security, list) or not security:
        return []
    return security if {} in security else [{}, *security]


# --- a document of the catalog's own ------------------------------------------------------------------


def generated(sold: Sold) -> Json:
    """An OpenAPI 3.1 document of every priced and declared-free route."""
    paths: dict[str, Json] = {}
    spelled: dict[str, str] = {}
    ids: set[str] = set()
    keyed = False
    for route, action in routes_of(sold.catalog):
        if route.method.lower() not in METHODS:
            continue  # OpenAPI 3.1 has no place for other methods
        path = spelled_out(route.pattern)
        path = spelled.setdefault(_WILD.sub("{}", path), path)  # one spelling for paths that differ in names
        payable = action is not None and not action.free and sold.payable(action.name)
        operation = _made(route, action, path, payable=payable)
        operation["operationId"] = _unique(ids, f"{route.method.lower()} {path}")
        keyed = keyed or bool(operation["security"])
        paths.setdefault(path, {})[route.method.lower()] = operation
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": sold.name or "API",
            "version": str(sold.catalog.version),
            "description": "The routes of this API that have a price, and those declared free.",
            "x-guidance": sold.guidance,
        },
        "paths": paths,
    }
    if sold.public_url:
        document["servers"] = [{"url": sold.public_url}]
        document["x-agentcash-guidance"] = {"llmsTxtUrl": sold.public_url + "/llms.txt"}
    if keyed:
        document["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
    return document


def _made(route: Route, action: Action | None, path: str, *, payable: bool) -> Json:
    mime_type = "application/json" if action is None else action.mime_type
    responses: Json = {"200": {"description": "The answer.", "content": {mime_type: {"schema": {}}}}}
    operation: Json = {"summary": "Free of charge" if action is None else action.title}
    names = list(dict.fromkeys(_WILD.findall(path)))
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.method in ("POST", "PUT", "PATCH"):
        operation["requestBody"] = {"content": {"*/*": {"schema": {}}}}
    operation |= {"responses": responses, "security": []}
    if action is not None and not action.free:
        operation["description"] = price_text(action)
        responses["401"] = UNAUTHORIZED
    if action is not None and payable:
        responses["402"] = PAYMENT_REQUIRED
        operation["description"] += f". {charged_text(action)}"
        operation[PAYMENT_INFO] = payment_info(action)
    elif action is not None and not action.free:
        operation["security"] = [{"key": []}]
    return operation


def _unique(taken: set[str], text: str) -> str:
    name = base = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    count = 1
    while name in taken:
        count += 1
        name = f"{base}_{count}"
    taken.add(name)
    return name
