"""Events as they are read: one stream over all slots, oldest first, under filters, in bounded memory.

Each slot's rows come in pages by (slot, seq); the slots are merged by the time their next row was booked.
Rows that are booked while the stream runs are not part of it.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from headgate.model.calendar import AccountingCalendar
from headgate.model.errors import InputError, NotFound
from headgate.model.event import Channel, Event
from headgate.model.public_ids import KEY, read_id
from headgate.model.report import parse_month
from headgate.service.event_object import Labels
from headgate.store.driver import Driver
from headgate.store.registry import RegistryReader
from headgate.store.reports import EventFilter, events_page, first_rows

_PAGE = 500
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events, as users write it: `channel` seat, overage or x402; the seller's own customer id; a
    payer's address; a month `2026-11`; a request id; a key id `key_12`. None: all.
    """

    channel: str | None = None
    customer: str | None = None
    payer: str | None = None
    month: str | None = None
    request: str | None = None
    key: str | None = None


async def events(
    driver: Driver, registry: RegistryReader, query: EventQuery = EventQuery()
) -> AsyncIterator[dict[str, Any]]:
    """Rows as the JSON objects of contract §6, oldest first.

    Raises:
        NotFound: no such customer or key.
        InputError: a filter that cannot be read.
    """
    labels = Labels(driver, registry)
    async for event, previous_hash in stored_events(driver, await read_query(registry, query)):
        yield await labels.shown(event, previous_hash)


async def stored_events(driver: Driver, which: EventFilter) -> AsyncIterator[tuple[Event, bytes | None]]:
    """Rows as stored with the hash of the row before, merged by (booked, slot, seq)."""
    streams = []
    for slot, first, last in await _spans(driver, which):
        stream = _slot_events(driver, which, slot, first - 1, last)
        streams.append(stream)
    waiting: list[tuple[int, int, int, Event, bytes | None, AsyncIterator[tuple[Event, bytes | None]]]] = []
    for stream in streams:
        await _push(waiting, stream)
    while waiting:
        *_, event, previous_hash, stream = heapq.heappop(waiting)
        yield event, previous_hash
        await _push(waiting, stream)


async def read_query(registry: RegistryReader, query: EventQuery) -> EventFilter:
    """The stored form of a query; raises as `events` does."""
    customer = None
    if query.customer is not None:
        found = await registry.customer(query.customer)
        if found is None:
            raise NotFound(f"there is no customer {query.customer!r}; `headgate customers list` shows them")
        customer = found.id
    return EventFilter(
        channel=None if query.channel is None else read_channel(query.channel),
        customer=customer,
        payer=None if query.payer is None else read_address(query.payer),
        month=None if query.month is None else parse_month(query.month),
        request_id=None if query.request is None else read_request(query.request),
        api_key=None if query.key is None else read_id(KEY, query.key),
    )


def read_channel(text: str) -> int:
    """`overage` → 2."""
    try:
        return Channel[text.strip().upper()].value
    except KeyError:
        raise InputError(f"{text!r} is not a channel; use seat, overage or x402") from None


def read_address(text: str) -> bytes:
    """A payer's address: 20 bytes after `0x`."""
    return _read_hex(text, 20, "a payer's address")


def read_transaction(text: str) -> bytes:
    """A transaction's hash: 32 bytes after `0x`."""
    return _read_hex(text, 32, "a transaction's hash")


def read_request(text: str) -> bytes:
    """A request id."""
    try:
        return UUID(text.strip()).bytes
    except ValueError:
        raise InputError(
            f"{text!r} is none of Headgate's ids: give an event's, a request's or a payment's (pay_…), "
            "as rows and answers carry them"
        ) from None


def _read_hex(text: str, size: int, what: str) -> bytes:
    digits = text.strip().lower().removeprefix("0x")
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        value = b""
    if len(value) != size or len(digits) != 2 * size:
        raise InputError(f"{text!r} is not {what}: 0x and {2 * size} hexadecimal digits")
    return value


async def _spans(driver: Driver, which: EventFilter) -> list[tuple[int, int, int]]:
    """(slot, first, last) to read: from the month's beginning if one is asked for, up to now."""
    async with driver.snapshot() as snapshot:
        slots = [(int(row[0]), int(row[2])) for row in await snapshot.rows("slots_all")]
        firsts = {slot: 1 for slot, last in slots if last}
        if which.month is not None:
            # A day before the month in UTC: it begins no earlier in any zone.
            start_us, _ = AccountingCalendar("UTC").month_bounds_us(which.month)
            firsts = dict(await first_rows(snapshot, slots, start_us - _DAY_US))
    return [(slot, firsts[slot], last) for slot, last in slots if slot in firsts]


async def _slot_events(
    driver: Driver, which: EventFilter, slot: int, after: int, last: int
) -> AsyncIterator[tuple[Event, bytes | None]]:
    while True:
        rows = await events_page(driver, which, slot, after, last, _PAGE)
        for *row, previous_hash in rows:
            yield Event._make(row), previous_hash
        if len(rows) < _PAGE:
            return
        after = int(rows[-1][1])


async def _push(
    waiting: list[tuple[int, int, int, Event, bytes | None, AsyncIterator[tuple[Event, bytes | None]]]],
    stream: AsyncIterator[tuple[Event, bytes | None]],
) -> None:
    async for event, previous_hash in stream:
        heapq.heappush(waiting, (event.booked_us, event.slot, event.seq, event, previous_hash, stream))
        return
