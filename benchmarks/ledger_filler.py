"""Millions of events in minutes, booked by the product's own rules.

The rows come from `headgate.model.booking.Books` and go through the store's own statements, so counters,
totals, cumulative amounts and the hash chain are what a running Headgate would have left; only the batches
are larger (27 µs an event). `multiply` then makes it many times as long within SQLite, which is ten times as
fast: totals and counters stay right, but the copies' row hashes do not, so that ledger is good for reports
and for weighing, not for `verify`.

The mix: one month, 300 customers (250 inside their plan, 50 beyond it), 500 paying wallets, three actions;
5 % of the events are paid on chain. Payments themselves (claim, kept answer) are not ledger rows and are left
out.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from headgate.model.booking import Books, PaidUse, Use, counter_key, new_counter
from headgate.model.calendar import AccountingCalendar
from headgate.model.catalog import Beyond
from headgate.model.event import GENESIS
from headgate.model.hold import Counter, CounterKey
from headgate.model.periods import Period
from headgate.model.subscription import Price, Standing, StandingKind
from headgate.store.driver import Tx
from headgate.store.sqlite import SqliteDriver

MONTH = 202610
_ACTIONS = ("documents.process", "chat.complete", "images.render")
_ROUTES = ("POST /v1/documents/process", "POST /v1/chat", "POST /v1/images")
_CUSTOMERS = 300
_INSIDE = 250
_WALLETS = 500
_PAID_EVERY = 20
_PRICE = Price(100_000, 1)
_NETWORK = 84532
_RAIL = ("eip155:84532", "0x036cbd53842c5426634e7929541ec2318f3dcf7e", "0x" + "20" * 20, "exact")
_SUMS = (
    *("events", "units", "list_micros", "charged_micros"),
    *("adjusted_micros", "refunded_micros", "settled_micros"),
)
_BATCH = 20_000
_LEASE_US = 10_000_000


class _Numbers(NamedTuple):
    """The store's short numbers."""

    actions: tuple[int, ...]
    routes: tuple[int, ...]
    rail: int


async def fill(database: Path, count: int) -> None:
    """Books `count` uses into a new store, in the order of their time."""
    driver = SqliteDriver(database)
    try:
        await driver.migrate()
        driver.start()
        slot = await driver.lease_slot()
        calendar = AccountingCalendar("UTC")
        month = Period(*calendar.month_bounds_us(MONTH))
        async with driver.write() as tx:
            numbers = await _numbers(tx)
            await tx.run("slot_create", (slot, GENESIS))
            epoch, batches, seq, head = (await tx.rows("slot_take", (_now_us() + _LEASE_US, slot)))[0]
        for start in range(0, count, _BATCH):
            uses = _uses(range(start, min(start + _BATCH, count)), count, month, numbers)
            async with driver.write() as tx:
                books = Books(slot, seq, head, _now_us(), calendar.month_and_day, frozenset())
                await _book(tx, books, list(uses))
                await _write(tx, books, slot, (epoch, batches))
            seq, head = books.chain
            batches += 1
    finally:
        await driver.close()


def multiply(database: Path, times: int) -> None:
    """Makes a ledger of one slot `times` as long: each event again, with a place and a request of its own."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=OFF")
        last = connection.execute("SELECT MAX(seq) FROM events").fetchone()[0]
        columns = [row[1] for row in connection.execute("PRAGMA table_info(events)")]
        changed = {
            "seq": "seq + ?",
            "request_id": "CAST(SUBSTR(request_id, 1, 6) || RANDOMBLOB(10) AS BLOB)",
        }
        values = ", ".join(changed.get(column, column) for column in columns)
        for copy in range(1, times):
            connection.execute(
                f"INSERT INTO events SELECT {values} FROM events WHERE seq <= ?", (copy * last, last)
            )
        for table in ("totals", "party_totals"):
            sums = ", ".join(f"{column} = {column} * {times}" for column in _SUMS)
            connection.execute(f"UPDATE {table} SET {sums}")
        connection.execute(f"UPDATE counters SET used = used * {times}")
        connection.execute(f"UPDATE slots SET seq = seq * {times}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


async def _numbers(tx: Tx) -> _Numbers:
    """Looks the short numbers up, or creates them."""

    async def all_of(what: str, names: Iterable[str]) -> tuple[int, ...]:
        found = [
            await tx.rows(f"{what}_read", (name,)) or await tx.rows(f"{what}_create", (name,))
            for name in names
        ]
        return tuple([int(rows[0][0]) for rows in found])

    rails = await tx.rows("rail_read", _RAIL) or await tx.rows("rail_create", _RAIL)
    return _Numbers(await all_of("action", _ACTIONS), await all_of("route", _ROUTES), rails[0][0])


def _uses(which: range, count: int, month: Period, numbers: _Numbers) -> Iterator[Use | PaidUse]:
    """Uses spread evenly over the month, the actions, the customers and the wallets."""
    step_us = (month.end_us - month.start_us) // count
    for number in which:
        kind = number % len(_ACTIONS)
        action, route = numbers.actions[kind], numbers.routes[kind]
        occurred_us = month.start_us + number * step_us
        request = (occurred_us // 1000).to_bytes(6, "big") + hashlib.sha256(b"%d" % number).digest()[:10]
        if number % _PAID_EVERY == 0:
            yield _paid(number, action, route, request, occurred_us, numbers.rail)
        else:
            standing = _standing(1 + number // 7 % _CUSTOMERS, month)
            yield Use(
                standing, action, route, 1 + number % 9, 0, 0, None, standing.customer, request, occurred_us
            )


def _paid(number: int, action: int, route: int, request: bytes, occurred_us: int, rail: int) -> PaidUse:
    digest = hashlib.sha256(b"payment %d" % number).digest()
    return PaidUse(
        action=action,
        route=route,
        units=1,
        written_off=0,
        unit_micros=_PRICE.micros,
        per=_PRICE.per,
        catalog_version=1,
        list_micros=_PRICE.micros,
        charged_micros=_PRICE.micros,
        customer=None,
        subscription=None,
        seat=None,
        api_key=None,
        request_id=request,
        occurred_us=occurred_us,
        rail=rail,
        network=_NETWORK,
        payer=hashlib.sha256(b"wallet %d" % (number // _PAID_EVERY % _WALLETS)).digest()[:20],
        authorized_micros=_PRICE.micros,
        tx=digest,
        payment=digest[:16],
    )


_standings: dict[int, Standing] = {}


def _standing(customer: int, month: Period) -> Standing:
    """A contract with all the units one could want, or with none."""
    if customer not in _standings:
        _standings[customer] = Standing(
            kind=StandingKind.COVERED,
            customer=customer,
            subscription=customer,
            plan="team",
            catalog_version=1,
            period=month,
            granted=10**12 if customer <= _INSIDE else 0,
            beyond=Beyond.OVERAGE,
            list_price=_PRICE,
            overage_price=_PRICE,
            cap_micros=None,
            beyond_cap=Beyond.BLOCK,
            valid_until_us=month.end_us,
        )
    return _standings[customer]


async def _book(tx: Tx, books: Books, uses: list[Use | PaidUse]) -> None:
    """Loads the counters the uses touch, then books them in order."""
    wanted: dict[CounterKey, Standing] = {}
    for use in uses:
        if isinstance(use, Use):
            wanted.setdefault(counter_key(use.standing, use.action), use.standing)
    for key, standing in wanted.items():
        rows = await tx.rows("counter_read", key)
        books.counters[key] = Counter._make(rows[0]) if rows else new_counter(standing)
    for use in uses:
        if isinstance(use, Use):
            books.book(use)
        else:
            books.book_paid(use)


async def _write(tx: Tx, books: Books, slot: int, fence: tuple[int, int]) -> None:
    """Writes what `headgate.store.ledger` would have written for this batch."""
    seq, head = books.chain
    if not await tx.run("slot_advance", (seq, head, books.events[-1].booked_us + _LEASE_US, slot, *fence)):
        raise RuntimeError(f"slot {slot} of the benchmark's ledger was taken by another process")
    await tx.many("counter_write", [(*key, *counter) for key, counter in books.counters.items()])
    await tx.many("event_insert", books.events)
    await tx.many("totals_add", [(*key, slot, *sums) for key, sums in books.totals.items()])
    await tx.many("party_totals_add", [(*key, slot, *sums) for key, sums in books.parties.items()])


def _now_us() -> int:
    return time.time_ns() // 1000
