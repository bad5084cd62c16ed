"""Customers on the same routes: what they ask, and the audit of what was booked for them.

A customer sees nothing of Headgate, so handlers note the request id they work under beside the number of the
request (`sold.HANDLED`); an event names the same id. Each request that was answered with what is billed is
one use, in the channel that the allowance says; one whose answer was lost to a kill is one at most; any other
is none.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import aiohttp

from headgate.config import load
from headgate.model.event import Channel, Kind
from headgate.service.customers import create_customer
from headgate.service.keys import create_key
from headgate.service.opening import open_store
from headgate.service.subscribe import Agreement, create_subscription
from headgate.store.sqlite import SqliteDriver
from tests.torture.outcome import Answer, Outcome
from tests.torture.process import Call, Seller, send
from tests.torture.sold import ACTIONS, CEILING, DOC, FIRST, FLOW, MEASURED, PLANS, PRICES, WORDS, included

BOOKED = """
SELECT e.request_id, c.ref, a.name, e.kind, e.channel, e.units, e.written_off, e.prior, e.list_micros,
    e.charged_micros, e.payment
FROM events e JOIN actions a ON a.id = e.action LEFT JOIN customers c ON c.id = e.customer
WHERE e.channel <> 3
"""
UNBILLED = ["raise=1", "status=404", "status=500", "status=302"]
UNMEASURED = ["units=many", "units=-3", "n=1"]


@dataclass(slots=True)
class Asked:
    """One request of a customer: the units it is billed, None: nothing; `status` 0: its answer was lost."""

    plan: str
    path: str
    units: int | None
    status: int = 0


class Booked(NamedTuple):
    """A row of the ledger that is no payer's."""

    request: bytes
    customer: str | None
    action: str
    kind: int
    channel: int
    units: int
    written_off: int
    prior: int
    list_micros: int
    charged_micros: int
    payment: bytes | None


class Customers:
    """One customer on each plan, with its key, and everything they asked for."""

    def __init__(self, chance: random.Random, outcome: Outcome, requests: int) -> None:
        self._chance = chance
        self._outcome = outcome
        self._requests = requests
        self._keys: dict[str, str] = {}
        self._asked: list[Asked] = []

    async def sign_up(self, config: Path, now_us: Callable[[], int]) -> None:
        """Make the store, with the customers in it."""
        read = load(config, {})
        driver = SqliteDriver(config.with_name("headgate.db"))
        try:
            registry = (await open_store(driver, read, now_us, self._chance.randbytes)).registry
            for plan in PLANS:
                at_us, entropy = now_us(), self._chance.randbytes(32)
                await create_customer(registry, plan, now_us=at_us)
                await create_subscription(registry, plan, Agreement(plan=plan), now_us=at_us, grace_us=0)
                key = await create_key(registry, plan, mode="test", entropy=entropy, now_us=at_us)
                self._keys[plan] = key.key
        finally:
            await driver.close()

    # --- asking -----------------------------------------------------------------------------------

    async def ask(
        self, plan: str, seller: Seller, session: aiohttp.ClientSession, payment: Sequence[str] = ()
    ) -> None:
        """One request of any kind; a payment that comes with it is ignored."""
        chance = self._chance
        (path,) = chance.choices([DOC, WORDS, FLOW, FIRST], [4, 3, 2, 2])
        units: int | None = 1
        query = "slow=0.2" if plan == "held" else "n=1"  # what it may use is held meanwhile
        if path in MEASURED:
            units = chance.choice([0, 1, 7, 64, CEILING, CEILING + 20])
            query = f"units={units}"
        if path != FLOW and chance.random() < 0.15:
            units, query = None, chance.choice(UNMEASURED if path == WORDS else UNBILLED)
        body = chance.randbytes(20).hex().encode() if path != FLOW and chance.random() < 0.5 else None
        await self._ask(Asked(plan, path, units), query, seller, session, payment, body)

    async def use_up(self, seller: Seller, session: aiohttp.ClientSession) -> None:
        """What is held is held for somebody: a customer that is never served beyond gets the last unit."""
        for _ in range(included("held", DOC, self._requests) + 1):
            asked = Asked("held", DOC, 1)
            await self._ask(asked, "n=1", seller, session)
            if asked.status == 429:
                return
        self._outcome.wrong("a customer was served more than its plan includes")

    async def _ask(
        self,
        asked: Asked,
        query: str,
        seller: Seller,
        session: aiohttp.ClientSession,
        payment: Sequence[str] = (),
        body: bytes | None = None,
    ) -> None:
        number = len(self._asked)
        self._asked.append(asked)
        key = ("Authorization", f"Bearer {self._keys[asked.plan]}")
        headers = [key, *(("PAYMENT-SIGNATURE", value) for value in payment)]
        call = Call(asked.plan, f"{asked.path}?{query}&ask={number}", headers, body)
        answer = await send(session, seller, call, self._outcome)
        if answer is not None:
            asked.status = answer.status
            self._judge(asked, query, answer)

    def _judge(self, asked: Asked, query: str, answer: Answer) -> None:
        told = int(query[7:]) if query.startswith("status=") else 500 if query == "raise=1" else 200
        refused = asked.plan == "held" and (answer.status, answer.code) == (429, "allowance_exhausted")
        if answer.status != told and not refused:
            self._outcome.wrong(f"{asked.plan}: {answer.status} {answer.code} and not {told} for {query}")
        ours = {"payment-response", "payment-required", "headgate-receipt", "headgate-units"}
        if seen := [name for name in answer.headers if name.lower() in ours]:
            self._outcome.wrong(f"{asked.plan}: an answer with {seen}")

    # --- the audit --------------------------------------------------------------------------------

    def audit(self, rows: Iterable[Booked], handled: str) -> None:
        """The ledger's rows against what was asked, and against the allowances."""
        numbers = {
            bytes.fromhex(request.replace("-", "")): int(number)
            for number, request in map(str.split, handled.splitlines())
        }
        uses: defaultdict[int, list[Booked]] = defaultdict(list)
        used: Counter[tuple[str | None, str, int]] = Counter()
        for row in rows:
            self._outcome.events[Channel(row.channel).name.lower()] += 1
            used[row.customer, row.action, row.channel] += row.units
            number = numbers.get(row.request)
            if number is None:
                self._outcome.wrong(f"{row} and no work was done under that request")
            else:
                uses[number].append(row)
        for number, asked in enumerate(self._asked):
            self._audit_one(number, asked, uses.pop(number, []))
        if uses:
            self._outcome.wrong(f"events of requests that nobody made: {sorted(uses)[:5]}")
        self._audit_allowances(used)

    def _audit_one(self, number: int, asked: Asked, rows: list[Booked]) -> None:
        """One request and its rows: a use is one row, or two where it straddles the allowance's end."""
        good = 200 <= asked.status < 300 and asked.units is not None
        lost = asked.status == 0 and asked.units is not None
        if len({row.request for row in rows}) > 1:
            self._outcome.wrong(f"request {number} was booked under several ids: {rows}")
        channels = [Channel(row.channel) for row in sorted(rows, key=lambda row: row.channel)]
        if channels not in ([], [Channel.SEAT], [Channel.OVERAGE], [Channel.SEAT, Channel.OVERAGE]):
            self._outcome.wrong(f"request {number} was booked more than once: {rows}")
        if bool(rows) != good and not lost:
            self._outcome.wrong(f"{asked} has {len(rows)} events: {rows}")
        units = sum(row.units + row.written_off for row in rows)
        if (good and units != asked.units) or (lost and units > (asked.units or 0)):
            self._outcome.wrong(f"{asked} is booked with {units} units: {rows}")
        for row in rows:
            if fault := self._fault(asked, row):
                self._outcome.wrong(f"{asked}: {fault}: {row}")

    def _fault(self, asked: Asked, row: Booked) -> str:
        """What is wrong with a row by itself."""
        allowance = included(asked.plan, asked.path, self._requests)
        in_plan = row.prior + row.units <= allowance or not row.units
        amount = row.units * PRICES[asked.path]
        if (row.customer, row.action, row.kind) != (asked.plan, ACTIONS[asked.path], Kind.USAGE):
            return "another's row"
        if row.channel != (Channel.SEAT if in_plan else Channel.OVERAGE):
            return f"the wrong channel, with {allowance} included"
        if (row.list_micros, row.charged_micros) != (amount, 0 if in_plan else amount):
            return "the wrong amount"
        if row.payment is not None:
            return "a payment in it"
        return "written off" if row.written_off and asked.plan != "held" else ""

    def _audit_allowances(self, used: Counter[tuple[str | None, str, int]]) -> None:
        """Seat units are the allowance, no more, and no less where there is overage."""
        for plan in PLANS:
            for path, action in ACTIONS.items():
                seat, overage = used[plan, action, Channel.SEAT], used[plan, action, Channel.OVERAGE]
                allowance = included(plan, path, self._requests)
                if seat > allowance or (overage and seat < allowance) or (plan == "held" and overage):
                    self._outcome.wrong(f"{plan} used {seat} and {overage} beyond of {allowance} {action}")
        left = included("held", DOC, self._requests) - used["held", ACTIONS[DOC], Channel.SEAT]
        if left:
            self._outcome.wrong(f"{left} units can never be used: something still holds them")
