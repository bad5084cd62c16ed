"""The ledger's row: a billable fact, or the correction of one. An event never changes.

The order of `Event`'s fields is the order of the table's columns and of what the row's hash covers
(format 1): `row_hash = SHA-256(previous row_hash ‖ msgpack(every field before row_hash))`. Each slot's rows
are one such chain, starting from 32 zero bytes (contract §6, promise 6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

import msgspec

ROW_FORMAT = 1
GENESIS = bytes(32)
_SEQ_BITS = 46
_SLOT_BITS = 16


class Kind(IntEnum):
    """What a row is."""

    USAGE = 1
    ADJUSTMENT = 2
    REFUND = 3
    REVERSAL = 4


class Channel(IntEnum):
    """How a row was sold."""

    SEAT = 1
    OVERAGE = 2
    X402 = 3


class Event(NamedTuple):
    """One immutable ledger row. Money in micro-dollars, times in UTC microseconds, ids as stored.

    `prior` counts the units of the action booked before in the billing period (0 for x402). `unit_micros`
    buys `per` units and is what `charged_micros` was reckoned with; `list_micros` is at the list price.
    `request_id` is 16 bytes; `payer` 20, `tx` 32, `payment` 16, x402 only. `month` is like 202611.
    """

    slot: int
    seq: int
    v: int
    kind: int
    channel: int
    action: int
    route: int | None
    units: int
    written_off: int
    unit_micros: int
    per: int
    prior: int
    catalog_version: int
    list_micros: int
    charged_micros: int
    customer: int | None
    subscription: int | None
    seat: int | None
    api_key: int | None
    period_start_us: int | None
    request_id: bytes
    occurred_us: int
    booked_us: int
    month: int
    late_for: int | None
    rail: int | None
    payer: bytes | None
    authorized_micros: int | None
    tx: bytes | None
    payment: bytes | None
    corrects_slot: int | None
    corrects_seq: int | None
    reason: str | None
    row_hash: bytes


_encode = msgspec.msgpack.Encoder().encode
_sha256 = hashlib.sha256


def chain_hash(previous: bytes, row: tuple[object, ...]) -> bytes:
    """The hash of a row given without its `row_hash`, after the row whose hash is `previous`."""
    return _sha256(previous + _encode(row)).digest()


def seal(previous: bytes, row: tuple[object, ...]) -> Event:
    """Close a row (every field before `row_hash`, in order) by chaining it to `previous`."""
    return Event._make((*row, _sha256(previous + _encode(row)).digest()))


def first_broken(events: Iterable[Event], *, head: bytes = GENESIS, seq: int = 0) -> int | None:
    """Walk a slot's events in order after `(seq, head)`; the first `seq` that does not fit, or None."""
    for event in events:
        seq += 1
        if event.seq != seq or chain_hash(head, tuple(event)[:-1]) != event.row_hash:
            return seq
        head = event.row_hash
    return None


def event_id(booked_us: int, slot: int, seq: int) -> str:
    """The public id of a row: a UUIDv7 (RFC 9562 §5.7) that carries its place in the ledger.

    48 bits of milliseconds, then slot and seq where UUIDv7 has random bits: unique by construction, sorted by
    time, and found again without an index.
    """
    place = (slot << _SEQ_BITS) | seq
    value = (booked_us // 1000) << 80 | 0x7 << 76 | (place >> 50) << 64 | 0b10 << 62 | (place & (1 << 50) - 1)
    return str(UUID(int=value))


def place_of(text: str) -> tuple[int, int] | None:
    """(slot, seq) of an event id, or None if the text is not one."""
    try:
        value = UUID(text).int
    except ValueError:
        return None
    if value >> 76 & 0xF != 0x7 or value >> 62 & 0b11 != 0b10:
        return None
    place = (value >> 64 & 0xFFF) << 50 | value & (1 << 50) - 1
    slot, seq = place >> _SEQ_BITS, place & (1 << _SEQ_BITS) - 1
    return (slot, seq) if slot < 1 << _SLOT_BITS else None


def request_id_text(value: bytes) -> str:
    """A request id as it stands in answers and reports."""
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
