"""Actions as x402 v2 offers, and the 402 that carries them (x402 v2 section 5.1, HTTP transport v2).

Each entry of `accepts` carries `amount`, which the protocol reads, and `maxAmountRequired` and `description`,
which readers of older documents look for. A facilitator is sent the protocol's own fields and nothing else.
The header is kept under HEADER_LIMIT: longer ones broke proxies and clients in production.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from headgate.model.catalog import Action, Catalog
from headgate.model.errors import InputError
from headgate.model.offer import NetworkOffer, Offer, Reason, Scheme

HEADER_LIMIT = 8 * 1024
DESCRIPTION_LIMIT = 500
URL_LIMIT = 1024
POLYGON = frozenset({"eip155:137", "eip155:80002"})
DECIMALS = 6

PAYMENT_IDENTIFIER = "payment-identifier"
PAYMENT_IDENTIFIER_EXTENSION: Mapping[str, Any] = {
    "info": {"required": False},
    "schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "required": {"type": "boolean"},
            "id": {"type": "string", "minLength": 16, "maxLength": 128, "pattern": "^[a-zA-Z0-9_-]+$"},
        },
        "required": ["required"],
    },
}
"""What an offer declares so that buyers may name their payment; honoured, never required."""

EIP2612_GAS_SPONSORING = "eip2612GasSponsoring"
EIP2612_GAS_SPONSORING_EXTENSION: Mapping[str, Any] = {
    "info": {"description": "Permit2 is approved with a signed EIP-2612 permit; no gas.", "version": "1"},
    "schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            name: {"type": "string"}
            for name in ("from", "asset", "spender", "amount", "nonce", "deadline", "signature", "version")
        },
        "required": ["from", "asset", "spender", "amount", "nonce", "deadline", "signature", "version"],
    },
}
"""What an `upto` offer declares where the facilitator takes such permits: buyers send no transaction."""

Json = dict[str, Any]
_CUT_ESCAPE = re.compile(r"(?:%[0-9A-Fa-f]{2})*%[0-9A-Fa-f]?\Z|(?:%[89A-Fa-f][0-9A-Fa-f])+\Z")
_PATH_SAFE = "/!$&'()*+,=:@~;"
_ENCODER = msgspec.json.Encoder()


def build_offers(
    action: Action, networks: Sequence[NetworkOffer], *, catalog_version: int = 0
) -> tuple[Offer, ...]:
    """The offers for one action, in the order a 402 lists them: Polygon first, then as configured.

    A fixed cost is offered as `exact`, a variable one as `upto` with its ceiling, on the networks whose
    facilitator told which account settles `upto`. A free action has no offer.

    Raises:
        InputError: a token that does not count in millionths, or an address that is none.
    """
    if action.free:
        return ()
    scheme = _scheme(action)
    narrowed = {accept.network: accept.description or action.title for accept in action.accepts}
    return tuple(
        Offer(
            action=action.name,
            catalog_version=catalog_version,
            description=shortened(narrowed.get(network.asset.network, action.title), DESCRIPTION_LIMIT),
            scheme=scheme,
            asset=_in_micros(network),
            pay_to=network.pay_to,
            amount_micros=action.x402_ceiling_micros,
            max_timeout_seconds=network.max_timeout_seconds,
            facilitator_address=network.facilitator_address if scheme is Scheme.UPTO else None,
            gas_sponsored=network.gas_sponsored and scheme is Scheme.UPTO,
        )
        for network in sorted(networks, key=lambda each: each.asset.network not in POLYGON)
        if (network.takes_exact if scheme is Scheme.EXACT else network.facilitator_address is not None)
        and (not narrowed or network.asset.network in narrowed)
    )


def sells_fixed_prices(catalog: Catalog, network: str) -> bool:
    """Whether anything is to be offered as `exact` on a network."""
    return any(
        not action.free
        and _scheme(action) is Scheme.EXACT
        and (not action.accepts or any(accept.network == network for accept in action.accepts))
        for action in catalog.actions.values()
    )


def _scheme(action: Action) -> Scheme:
    return Scheme.UPTO if action.variable else Scheme.EXACT


def _in_micros(network: NetworkOffer) -> Any:
    asset = network.asset
    if asset.decimals != DECIMALS:
        raise InputError(
            f"{asset.address} on {asset.network} has {asset.decimals} decimals and Headgate counts "
            f"micro-dollars: offer a dollar token with {DECIMALS}"
        )
    return asset


def requirements(offer: Offer, amount_micros: int | None = None) -> Json:
    """The offer as a facilitator's `paymentRequirements`; `amount_micros` is what to settle of an `upto`."""
    return {
        "scheme": offer.scheme.value,
        "network": offer.network,
        "amount": str(offer.amount_micros if amount_micros is None else amount_micros),
        "asset": offer.asset.address,
        "payTo": offer.pay_to,
        "maxTimeoutSeconds": offer.max_timeout_seconds,
        "extra": _extra(offer),
    }


def accepts_entry(offer: Offer) -> Json:
    """The offer as an entry of `accepts`, with the fields that older documents name."""
    entry = requirements(offer)
    return {**entry, "maxAmountRequired": entry["amount"], "description": offer.description}


def _extra(offer: Offer) -> Json:
    extra: Json = {"name": offer.asset.name, "version": offer.asset.version}
    if offer.facilitator_address is not None:
        extra["facilitatorAddress"] = offer.facilitator_address
    return extra


def resource_url(public_url: str, path: str) -> str:
    """The address of a resource: below the seller's own, its path encoded."""
    return public_url + quote(path, safe=_PATH_SAFE)


def resource_info(url: str, offer: Offer | None, mime_type: str) -> Json:
    """The resource sold (x402 v2 `ResourceInfo`). A very long URL is cut: it informs, and binds nothing."""
    return {
        "url": url if len(url) <= URL_LIMIT else _CUT_ESCAPE.sub("", url[:URL_LIMIT]),
        "description": "" if offer is None else offer.description,
        "mimeType": mime_type,
    }


@dataclass(frozen=True, slots=True)
class Challenge:
    """A 402: `header_value` goes into `PAYMENT-REQUIRED`, `body` is the same object as JSON."""

    header_value: bytes
    body: bytes


def payment_required(
    offers: Sequence[Offer],
    *,
    url: str,
    mime_type: str = "application/json",
    error: str = Reason.PAYMENT_REQUIRED,
    extensions: Mapping[str, Any] | None = None,
) -> Challenge:
    """The 402 for a resource: `url` is the seller's public origin and the path asked for, without its query.

    Until the header fits HEADER_LIMIT, texts are shortened, then extensions dropped, the last one first, and
    last the address is cut to the seller's own: a stranger chooses the path, and has to get an answer.

    Raises:
        InputError: it cannot fit, because too many networks are offered at once.
    """
    declared = list((extensions or {}).items())
    fewer = [(url, 120, dict(declared[:count])) for count in range(len(declared), -1, -1)]
    short: tuple[str, int, Json] = (_origin(url), 0, {})
    for told, text_limit, declared_now in ((url, DESCRIPTION_LIMIT, dict(declared)), *fewer, short):
        body = _challenge_json(offers, told, mime_type, error, declared_now, text_limit)
        if len(body) < HEADER_LIMIT * 3 // 4:
            return Challenge(b64encode(body), body)
    raise InputError(
        f"{len(offers)} offers need a PAYMENT-REQUIRED header of more than {HEADER_LIMIT} bytes, which many "
        "proxies refuse: offer fewer networks"
    )


def _origin(url: str) -> str:
    parts = url.split("/", 3)
    return "/".join(parts[:3]) + "/" if len(parts) > 3 else url


def _challenge_json(
    offers: Sequence[Offer],
    url: str,
    mime_type: str,
    error: str,
    extensions: Mapping[str, Any] | None,
    text_limit: int,
) -> bytes:
    resource = resource_info(url, offers[0] if offers else None, mime_type)
    entries = [accepts_entry(offer) for offer in offers]
    for described in (resource, *entries):
        described["description"] = shortened(described["description"], text_limit)
    challenge: Json = {"x402Version": 2, "error": str(error), "resource": resource, "accepts": entries}
    if extensions:
        challenge["extensions"] = extensions
    return _ENCODER.encode(challenge)


def shortened(text: str, limit: int) -> str:
    """`text` within `limit` characters, with an ellipsis where it was cut."""
    if len(text) <= limit:
        return text
    return text[: max(0, limit - 1)] + "…" if limit else ""
