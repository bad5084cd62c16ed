"""What came of trying to buy: the outcomes, and the one result that a purchase ends with."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Json = dict[str, Any]


class Outcome(StrEnum):
    """What came of trying to buy. The first five: nothing was signed."""

    FREE = "free"  # served (2xx) without asking for a payment
    ANSWERED = "answered"  # neither served nor asked to pay: a redirect or an error
    OFFERED = "offered"  # a dry run: this is what would be paid
    TOO_EXPENSIVE = "too_expensive"  # every acceptable offer is above the limit
    NO_OFFER = "no_offer"  # no offer this buyer can take up
    PAID = "paid"  # served, and the seller's receipt fits what was signed
    PAID_UNSERVED = "paid_unserved"  # settled, but not served: the same payment opens the work again
    UNCONFIRMED = "unconfirmed"  # no receipt of a settlement, or one that does not fit what was signed
    REFUSED = "refused"  # the seller says no to the payment
    PENDING = "pending"  # signed and sent, outcome unknown: send the same payment again, sign nothing new


@dataclass(frozen=True, slots=True)
class PayResult:
    """What came of it. `amount_micros` is what was settled, else what was signed, else what the offer asks.

    `transaction` and `receipt` (the URL in `Headgate-Receipt`, where the seller has one) prove a payment.
    `payer` is spelled with its checksum. `payment` is the signed header: keep it secret, for `resume` only.
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
        """Whether the seller says that it was paid, and that fits what was signed."""
        return self.outcome in (Outcome.PAID, Outcome.PAID_UNSERVED)

    @property
    def served(self) -> bool:
        """Whether the seller's answer is what was asked for."""
        return 200 <= self.status < 300

    @property
    def worth_resuming(self) -> bool:
        """Whether sending the same payment again can still bring the answer, or tell what became of it."""
        unclear = self.outcome in (Outcome.PENDING, Outcome.PAID_UNSERVED, Outcome.UNCONFIRMED)
        return unclear and not self.served and self.payment is not None

    def as_json(self) -> Json:
        """For a command's one JSON object: all but the body and the signed payment."""
        shown = {name: getattr(self, name) for name in self.__slots__ if name not in ("body", "payment")}
        return {**shown, "outcome": self.outcome.value, "paid": self.paid}
