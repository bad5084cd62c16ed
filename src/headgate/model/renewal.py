"""When contracts end and renew. Terms are counted like billing periods: from the start, without drift."""

from __future__ import annotations

from headgate.model.periods import shift_months, whole_months_between
from headgate.model.subscription import Subscription, contract_end_us, period_at


def first_end_us(start_us: int, term_months: int | None, zone: str, *, now_us: int) -> int | None:
    """Where a contract made now ends: the first whole term after now; None: open-ended.

    A start whose first term is over already means a contract that has been renewed since (an import).
    """
    return (
        None if term_months is None else _first_after(start_us, 0, term_months, zone, max(start_us, now_us))
    )


def renewal_us(subscription: Subscription, now_us: int) -> int:
    """When what was pinned may change: the contract's end, or now if that is past (signed late).

    An open-ended contract renews with each billing period: at the end of the running one, or where it starts.
    """
    if subscription.end_us is not None:
        return max(subscription.end_us, now_us)
    if now_us < subscription.start_us:
        return subscription.start_us
    return period_at(subscription, now_us).end_us


def renewed_end_us(subscription: Subscription, term_months: int | None, now_us: int) -> int | None:
    """Where a contract ends after a renewal signed now: one term later, or the first term end after now.

    Terms go on from the old end also when the renewal is signed late. A plan without a term: open-ended.
    """
    if term_months is None:
        return None
    zone, end_us = subscription.time_zone, subscription.end_us
    if end_us is None:
        return _first_after(renewal_us(subscription, now_us), 0, term_months, zone, now_us)
    months = whole_months_between(subscription.start_us, end_us, zone)
    if months is None:
        return _first_after(end_us, 0, term_months, zone, now_us)
    return _first_after(subscription.start_us, months, term_months, zone, now_us)


def overtaken(subscription: Subscription) -> bool:
    """Whether a contract was cancelled before it started, and so was never in force."""
    return subscription.canceled_us is not None and subscription.canceled_us <= subscription.start_us


def overlaps(subscription: Subscription, start_us: int, end_us: int | None) -> bool:
    """Whether a contract shares an instant with `[start_us, end_us)`; its grace does not count."""
    own_end_us = contract_end_us(subscription)
    if overtaken(subscription) or (own_end_us is not None and own_end_us <= start_us):
        return False
    return end_us is None or subscription.start_us < end_us


def _first_after(anchor_us: int, months: int, term_months: int, zone: str, after_us: int) -> int:
    while True:
        months += term_months
        end_us = shift_months(anchor_us, months, zone)
        if end_us > after_us:
            return end_us
