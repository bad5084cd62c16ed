"""Which requests are at work with payments in this process: by payment, and by who is proven to pay.

Work in flight is work that could still end unpaid, so each payer has a bound. Only a payer whose signature
was checked counts: anybody can write somebody else's address into a payment that only a chain can judge.
"""

from __future__ import annotations

from collections import Counter


class InFlight:
    """Counts of requests at work. `most` is how many one payer may have at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._payments: Counter[bytes] = Counter()
        self._payers: Counter[bytes] = Counter()

    def __contains__(self, payment: bytes) -> bool:
        return payment in self._payments

    def is_full(self, payer: bytes) -> bool:
        """Whether a payer has as much work in flight as it may have."""
        return self._payers[payer] >= self._most

    def begin(self, payment: bytes, payer: bytes | None) -> None:
        """A request begins with a payment; `payer` is None as long as nobody is proven to pay."""
        self._payments[payment] += 1
        if payer is not None:
            self._payers[payer] += 1

    def prove(self, payer: bytes) -> None:
        """Who pays for a request that has begun is known now."""
        self._payers[payer] += 1

    def end(self, payment: bytes, payer: bytes | None) -> None:
        """The opposite of `begin`, with the payer as it is counted by now."""
        _less(self._payments, payment)
        if payer is not None:
            _less(self._payers, payer)


def _less(counts: Counter[bytes], key: bytes) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
