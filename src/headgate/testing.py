"""For tests, Headgate's own and those of applications behind it: a clock to set, and facts to reason from.

`Headgate(config, now_us=FakeClock())` makes time stand still. The builders fill in what a test does not care
about; every argument can be named to say what it does care about.
"""

from __future__ import annotations

from headgate.model.booking import Use
from headgate.model.catalog import Beyond
from headgate.model.periods import Period
from headgate.model.subscription import Price, Standing, StandingKind

DAY_US = 86_400_000_000
START_US = 1_793_491_200_000_000  # 2026-11-01T00:00:00Z
REQUEST_ID = bytes(16)
TEN_CENTS = Price(100_000, 1)
NOVEMBER = Period(START_US, START_US + 30 * DAY_US)


class FakeClock:
    """A clock that moves when it is told to. Call it for the time in UTC microseconds."""

    def __init__(self, now_us: int = START_US + DAY_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us

    def advance(self, *, us: int = 0, seconds: int = 0, days: int = 0) -> None:
        """Let time pass (or, with negative numbers, run back, as real clocks do)."""
        self.now_us += us + seconds * 1_000_000 + days * DAY_US


def make_standing(
    *,
    kind: StandingKind = StandingKind.COVERED,
    customer: int = 1,
    subscription: int = 1,
    granted: int = 10,
    beyond: Beyond = Beyond.OVERAGE,
    cap_micros: int | None = None,
    beyond_cap: Beyond = Beyond.BLOCK,
    price: Price = TEN_CENTS,
    overage_price: Price | None = None,
    period: Period = NOVEMBER,
) -> Standing:
    """A customer in November 2026: 10 units at 0.10 USD included, overage beyond."""
    return Standing(
        kind=kind,
        customer=customer,
        subscription=subscription,
        plan="team" if subscription else "",
        catalog_version=1,
        period=period,
        granted=granted,
        beyond=beyond,
        list_price=price,
        overage_price=overage_price or price,
        cap_micros=cap_micros,
        beyond_cap=beyond_cap,
        valid_until_us=period.end_us,
    )


def make_use(
    standing: Standing,
    units: int = 1,
    *,
    action: int = 1,
    held: int = 0,
    lease: int = 0,
    record: tuple[bytes, bytes] | None = None,
    must_fit: bool = False,
    request_id: bytes = REQUEST_ID,
    occurred_us: int = START_US + DAY_US,
) -> Use:
    """A use of `units`, ready to be submitted to a `Ledger`; `held` and `lease` as a hold gave them."""
    return Use(
        standing=standing,
        action=action,
        route=None,
        units=units,
        written_off=0,
        held=held,
        seat=None,
        api_key=None,
        request_id=request_id,
        occurred_us=occurred_us,
        record=record,
        must_fit=must_fit,
        lease=lease,
    )
