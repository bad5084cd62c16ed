"""Which rows come next: windows and a limit in, rows and moves of cursors out."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.overage.batch import Move, Window, next_batch


class Row(NamedTuple):
    slot: int
    seq: int
    booked_us: int


def window(slot: int, cursor: int, scanned: int, *rows: tuple[int, int]) -> Window[Row]:
    return Window(slot, cursor, scanned, tuple(Row(slot, seq, at) for seq, at in rows))


A = window(1, 10, 20, (12, 100), (15, 300), (16, 300))
B = window(2, 0, 9, (4, 200), (9, 250))
EMPTY = window(3, 5, 50)


@pytest.mark.parametrize(
    ("windows", "limit", "rows", "moves"),
    [
        # all is taken: cursors go to the end of what was looked at
        ([A, B], 9, [(1, 12), (2, 4), (2, 9), (1, 15), (1, 16)], [Move(1, 10, 20), Move(2, 0, 9)]),
        # cut short: up to just before the first row that stays
        ([A, B], 2, [(1, 12), (2, 4)], [Move(1, 10, 14), Move(2, 0, 8)]),
        ([A, B], 1, [(1, 12)], [Move(1, 10, 14), Move(2, 0, 3)]),
        ([A, B], 4, [(1, 12), (2, 4), (2, 9), (1, 15)], [Move(1, 10, 15), Move(2, 0, 9)]),
        # a limit of 0 says what can be skipped at once
        ([A, B, EMPTY], 0, [], [Move(1, 10, 11), Move(2, 0, 3), Move(3, 5, 50)]),
        ([window(1, 11, 12, (12, 1))], 0, [], []),
        ([], 5, [], []),
        # a clock that was put back does not change a slot's order
        ([window(1, 0, 3, (1, 500), (2, 100), (3, 600)), window(2, 0, 1, (1, 300))], 9,
         [(2, 1), (1, 1), (1, 2), (1, 3)], [Move(1, 0, 3), Move(2, 0, 1)]),
    ],
)  # fmt: skip
def test_next_batch(
    windows: list[Window[Row]], limit: int, rows: list[tuple[int, int]], moves: list[Move]
) -> None:
    batch = next_batch(windows, limit)
    assert [(row.slot, row.seq) for row in batch.rows] == rows
    assert list(batch.moves) == moves


@st.composite
def windows(draw: st.DrawFn) -> list[Window[Row]]:
    found = []
    for slot in range(1, draw(st.integers(1, 4)) + 1):
        cursor = draw(st.integers(0, 5))
        flags = draw(st.lists(st.booleans(), max_size=12))
        times = draw(st.lists(st.integers(0, 9), min_size=12, max_size=12))
        rows = [(cursor + 1 + n, times[n]) for n, wanted in enumerate(flags) if wanted]
        found.append(window(slot, cursor, cursor + len(flags), *rows))
    return found


@given(windows(), st.integers(1, 9))
def test_batch_after_batch_everything_is_delivered_once_in_slot_order(
    start: list[Window[Row]], limit: int
) -> None:
    wanted = {one.slot: list(one.rows) for one in start}
    got: dict[int, list[Row]] = {one.slot: [] for one in start}
    now = start
    for _ in range(100):
        batch = next_batch(now, limit)
        assert len(batch.rows) <= limit
        for row in batch.rows:
            got[row.slot].append(row)
        moves = {move.slot: move for move in batch.moves}
        for one in now:
            move = moves.get(one.slot, Move(one.slot, one.cursor, one.cursor))
            assert move.before == one.cursor
            assert move.after <= one.scanned
            # never beyond a row that was not delivered
            assert all(row in got[one.slot] for row in one.rows if row.seq <= move.after)
        now = [
            Window(
                one.slot,
                moves[one.slot].after if one.slot in moves else one.cursor,
                one.scanned,
                tuple(
                    row for row in one.rows if row.seq > (moves[one.slot].after if one.slot in moves else 0)
                ),
            )
            for one in now
        ]
        if not batch.rows:
            break
    assert got == wanted
    assert all(one.cursor == one.scanned for one in now)
