"""What taking a payment starts from and leads to: a request, a claimed payment, a receipt, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from headgate.model.catalog import Action
from headgate.model.offer import Offer, Reason, SignedPayment
from headgate.model.payment import Claim, PaymentRow, State, public_note
from headgate.x402 import wire
from headgate.x402.facilitator import GuardedFacilitator

RETRY_AFTER_S = 2


class Why(Enum):
    """Why a payment does not open the action now; the web layer has one status for each."""

    REFUSED = "refused"  # 402 with the offer and `code`
    RUNNING = "running"  # 409, Retry-After: the first request with it is still at work
    ELSEWHERE = "elsewhere"  # 409 payment_bound_elsewhere
    PENDING = "pending"  # 503 payment_pending: the outcome of its settlement is not known
    UNREACHABLE = "unreachable"  # 503: the facilitator gives no usable answer; the payment stays usable
    UNVERIFIED = "unverified"  # 502 settlement_unverified
    ANSWERED = "answered"  # settled before: the kept answer
    REOPENED = "reopened"  # settled before: to be served once more, uncharged
    BUSY = "busy"  # 429, Retry-After: this payer has as much work in flight as it may have
    THROTTLED = "throttled"  # 429, Retry-After: too many payments of this client were refused


class Declined(NamedTuple):
    """A payment that does not open the action now; `code` is machine-readable, `row` set once known.

    `retry_after_s` is for the answers that carry `Retry-After`. `doubtful`: the facilitator said no, but a
    transfer may still come.
    """

    why: Why
    code: str
    row: PaymentRow | None = None
    retry_after_s: int = RETRY_AFTER_S
    doubtful: bool = False


@dataclass(slots=True)
class OpenPayment:
    """A payment that was claimed and verified for one request; its work may begin."""

    id: bytes
    signed: SignedPayment
    offer: Offer
    action: Action
    rail: int
    row: PaymentRow
    facilitator: GuardedFacilitator
    payload: wire.Json
    client: str | None = None
    counted: bytes | None = None
    """The payer as whose work in flight this counts; None as long as it is not proven."""
    asked: str | None = None
    """What the client's question about it took, until it is known to cost nothing."""
    ended: bool = False
    """No request is at work with it any more."""
    steps: list[tuple[int, State, str | None]] = field(default_factory=list)


class Receipt(NamedTuple):
    """What a payer gets: the settlement in protocol terms; `transaction` is empty where use was 0."""

    payment: bytes
    transaction: str
    network: str
    payer: str
    amount_micros: int

    @property
    def header(self) -> bytes:
        """The `PAYMENT-RESPONSE` value."""
        return wire.settlement_header(
            transaction=self.transaction,
            network=self.network,
            payer=self.payer,
            amount_micros=self.amount_micros,
        )


class Ask(NamedTuple):
    """A request for a priced action that must be paid; ids as stored, `binding` names method and URL.

    `client` is the caller's address, where the server knows it; `declared` what its offer declares.
    """

    action: Action
    action_id: int
    route_id: int | None
    url: str
    binding: bytes
    request_id: bytes
    occurred_us: int
    customer: int | None
    subscription: int | None
    seat: int | None
    api_key: int | None
    client: str | None = None
    declared: Mapping[str, Any] | None = None


def receipt_of(row: PaymentRow) -> Receipt:
    """The receipt of a settled payment."""
    return Receipt(
        row.id,
        "" if row.tx is None else "0x" + row.tx.hex(),
        row.network,
        "0x" + row.payer.hex(),
        row.charged_micros,
    )


def repeated(outcome: Claim, row: PaymentRow | None, signed: SignedPayment, *, checked: bool) -> Declined:
    """What a payment that was taken before leads to.

    A kept answer is only for whoever can show the payment again: where the signature was not checked here it
    must be the one that was settled, because everything else about it is public on the chain (case 17).
    """
    if checked or _same_signature(row, signed):
        return _declined(outcome, row)
    if outcome in (Claim.ANSWERED, Claim.REOPENED):
        return Declined(Why.REFUSED, Reason.SIGNATURE)
    return _declined(outcome, row)._replace(row=None)  # nor is its receipt for anybody else


def _same_signature(row: PaymentRow | None, signed: SignedPayment) -> bool:
    if row is None or row.authorization_json is None:
        return False
    return wire.parse_kept(row.authorization_json).signature == signed.signature


def _declined(outcome: Claim, row: PaymentRow | None) -> Declined:
    match outcome:
        case Claim.RUNNING:
            return Declined(Why.RUNNING, "payment_in_progress", row)
        case Claim.PENDING:
            return Declined(Why.PENDING, "payment_pending", row)
        case Claim.ANSWERED:
            return Declined(Why.ANSWERED, "payment_settled", row)
        case Claim.REOPENED:
            return Declined(Why.REOPENED, "payment_reopened", row)
        case Claim.ELSEWHERE:
            return Declined(Why.ELSEWHERE, "payment_bound_elsewhere", row)
        case _:
            reason = None if row is None else public_note(row.reason)
            return Declined(Why.REFUSED, reason or "settlement_failed", row)
