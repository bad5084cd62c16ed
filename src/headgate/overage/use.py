"""What is delivered: one ledger row with the names a biller knows it by.

A row is delivered at least once. Whoever receives it counts each `event_id` once, in one of two ways:
remember the ids, or remember one number per `slot`. The second needs no bound in time: rows of one slot
arrive in the order of `seq`, and a repetition never goes beyond what was delivered before, so whatever is
not above the highest `seq` seen of its slot has been counted (failure case 48: a receiver that forgets ids
after a day).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headgate.model.calendar import format_month, format_us
from headgate.model.money import format_usd

CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class OverageUse:
    """A customer's units beyond the allowance, or the correction of such a row.

    `kind` is `usage`, or `adjustment`, `refund`, `reversal`: then `corrects` is the `event_id` of the row
    that is corrected, `reason` says why, and units and amounts are the difference (negative: taken back).
    Sums over all kinds are right. `customer` is the seller's own id, `references` its ids in other systems
    (`{"stripe": "cus_…"}`) as they are now. Money in micro-dollars, times in UTC microseconds; the
    properties give them as every JSON of Headgate does. `unit_micros` buys `per` units; `prior` units were
    booked before in the billing period, which is half-open (`period_end_us` is None where no contract says
    it). `month` is the seller's accounting month; `late_for` the closed one that a late row belongs to (like
    202611).
    """

    event_id: str
    slot: int
    seq: int
    kind: str
    channel: str
    customer: str
    action: str
    units: int
    charged_micros: int
    list_micros: int
    unit_micros: int
    per: int
    prior: int
    catalog_version: int
    subscription: str | None
    period_start_us: int | None
    period_end_us: int | None
    occurred_us: int
    booked_us: int
    month: int
    late_for: int | None
    request_id: str
    corrects: str | None = None
    reason: str | None = None
    references: Mapping[str, str] = field(default_factory=dict)

    @property
    def charged_amount(self) -> str:
        """What is owed, as a decimal string in USD with six places."""
        return format_usd(self.charged_micros)

    @property
    def list_amount(self) -> str:
        """The same units at the list price."""
        return format_usd(self.list_micros)

    @property
    def occurred_at(self) -> str:
        """When the action happened (RFC 3339, UTC)."""
        return format_us(self.occurred_us)

    @property
    def booked_at(self) -> str:
        """When the row was written (RFC 3339, UTC)."""
        return format_us(self.booked_us)


def use_to_json(use: OverageUse) -> dict[str, object]:
    """A row as a JSON object: money as decimal strings, instants as RFC 3339 text."""
    return {
        "event_id": use.event_id,
        "slot": use.slot,
        "seq": use.seq,
        "kind": use.kind,
        "channel": use.channel,
        "customer": use.customer,
        "references": dict(use.references),
        "subscription": use.subscription,
        "action": use.action,
        "units": use.units,
        "unit_price": format_usd(use.unit_micros),
        "per": use.per,
        "prior": use.prior,
        "catalog_version": use.catalog_version,
        "list_amount": use.list_amount,
        "charged_amount": use.charged_amount,
        "charged_micros": use.charged_micros,
        "currency": CURRENCY,
        "billing_period": {"start": _instant(use.period_start_us), "end": _instant(use.period_end_us)},
        "occurred_at": use.occurred_at,
        "booked_at": use.booked_at,
        "month": format_month(use.month),
        "late_for": None if use.late_for is None else format_month(use.late_for),
        "request_id": use.request_id,
        "corrects": use.corrects,
        "reason": use.reason,
    }


def _instant(at_us: int | None) -> str | None:
    return None if at_us is None else format_us(at_us)
