"""The ledger's row: its hash covers everything, its public id carries its place."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.event import (
    GENESIS,
    Event,
    event_id,
    first_broken,
    place_of,
    request_id_text,
    seal,
)

BODY: tuple[object, ...] = (
    1, 1, 1, None, 3, 0, 100_000, 1, 0, 1, 300_000, 0, 7, 8, 9, 10, 0, b"r" * 16, 5, 6, 202611, None,
    1, b"p" * 20, 2, b"t" * 32, b"i" * 16, None, None, None,
)  # fmt: skip


def chain(length: int, slot: int = 1) -> list[Event]:
    events: list[Event] = []
    head = GENESIS
    for seq in range(1, length + 1):
        events.append(seal(head, (slot, seq, 1, *BODY)))
        head = events[-1].row_hash
    return events


def test_a_row_has_every_field() -> None:
    assert len(chain(1)[0]) == len(Event._fields)


def test_a_whole_chain_holds_and_any_part_of_it() -> None:
    events = chain(5)
    assert first_broken(events) is None
    assert first_broken([]) is None
    assert first_broken(events[3:], head=events[2].row_hash, seq=3) is None


@pytest.mark.parametrize("field", Event._fields)
def test_a_change_of_any_field_is_found(field: str) -> None:
    events = chain(4)
    value = getattr(events[1], field)
    other = 99 if value is None or isinstance(value, int) else bytes(len(value))
    events[1] = events[1]._replace(**{field: other})
    assert first_broken(events) == 2


@pytest.mark.parametrize("fault", ["missing", "first missing", "swapped", "inserted"])
def test_rows_missing_inserted_or_moved_are_found(fault: str) -> None:
    events = chain(4)
    match fault:
        case "missing":
            del events[2]
        case "first missing":
            del events[0]
        case "swapped":
            events[1], events[2] = events[2], events[1]
        case _:
            events.insert(2, events[1])
    assert first_broken(events) is not None


def test_the_same_rows_in_another_slot_are_another_chain() -> None:
    assert chain(1, slot=1)[0].row_hash != chain(1, slot=2)[0].row_hash


@given(st.integers(0, (1 << 47) * 1000), st.integers(1, (1 << 16) - 1), st.integers(1, (1 << 46) - 1))
def test_an_event_id_is_a_uuid7_that_carries_its_place(booked_us: int, slot: int, seq: int) -> None:
    text = event_id(booked_us, slot, seq)
    value = UUID(text)
    assert value.version == 7
    assert value.variant == "specified in RFC 4122"
    assert value.int >> 80 == booked_us // 1000
    assert place_of(text) == (slot, seq)


def test_event_ids_sort_by_time_then_place() -> None:
    rows = [(1_000, 9, 9), (2_000, 1, 1), (2_000, 1, 2), (2_000, 2, 1), (3_000_000, 1, 1)]
    ids = [event_id(*row) for row in rows]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    "text", ["", "x", "pay_00", str(UUID(int=0)), "00000000-0000-4000-8000-000000000000"]
)
def test_what_is_no_event_id_has_no_place(text: str) -> None:
    assert place_of(text) is None


@given(st.binary(min_size=16, max_size=16))
def test_a_request_id_is_written_as_a_uuid(value: bytes) -> None:
    assert request_id_text(value) == str(UUID(bytes=value))
