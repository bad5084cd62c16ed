"""What is sold, told: addresses with their offers for programs (`/.well-known/x402`), in prose (`/llms.txt`).

Made of a catalog and the offers in force, and of nothing else: there is no second price list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from headgate.model.catalog import Action, Catalog, Route
from headgate.model.money import format_usd
from headgate.model.routing import Match, RouteTable
from headgate.service.storefront import Storefront
from headgate.web.prepaid import settles_first
from headgate.x402.offer import accepts_entry

_WILD = re.compile(r"\{([^{}:]*)(?::[^{}]*)?\}")
_ANY_SEGMENT = "\N{MIDDLE DOT}"
HOW_TO_BUY = (
    "Paid operations answer 402 with an x402 v2 offer in the PAYMENT-REQUIRED header. Sign one entry of "
    "`accepts`, send the same request again with PAYMENT-SIGNATURE, and keep the receipt."
)
NOT_CHARGED = "A failed request is not charged."
PAID_FIRST = (
    "The payment is settled before the work: if that fails, send the same request with the same payment "
    "again, which is not charged again."
)
MEASURED_STREAM = (
    "A request that fails before its answer begins is not charged; a stream that ends early is charged for "
    "what was measured by then, at most its ceiling."
)
EACH_ITS_OWN = "What a failed request costs is said of each operation."


@dataclass(frozen=True, slots=True)
class Sold:
    """What there is to tell: a catalog with all its routes, and which of its actions can be paid for now."""

    name: str
    public_url: str
    catalog: Catalog
    routes: RouteTable
    payable: Callable[[str], bool]

    def asked_by(self, method: str, path: str) -> Match:
        """What an operation asks for; `path` as OpenAPI spells it."""
        return self.routes.match(method.upper(), _WILD.sub(_ANY_SEGMENT, path))

    @property
    def guidance(self) -> str:
        """How to buy, for an agent that reads nothing else."""
        failed = [EACH_ITS_OWN] if len(self.charged) > 1 else list(self.charged)
        return " ".join([HOW_TO_BUY, *failed, "No account or key is needed."])

    @property
    def charged(self) -> frozenset[str]:
        """What failed requests cost: more than one sentence where that differs from action to action."""
        actions = self.catalog.actions.values()
        return frozenset(charged_text(each) for each in actions if not each.free and self.payable(each.name))


def spelled_out(pattern: str) -> str:
    """A path pattern as OpenAPI and people write it: `/files/{name}` without the kind of a wildcard."""
    return _WILD.sub(r"{\1}", pattern)


def price_text(action: Action) -> str:
    """The list price in words: `0.002000 USD per 1000 tokens, at most 0.050000 USD`."""
    per = action.unit if action.per == 1 else f"{action.per} × {action.unit}"
    text = f"{format_usd(action.price_micros)} USD per {per}"
    ceiling = format_usd(action.x402_ceiling_micros)
    return f"{text}, at most {ceiling} USD a request" if action.variable else text


def charged_text(action: Action) -> str:
    """What a request that fails costs its payer."""
    if settles_first(action):
        return PAID_FIRST
    return MEASURED_STREAM if action.stream else NOT_CHARGED


@dataclass(frozen=True, slots=True)
class _Resource:
    route: Route
    action: Action
    url: str


def _resources(sold: Sold) -> list[_Resource]:
    """Every route that can be paid for; wildcards as `{name}`."""
    return [
        _Resource(route, action, sold.public_url + quote(spelled_out(route.pattern), safe="/{}!$&'()*+,=:@~"))
        for action in sold.catalog.actions.values()
        if not action.free and sold.payable(action.name)
        for route in action.routes
    ]


def well_known(sold: Sold, storefront: Storefront) -> Mapping[str, Any]:
    """`/.well-known/x402`: the convention's list of addresses, and `items` with what each of them costs.

    Other methods than GET and POST, which are what readers try, are named before the address.
    """
    found = _resources(sold)
    addresses = [
        each.url if each.route.method in ("GET", "POST") else f"{each.route.method} {each.url}"
        for each in found
    ]
    items = [
        {
            "resource": each.url,
            "type": "http",
            "method": each.route.method,
            "x402Version": 2,
            "description": each.action.title,
            "mimeType": each.action.mime_type,
            "charged": charged_text(each.action),
            "accepts": [accepts_entry(offer) for offer in storefront.quotes(each.action.name).current],
        }
        for each in found
    ]
    return {
        "version": 1,
        "resources": list(dict.fromkeys(addresses)),
        "description": sold.name,
        "instructions": sold.guidance,
        "items": items,
    }


def llms_txt(sold: Sold, storefront: Storefront) -> str:
    """`/llms.txt`: a heading, a summary, what is sold, where the machine-readable documents are."""
    lines = [
        f"# {_one_line(sold.name or 'API')}",
        "",
        f"> {sold.guidance}",
        "",
        "## Paid routes",
        "",
    ]
    for each in _resources(sold):
        offers = storefront.quotes(each.action.name).current
        ways = ", ".join(f"{offer.scheme.value} on {offer.network}" for offer in offers)
        lines.append(
            f"- [{each.route.method} {spelled_out(each.route.pattern)}]({each.url}): "
            f"{_one_line(each.action.title)}. {_one_line(price_text(each.action))} (x402: {ways})."
            + (f" {charged_text(each.action)}" if len(sold.charged) > 1 else "")
        )
    if sold.catalog.free:
        lines += ["", "## Free routes", ""]
        lines += [f"- {route.method} {spelled_out(route.pattern)}" for route in sold.catalog.free]
    lines += [
        "",
        "## Machine-readable",
        "",
        f"- [OpenAPI with prices]({sold.public_url}/openapi.json)",
        f"- [x402 resources and offers]({sold.public_url}/.well-known/x402)",
        "",
    ]
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())
