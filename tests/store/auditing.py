"""An auditor of a store: adds up every row of the ledger and holds what is kept beside it against that."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from headgate.model.booking import SUMS
from headgate.model.event import Channel, Event, Kind, first_broken
from headgate.model.hold import Counter, CounterKey, pending_micros
from headgate.store.driver import Driver

EVENTS = f"SELECT {', '.join(Event._fields)} FROM events ORDER BY slot, seq"


async def all_events(driver: Driver) -> list[Event]:
    return [Event._make(row) for row in await driver.rows_sql(EVENTS)]


async def all_counters(driver: Driver) -> dict[CounterKey, Counter]:
    fields = ", ".join((*CounterKey._fields, *Counter._fields))
    rows = await driver.rows_sql(f"SELECT {fields} FROM counters")
    return {CounterKey._make(row[:4]): Counter._make(row[4:]) for row in rows}


async def audit(driver: Driver, *, held: int | None = None) -> list[Event]:
    """Assert what contract §6 says always holds; the rows. `held`: units that are out in all."""
    events = await all_events(driver)
    await _chains(driver, events)
    counters = await all_counters(driver)
    _counters(events, counters)
    await _holds(driver, counters, held)
    await _caps(driver, events, counters)
    await _totals(driver, events)
    return events


async def _chains(driver: Driver, events: list[Event]) -> None:
    for slot, seq, head in await driver.rows_sql("SELECT slot, seq, head FROM slots"):
        rows = [event for event in events if event.slot == slot]
        assert first_broken(rows) is None
        assert len(rows) == seq
        assert not rows or rows[-1].row_hash == head
    assert len({(event.corrects_slot, event.corrects_seq) for event in events if event.corrects_seq}) == sum(
        event.corrects_seq is not None for event in events
    )


def _counters(events: list[Event], counters: dict[CounterKey, Counter]) -> None:
    used: defaultdict[CounterKey, list[int]] = defaultdict(lambda: [0, 0])
    for event in events:
        if event.period_start_us is not None:
            key = CounterKey(
                event.customer or 0, event.subscription or 0, event.action, event.period_start_us
            )
            used[key][event.channel == Channel.OVERAGE] += event.units
    for key, counter in counters.items():
        seat, overage = used.pop(key, [0, 0])
        assert (counter.used, counter.overage) == (counter.opening + seat + overage, overage), key
        assert not key.subscription or counter.opening + seat <= max(counter.granted, counter.opening), key
        assert counter.held >= 0, key
    assert not used


async def _holds(driver: Driver, counters: dict[CounterKey, Counter], held: int | None) -> None:
    rows = await driver.rows_sql(
        "SELECT customer, subscription, action, start_us, SUM(units) FROM held GROUP BY 1, 2, 3, 4"
    )
    by_key = {CounterKey._make(row[:4]): row[4] for row in rows if row[4]}
    assert by_key == {key: counter.held for key, counter in counters.items() if counter.held}
    assert held is None or sum(by_key.values()) == held


async def _caps(driver: Driver, events: list[Event], counters: dict[CounterKey, Counter]) -> None:
    for *key, spent, pending in await driver.rows_sql("SELECT * FROM caps"):
        rows = [e for e in events if [e.customer, e.subscription, e.period_start_us] == key]
        assert spent == sum(event.charged_micros for event in rows)
        assert pending == sum(
            pending_micros(counter) for where, counter in counters.items() if [*where[:2], where[3]] == key
        )


async def _totals(driver: Driver, events: list[Event]) -> None:
    expected: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * SUMS)
    for event in events:
        charged = event.charged_micros if event.kind == Kind.USAGE else 0
        settled = event.charged_micros if event.tx is not None else 0
        amounts = (1, event.units, event.list_micros, charged, event.charged_micros - charged, 0, settled)
        key = (event.month, event.channel, event.action, event.slot)
        expected[key] = [a + b for a, b in zip(expected[key], amounts, strict=True)]
    sums = "SUM(events), SUM(units), SUM(list_micros), SUM(charged_micros), SUM(adjusted_micros), "
    sums += "SUM(refunded_micros), SUM(settled_micros)"
    for table in ("totals", "party_totals"):
        rows = await driver.rows_sql(
            f"SELECT month, channel, action, slot, {sums} FROM {table} GROUP BY 1, 2, 3, 4"
        )
        assert {tuple(row[:4]): list(row[4:]) for row in rows} == expected, table
