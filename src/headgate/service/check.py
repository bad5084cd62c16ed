"""`headgate check`: what stands between this configuration and its first sale, and before real money.

The configuration itself was checked when it was loaded. Here it is held against the world: what buyers'
clients accept, whether the facilitator answers and can do what is offered, what is published, and what the
application really routes. Findings are facts with a place and a fix; only an `error` keeps one from selling.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from headgate.config import Config, X402Config
from headgate.config.reader import path_of
from headgate.model.assets import KNOWN_ASSETS
from headgate.model.catalog import Action, Catalog, Route
from headgate.model.catalog_diff import diff_catalogs
from headgate.model.errors import InputError
from headgate.model.money import MICROS, format_usd
from headgate.service.check_app import app_findings, marked_actions
from headgate.service.check_facilitator import facilitator_findings
from headgate.service.finding import Finding, Level
from headgate.service.storefront import route_declared, written_offers
from headgate.x402.offer import HEADER_LIMIT, build_offers, resource_url

CLIENT_CAP_MICROS = MICROS
"""What the common clients pay at most for one request unless told otherwise."""
CLIENT_NETWORKS = frozenset({"eip155:137", "eip155:8453", "eip155:84532"})
"""Where the common clients know USDC without being told."""
PROXY_HEADER_BYTES = 4000
"""What fits the default header buffers of common reverse proxies."""
WILDCARD_LENGTH = 36
_ANY_ADDRESS = "0x" + "11" * 20
_WILD = re.compile(r"\{[^{}]*\}")


async def run_check(
    config: Config,
    *,
    now_us: Callable[[], int],
    app: Any = None,
    live: bool = False,
    published: Catalog | None = None,
) -> list[Finding]:
    """Everything found, errors first. `published` is the catalog in force, if there is a store with one.

    `live` adds the checklist for real money. Asks facilitators and nodes; never raises for what they answer.
    """
    findings = [
        *config_findings(config, frozenset() if app is None else marked_actions(app)),
        *unbuilt_findings(config),
        *offer_findings(config),
        *drift_findings(config, published),
        *await facilitator_findings(config, now_us),
        *(live_findings(config) if live else ()),
        *(app_findings(app, config) if app is not None else ()),
    ]
    return sorted(findings, key=lambda finding: list(Level).index(finding.level))


def config_findings(config: Config, marked: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """What is allowed, and still deserves a word. `marked` are the actions that handlers are marked with."""
    catalog = config.catalog
    if not catalog.actions:
        yield Finding.error("actions", "nothing is sold", 'add [actions."…"] with a price and routes')
    for action in catalog.actions.values():
        if not action.routes and action.name not in marked:
            yield Finding.info(
                path_of("actions", action.name),
                "has no routes: it is sold where a handler is marked @gate.action, or recorded",
                f'for a route of the file, add routes = ["POST /v1/{action.name.replace(".", "/")}"]',
            )
    for plan in catalog.plans.values():
        for name in sorted({*plan.included, *plan.included_per_seat}):
            if catalog.actions[name].free:
                yield Finding.warning(
                    path_of("plans", plan.name),
                    f"includes units of {name}, which is free",
                    "remove them there",
                )
    if config.x402 is None:
        yield Finding.info(
            "x402",
            "is absent: callers without credentials get 401",
            "add [x402] with pay_to to sell to agents",
        )
    if config.auth.jwks_url and not config.auth.audience:
        yield Finding.warning(
            "auth.audience",
            "is not set: a token the same issuer made for another service is accepted here",
            'write audience = "…", as your tokens carry it',
        )
    if config.gateway.unlisted == "pass" and catalog.actions:
        yield Finding.warning(
            "gateway.unlisted",
            'is "pass": an upstream that ignores letter case serves /V1/X free where /v1/x is priced',
            'write "404" and list the free routes, unless the upstream tells cases apart',
        )


def unbuilt_findings(config: Config) -> Iterator[Finding]:
    """What a file may say already and this version does not do yet. A row goes when its feature comes."""
    said = [
        (config.store.on_failure == "serve", "store.on_failure", "customers get 503 while the store is away"),
        (config.idempotency == "replay", "idempotency", "each answer is billed"),
    ]
    for applies, where, instead in said:
        if applies:
            yield Finding.error(where, f"is not built yet: {instead}", "remove it")


def offer_findings(config: Config) -> Iterator[Finding]:
    """What buyers' clients would refuse in an offer."""
    if config.x402 is None:
        return
    for network in config.x402.networks:
        yield from _asset_findings(network.asset.network, network.asset)
        if not config.live and not network.asset.test:
            yield Finding.warning(
                "x402.network",
                f"{network.caip2} ({network.asset.title}) takes real money, and mode is test",
                'write mode = "live" for it (in a store of its own), or offer a test network',
            )
    for action in config.catalog.actions.values():
        if not action.free:
            yield from _action_findings(config, action)


def _asset_findings(caip2: str, asset: Any) -> Iterator[Finding]:
    where = path_of("x402", "networks", caip2)
    known = KNOWN_ASSETS.get(caip2)
    same = known is not None and known.address == asset.address
    if caip2 not in CLIENT_NETWORKS or not same:
        yield Finding.warning(
            where,
            f"common clients do not know {asset.name} at {asset.address} there and may refuse to pay",
            "offer USDC on Polygon, Base or Base Sepolia as well, or tell buyers to allow this token",
        )
    if known is not None and same and (known.name, known.version) != (asset.name, asset.version):
        yield Finding.error(
            where,
            f"names the token's domain {asset.name!r} version {asset.version!r}: no signature will be valid",
            f'write name = "{known.name}", version = "{known.version}"',
        )


def _action_findings(config: Config, action: Action) -> Iterator[Finding]:
    assert config.x402 is not None
    where = path_of("actions", action.name)
    ceiling = action.x402_ceiling_micros
    if action.measure is not None and action.measure.kind == "json" and action.on_unmeasured == "fail":
        yield Finding.info(
            path_of("actions", action.name, "on_unmeasured"),
            f'is "fail": an answer without a number at {action.measure.pointer} is served for nothing',
            "let the application always state it (a model's client may have to ask for usage in streams), "
            'or write on_unmeasured = "ceiling"',
        )
    if ceiling > CLIENT_CAP_MICROS:
        yield Finding.warning(
            where,
            f"asks {format_usd(ceiling)} USD for one request; common clients pay up to 1 USD unless told",
            "lower the price"
            + (" or max_units" if action.variable else "")
            + ", or tell buyers to raise their cap",
        )
    try:
        size = max(_header_sizes(config, config.x402, action))
    except InputError as error:
        yield Finding.error(
            where, f"cannot be offered: {error}", "shorten the title, or offer fewer networks"
        )
        return
    if size > PROXY_HEADER_BYTES:
        yield Finding.warning(
            where,
            f"needs a PAYMENT-REQUIRED header of {size} bytes; many proxies take 4 KiB, none {HEADER_LIMIT}",
            "shorten title and description, offer fewer networks, or raise the proxy's header buffer",
        )


def _header_sizes(config: Config, settings: X402Config, action: Action) -> Iterator[int]:
    """The size of PAYMENT-REQUIRED on each of an action's routes, as far as it is known before any request.

    Each wildcard stands for a text as long as a UUID; facilitators are taken to settle whatever there is.
    """
    networks = [
        replace(network, facilitator_address=_ANY_ADDRESS, gas_sponsored=True)
        for network in settings.offers()
    ]
    offers = build_offers(action, networks)
    for route in action.routes or (Route("POST", "/" + action.name),):  # a mark's route is not in the file
        path = _WILD.sub("x" * WILDCARD_LENGTH, route.pattern)
        url = resource_url(config.seller.public_url, path)
        declared = route_declared(route, path, action.mime_type) if config.discovery else {}
        mime_type = action.mime_type
        yield len(written_offers(offers, url, mime_type=mime_type, declared=declared).header_value)


def drift_findings(config: Config, published: Catalog | None) -> Iterator[Finding]:
    """How the file differs from the catalog that is sold."""
    if published is None:
        yield Finding.info(
            "catalog", "no catalog is published in this store yet", "the first start publishes the file's"
        )
        return
    for change in diff_catalogs(published, config.catalog):
        yield Finding.warning(
            change.where,
            f"catalog {published.version}, which is sold, says {_shown(change.before)}; the file says "
            f"{_shown(change.after)}",
            "`headgate publish --dry-run` shows what publishing the file would touch",
        )


def _shown(text: str | None) -> str:
    return "nothing" if text is None else f'"{text}"'


def live_findings(config: Config) -> Iterator[Finding]:
    """The checklist before real money."""
    if not config.live:
        yield Finding.error(
            "mode", "is test: no real money is taken", 'write mode = "live", and use a new store'
        )
    if not config.seller.public_url.startswith("https://"):
        yield Finding.error(
            "seller.public_url", "is not an https:// origin", "write the address buyers reach"
        )
    if config.x402 is None:
        yield Finding.error(
            "x402", "is absent: nothing is sold by payment", "add [x402] with pay_to and network"
        )
    if config.store.url.startswith("sqlite:///") and not Path(config.store.url[10:]).is_absolute():
        yield Finding.warning(
            "store.url",
            "is relative to the directory of each start",
            'write an absolute path: "sqlite:////var/…"',
        )
    if importlib.util.find_spec("coincurve") is None:
        yield Finding.error(
            "coincurve", "is not installed: each signature takes 5 ms", "pip install coincurve"
        )
