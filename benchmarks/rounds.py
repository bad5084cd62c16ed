"""Rounds: the sides take turns (A B C A B C …), and ratios are taken within a round.

A machine swings by tens of percent from minute to minute; two slices a second apart see the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.load import LoadGenerator, LoadResult
from benchmarks.sides import Sellers, Side

_WARM_UP_CONNECTIONS = 32
_WARM_UP_PAYMENTS = 1_000
_WARM_UP_SECONDS = 1.0
"""Long enough for V8 to have compiled what it will compile."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One side's turn in one round."""

    connections: int
    round: int
    side: str
    result: LoadResult
    seller_cpu_us: float | None
    """CPU time of the seller's process per answer, in microseconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """A side at one number of connections: medians over its rounds."""

    connections: int
    side: str
    rate: float
    p50_us: float
    p99_us: float
    seller_cpu_us: float | None
    load_busy: float


class Measurement:
    """All slices of a run, and the medians and ratios made of them."""

    def __init__(self) -> None:
        self.slices: list[Slice] = []
        self.answers: dict[str, int] = {}
        """Answers by side, warm-up included: what a ledger must account for."""

    def run(
        self,
        sellers: Sellers,
        generator: LoadGenerator,
        sides: Sequence[Side],
        *,
        connections: Sequence[int],
        rounds: int,
        seconds: float,
        step: Callable[[str], None],
    ) -> None:
        """Warms every side up, then measures; `step` hears of each slice before it runs."""
        expected_rate = {side.name: self._warm_up(sellers, generator, side, step) for side in sides}
        for count in connections:
            for number in range(1, rounds + 1):
                for side in sides:
                    step(f"{count} connections, round {number}/{rounds}: {side.name}")
                    payments_ready = int(expected_rate[side.name] * seconds * 1.3) + count
                    slice_ = self._measure(sellers, generator, side, count, number, seconds, payments_ready)
                    self.slices.append(slice_)
                    expected_rate[side.name] = slice_.result.rate

    def _warm_up(
        self,
        sellers: Sellers,
        generator: LoadGenerator,
        side: Side,
        step: Callable[[str], None],
    ) -> float:
        step(f"warm-up: {side.name}")
        result = sellers.load(generator, side, _WARM_UP_CONNECTIONS, _WARM_UP_SECONDS, _WARM_UP_PAYMENTS)
        self.answers[side.name] = result.answers
        return result.rate

    def _measure(
        self,
        sellers: Sellers,
        generator: LoadGenerator,
        side: Side,
        connections: int,
        number: int,
        seconds: float,
        payments_ready: int,
    ) -> Slice:
        seller = sellers.running[side.seller]
        cpu_before = seller.cpu_seconds()
        result = sellers.load(generator, side, connections, seconds, payments_ready)
        cpu_after = seller.cpu_seconds()
        self.answers[side.name] += result.answers
        cpu_us = None
        if cpu_before is not None and cpu_after is not None:
            cpu_us = (cpu_after - cpu_before) * 1e6 / result.answers
        return Slice(connections, number, side.name, result, cpu_us)

    def _of(self, side: str, connections: int) -> dict[int, Slice]:
        return {
            slice_.round: slice_
            for slice_ in self.slices
            if slice_.side == side and slice_.connections == connections
        }

    def row(self, side: str, connections: int) -> Row | None:
        """Medians over the rounds, or None where the side was not measured at that number of connections."""
        slices = self._of(side, connections).values()
        if not slices:
            return None
        cpu = [slice_.seller_cpu_us for slice_ in slices if slice_.seller_cpu_us is not None]
        return Row(
            connections=connections,
            side=side,
            rate=median(slice_.result.rate for slice_ in slices),
            p50_us=median(slice_.result.p50_us for slice_ in slices),
            p99_us=median(slice_.result.p99_us for slice_ in slices),
            seller_cpu_us=median(cpu) if cpu else None,
            load_busy=median(slice_.result.busy for slice_ in slices),
        )

    def ratio(self, side: str, other: str, connections: int) -> float | None:
        """The median over rounds of `side`'s rate ÷ `other`'s rate in the same round."""
        ours, theirs = self._of(side, connections), self._of(other, connections)
        ratios = [
            ours[number].result.rate / theirs[number].result.rate for number in ours.keys() & theirs.keys()
        ]
        return median(ratios) if ratios else None

    def added_latency_us(self, side: str, other: str, connections: int) -> float | None:
        """The median over rounds of `side`'s median latency less `other`'s in the same round."""
        ours, theirs = self._of(side, connections), self._of(other, connections)
        added = [
            ours[number].result.p50_us - theirs[number].result.p50_us
            for number in ours.keys() & theirs.keys()
        ]
        return median(added) if added else None
