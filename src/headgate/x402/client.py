"""Paying any x402 v2 seller as a buyer, with the official client's schemes (`exact` and `upto`, EVM).

One call asks, chooses an offer within the buyer's limit, signs it once, and sends that one payment until its
outcome is known or patience ends. Nothing is signed a second time: a payment whose outcome is not known comes
back as `pending`, with the signed header to send again (`resume`). This file is the order in which that goes:
which offers are sound, what is signed and what answers mean is decided in `offers_taken`, `wallet` and
`paid_answers`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from headgate.model.errors import HeadgateError, InputError
from headgate.model.money import format_usd
from headgate.x402 import paid_answers
from headgate.x402.offers_taken import (
    Choice,
    acceptable,
    network_named,
    payment_required_of,
    told_faults,
    why_unreadable,
)
from headgate.x402.purchase import Outcome, PayResult
from headgate.x402.transport import Connections, NoAnswer, NotReached, Reply
from headgate.x402.wallet import CannotSign, Signed, Wallet, keep_to_origin, payment_in, read_signed

Json = dict[str, Any]
Tell = Callable[[PayResult], None]

BODY_BYTES: Final = 64 * 1024 * 1024
PATIENCE_MS: Final = 120_000
PROTOCOL_HEADERS: Final = frozenset(
    {
        "payment-signature", "x-payment", "content-length", "transfer-encoding", "host", "connection",
        "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "expect",
    }
)  # fmt: skip
"""What the protocol says on its own; a caller's word there would break the request, or pay twice."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2


class SellerUnreachable(HeadgateError):
    """The seller could not be reached; nothing was signed."""


class KeyNeeded(InputError):
    """There is an offer to sign, and no private key to sign it with; nothing was signed."""


@dataclass(frozen=True, slots=True)
class _Terms:
    """What the buyer wants: `wanted` is the one network to pay on, `on_signed` hears of a payment first."""

    max_price_micros: int
    wanted: str | None
    dry_run: bool
    patience_ms: int
    on_signed: Tell


async def pay(
    url: str,
    *,
    private_key: str | None = None,
    max_price_micros: int,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    network: str | None = None,
    dry_run: bool = False,
    resume: bytes | None = None,
    timeout_ms: int = 60_000,
    patience_ms: int = PATIENCE_MS,
    on_signed: Tell = lambda _pending: None,
) -> PayResult:
    """Buy one answer from any x402 v2 seller, for at most `max_price_micros`.

    `private_key` is only needed where something is to be signed. `network` (CAIP-2 or a known name) restricts
    where to pay. `resume` sends a payment signed earlier (its header, or the JSON object that `headgate pay`
    printed) instead of asking and signing, within the same limit and only to the origin it was made for.
    `dry_run` ends before anything is signed or a payment is sent.

    `on_signed` is called with the payment as a `pending` result before it is sent the first time. Whoever may
    be stopped keeps it: if this call is cancelled, that result is what is known.

    Raises:
        SellerUnreachable: nothing was signed.
        InputError: the URL, method, a header, network, key or payment is none; nothing was sent.
        KeyNeeded: nothing was signed.
    """
    terms = _Terms(max_price_micros, network_named(network), dry_run, patience_ms, on_signed)
    earlier = None if resume is None else read_signed(payment_in(resume))
    wallet = None if private_key is None or earlier is not None else Wallet(private_key)
    sale = _Sale(_seller(url), method.upper(), body, _allowed(headers or {}), timeout_ms)
    try:
        if earlier is not None:
            return await _resume(sale, earlier, terms)
        return await _buy(sale, wallet, terms)
    finally:
        await sale.close()


async def _resume(sale: _Sale, earlier: Signed, terms: _Terms) -> PayResult:
    """Send a payment that was signed earlier, if it may go there and costs no more than is allowed."""
    keep_to_origin(earlier, sale.url)
    if terms.wanted is not None and earlier.network != terms.wanted:
        raise InputError(f"this payment is on {earlier.network}, not on {terms.wanted}; nothing was sent")
    if earlier.choice.price_micros > terms.max_price_micros:
        reason = _too_expensive([earlier.choice], terms)
        return _result(Outcome.TOO_EXPENSIVE, None, earlier.choice, reason=reason, payer=earlier.payer)
    if terms.dry_run:
        return _result(Outcome.OFFERED, None, earlier.choice, payer=earlier.payer)
    return await _send(sale, earlier, terms, sent_unclearly=True)


async def _buy(sale: _Sale, wallet: Wallet | None, terms: _Terms) -> PayResult:
    try:
        reply = await sale.ask({})
    except (NotReached, NoAnswer) as error:
        raise SellerUnreachable(_why_unreachable(sale.url, error)) from error
    if 200 <= reply.status < 300:
        return _result(Outcome.FREE, reply)
    if reply.status != 402:
        return _result(Outcome.ANSWERED, reply, reason=paid_answers.error_of(reply))
    required = payment_required_of(reply.headers, reply.body)
    if required is None:
        return _result(Outcome.NO_OFFER, reply, reason=why_unreadable(reply.headers, reply.body))
    choices, faults = acceptable(required, terms.wanted)
    affordable = [choice for choice in choices if choice.price_micros <= terms.max_price_micros]
    if choices and not affordable:
        cheapest = min(choices, key=lambda choice: choice.price_micros)
        return _result(Outcome.TOO_EXPENSIVE, reply, cheapest, reason=_too_expensive(choices, terms))
    if affordable and terms.dry_run:
        return _result(Outcome.OFFERED, reply, affordable[0], payer="" if wallet is None else wallet.address)
    if affordable and wallet is None:
        raise KeyNeeded
    for choice in affordable:
        assert wallet is not None
        try:
            signed = await asyncio.to_thread(wallet.sign, required, choice.entry, sale.url)
        except CannotSign as error:
            faults.append(f"{choice.entry['scheme']} on {choice.entry['network']}: {error}")
        else:
            return await _send(sale, signed, terms)
    return _result(Outcome.NO_OFFER, reply, reason=told_faults(faults))


async def _send(sale: _Sale, signed: Signed, terms: _Terms, *, sent_unclearly: bool = False) -> PayResult:
    """Send one signed payment until its outcome is known, or patience ends."""
    terms.on_signed(_pending(signed, None, "stopped before the seller's answer was known"))
    clock = asyncio.get_running_loop().time
    until = clock() + terms.patience_ms / 1000
    times_sent = 0
    while True:
        reply, why = await _send_once(sale, signed)
        times_sent += 1
        pause_ms = paid_answers.pause_ms(reply, times_sent)
        if reply is not None and pause_ms is None:
            return _final(reply, signed, paid_answers.judged(reply, signed, sent_unclearly=sent_unclearly))
        sent_unclearly = sent_unclearly or paid_answers.is_unclear(reply)
        pause_s = (pause_ms or 0) / 1000
        if clock() + pause_s >= until:
            return _pending(signed, reply, why)
        await asyncio.sleep(pause_s)


async def _send_once(sale: _Sale, signed: Signed) -> tuple[Reply | None, str]:
    """The answer, if there was one, and what to say of it should patience end."""
    try:
        reply = await sale.ask({"PAYMENT-SIGNATURE": signed.header.decode()})
    except (NotReached, NoAnswer) as error:
        return None, f"the seller did not answer ({error})"
    told, status = paid_answers.error_of(reply), f"status {reply.status}"
    return reply, f"the seller answered {status}" + ("" if told == status else f": {told}")


# What is handed back


def _pending(signed: Signed, reply: Reply | None, why: str) -> PayResult:
    facts = {"payer": signed.payer, "payment": signed.header}
    return _result(Outcome.PENDING, reply, signed.choice, reason=why, **facts)


def _final(reply: Reply, signed: Signed, told: paid_answers.Told) -> PayResult:
    facts: Json = {"payer": signed.payer, "payment": signed.header, "transaction": told.transaction}
    if told.amount is not None:
        facts["amount_micros"] = signed.in_micros(told.amount)
    return _result(told.outcome, reply, signed.choice, reason=told.reason, **facts)


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


def _too_expensive(choices: list[Choice], terms: _Terms) -> str:
    cheapest = min(choice.price_micros for choice in choices)
    limit = format_usd(terms.max_price_micros)
    return f"the least that is asked for is {format_usd(cheapest)} USD, above the limit of {limit} USD"


def _why_unreachable(url: URL, error: Exception) -> str:
    why = f"{url.origin()} did not answer ({error}); nothing was signed"
    if isinstance(error.__cause__, aiohttp.ClientConnectorCertificateError):
        why += (
            ". Its certificate is not trusted: if it should be, name a file with its authority's certificate "
        )
        why += "(PEM) in SSL_CERT_FILE"
    return why


# From whom


class _Sale:
    """The request to be paid for, the same every time it is sent."""

    def __init__(
        self, url: URL, method: str, body: bytes | None, headers: CIMultiDict[str], timeout_ms: int
    ) -> None:
        if _TOKEN.fullmatch(method) is None or method == "CONNECT":
            raise InputError(f"{method[:60]!r} is no method to buy with; write GET, POST or another one")
        self.url = url
        self._method = method
        self._body = body
        self._headers = CIMultiDict({"Accept-Encoding": "identity", "User-Agent": "headgate-pay"})
        self._headers.update(headers)
        self._connections = Connections(max_answer_bytes=BODY_BYTES)
        self._timeout = self._connections.timeout(timeout_ms)

    async def ask(self, more: Mapping[str, str]) -> Reply:
        """Send it once. Raises NotReached, NoAnswer."""
        return await self._connections.ask(
            self._method,
            self.url,
            headers=CIMultiDict([*self._headers.items(), *more.items()]),
            timeout=self._timeout,
            body=self._body,
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self._connections.close()


def _allowed(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The caller's headers, if they are some and none of them is the protocol's own."""
    for name, value in headers.items():
        if _TOKEN.fullmatch(name) is None:
            raise InputError(
                f"{name[:60]!r} is no header name (RFC 9110: letters, digits and !#$%&'*+.^_`|~-)"
            )
        if not value.replace("\t", " ").isprintable():
            raise InputError(f"the value of the header {name} has control characters; leave them out")
        if name.lower() in PROTOCOL_HEADERS:
            raise InputError(f"the header {name} is the protocol's own and cannot be given; leave it out")
    return CIMultiDict(headers)


def _seller(url: str) -> URL:
    try:
        found = URL(url)
    except ValueError as error:
        raise InputError(f"{url!r} is no URL ({error})") from error
    if found.scheme not in ("http", "https") or not found.host:
        raise InputError(f"{url!r} is no http or https URL")
    return found
