"""When not to ask a facilitator: a circuit breaker, and what it refused a moment ago. Time is handed in.

closed ──(THRESHOLD failures in a row)──► open ──(after a pause)──► one attempt ──┬─ success ─► closed
                                            ▲──────────(twice the pause)─────────└─ failure
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace

from headgate.model.offer import SignedPayment

THRESHOLD = 5
FIRST_PAUSE_US = 1_000_000
LONGEST_PAUSE_US = 60_000_000
ATTEMPT_US = 30_000_000


@dataclass(frozen=True, slots=True)
class Breaker:
    """Failures in a row, and until when nobody is asked."""

    failures: int = 0
    pause_us: int = 0
    paused_until_us: int = 0

    @property
    def open(self) -> bool:
        """Whether failures outnumber patience."""
        return self.failures >= THRESHOLD

    def wait_us(self, now_us: int) -> int:
        """How long until the next attempt is allowed; 0 is now."""
        return max(0, self.paused_until_us - now_us) if self.open else 0

    def attempted(self, now_us: int) -> Breaker:
        """After an attempt began: while open, the only one for as long as it may take."""
        return replace(self, paused_until_us=now_us + ATTEMPT_US) if self.open else self

    def succeeded(self) -> Breaker:
        """After an answer that could be used."""
        return CLOSED if self.failures else self

    def failed(self, now_us: int) -> Breaker:
        """After none."""
        failures = self.failures + 1
        if failures < THRESHOLD:
            return replace(self, failures=failures)
        pause_us = min(LONGEST_PAUSE_US, max(FIRST_PAUSE_US, 2 * self.pause_us))
        return Breaker(failures, pause_us, now_us + pause_us)


CLOSED = Breaker()


class Refusals:
    """Payments a facilitator refused a moment ago, so that repeating one asks nobody (failure case 32).

    Short-lived, because a payer may fund its wallet, and bounded: the oldest are forgotten first.
    """

    def __init__(self, *, capacity: int = 4096, ttl_us: int = 5_000_000) -> None:
        self._capacity = capacity
        self._ttl_us = ttl_us
        self._known: OrderedDict[bytes, tuple[int, str]] = OrderedDict()

    def remember(self, payment: SignedPayment, reason: str, now_us: int) -> None:
        """Keep the reason for which exactly this signed payment was refused."""
        key = _copy_of(payment)
        self._known[key] = (now_us + self._ttl_us, reason)
        self._known.move_to_end(key)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def reason(self, payment: SignedPayment, now_us: int) -> str | None:
        """Why this payment was refused, if it was a moment ago."""
        if not self._known:
            return None
        key = _copy_of(payment)
        until_us, reason = self._known.get(key, (0, ""))
        if until_us > now_us:
            return reason
        self._known.pop(key, None)
        return None


def _copy_of(payment: SignedPayment) -> bytes:
    """What tells one signed payment from another, its terms and signature included."""
    terms = (payment.pay_to, payment.amount, payment.valid_after_s, payment.valid_before_s, payment.scheme)
    return hashlib.sha256(payment.id + repr(terms).encode() + payment.signature).digest()
