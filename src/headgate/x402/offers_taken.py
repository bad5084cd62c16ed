"""What a seller's 402 offers, and what of it this buyer takes up. Pure: a stranger's words in, choices out.

An offer is taken up only if every member that would be signed makes sense: a scheme and a network that are
known, a token that is a dollar, an amount, a recipient, a validity of at most a day. Whatever is wrong with
one offer leaves the others as they are, and is told in words for whoever is left with none.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from x402.mechanisms.evm.default_assets import find_default_asset

from headgate.model.assets import KNOWN_ASSETS, NETWORK_NAMES
from headgate.model.errors import InputError
from headgate.model.offer import Scheme, address_bytes

Json = dict[str, Any]

HEADER_BYTES: Final = 64 * 1024
LONGEST_VALIDITY_S: Final = 86_400
"""What is signed ends within a day, whatever a seller asks for."""
MICROS_DECIMALS: Final = 6
AMOUNT_DIGITS: Final = 40
REASONS_TOLD: Final = 4
TRANSFER_METHODS: Final = (None, "eip3009", "permit2")

_EVM_NETWORK = re.compile(r"eip155:[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Choice:
    """An offer as the seller wrote it, and what it costs in micro-dollars."""

    entry: Json
    price_micros: int


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of an offer's token: its decimals, and the EIP-712 domain it is signed under."""

    decimals: int
    name: str
    version: str


# What a 402 says


def payment_required_of(headers: Mapping[str, str], body: bytes) -> Json | None:
    """The x402 v2 offers of a 402: its `PAYMENT-REQUIRED` header, or the body where that is none."""
    for found in _told(headers, body):
        if found.get("x402Version") == 2 and isinstance(found.get("accepts"), list):
            return found
    return None


def why_unreadable(headers: Mapping[str, str], body: bytes) -> str:
    """Why a 402 has no offers that can be read."""
    for found in _told(headers, body):
        version = found.get("x402Version")
        if version == 2:
            return "the offers (`accepts`) are no list"
        if isinstance(version, int):
            return f"the offer is of x402 version {version}; this buyer speaks version 2"
    return "no x402 version 2 offer in the answer"


def _told(headers: Mapping[str, str], body: bytes) -> Iterator[Json]:
    value = headers.get("PAYMENT-REQUIRED")
    for found in (None if value is None else decoded(value), parsed(body)):
        if found is not None:
            yield found


def decoded(value: str) -> Json | None:
    """The JSON object in a header (standard base64); None if there is none."""
    if len(value) > HEADER_BYTES:
        return None
    try:
        return parsed(b64decode(value, validate=True))
    except ValueError:
        return None


def parsed(text: bytes) -> Json | None:
    """A JSON object; None if it is none."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# Which offers can be taken up


def network_named(text: str | None) -> str | None:
    """The CAIP-2 id of the network to pay on, from that or a known name.

    Raises:
        InputError: it is neither.
    """
    wanted = None if text is None else NETWORK_NAMES.get(text, text)
    if wanted is not None and _EVM_NETWORK.fullmatch(wanted) is None:
        raise InputError(f"{text!r} is no network; write {', '.join(NETWORK_NAMES)} or eip155:NUMBER")
    return wanted


def acceptable(required: Json, wanted: str | None) -> tuple[list[Choice], list[str]]:
    """The offers that can be taken up, in the seller's order, and why each of the others cannot be."""
    extensions = required.get("extensions")
    if extensions is not None and not isinstance(extensions, dict):
        return [], ["the offer's extensions are no object"]
    choices, faults = [], []
    for entry in required["accepts"]:
        fault = fault_of(entry, wanted)
        if fault is None:
            choices.append(Choice(entry, in_micros(whole(entry["amount"]) or 0, entry)))
        else:
            faults.append(fault)
    return choices, faults


def told_faults(faults: list[str]) -> str:
    """Why no offer is left, in one line."""
    each = list(dict.fromkeys(faults))
    more = f"; and {len(each) - REASONS_TOLD} more" if len(each) > REASONS_TOLD else ""
    return "; ".join(each[:REASONS_TOLD]) + more if each else "the seller offers no way to pay"


def fault_of(entry: Any, wanted: str | None) -> str | None:
    """Why an offer cannot be taken up; None if it can be."""
    if not isinstance(entry, dict):
        return "an offer is no object"
    what = f"{_shown(entry.get('scheme'))} on {_shown(entry.get('network'))}"
    fault = _unknown(entry, wanted) or _nonsense(entry) or _extra_fault(entry)
    return None if fault is None else f"{what}: {fault}"


def _unknown(entry: Json, wanted: str | None) -> str | None:
    if entry.get("scheme") not in (Scheme.EXACT, Scheme.UPTO):
        return "this buyer knows only the schemes exact and upto"
    network = entry.get("network")
    if not isinstance(network, str) or _EVM_NETWORK.fullmatch(network) is None:
        return "this buyer pays on EVM networks (eip155:…) only"
    if wanted is not None and network != wanted:
        return f"only {wanted} was to be paid on"
    if not _is_address(entry.get("asset")):
        return "asset is missing or no address"
    if token_of(entry) is None:
        return f"the token {_shown(entry['asset'])} is no dollar that is known here"
    if whole(entry.get("amount")) is None:
        return "amount is missing or no whole number in digits"
    return None


def _nonsense(entry: Json) -> str | None:
    if not _is_address(entry.get("payTo")):
        return "payTo is missing or no address"
    validity_s = entry.get("maxTimeoutSeconds")
    if not isinstance(validity_s, int) or isinstance(validity_s, bool) or validity_s < 1:
        return "maxTimeoutSeconds is missing or no whole number above zero"
    if validity_s > LONGEST_VALIDITY_S:
        return f"maxTimeoutSeconds is {_shown(validity_s)}; nothing is signed for more than a day"
    return None


def _extra_fault(entry: Json) -> str | None:
    extra = entry.get("extra")
    if extra is None:
        extra = {}
    if not isinstance(extra, dict):
        return "extra is no object"
    if entry["scheme"] == Scheme.UPTO:
        named = _is_address(extra.get("facilitatorAddress"))
        return None if named else "extra.facilitatorAddress is missing or no address"
    if extra.get("assetTransferMethod") not in TRANSFER_METHODS:
        return f"the transfer method {_shown(extra['assetTransferMethod'])} is not known"
    for name in ("name", "version"):
        if not isinstance(extra.get(name, ""), str | None):
            return f"extra.{name} is no text"
    return None


def signable(entry: Json) -> Json:
    """The members of an acceptable offer that are signed; the token's domain is added where it is missing."""
    names = ("scheme", "network", "asset", "amount", "payTo", "maxTimeoutSeconds")
    token = token_of(entry)
    domain = {} if token is None else {"name": token.name, "version": token.version}
    told = {name: value for name, value in (entry.get("extra") or {}).items() if value is not None}
    extra = {name: value for name, value in domain.items() if value} | told
    return {**{name: entry[name] for name in names}, "extra": extra}


# What an offer costs


def whole(value: Any) -> int | None:
    """A whole number as the protocol writes it: decimal text."""
    fits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= AMOUNT_DIGITS
    return int(value) if fits else None


def token_of(entry: Json) -> Token | None:
    """The token of an offer on an EVM network; None where it is no dollar known here."""
    asset, network = entry["asset"], entry["network"]
    known = KNOWN_ASSETS.get(network)
    if known is not None and known.address.lower() == asset.lower():
        return Token(known.decimals, known.name, known.version)
    found: Mapping[str, Any] | None = find_default_asset(asset, network)
    if found is None:
        return None
    return Token(int(found["decimals"]), str(found.get("name", "")), str(found.get("version", "")))


def in_micros(amount: int, entry: Json) -> int:
    """An amount of an offer's token in micro-dollars, rounded up.

    Raises:
        InputError: the token is no dollar known here.
    """
    token = token_of(entry)
    if token is None:
        raise InputError(f"the token {_shown(entry['asset'])} on {entry['network']} is no dollar known here")
    if token.decimals <= MICROS_DECIMALS:
        return int(amount * 10 ** (MICROS_DECIMALS - token.decimals))
    return int(-(-amount // 10 ** (token.decimals - MICROS_DECIMALS)))


def _is_address(value: Any) -> bool:
    """Whether it is an EVM address, and not the one that nobody owns."""
    try:
        return isinstance(value, str) and any(address_bytes(value))
    except InputError:
        return False


def _shown(value: Any) -> str:
    """A stranger's word in a sentence: short, and printable."""
    if value is None or isinstance(value, (dict, list)):
        return "nothing" if value is None else "an object" if isinstance(value, dict) else "a list"
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
