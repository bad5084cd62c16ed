"""When not to ask a facilitator: a circuit breaker, what it refused a moment ago, and who asks too much.

Time is handed in.

closed ──(THRESHOLD failures in a row)──► open ──(after a pause)──► one attempt ──┬─ success ─► closed
                                            ▲──────────(twice the pause)─────────└─ failure
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, replace

from headgate.model.offer import SignedPayment

THRESHOLD = 5
FIRST_PAUSE_US = 1_000_000
LONGEST_PAUSE_US = 60_000_000
ATTEMPT_US = 30_000_000


@dataclass(frozen=True, slots=True)
class Breaker:
    """Failures in a row, and until when nobody is asked.

    `askers` are those who were told of them: one whose fault each may have been counts once, however often.
    `trying` is whose question the one attempt is, while it is open.
    """

    failures: int = 0
    pause_us: int = 0
    paused_until_us: int = 0
    askers: frozenset[bytes] = frozenset()
    trying: bytes | None = None

    @property
    def open(self) -> bool:
        """Whether failures outnumber patience."""
        return self.failures >= THRESHOLD

    def wait_us(self, now_us: int) -> int:
        """How long until the next attempt is allowed; 0 is now."""
        return max(0, self.paused_until_us - now_us) if self.open else 0

    def attempted(self, asker: bytes, now_us: int) -> Breaker:
        """After a question was begun: while open, the only one for as long as it may take."""
        return replace(self, paused_until_us=now_us + ATTEMPT_US, trying=asker) if self.open else self

    def given_up(self, asker: bytes, now_us: int) -> Breaker:
        """After the attempt ended with nothing learnt: the next question is one."""
        if not self.open or self.trying != asker:
            return self
        return replace(self, paused_until_us=now_us, trying=None)

    def succeeded(self) -> Breaker:
        """After an answer that could be used."""
        return CLOSED if self.failures else self

    def failed(self, now_us: int, asker: bytes | None = None) -> Breaker:
        """After none. `asker`: whose fault it may have been; None where it can be nobody's."""
        known = asker is not None and asker in self.askers
        askers = self.askers if asker is None else self.askers | {asker}
        if self.open:
            if self.trying is None or asker not in (None, self.trying):
                return self  # begun before it opened: nothing new
            # The same one again tells little: it must not keep the others waiting for ever longer.
            pause_us = self.pause_us if known else min(LONGEST_PAUSE_US, 2 * self.pause_us)
            return Breaker(self.failures, pause_us, now_us + pause_us, askers)
        failures = self.failures + (not known)
        if failures < THRESHOLD:
            return replace(self, failures=failures, askers=askers)
        return Breaker(failures, FIRST_PAUSE_US, now_us + FIRST_PAUSE_US, askers)


CLOSED = Breaker()


class Breakers:
    """One breaker for all, and one for each asker whose questions fail.

    What a facilitator makes of a question can be the asker's doing: a wallet emptied between verifying and
    settling, a contract that reverts. So a failure counts for its asker in full, and for all once per asker:
    nobody closes the shop for others, and who fails again and again waits by itself. The memory of askers is
    bounded: the oldest are forgotten first.
    """

    def __init__(self, *, capacity: int = 4096) -> None:
        self.all = CLOSED
        self._own: OrderedDict[bytes, Breaker] = OrderedDict()
        self._capacity = capacity

    def wait_us(self, asker: bytes, now_us: int) -> int:
        """How long until this one's next question is asked; 0 is now."""
        return max(self.all.wait_us(now_us), self._own.get(asker, CLOSED).wait_us(now_us))

    def attempted(self, asker: bytes, now_us: int) -> None:
        """A question of it begins."""
        self.all = self.all.attempted(asker, now_us)
        if asker in self._own:
            self._own[asker] = self._own[asker].attempted(asker, now_us)

    def given_up(self, asker: bytes, now_us: int) -> None:
        """It ended with nothing learnt."""
        self.all = self.all.given_up(asker, now_us)
        if asker in self._own:
            self._own[asker] = self._own[asker].given_up(asker, now_us)

    def succeeded(self, asker: bytes) -> None:
        """It was answered."""
        self.all = self.all.succeeded()
        self._own.pop(asker, None)

    def failed(self, asker: bytes, now_us: int, *, whoever_asks: bool) -> None:
        """It was not. `whoever_asks`: it would have been the same for everybody."""
        if whoever_asks:
            self.all = self.all.failed(now_us)
            return
        self.all = self.all.failed(now_us, asker)
        own = self._own.get(asker, CLOSED)
        # Its own may stay open while the question was admitted as all's attempt, and the other way round.
        self._own[asker] = own.failed(now_us)
        self._own.move_to_end(asker)
        if len(self._own) > self._capacity:
            self._own.popitem(last=False)


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


MINUTE_US = 60_000_000


class Clients:
    """How many payments of one client address may be refused in a minute (failure case 32).

    Good signatures cost a stranger nothing, questions to a facilitator cost the seller: each question takes
    one of a client's `per_minute`, and a payment that turns out good gives it back. Whoever's payment was
    good lately is never held up, so that a crowd behind one address has only its strangers to wait. Both
    memories are bounded: the oldest are forgotten first. `per_minute` 0 bounds nobody.
    """

    def __init__(self, per_minute: int, *, capacity: int = 16_384) -> None:
        self._each_us = MINUTE_US // per_minute if per_minute else 0
        self._capacity = capacity
        self._used_up_us: OrderedDict[str, int] = OrderedDict()  # when its questions are all back
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def wait_us(self, client: str | None, payer: bytes | None, now_us: int) -> int:
        """How long until a payment of this client may be asked about; 0 is now.

        None: nobody knows which client; nobody has proven to be the payer.
        """
        if not self._each_us or client is None or payer in self._good:
            return 0
        known_us = self._used_up_us.get(network_of(client), 0)
        return max(0, max(known_us, now_us) + self._each_us - MINUTE_US - now_us)

    def ask(self, client: str | None, payer: bytes | None, now_us: int) -> str | None:
        """Take one of a client's questions; what to give back if it costs nothing in the end (None: free)."""
        if not self._each_us or client is None or payer in self._good:
            return None
        network = network_of(client)
        self._change(network, self._each_us, now_us)
        return network

    def give_back(self, taken: str | None, now_us: int) -> None:
        """Nobody was asked, or the answer says nothing against the client."""
        if taken is not None:
            self._change(taken, -self._each_us, now_us)

    def unpaid(self, client: str | None, now_us: int) -> None:
        """Work of this client ended unpaid: as good as refused."""
        if self._each_us and client is not None:
            self._change(network_of(client), self._each_us, now_us)

    def good(self, payer: bytes) -> None:
        """A payment of this payer, proven to be its own, was good."""
        if self._each_us:
            self._good[payer] = None
            self._good.move_to_end(payer)
            if len(self._good) > self._capacity:
                self._good.popitem(last=False)

    def forget(self, payer: bytes) -> None:
        """A payer's work ended unpaid: it is a stranger again."""
        self._good.pop(payer, None)

    def _change(self, network: str, by_us: int, now_us: int) -> None:
        changed_us = max(self._used_up_us.get(network, 0), now_us) + by_us
        self._used_up_us[network] = min(changed_us, now_us + MINUTE_US)
        self._used_up_us.move_to_end(network)
        if len(self._used_up_us) > self._capacity:
            self._used_up_us.popitem(last=False)


def network_of(client: str) -> str:
    """What stands for one client: its address; of an IPv6 address the /64, from which one host may choose."""
    if ":" not in client:
        return client
    try:
        found = ipaddress.IPv6Address(client.partition("%")[0])
    except ValueError:
        return client
    mapped = found.ipv4_mapped
    return str(mapped) if mapped is not None else found.packed[:8].hex()
