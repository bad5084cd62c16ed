"""What is sold: actions with their routes and one list price, and plans; published in numbered versions.

The same price holds in every channel (contract §2). Objects are frozen; a new catalog is a new object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from headgate.model.money import cumulative_micros, standalone_micros


class Beyond(Enum):
    """The channel that comes after the allowance, or after a cap."""

    OVERAGE = "overage"
    X402 = "x402"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Route:
    """One way to ask for an action: an upper-case method and a path pattern such as `/v1/files/{id}`.

    A `{name}` stands for one non-empty path segment, `{name:path}` for the rest of the path.
    """

    method: str
    pattern: str

    def __str__(self) -> str:
        return f"{self.method} {self.pattern}"


@dataclass(frozen=True, slots=True)
class Measure:
    """How a variable-cost action's units become known: kind `code`, `header`, `bytes` or `json` (pointer)."""

    kind: str
    pointer: str = ""

    def __str__(self) -> str:
        return f"json:{self.pointer}" if self.kind == "json" else self.kind


@dataclass(frozen=True, slots=True)
class Accept:
    """One way of payment the seller spelled out for an action: `scheme`, `network` (CAIP-2), its own text.

    Its amount is not kept: it was checked to be the list price, which holds in every channel.
    """

    scheme: str
    network: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """What a caller does that is priced.

    `price_micros` buys `per` units; zero means free. `max_units` makes the cost variable: it is the x402
    ceiling (scheme `upto`), and `measure` says how the actual is found. Without it each request is one unit.
    `bill_on` holds the (first, last) status ranges that are billed. `accepts` narrows where it can be paid
    for; empty: on every network that is offered.
    """

    name: str
    title: str
    unit: str
    price_micros: int
    per: int = 1
    routes: tuple[Route, ...] = ()
    max_units: int | None = None
    measure: Measure | None = None
    bill_on: tuple[tuple[int, int], ...] = ((200, 299),)
    on_unmeasured: str = "fail"  # or "ceiling"
    settle: str = "after"  # or "before"
    stream: bool = False
    mime_type: str = "application/json"
    accepts: tuple[Accept, ...] = ()

    @property
    def variable(self) -> bool:
        return self.max_units is not None

    @property
    def free(self) -> bool:
        return self.price_micros == 0

    def bills(self, status: int) -> bool:
        """Whether an answer with this status is billed: 2xx, or what `bill_on` narrows it to."""
        for first, last in self.bill_on:  # noqa: SIM110  asked for every answer: a generator costs ten times as much
            if first <= status <= last:
                return True
        return False

    def list_micros(self, prior_units: int, units: int) -> int:
        """List amount of a customer's units after `prior_units` (cumulative)."""
        return cumulative_micros(prior_units, units, self.price_micros, self.per)

    def x402_micros(self, units: int) -> int:
        """What one x402 payment for `units` costs."""
        return standalone_micros(units, self.price_micros, self.per)

    @property
    def x402_ceiling_micros(self) -> int:
        """The amount an offer names: the price of one unit, or of `max_units` where the cost is variable."""
        return self.x402_micros(1 if self.max_units is None else self.max_units)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a contract includes, and what comes beyond it.

    `term_months` is the contract's length (None: open-ended); `period_months` the billing period's.
    """

    name: str
    title: str
    term_months: int | None = 12
    period_months: int = 1
    price_per_seat_micros: int = 0
    included_per_seat: Mapping[str, int] = field(default_factory=dict)
    included: Mapping[str, int] = field(default_factory=dict)
    beyond: Beyond = Beyond.BLOCK
    overage_cap_micros: int | None = None
    beyond_cap: Beyond = Beyond.BLOCK

    def allowance(self, action: str, seats: int) -> int:
        """Units of an action included in one billing period: flat + per seat × seats."""
        return self.included.get(action, 0) + self.included_per_seat.get(action, 0) * seats


@dataclass(frozen=True, slots=True)
class Catalog:
    """Actions, plans and declared-free routes, as one published version (0: not published yet)."""

    actions: Mapping[str, Action]
    plans: Mapping[str, Plan]
    free: tuple[Route, ...] = ()
    version: int = 0
    effective_us: int = 0
