"""Paying any x402 v2 seller as a buyer, with the official client's schemes (`exact` and `upto`, EVM).

One call asks, chooses an offer within the buyer's limit, signs it once, and sends that one payment until its
outcome is known or patience ends. Nothing is signed a second time: a payment whose outcome is not known comes
back as `pending`, with the signed header to send again (`resume`).
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
from eth_account import Account
from x402 import x402ClientSync
from x402.extensions.payment_identifier import append_payment_identifier_to_extensions
from x402.mechanisms.evm.default_assets import find_default_asset
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.signers import EthAccountSigner, EthAccountSignerWithRPC
from x402.mechanisms.evm.upto import UptoEvmScheme
from x402.schemas import PaymentRequired
from yarl import URL

from headgate.model.assets import KNOWN_ASSETS, NETWORK_NAMES
from headgate.model.errors import HeadgateError, InputError
from headgate.model.money import format_usd
from headgate.model.offer import Scheme
from headgate.x402.transport import Connections, NoAnswer, NotReached, Reply

Json = dict[str, Any]

BODY_BYTES = 64 * 1024 * 1024
HEADER_BYTES = 64 * 1024
MICROS_DECIMALS = 6
AMOUNT_DIGITS = 40
RETRY_S = 1
LONGEST_RETRY_S = 10


class Outcome(StrEnum):
    """What came of trying to buy."""

    FREE = "free"  # answered without asking for a payment
    OFFERED = "offered"  # a dry run: this is what would have been paid
    TOO_EXPENSIVE = "too_expensive"  # every acceptable offer is above the limit; nothing was signed
    NO_OFFER = "no_offer"  # no offer this buyer can take up; nothing was signed
    PAID = "paid"  # served, and the seller's receipt says settled
    UNCONFIRMED = "unconfirmed"  # served, without a receipt of a settlement
    REFUSED = "refused"  # the seller says no to the payment
    PENDING = "pending"  # signed and sent, outcome unknown: send the same `payment` again, sign nothing new


class SellerUnreachable(HeadgateError):
    """The seller could not be reached; nothing was signed."""


@dataclass(frozen=True, slots=True)
class PayResult:
    """What came of it. `amount_micros` is what was settled, else what the chosen offer asks for.

    `transaction` and `receipt` (the URL in `Headgate-Receipt`, where the seller has one) prove a payment.
    `payment` is the signed header: keep it secret, and only for `resume`.
    """

    outcome: Outcome
    status: int
    body: bytes
    reason: str = ""
    amount_micros: int = 0
    scheme: str = ""
    network: str = ""
    pay_to: str = ""
    payer: str = ""
    transaction: str = ""
    receipt: str = ""
    content_type: str = ""
    payment: bytes | None = field(default=None, repr=False)

    @property
    def paid(self) -> bool:
        """Whether the seller says that it was paid."""
        return self.outcome is Outcome.PAID

    def as_json(self) -> Json:
        """For a command's one JSON object: all but the body and the signed payment."""
        shown = {name: getattr(self, name) for name in self.__slots__ if name not in ("body", "payment")}
        return {**shown, "outcome": self.outcome.value, "paid": self.paid}


@dataclass(frozen=True, slots=True)
class Choice:
    """An offer as the seller wrote it, and what it costs in micro-dollars."""

    entry: Json
    price_micros: int


async def pay(
    url: str,
    *,
    private_key: str,
    max_price_micros: int,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    network: str | None = None,
    dry_run: bool = False,
    resume: bytes | None = None,
    rpc_url: str | None = None,
    timeout_ms: int = 60_000,
    patience_ms: int = 120_000,
) -> PayResult:
    """Buy one answer from any x402 v2 seller, for at most `max_price_micros`.

    `network` (CAIP-2 or a known name) restricts where to pay; `rpc_url` lets the official client sponsor a
    missing Permit2 approval. `resume` sends a payment signed earlier instead of asking and signing.

    Raises:
        SellerUnreachable: nothing was signed.
        InputError: the URL, network or key is none.
    """
    buyer = _Buyer(_account(private_key), rpc_url)
    sale = _Sale(_seller(url), method.upper(), body, dict(headers or {}), timeout_ms)
    try:
        if resume is not None:
            return await _send(sale, buyer, _chosen_before(resume), resume, patience_ms)
        return await _buy(sale, buyer, max_price_micros, network, dry_run, patience_ms)
    finally:
        await sale.close()


async def _buy(
    sale: _Sale,
    buyer: _Buyer,
    max_price_micros: int,
    network: str | None,
    dry_run: bool,
    patience_ms: int,
) -> PayResult:
    try:
        reply = await sale.ask({})
    except (NotReached, NoAnswer) as error:
        raise SellerUnreachable(
            f"{sale.url.origin()} did not answer ({error}); nothing was signed"
        ) from error
    if reply.status != 402:
        return _result(Outcome.FREE, reply)
    required = payment_required_of(reply.headers, reply.body)
    if required is None:
        return _result(Outcome.NO_OFFER, reply, reason="no x402 version 2 offer in the answer")
    choices = acceptable(required["accepts"], network)
    affordable = [choice for choice in choices if choice.price_micros <= max_price_micros]
    if not affordable:
        outcome = Outcome.TOO_EXPENSIVE if choices else Outcome.NO_OFFER
        cheapest = min(choices, key=lambda choice: choice.price_micros, default=Choice({}, 0))
        return _result(outcome, reply, cheapest, reason=_why_not(outcome, max_price_micros))
    chosen = affordable[0]
    if dry_run:
        return _result(Outcome.OFFERED, reply, chosen, payer=buyer.address)
    payment = await asyncio.to_thread(buyer.sign, required, chosen.entry)
    return await _send(sale, buyer, chosen, payment, patience_ms)


async def _send(sale: _Sale, buyer: _Buyer, chosen: Choice, payment: bytes, patience_ms: int) -> PayResult:
    """Send one signed payment until its outcome is known, or patience ends."""
    clock = asyncio.get_running_loop().time
    until = clock() + patience_ms / 1000
    while True:
        reply, wait_s, why = await _send_once(sale, payment)
        if reply is not None and wait_s is None:
            return _outcome(reply, chosen, buyer, payment)
        pause_s = min(RETRY_S if wait_s is None else wait_s, LONGEST_RETRY_S)
        if clock() + pause_s >= until:
            return _result(Outcome.PENDING, reply, chosen, reason=why, payer=buyer.address, payment=payment)
        await asyncio.sleep(pause_s)


async def _send_once(sale: _Sale, payment: bytes) -> tuple[Reply | None, int | None, str]:
    """The answer, how long to wait before asking again (None: it is final), and why."""
    try:
        reply = await sale.ask({"PAYMENT-SIGNATURE": payment.decode()})
    except (NotReached, NoAnswer) as error:
        return None, RETRY_S, f"the seller did not answer ({error})"
    settled = _settlement(reply.headers)
    if reply.status < 400 or reply.status in (400, 402) or settled is not None:
        return reply, None, ""
    if reply.status in (409, 425, 429, 500, 502, 503, 504):
        return reply, _retry_after(reply.headers), f"the seller answered {reply.status}"
    return reply, None, ""


def _outcome(reply: Reply, chosen: Choice, buyer: _Buyer, payment: bytes) -> PayResult:
    settled = _settlement(reply.headers) or {}
    amount = _whole(settled.get("amount"))
    facts: Json = {
        "payer": str(settled.get("payer") or buyer.address),
        "transaction": str(settled.get("transaction") or ""),
        "payment": payment,
    }
    if settled.get("success") is True and reply.status < 400:
        if amount is not None:
            facts["amount_micros"] = _in_micros(amount, chosen.entry)
        return _result(Outcome.PAID, reply, chosen, **facts)
    if 200 <= reply.status < 300:
        return _result(Outcome.UNCONFIRMED, reply, chosen, reason="served without a receipt", **facts)
    reason = settled.get("errorReason") or _error_of(reply)
    return _result(Outcome.REFUSED, reply, chosen, reason=str(reason), **facts)


def _result(outcome: Outcome, reply: Reply | None, chosen: Choice | None = None, **facts: Any) -> PayResult:
    entry = {} if chosen is None else chosen.entry
    known: Json = {
        "amount_micros": 0 if chosen is None else chosen.price_micros,
        "scheme": str(entry.get("scheme", "")),
        "network": str(entry.get("network", "")),
        "pay_to": str(entry.get("payTo", "")),
    }
    if reply is None:
        return PayResult(outcome, 0, b"", **(known | facts))
    known["receipt"] = reply.headers.get("Headgate-Receipt", "")
    known["content_type"] = reply.headers.get("Content-Type", "")
    return PayResult(outcome, reply.status, reply.body, **(known | facts))


def _why_not(outcome: Outcome, max_price_micros: int) -> str:
    if outcome is Outcome.TOO_EXPENSIVE:
        return (
            f"every offer costs more than the limit of {format_usd(max_price_micros)} USD; raise --max-price"
        )
    return "no offer names a scheme, network and dollar token that this buyer can pay with"


# What the seller offers


def payment_required_of(headers: Mapping[str, str], body: bytes) -> Json | None:
    """The offers of a 402, from the `PAYMENT-REQUIRED` header or else the body; None if they are not v2."""
    value = headers.get("PAYMENT-REQUIRED")
    found = _decoded(value) if value is not None else _parsed(body)
    if found is None or found.get("x402Version") != 2 or not isinstance(found.get("accepts"), list):
        return None
    return found


def acceptable(accepts: Sequence[Any], network: str | None) -> list[Choice]:
    """The offers a buyer can take up, in the seller's order: known schemes, networks and dollar tokens."""
    wanted = NETWORK_NAMES.get(network, network) if network is not None else None
    if wanted is not None and not wanted.startswith("eip155:"):
        raise InputError(f"{network!r} is no network; write {', '.join(NETWORK_NAMES)} or eip155:NUMBER")
    choices = []
    for entry in accepts:
        if not isinstance(entry, dict) or entry.get("scheme") not in (Scheme.EXACT, Scheme.UPTO):
            continue
        if wanted is not None and entry.get("network") != wanted:
            continue
        price = _price(entry)
        if price is not None:
            choices.append(Choice(entry, price))
    return choices


def _price(entry: Json) -> int | None:
    """An offer's price in micro-dollars, rounded up; None where the token is no dollar known here."""
    amount = _whole(entry.get("amount"))
    return None if amount is None or _decimals(entry) is None else _in_micros(amount, entry)


def _whole(value: Any) -> int | None:
    """A whole number as the protocol writes it: decimal text."""
    fits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= AMOUNT_DIGITS
    return int(value) if fits else None


def _decimals(entry: Json) -> int | None:
    asset, network = entry.get("asset"), entry.get("network")
    if not isinstance(asset, str) or not isinstance(network, str):
        return None
    known = KNOWN_ASSETS.get(network)
    if known is not None and known.address.lower() == asset.lower():
        return known.decimals
    found = find_default_asset(asset, network) if network.startswith("eip155:") else None
    return None if found is None else int(found["decimals"])


def _in_micros(amount: int, entry: Json) -> int:
    decimals = _decimals(entry)
    if decimals is None or decimals == MICROS_DECIMALS:
        return amount
    if decimals < MICROS_DECIMALS:
        return int(amount * 10 ** (MICROS_DECIMALS - decimals))
    return int(-(-amount // 10 ** (decimals - MICROS_DECIMALS)))


def _chosen_before(payment: bytes) -> Choice:
    """The offer that a payment signed earlier takes up."""
    found = _decoded(payment.decode(errors="replace"))
    entry = None if found is None else found.get("accepted")
    if not isinstance(entry, dict):
        raise InputError("the payment to resume is no PAYMENT-SIGNATURE value")
    return Choice(entry, _price(entry) or 0)


# What the seller answers


def _settlement(headers: Mapping[str, str]) -> Json | None:
    value = headers.get("PAYMENT-RESPONSE")
    return None if value is None else _decoded(value)


def _decoded(value: str) -> Json | None:
    if len(value) > HEADER_BYTES:
        return None
    try:
        return _parsed(b64decode(value, validate=True))
    except ValueError:
        return None


def _parsed(text: bytes) -> Json | None:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _error_of(reply: Reply) -> str:
    """The seller's own reason, from a 402's offers or a problem document."""
    told = payment_required_of(reply.headers, reply.body) or _parsed(reply.body) or {}
    for name in ("error", "code", "type", "title"):
        if isinstance(told.get(name), str):
            return str(told[name])[:200]
    return f"status {reply.status}"


def _retry_after(headers: Mapping[str, str]) -> int:
    value = headers.get("Retry-After", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 6 else RETRY_S


# Who buys, and from whom


class _Buyer:
    """A wallet that signs once per payment, with the official client."""

    def __init__(self, account: Any, rpc_url: str | None) -> None:
        signer = EthAccountSignerWithRPC(account, rpc_url) if rpc_url else EthAccountSigner(account)
        self.address: str = account.address
        self._client = x402ClientSync()
        self._client.register("eip155:*", ExactEvmScheme(signer))
        self._client.register("eip155:*", UptoEvmScheme(signer))
        self._client.set_spend_controls(False)  # the limit was checked, on tokens it does not know too

    def sign(self, required: Json, entry: Json) -> bytes:
        """The `PAYMENT-SIGNATURE` value that takes up one entry of an offer, echoed as it was written."""
        extensions = dict(required.get("extensions") or {})
        append_payment_identifier_to_extensions(extensions)
        asked = PaymentRequired.model_validate({**required, "accepts": [entry], "extensions": None})
        payload = self._client.create_payment_payload(asked, extensions=extensions or None)
        written = payload.model_dump(by_alias=True, exclude_none=True)
        written["accepted"] = entry
        return b64encode(msgspec.json.encode(written))


class _Sale:
    """The request to be paid for, the same every time it is sent."""

    def __init__(
        self, url: URL, method: str, body: bytes | None, headers: dict[str, str], timeout_ms: int
    ) -> None:
        self.url = url
        self._method = method
        self._body = body
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "headgate-pay", **headers}
        self._connections = Connections(max_answer_bytes=BODY_BYTES)
        self._timeout = self._connections.timeout(timeout_ms)

    async def ask(self, more: Mapping[str, str]) -> Reply:
        """Send it once. Raises NotReached, NoAnswer."""
        return await self._connections.ask(
            self._method,
            self.url,
            headers={**self._headers, **more},
            timeout=self._timeout,
            body=self._body,
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self._connections.close()


def _account(private_key: str) -> Any:
    try:
        return Account.from_key(private_key)
    except Exception:  # noqa: BLE001 - eth-account raises several kinds, some of which quote the key
        raise InputError("the private key is not 32 bytes in hexadecimal; nothing was signed") from None


def _seller(url: str) -> URL:
    try:
        found = URL(url)
    except ValueError as error:
        raise InputError(f"{url!r} is no URL ({error})") from error
    if found.scheme not in ("http", "https") or not found.host:
        raise InputError(f"{url!r} is no http or https URL")
    return found
