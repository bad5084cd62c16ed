"""The contention figure: 2,000 requests at once by one customer with 1,000 units left.

Exactly 1,000 of them may be `seat` units, whatever the plan says about the rest, with one process and with
two on the same SQLite file. Statuses are what the clients saw; units are read back from the ledger's rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import headgate_store
from benchmarks.load import LoadGenerator, LoadJob, get_request
from benchmarks.ready import Running, python_module, start
from benchmarks.sellers.thing import PATH

REQUESTS = 2_000
ALLOWANCE = 1_000

_AFTER_ALLOWANCE = {"overage": 200, "x402": 402, "block": 429}


@dataclass(frozen=True, slots=True)
class Contest:
    """What came out of one burst."""

    beyond: str
    processes: int
    statuses: dict[int, int]
    units: dict[str, int]
    """Units in the ledger by channel."""
    seconds: float
    p50_us: float
    p99_us: float

    @property
    def overshoot(self) -> int:
        """Seat units beyond the allowance; must be 0."""
        return max(0, self.units.get("seat", 0) - ALLOWANCE)

    @property
    def unused(self) -> int:
        """Units of the allowance that were left although somebody was sent beyond it; must be 0."""
        return max(0, ALLOWANCE - self.units.get("seat", 0))

    @property
    def exact(self) -> bool:
        """Whether answers and ledger are what the plan says, to the unit."""
        rest = REQUESTS - ALLOWANCE
        statuses: Counter[int] = Counter({200: ALLOWANCE})
        statuses[_AFTER_ALLOWANCE[self.beyond]] += rest
        units = {"seat": ALLOWANCE} | ({"overage": rest} if self.beyond == "overage" else {})
        return self.statuses == dict(statuses) and self.units == units


def run(
    directory: Path, facilitator_url: str, generator: LoadGenerator, step: Callable[[str], None]
) -> list[Contest]:
    """All six bursts on one store: three plans, one process and two.

    Raises:
        NotAvailableError: Headgate cannot run here.
    """
    headgate_store.require_installed()
    step("contention: a store with six customers")
    store = headgate_store.HeadgateStore(
        directory / "contention", facilitator_url, included=ALLOWANCE, beyond=_AFTER_ALLOWANCE
    )
    keys = store.add_customers({f"{plan}-{count}": plan for plan in _AFTER_ALLOWANCE for count in (1, 2)})
    sellers: list[Running] = []
    try:
        for count in (1, 2):
            command = python_module("benchmarks.sellers", "headgate_app")
            sellers.append(start(f"contention-{count}", command, directory, environment=store.environment))
        return [
            _burst(store, keys[f"{plan}-{count}"], f"{plan}-{count}", plan, sellers[:count], generator, step)
            for count in (1, 2)
            for plan in _AFTER_ALLOWANCE
        ]
    finally:
        for seller in sellers:
            seller.stop()


def _burst(
    store: headgate_store.HeadgateStore,
    key: str,
    customer: str,
    plan: str,
    sellers: list[Running],
    generator: LoadGenerator,
    step: Callable[[str], None],
) -> Contest:
    step(f"contention: {REQUESTS} at once, then {plan}, {len(sellers)} process(es)")
    request = get_request(PATH, "127.0.0.1", [("Authorization", f"Bearer {key}")])
    result = generator.run(
        LoadJob(
            ports=tuple(seller.port for seller in sellers),
            connections=REQUESTS,
            requests=(request,) * REQUESTS,
            repeat=False,
            expect=frozenset({200, _AFTER_ALLOWANCE[plan]}),
        )
    )
    units: Counter[str] = Counter()
    for event in store.events("--customer", customer):
        units[event["channel"]] += int(event["units"])
    return Contest(
        plan, len(sellers), result.statuses, dict(units), result.seconds, result.p50_us, result.p99_us
    )
