"""Leases and cursors: who may move what, and which rows lie beyond."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headgate.model.event import Channel
from headgate.store.driver import Driver
from headgate.store.exports import NEW, Behind, Exports, ExportState, Scope, export_states
from headgate.store.registry import Registry
from tests.overage.selling import Clock, Shop, open_shop

A, B = "process a", "process b"


@pytest.fixture
async def shop(driver: Driver, registry: Registry) -> AsyncIterator[Shop]:
    found = await open_shop(driver, registry, Clock())
    yield found
    await found.close()


@pytest.fixture
def exports(driver: Driver) -> Exports:
    return Exports(driver, "webhook")


# --- leases ----------------------------------------------------------------------------------------


async def test_one_owner_at_a_time(exports: Exports) -> None:
    assert await exports.state() == NEW
    assert await exports.take(A, 100, 200) == ExportState(A, 200, 0, 0, None)
    assert await exports.take(B, 199, 300) is None
    assert await exports.take(A, 199, 300) == ExportState(A, 300, 0, 0, None)
    assert (await exports.state()).leased_by_other(B, 299)
    assert not (await exports.state()).leased_by_other(B, 300)
    assert not (await exports.state()).leased_by_other(A, 299)
    assert await exports.take(B, 300, 400) == ExportState(B, 400, 0, 0, None)
    assert not await exports.renew(A, 999)
    assert await exports.renew(B, 450)
    assert await exports.state() == ExportState(B, 450, 0, 0, None)


async def test_a_lease_given_back_is_free_at_once(exports: Exports) -> None:
    await exports.take(A, 100, 200)
    await exports.release(B)  # not its to give
    assert await exports.take(B, 150, 300) is None
    await exports.release(A)
    assert await exports.take(B, 150, 300) is not None


async def test_exports_do_not_know_each_other(driver: Driver, exports: Exports) -> None:
    other = Exports(driver, "on_overage")
    await exports.take(A, 0, 100)
    assert await other.take(B, 0, 100) is not None
    await other.failed(B, 50, "down")
    assert await export_states(driver) == {
        "on_overage": ExportState(B, 100, 1, 50, "down"),
        "webhook": ExportState(A, 100, 0, 0, None),
    }


# --- failures --------------------------------------------------------------------------------------


async def test_failures_are_counted_until_a_delivery(exports: Exports, shop: Shop, tmp_path: Path) -> None:
    await shop.use(await shop.ledger(tmp_path / "headgate.db"))
    await exports.take(A, 0, 100)
    assert await exports.failed(A, 70, "answered 500")
    assert await exports.failed(A, 90, "x" * 5000)
    assert await exports.state() == ExportState(A, 100, 2, 90, "x" * 500)
    assert not await exports.failed(B, 999, "not mine")
    assert await exports.skip(A, [], 110)
    assert await exports.state() == ExportState(A, 110, 2, 90, "x" * 500)
    assert await exports.resume()
    assert await exports.state() == ExportState(A, 110, 2, 0, "x" * 500)
    assert await exports.delivered(A, [(1, 0, 1)], 120)
    assert await exports.state() == ExportState(A, 120, 0, 0, None)


async def test_nothing_to_resume(exports: Exports) -> None:
    assert not await exports.resume()


# --- cursors ---------------------------------------------------------------------------------------


async def test_a_cursor_moves_only_for_its_owner_and_from_where_it_stands(
    exports: Exports, shop: Shop, tmp_path: Path
) -> None:
    await shop.use(await shop.ledger(tmp_path / "headgate.db"), times=9)
    await exports.take(A, 0, 100)
    assert await exports.delivered(A, [(1, 0, 5)], 100)
    assert await exports.behind() == [Behind(1, 5, 9)]
    for owner, move in [
        (B, (1, 5, 9)),  # not the owner
        (A, (1, 0, 3)),  # back: what a paused owner would do that got the export again
        (A, (1, 3, 9)),  # over rows nobody delivered
        (A, (1, 6, 9)),
    ]:
        assert not await exports.delivered(owner, [move], 500)
        assert not await exports.skip(owner, [move], 500)
        assert await exports.behind() == [Behind(1, 5, 9)]
    assert (await exports.state()).lease_until_us == 100  # nothing of a refused move stays
    assert await exports.delivered(A, [(1, 5, 9)], 100)
    assert await exports.behind() == []


async def test_moves_of_several_slots_are_all_or_none(exports: Exports, shop: Shop, tmp_path: Path) -> None:
    for _ in range(2):
        await shop.use(await shop.ledger(tmp_path / "headgate.db"), times=3)
    await exports.take(A, 0, 100)
    assert not await exports.delivered(A, [(1, 0, 2), (2, 1, 3)], 100)
    assert await exports.behind() == [Behind(1, 0, 3), Behind(2, 0, 3)]
    assert await exports.delivered(A, [(1, 0, 2), (2, 0, 3)], 100)
    assert await exports.behind() == [Behind(1, 2, 3)]


async def test_a_former_owner_changes_nothing(exports: Exports, shop: Shop, tmp_path: Path) -> None:
    await shop.use(await shop.ledger(tmp_path / "headgate.db"), times=4)
    await exports.take(A, 0, 100)
    await exports.take(B, 100, 200)
    await exports.delivered(B, [(1, 0, 2)], 200)
    assert not await exports.delivered(A, [(1, 0, 4)], 300)
    assert not await exports.delivered(A, [(1, 2, 4)], 300)
    assert not await exports.failed(A, 999, "late")
    assert await exports.state() == ExportState(B, 200, 0, 0, None)
    assert await exports.behind() == [Behind(1, 2, 4)]


# --- rows ------------------------------------------------------------------------------------------


async def test_rows_of_the_export_and_no_others(
    driver: Driver, exports: Exports, shop: Shop, tmp_path: Path
) -> None:
    """seat, overage ×2, seat, reversal of the first overage: corrections go where their rows went."""
    ledger = await shop.ledger(tmp_path / "headgate.db")
    await shop.use(ledger, customer=2)
    (first, _) = await shop.use(ledger, 3, times=2)
    await shop.use(ledger, customer=2)
    await shop.reverse(ledger, first)

    rows = await exports.rows(1, 0, 5, 99)
    assert [(row.seq, row.kind, row.units, row.charged_micros) for row in rows] == [
        (2, 1, 3, 240_000),
        (3, 1, 3, 240_000),
        (5, 4, -3, -240_000),
    ]
    assert {(row.channel, row.customer_ref, row.action_name) for row in rows} == {
        (Channel.OVERAGE, "acme", "doc")
    }
    assert (rows[2].corrects_slot, rows[2].corrects_seq, rows[2].reason) == (1, 2, "served in error")
    assert rows[2].corrects_booked_us == first.booked_us
    assert rows[0].corrects_booked_us is None

    assert [row.seq for row in await exports.rows(1, 2, 4, 99)] == [3]
    assert [row.seq for row in await exports.rows(1, 0, 5, 1)] == [2]
    everything = Exports(driver, "all", Scope.ALL_USAGE)
    assert [row.seq for row in await everything.rows(1, 0, 5, 99)] == [1, 2, 3, 4, 5]


async def test_rows_before_the_start_do_not_count(
    driver: Driver, shop: Shop, exports: Exports, tmp_path: Path
) -> None:
    ledger = await shop.ledger(tmp_path / "headgate.db")
    await shop.use(ledger)
    assert isinstance(shop.clock, Clock)
    shop.clock.pass_s(60)
    await shop.use(ledger)
    later = Exports(driver, "later", from_us=shop.clock.us)
    assert [row.seq for row in await later.rows(1, 0, 2, 99)] == [2]
    assert await later.pending() == (1, shop.clock.us)
    assert await exports.pending() == (2, shop.clock.us - 60_000_000)


async def test_pending_counts_beyond_the_cursors(exports: Exports, shop: Shop, tmp_path: Path) -> None:
    one, two = [await shop.ledger(tmp_path / "headgate.db") for _ in range(2)]
    await shop.use(one, times=3)
    await shop.use(two, customer=2)
    await shop.use(two, times=2)
    assert (await exports.pending())[0] == 5
    await exports.take(A, 0, 100)
    await exports.delivered(A, [(1, 0, 2), (2, 0, 1)], 100)
    assert (await exports.pending())[0] == 3
    await exports.delivered(A, [(1, 2, 3), (2, 1, 3)], 100)
    assert await exports.pending() == (0, None)
