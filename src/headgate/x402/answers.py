"""What a facilitator's answers mean, and which of them can be believed (x402 v2 sections 7 and 9).

Pure: a status and a body go in, a result or one of two errors comes out.

                       verify                              settle
    200, well formed   Verified | Refused                  Settled | Refused | Unverified
    4xx, says no       Refused                             Refused
    says no, after or perhaps after a broadcast            Refused, doubtful
    anything else      FacilitatorUnusable (ask again)     FacilitatorUncertain (ask what became of it)

A success with an empty or malformed transaction, or with another network, payer or amount than asked for, is
Unverified: somebody was paid, perhaps (failure case 9). The facilitator's own words are logged, shortened and
without signatures; only reasons that look like the protocol's codes are passed on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headgate.model.errors import FacilitatorUncertain, FacilitatorUnusable, InputError
from headgate.model.offer import Scheme, address_bytes

log = logging.getLogger("headgate.facilitator")

ANSWER_BYTES = 64 * 1024
REFUSED = "payment_refused"
"""The reason told where a facilitator's own is no code of the protocol."""

_VERIFY_FAULTS = frozenset({"unexpected_verify_error"})
_SETTLE_UNDECIDED = frozenset({"settlement_pending", "unexpected_settle_error"})
_AFTER_BROADCAST = frozenset({
    *("failed", "failure", "error", "exception", "unexpected", "unknown", "aborted", "internal"),
    *("unavailable", "timeout", "timed", "pending", "lost", "dropped", "reverted"),
    *("transaction", "broadcast", "confirm", "confirmed", "confirmation", "receipt", "mined", "event"),
})  # fmt: skip
"""Words in a refusal to settle that tell of a broadcast, or of something that failed nobody knows when."""
_BEFORE_BROADCAST = re.compile(
    r".*simulation_failed|.*_failed_to_(?:verify|parse|decode|recover|get_(?!receipt))[a-z_]*"
    r"|smart_wallet_deployment_failed|erc20_approval_.*"
)
"""Codes with such words that are told before anything is broadcast that moves the money."""
_CODE = re.compile(r"[a-z][a-z0-9_]{2,79}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_TRANSACTION = re.compile(r"0x[0-9a-fA-F]{64}")
_WORD = r"[0-9a-fA-F]{64}"
_SECRET = re.compile(
    rf"(?:0x)?[0-9a-fA-F]{{100,}}|[A-Za-z0-9+/=]{{200,}}|(?:0x)?{_WORD}(?:.{{1,24}}?{_WORD})+", re.DOTALL
)
"""Signatures, payments, and signatures in the halves that contracts take (`r`, `s`): hashes stand alone."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The facilitator would settle this payment now."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The facilitator says no; `reason` is one of the protocol's, or REFUSED.

    `doubtful`: something was broadcast, or may have been, so the transfer may still come.
    """

    reason: str
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """The facilitator says the transfer is on chain. `transaction` is `0x` and 64 digits, lower case.

    It is empty where nothing was to settle (an `upto` of 0).
    """

    transaction: str
    network: str
    payer: bytes
    amount_micros: int


@dataclass(frozen=True, slots=True)
class Unverified:
    """The facilitator says success, but not of what it was asked: `what` differs (contract §4, 502)."""

    what: str
    transaction: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to pay that a facilitator supports."""

    scheme: str
    network: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Supported:
    """What a facilitator settles (x402 v2 only), and with which accounts, by CAIP-2 pattern."""

    kinds: tuple[Kind, ...]
    signers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extensions: tuple[str, ...] = ()

    def takes(self, scheme: str, network: str) -> bool:
        """Whether it settles this scheme on this network."""
        return any(kind.scheme == scheme and kind.network == network for kind in self.kinds)

    def upto_address(self, network: str) -> str | None:
        """The account that settles `upto` on a network: what an offer's `facilitatorAddress` must name."""
        for kind in self.kinds:
            if kind.scheme == Scheme.UPTO and kind.network == network:
                named = (
                    kind.extra.get("facilitatorAddress"),
                    *self.signers.get(network, ()),
                    *self.signers.get("eip155:*", ()),
                )
                return next((address for address in named if _is_address(address)), None)
        return None


class _VerifyAnswer(msgspec.Struct, rename="camel", gc=False):
    is_valid: bool
    invalid_reason: str | None = None
    payer: str | None = None


class _SettleAnswer(msgspec.Struct, rename="camel", gc=False):
    success: bool
    error_reason: str | None = None
    transaction: str | None = None
    network: str | None = None
    payer: str | None = None
    amount: str | int | None = None


class _SupportedKind(msgspec.Struct, rename="camel"):
    scheme: str
    network: str
    x402_version: int = msgspec.field(name="x402Version", default=2)
    extra: dict[str, Any] | None = None


class _SupportedAnswer(msgspec.Struct):
    kinds: list[_SupportedKind]
    extensions: list[Any] | None = None
    signers: dict[str, list[str]] | None = None


_VERIFY = msgspec.json.Decoder(_VerifyAnswer)
_SETTLE = msgspec.json.Decoder(_SettleAnswer)
_SUPPORTED = msgspec.json.Decoder(_SupportedAnswer)


def verify_answer(who: str, status: int, body: bytes, payer: bytes) -> Verified | Refused:
    """The meaning of an answer to `/verify` for a payment by `payer`; `who` names the facilitator in errors.

    Raises:
        FacilitatorUnusable: it says neither yes nor no.
    """
    answer = _decoded(_VERIFY, body)
    usable = answer is not None and (status == 200 or (400 <= status < 500 and not answer.is_valid))
    if answer is None or not usable:
        raise FacilitatorUnusable(_unusable(who, "verify", status, body))
    if answer.is_valid:
        if answer.payer and not _same_address(answer.payer, payer):
            raise FacilitatorUnusable(_unusable(who, "verify", status, body))
        return Verified()
    if answer.invalid_reason in _VERIFY_FAULTS:
        raise FacilitatorUnusable(_unusable(who, "verify", status, body))
    log.info("%s refused a payment at verify: %s", who, quoted(body))
    return Refused(reason_code(answer.invalid_reason))


def settle_answer(
    who: str, status: int, body: bytes, *, payer: bytes, network: str, amount_micros: int
) -> Settled | Refused | Unverified:
    """The meaning of an answer to `/settle`, for what was asked to be settled.

    Raises:
        FacilitatorUncertain: it does not say what became of the payment.
    """
    answer = _decoded(_SETTLE, body)
    usable = answer is not None and (status == 200 or (400 <= status < 500 and not answer.success))
    if answer is None or not usable:
        raise FacilitatorUncertain(_unusable(who, "settle", status, body))
    transaction = (answer.transaction or "").lower() if _is_transaction(answer.transaction) else ""
    if not answer.success:
        if answer.error_reason in _SETTLE_UNDECIDED:
            raise FacilitatorUncertain(_unusable(who, "settle", status, body))
        log.warning("%s refused to settle a payment: %s", who, quoted(body))
        reason = reason_code(answer.error_reason)
        return Refused(reason, bool(transaction) or _may_be_after_broadcast(reason))
    differs = _differs(answer, transaction, payer, network, amount_micros)
    if differs is not None:
        log.error("%s says it settled, but with another %s than asked: %s", who, differs, quoted(body))
        return Unverified(differs, transaction)
    return Settled(transaction, network, payer, amount_micros)


def _may_be_after_broadcast(reason: str) -> bool:
    """Whether a refusal to settle leaves open that the transfer still comes.

    The reference facilitators name what they checked beforehand by its code. What failed later they tell by
    words such as `transaction_failed`, `settle_exact_node_failure` or an exception's own text, or not at all.
    """
    if reason == REFUSED:
        return True
    return _BEFORE_BROADCAST.fullmatch(reason) is None and not _AFTER_BROADCAST.isdisjoint(reason.split("_"))


def _differs(
    answer: _SettleAnswer, transaction: str, payer: bytes, network: str, amount_micros: int
) -> str | None:
    if not transaction and (amount_micros or answer.transaction):
        return "transaction"
    if answer.network != network:
        return "network"
    if answer.payer and not _same_address(answer.payer, payer):
        return "payer"
    if answer.amount not in (None, "") and str(answer.amount) != str(amount_micros):
        return "amount"
    return None


def supported_answer(who: str, status: int, body: bytes) -> Supported:
    """The meaning of an answer to `/supported`; kinds of other protocol versions are left out.

    Raises:
        FacilitatorUnusable: it is not one.
    """
    answer = _decoded(_SUPPORTED, body)
    if answer is None or status != 200:
        raise FacilitatorUnusable(_unusable(who, "supported", status, body))
    kinds = tuple(
        Kind(kind.scheme, kind.network, kind.extra or {}) for kind in answer.kinds if kind.x402_version == 2
    )
    extensions = tuple(each for each in answer.extensions or () if isinstance(each, str))
    return Supported(kinds, {name: tuple(each) for name, each in (answer.signers or {}).items()}, extensions)


def reason_code(reason: str | None) -> str:
    """A facilitator's reason if it is a code one can pass on, else `payment_refused`."""
    return reason if reason is not None and _CODE.fullmatch(reason) else REFUSED


def quoted(body: bytes, limit: int = 500) -> str:
    """Somebody else's words for a log: shortened, escaped, and without what a payment could be made of."""
    text = body[: 8 * limit].decode(errors="replace")
    return repr(_SECRET.sub("…", text)[:limit])


def _unusable(who: str, step: str, status: int, body: bytes) -> str:
    log.warning("%s gave no usable answer to %s: status %s, %s", who, step, status, quoted(body))
    return f"{who} gave no usable answer to {step} (status {status}); what it said is in the log"


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _same_address(text: str, address: bytes) -> bool:
    try:
        return address_bytes(text) == address
    except InputError:
        return False


def _is_address(value: object) -> bool:
    return isinstance(value, str) and _ADDRESS.fullmatch(value) is not None


def _is_transaction(value: str | None) -> bool:
    return value is not None and _TRANSACTION.fullmatch(value) is not None and int(value, 16) != 0
