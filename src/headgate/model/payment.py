"""A payment: one signed x402 authorization and its history, as a table of states.

    claimed ──► verified ──► served ──► settling ──► settled ◄──► repeating ◄──► reopened
       │            │           │           ├──────► failed ──► settled
       └────────────┴───────────┘           └──────► unknown ──► settled | failed
                 released                               ▲
                                                        └─── settled, reopened, repeating: reorganised

- `claimed`: the row exists; only the process that owns it may work on it. Nothing has been asked of anybody.
- `verified`: the facilitator says that it would settle.
- `served`: the work is done and its answer is kept; nothing has been broadcast.
- `settling`: the settlement may have been broadcast; from here on the payment may be paid.
- `settled`: the transfer is proven and the event is booked (in the same transaction).
- `failed`: settlement was refused; the answer was withheld. Final only by chain time: a transfer that is
  found later settles it.
- `unknown`: the outcome of the settlement is not known; a worker asks until it is. A settled payment comes
  back here when the chain reorganises its transfer away; its event is reversed in the same transaction.
- `reopened`: settled as before, and to be served once more, uncharged.
- `repeating`: settled as before, and being served again by the process that owns it.
- `released`: nothing was settled and nothing is owed; the same payment may be claimed again.

A crash leaves the row where it was: `claimed` and `verified` owe nothing and are released; `served`,
`settling` and `unknown` are resumed (contract §4: settle again, or ask what became of it); `repeating` is
reopened.
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum, IntEnum
from typing import NamedTuple


class State(IntEnum):
    """Where a payment stands."""

    CLAIMED = 1
    VERIFIED = 2
    SERVED = 3
    SETTLING = 4
    SETTLED = 5
    FAILED = 6
    UNKNOWN = 7
    RELEASED = 8
    REOPENED = 9
    REPEATING = 10


NEXT: dict[State, frozenset[State]] = {
    State.CLAIMED: frozenset({State.VERIFIED, State.SERVED, State.RELEASED}),
    State.VERIFIED: frozenset({State.SERVED, State.RELEASED}),
    State.SERVED: frozenset({State.SETTLING, State.SETTLED, State.FAILED, State.UNKNOWN, State.RELEASED}),
    State.SETTLING: frozenset({State.SETTLED, State.FAILED, State.UNKNOWN}),
    State.UNKNOWN: frozenset({State.SETTLED, State.FAILED}),
    State.SETTLED: frozenset({State.REOPENED, State.REPEATING, State.UNKNOWN}),
    State.FAILED: frozenset({State.SETTLED}),
    State.RELEASED: frozenset({State.CLAIMED}),
    State.REOPENED: frozenset({State.REPEATING, State.UNKNOWN}),
    State.REPEATING: frozenset({State.SETTLED, State.REOPENED, State.UNKNOWN}),
}

OPEN = frozenset({State.CLAIMED, State.VERIFIED, State.SERVED, State.SETTLING, State.UNKNOWN})
"""States something still has to happen in: `report` and `close` count them as pending."""

RESUMED = frozenset({State.SERVED, State.SETTLING, State.UNKNOWN})
"""States in which the payment may have been paid, or must still be: recovery goes on with them."""

OWED = frozenset({State.REOPENED, State.REPEATING})
"""States of a payment that was taken, and whose work is still to be served."""

BOOKED = frozenset({State.SETTLED, State.REOPENED, State.REPEATING})
"""States of a payment that is paid and has its event."""


class Claim(Enum):
    """What claiming a payment leads to (contract §4, the table's rows on repeated payments)."""

    FRESH = "fresh"  # ours: do the work
    RUNNING = "running"  # the first is still at work: 409 with Retry-After
    PENDING = "pending"  # the outcome is not known yet: 503, payment_pending
    ANSWERED = "answered"  # settled: the kept answer
    ELSEWHERE = "elsewhere"  # bound to another request: 409 payment_bound_elsewhere
    REOPENED = "reopened"  # settled, and to be served once more, uncharged
    SPENT = "spent"  # settlement failed: 402 with its reason


class PaymentRow(NamedTuple):
    """A payment as stored; the order of fields is the order of the table's columns."""

    network: str
    asset: str
    payer: bytes
    nonce: bytes
    id: bytes
    state: int
    slot: int
    epoch: int
    rail: int
    action: int
    route: int | None
    customer: int | None
    subscription: int | None
    seat: int | None
    api_key: int | None
    request_id: bytes
    binding: bytes
    body_digest: bytes | None
    authorized_micros: int
    charged_micros: int
    units: int
    unit_micros: int
    per: int
    list_micros: int
    written_off: int
    catalog_version: int
    valid_before_s: int
    occurred_us: int
    updated_us: int
    authorization_json: bytes | None
    requirements_json: bytes | None
    tx: bytes | None
    reason: str | None
    event_slot: int | None
    event_seq: int | None


def claim_outcome(existing: PaymentRow, binding: bytes, *, owner_alive: bool) -> Claim:
    """What a payment that has a row already leads to. `binding` is this request's; precedence is top down."""
    state = State(existing.state)
    if state is State.RELEASED or (state in (State.CLAIMED, State.VERIFIED) and not owner_alive):
        return Claim.FRESH
    if existing.binding != binding:
        return Claim.ELSEWHERE
    if state in (State.CLAIMED, State.VERIFIED):
        return Claim.RUNNING
    if state is State.SETTLED:
        return Claim.ANSWERED
    if state is State.REOPENED or (state is State.REPEATING and not owner_alive):
        return Claim.REOPENED
    if state is State.FAILED:
        return Claim.SPENT
    return Claim.RUNNING if owner_alive and state is not State.UNKNOWN else Claim.PENDING


def payment_id(network: str, asset: str, payer: bytes, nonce: bytes) -> bytes:
    """16 bytes that name a payment, made of what was signed: the same for every copy of it."""
    return hashlib.sha256(b"|".join((network.encode(), asset.lower().encode(), payer, nonce))).digest()[:16]


def payment_text(identifier: bytes) -> str:
    """The public form of a payment's id."""
    return f"pay_{identifier.hex()}"


def binding_digest(method: str, target: bytes) -> bytes:
    """What a payment is bound to at its claim: method and URL with its query (failure case 16)."""
    return hashlib.sha256(method.encode() + b" " + target).digest()


_CODE = re.compile(r"[a-z][a-z0-9_]{2,79}")


def public_note(note: str | None) -> str | None:
    """A note for its payer: reason codes only; what operators and handlers wrote is for the seller."""
    return note if note is not None and _CODE.fullmatch(note) else None
