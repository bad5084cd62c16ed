"""Which rows come next, and how far the cursors may move once they are delivered. Pure.

Rows of one slot keep their order for ever. Slots are merged by the time of booking: exact where commits are
serialized (SQLite, one clock), best effort where several hosts commit at once, since a row that another host
commits late may carry an earlier time. Nothing is missed by that: each slot has its own cursor.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Generic, NamedTuple, Protocol, TypeVar


class Placed(Protocol):
    """A row's place and time."""

    @property
    def slot(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def booked_us(self) -> int: ...


R = TypeVar("R", bound=Placed)


class Move(NamedTuple):
    """A slot's cursor goes from `before` (the last `seq` that is done) to `after`."""

    slot: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Window(Generic[R]):
    """What is known of one slot: the rows to deliver, in order, in `(cursor, scanned]`, and no others."""

    slot: int
    cursor: int
    scanned: int
    rows: tuple[R, ...]


@dataclass(frozen=True, slots=True)
class Batch(Generic[R]):
    """Rows to deliver at once, and the moves that their delivery allows."""

    rows: tuple[R, ...]
    moves: tuple[Move, ...]


def next_batch(windows: Sequence[Window[R]], limit: int) -> Batch[R]:
    """The first `limit` rows. Cursors go up to just before the first row that is not delivered.

    With a limit of 0: what may be skipped at once, because it is of no interest to the receiver.
    """
    merged = heapq.merge(*(window.rows for window in windows), key=attrgetter("booked_us"))
    rows = tuple(islice(merged, limit))
    taken = Counter(row.slot for row in rows)
    moves = []
    for window in windows:
        left = window.rows[taken[window.slot] :]
        after = left[0].seq - 1 if left else window.scanned
        if after > window.cursor:
            moves.append(Move(window.slot, window.cursor, after))
    return Batch(rows, tuple(moves))
