"""`headgate init`: a commented `headgate.toml` to start from, with a route for each operation of an API.

What is written loads without a problem, in test mode on the embedded facilitator. Prices are placeholders to
be looked at, and so is the recipient: a published development account, which live mode refuses.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgate.config import DEFAULT_FILE, parse
from headgate.model.errors import AlreadyExists, ConfigError, InputError, NotFound
from headgate.model.path_pattern import RouteFault, parse_pattern, parse_route

PLACEHOLDER_PRICE = "0.01"
PLACEHOLDER_PAY_TO = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
"""A development account whose key is public: good for play money, refused in live mode."""
_METHODS = ("get", "put", "post", "delete", "patch")
_FREE = re.compile(
    r"(?:/(?:api|_|v[0-9]+)){0,2}/(?:health|healthz|livez|readyz|ping|status|metrics|version|openapi\.json)"
)
_MAX_DOCUMENT_BYTES = 32 * 1024 * 1024

_HEAD = """\
# Headgate sells one API through three channels: seat, overage, x402.
# `headgate check` says what is wrong with this file, all at once. Secrets are not written here; they come
# from the environment: HEADGATE_ADMIN_TOKEN, HEADGATE_DATABASE_URL, or "${NAME}" where a key may hold one.

mode = "test"                        # "live" takes real money; fixed when the store is created
# usage_headers = true               # show customers their allowance in RateLimit headers
# idempotency   = "replay"           # honour customers' Idempotency-Key

[seller]
name       = %(name)s
public_url = %(public_url)s   # where buyers reach this API; the only origin written into offers
time_zone  = "UTC"                   # of your accounting months
# no_subscription = "pass"           # a customer without any contract: "pass", "x402" or "block"
# renewal_grace   = "14 days"        # how long one is served after its contract ended

[store]
url = "sqlite:///headgate.db"
# on_failure = "refuse"              # customers while the store is out of reach: "refuse" or "serve"

[x402]                               # what agents without credentials pay; optional
pay_to      = "%(pay_to)s"   # PLACEHOLDER: your own address
network     = "base-sepolia"         # later "polygon", "base", or a list of networks
facilitator = "embedded"             # play money in this process; later "polygon", or a URL
# quote_ttl = "5 min"                # how long an old price is honoured
# [x402.networks."eip155:8453"]      # what differs on one network: pay_to, facilitator, rpc_url
# facilitator = "https://…"
# facilitator_headers = { Authorization = "Bearer ${FACILITATOR_KEY}" }

# [auth]                             # who callers are, unless your application tells (`identify`)
# jwks_url       = "https://login.example.com/.well-known/jwks.json"
# audience       = "api"
# customer_claim = "sub"
"""

_ACTIONS = """
# What is sold. One list price, the same in every channel: USD for `per` units (1 if absent), at most six
# places, in quotes; or price = "free". PLACEHOLDER prices below: look at each of them.
"""

_VARIABLE = """
# Variable cost: the price is for what was used, up to max_units a request.
# [actions."chat.complete"]
# unit      = "token"
# price     = "0.002"
# per       = 1000
# max_units = 25000
# measure   = "json:/usage/total_tokens"   # or "header", "bytes", "code"
# routes    = ["POST /v1/chat"]
"""

_PLANS = """
# What contracts include, and what comes beyond: "overage", "x402" or "block".
[plans.team]
title             = "Team"
term              = "1 year"
billing_period    = "month"
price_per_seat    = "49.00"
included_per_seat = { %(action)s = 500 }
beyond            = "overage"
# overage_cap     = "1000.00"        # per billing period
# beyond_cap      = "block"
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of an API: what is sold, or declared free."""

    action: str
    title: str
    route: str
    free: bool


@dataclass(frozen=True, slots=True)
class InitReport:
    """What was written, what could not be taken over, and what to do next, a line each."""

    path: Path
    actions: tuple[str, ...]
    skipped: tuple[str, ...]
    next_steps: tuple[str, ...]


def write_config(directory: Path, openapi: Path | None = None) -> InitReport:
    """Write `headgate.toml` into a directory, making it if need be.

    Raises:
        AlreadyExists: there is one; it is left alone.
        NotFound, InputError: the OpenAPI document cannot be read.
    """
    path = directory / DEFAULT_FILE
    if path.exists():
        raise AlreadyExists(
            f"{path} exists already and is left as it is; move it away, or name another directory"
        )
    document = {} if openapi is None else read_openapi(openapi)
    operations, skipped = operations_of(document)
    text = configuration(document, operations)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise AlreadyExists(f"{path} appeared meanwhile and is left as it is") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); name a directory that can") from error
    sold = tuple(dict.fromkeys(one.action for one in operations if not one.free)) or ("documents.process",)
    return InitReport(path, sold, skipped, _next_steps(path, skipped))


def _next_steps(path: Path, skipped: tuple[str, ...]) -> tuple[str, ...]:
    steps = [
        f"look at the prices in {path}: they are placeholders",
        "write your own address as pay_to",
        f"headgate check -c {path} --app your.module:app",
    ]
    if skipped:
        steps.insert(1, f"add by hand what could not be taken over ({len(skipped)}), if it is to be sold")
    return tuple(steps)


def read_openapi(path: Path) -> Mapping[str, Any]:
    """An OpenAPI document, in JSON or (where PyYAML is installed) YAML.

    Raises:
        NotFound, InputError: it is not there, too large, or no OpenAPI document.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; name the OpenAPI document of your API") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name a file") from error
    if len(content) > _MAX_DOCUMENT_BYTES:
        raise InputError(f"{path} is larger than 32 MiB; is it an OpenAPI document?")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = _read_yaml(path, content)
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise InputError(f"{path} has no `paths`; name an OpenAPI document (version 2 or 3)")
    return document


def _read_yaml(path: Path, content: bytes) -> Any:
    try:
        yaml = importlib.import_module("yaml")  # optional: JSON needs nothing
    except ModuleNotFoundError:
        raise InputError(f"{path} is not JSON; for YAML: pip install pyyaml") from None
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is neither JSON nor YAML; name an OpenAPI document") from error


def operations_of(document: Mapping[str, Any]) -> tuple[tuple[Operation, ...], tuple[str, ...]]:
    """The operations of a document, one per route; and those that cannot be routes here, with the reason."""
    operations: list[Operation] = []
    skipped: list[str] = []
    seen: set[tuple[str, str]] = set()
    for method, path, entry in _entries(document):
        route = f"{method.upper()} {path}"
        try:
            listed = parse_route(route)
            sample = parse_pattern(listed.pattern).sample
        except RouteFault as fault:
            skipped.append(f"{route}: {fault.what}")
            continue
        if (method, sample) in seen:
            skipped.append(f"{route}: the same as an earlier one, but for the names of its parameters")
            continue
        seen.add((method, sample))
        name = _action_name(method, path, entry)
        title = entry.get("summary") if isinstance(entry.get("summary"), str) else None
        free = method == "get" and _FREE.fullmatch(path) is not None
        operations.append(Operation(name, _one_line(title) or name, str(listed), free))
    return _without_crossings(operations, skipped), tuple(skipped)


def _without_crossings(operations: list[Operation], skipped: list[str]) -> tuple[Operation, ...]:
    """What Headgate cannot tell apart is left out: two patterns that match some of the same paths."""
    kept: list[Operation] = []
    patterns: list[tuple[str, Any]] = []
    for one in operations:
        method, _, path = one.route.partition(" ")
        pattern = parse_pattern(path)
        crossing = next(
            (
                other
                for other, (other_method, known) in zip(kept, patterns, strict=True)
                if other_method == method
                and not (pattern.static or known.static)
                and pattern.overlaps(known)
                and not pattern.contains(known)
                and not known.contains(pattern)
            ),
            None,
        )
        if crossing is not None:
            skipped.append(f"{one.route}: matches some of the same paths as {crossing.route}")
            continue
        kept.append(one)
        patterns.append((method, pattern))
    return tuple(kept)


def _entries(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(method, path, operation), paths with the prefix that the document gives all of them."""
    prefix = _prefix(document)
    for path, item in document.get("paths", {}).items():
        if not isinstance(path, str) or not isinstance(item, dict):
            continue
        whole = (prefix + path).rstrip("/") or "/"
        for method in _METHODS:
            entry = item.get(method)
            if isinstance(entry, dict):
                yield method, whole, entry


def _prefix(document: Mapping[str, Any]) -> str:
    """The path part of the first server (version 3), or `basePath` (version 2)."""
    found = document.get("basePath")
    servers = document.get("servers")
    if isinstance(servers, list) and servers and isinstance(servers[0], dict):
        url = servers[0].get("url")
        if isinstance(url, str) and "{" not in url:
            found = re.sub(r"^[a-z]+://[^/]*", "", url)
    return found.rstrip("/") if isinstance(found, str) and found.startswith("/") else ""


def _action_name(method: str, path: str, entry: Mapping[str, Any]) -> str:
    """`operationId` in dots, or method and path: `post.v1.documents`."""
    stated = entry.get("operationId")
    text = stated if isinstance(stated, str) and stated.strip() else f"{method}.{path}"
    name = re.sub(r"[^A-Za-z0-9_-]+", ".", re.sub(r"[{}]", "", text)).strip("._-")
    return name[:100] or f"{method}.root"


def _one_line(text: str | None) -> str | None:
    shown = "".join(character if character.isprintable() else " " for character in text or "")
    return " ".join(shown.split())[:200] or None


def configuration(document: Mapping[str, Any], operations: tuple[Operation, ...]) -> str:
    """The text of `headgate.toml`. Without operations it sells one example action."""
    info = document.get("info")
    name = _one_line(
        info.get("title") if isinstance(info, dict) and isinstance(info.get("title"), str) else None
    )
    head = _HEAD % {
        "name": _quoted(name or "My API"),
        "public_url": _quoted(_origin(document)),
        "pay_to": PLACEHOLDER_PAY_TO,
    }
    sold = [one for one in operations if not one.free]
    if not operations:
        sold = [Operation("documents.process", "Document processed", "POST /v1/documents/process", False)]
    free = [one.route for one in operations if one.free] or (["GET /healthz"] if not operations else [])
    by_action: dict[str, list[Operation]] = {}
    for one in sold:
        by_action.setdefault(one.action, []).append(one)
    parts = [head, _ACTIONS, *(_action_text(name, ones) for name, ones in by_action.items()), _VARIABLE]
    parts.append(
        f"\n[routes]\nfree = [{', '.join(map(_quoted, free))}]   # open to everybody, never counted\n"
    )
    if by_action:
        parts.append(_PLANS % {"action": _quoted(next(iter(by_action)))})
    text = "".join(parts)
    _ensure_it_loads(text)
    return text


def _action_text(name: str, ones: list[Operation]) -> str:
    routes = ", ".join(_quoted(one.route) for one in ones)
    return (
        f"\n[actions.{_quoted(name)}]\ntitle  = {_quoted(ones[0].title)}\n"
        f'price  = "{PLACEHOLDER_PRICE}"\nroutes = [{routes}]\n'
    )


def _origin(document: Mapping[str, Any]) -> str:
    servers = document.get("servers")
    url = (
        servers[0].get("url")
        if isinstance(servers, list) and servers and isinstance(servers[0], dict)
        else None
    )
    found = re.match(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(?=/|$)", url) if isinstance(url, str) else None
    return found[0] if found else "https://api.example.com"


def _quoted(text: str) -> str:
    """A TOML string; JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _ensure_it_loads(text: str) -> None:
    try:
        parse(text)
    except ConfigError as error:
        raise InputError(f"this API's document gives a configuration that does not load: {error}") from error
