"""Verification offline: the lines of `headgate events`, with nothing but themselves to go by.

Each line carries the canonical row that its hash covers and the hash of the row before, so that a row can be
checked even where an export was filtered. What the line shows must be what its row says; a text that stands
for a number (an action's name, a customer's id) must stand for the same number on every line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from headgate.model.event import GENESIS, Event, chain_hash, place_of
from headgate.model.report import ledger_head
from headgate.service.event_object import BYTES_FIELDS, shown_from_row
from headgate.service.verify import Difference, Verification

_ROW_FIELDS = Event._fields[:-1]
# Texts looked up by a number of the row: (texts on the line, field of the row).
_NAMED = (
    (("action",), "action"),
    (("route",), "route"),
    (("customer",), "customer"),
    (("seat_id",), "seat"),
    (("network", "asset", "pay_to", "scheme"), "rail"),
)


def verify_export(
    lines: Iterable[str | bytes], *, complete: bool = True, head: str | None = None
) -> Verification:
    """Check an export. `complete`: each slot's rows must follow each other from the first; False: filtered.

    `head` is a ledger head noted elsewhere (a report's), which a complete export taken at that moment
    reaches: it tells whether rows are missing at the end.
    """
    reader = _Reader(complete=complete)
    for number, line in enumerate(lines, 1):
        if line.strip():
            reader.take(number, line)
    reached = ledger_head((slot, seq, row_hash) for slot, (seq, row_hash) in reader.ends.items())
    if head is not None and head != reached:
        reader.differences.append(
            Difference("the end", f"the export reaches ledger head {reached}, not {head}")
        )
    return Verification(reader.events, len(reader.ends), tuple(reader.differences), reached)


class _Reader:
    """What was learnt from the lines so far."""

    def __init__(self, *, complete: bool) -> None:
        self.events = 0
        self.ends: dict[int, tuple[int, bytes]] = {}
        self.differences: list[Difference] = []
        self._complete = complete
        self._names: dict[tuple[str, int | None], object] = {}

    def take(self, number: int, line: str | bytes) -> None:
        """One line; `number` counts from 1."""
        where = f"line {number}"
        try:
            shown = msgspec.json.decode(line, type=dict[str, Any])
            event = _event(shown)
            previous = bytes.fromhex(shown["prev_hash"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            what = f"not a line of `headgate events` ({type(error).__name__}: {error})"
            self.differences.append(Difference(where, what))
            return
        self.events += 1
        where = f"{where}, slot {event.slot}, seq {event.seq}"
        self._chain(where, event, previous)
        self._shown(where, event, shown)
        self.ends[event.slot] = (event.seq, event.row_hash)

    def _chain(self, where: str, event: Event, previous: bytes) -> None:
        if chain_hash(previous, tuple(event)[:-1]) != event.row_hash:
            self._differs(where, "the row's hash does not follow from it and the hash before: changed")
        seq, head = self.ends.get(event.slot, (0, GENESIS))
        if event.seq <= seq:
            self._differs(where, f"a row after seq {seq} of its slot: inserted, repeated or out of order")
        elif event.seq == seq + 1:
            if previous != head:
                self._differs(where, "the row does not follow the one before it: one of them was changed")
        elif self._complete:
            missing = event.seq - seq - 1
            self._differs(where, f"{missing} row{'s are' if missing > 1 else ' is'} missing before it")

    def _shown(self, where: str, event: Event, shown: dict[str, Any]) -> None:
        try:
            expected = shown_from_row(event)
        except (ValueError, TypeError, OverflowError, AttributeError) as error:
            self._differs(where, f"its row holds what Headgate never writes ({error})")
            return
        for field, value in expected.items():
            if field not in shown or shown[field] != value:
                self._differs(where, f"{field} is shown as {shown.get(field)!r}, its row says {value!r}")
        corrected = None if event.corrects_slot is None else (event.corrects_slot, event.corrects_seq)
        corrects = shown.get("corrects")
        if (place_of(corrects) if isinstance(corrects, str) else None) != corrected:
            self._differs(where, f"corrects is shown as {corrects!r}, its row says {corrected}")
        for texts, field in _NAMED:
            self._named(where, texts, field, event, shown)

    def _named(
        self, where: str, texts: tuple[str, ...], field: str, event: Event, shown: dict[str, Any]
    ) -> None:
        number = getattr(event, field)
        text = tuple(shown.get(name) for name in texts)
        known = (None,) * len(texts) if number is None else self._names.setdefault((field, number), text)
        if known != text:
            said = known if number is not None else "nothing"
            self._differs(where, f"{', '.join(texts)}: {text} where {field} {number} stands for {said}")

    def _differs(self, where: str, what: str) -> None:
        self.differences.append(Difference(where, what))


def _event(shown: dict[str, Any]) -> Event:
    """The row a line carries."""
    values = shown["row"]
    if len(values) != len(_ROW_FIELDS):
        raise ValueError(f"its row has {len(values)} fields, not {len(_ROW_FIELDS)}")
    if not isinstance(values[0], int) or not isinstance(values[1], int):
        raise TypeError("its slot and seq are no numbers")
    row = [
        bytes.fromhex(value) if field in BYTES_FIELDS and value is not None else value
        for field, value in zip(_ROW_FIELDS, values, strict=True)
    ]
    return Event._make((*row, bytes.fromhex(shown["row_hash"])))
