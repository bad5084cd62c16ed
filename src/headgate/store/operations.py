"""What may be submitted to the ledger's next batch, and what comes back."""

from __future__ import annotations

from typing import NamedTuple

from headgate.model.booking import Hold, PaidUse, Release, Reverse, Use
from headgate.model.event import Event
from headgate.model.payment import Claim, PaymentRow, State


class Booked(NamedTuple):
    """The rows of one use. `repeated`: its id had been used before, and these are the rows of that time."""

    events: tuple[Event, ...]
    repeated: bool


class Held(NamedTuple):
    """What a hold got: units (0: it does not fit), and the lease to name when they are given up."""

    units: int
    lease: int


class ClaimPayment(NamedTuple):
    """Make a payment this process's to work on. `row.slot`, `epoch` and `updated_us` are filled in.

    `name_hash` is of the payer and the name it gave the payment (extension `payment-identifier`), if any.
    """

    row: PaymentRow
    name_hash: bytes | None = None


class Claimed(NamedTuple):
    """What the claim led to, and the payment's row from before (None: it is new)."""

    outcome: Claim
    existing: PaymentRow | None


class KeptAnswer(NamedTuple):
    """An answer as kept for its payer: status, encoded headers, body (None: too large), until when."""

    status: int
    headers: bytes
    body: bytes | None
    kept_until_us: int


class IntendPayment(NamedTuple):
    """The work is done: what will be settled and the answer that goes with it, durable before settling.

    Where it is settled before the work there is no answer yet: the work is owed, and `refund_due_us` says
    when a refund of it is due (0: nothing is owed). `steps` are the (at_us, state, note) that this process
    went through since the claim.
    """

    payment: bytes
    state: State
    body_digest: bytes | None
    charged_micros: int
    units: int
    list_micros: int
    written_off: int
    authorization_json: bytes
    requirements_json: bytes
    answer: KeptAnswer | None
    steps: tuple[tuple[int, State, str | None], ...]
    refund_due_us: int = 0


class MovePayment(NamedTuple):
    """Move a payment from the state it was seen in to the next, with a note for its timeline."""

    payment: bytes
    since: State
    to: State
    note: str | None


class SettlePayment(NamedTuple):
    """The transfer is proven: payment settled and event booked, together, once."""

    use: PaidUse
    kept_until_us: int
    note: str | None = None


class UndoSettlement(NamedTuple):
    """The chain took the transfer `tx` of a payment back: reverse its event and open the payment again.

    `network` is the chain's number, for the kept totals.
    """

    payment: bytes
    tx: bytes
    reason: str
    network: int


class ServeAgain(NamedTuple):
    """Take a settled payment whose answer was too large to keep, or that was reopened, to be served again."""

    payment: bytes


class KeepAgain(NamedTuple):
    """A payment was served again, uncharged: settled as before, with this answer kept; nothing is owed now.

    `body_digest` is of the request it was served for, where that was not known before.
    """

    payment: bytes
    answer: KeptAnswer
    body_digest: bytes | None = None
    note: str = "served again, uncharged"


Operation = (
    Use
    | Hold
    | Release
    | Reverse
    | ClaimPayment
    | IntendPayment
    | MovePayment
    | SettlePayment
    | UndoSettlement
    | ServeAgain
    | KeepAgain
)
