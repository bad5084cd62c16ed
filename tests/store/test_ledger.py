"""The ledger's writer on a real store: what is told is on disk, what failed never was, holds end once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headgate.model.booking import Hold, PaidUse, Release, Reverse
from headgate.model.calendar import AccountingCalendar
from headgate.model.catalog import Beyond
from headgate.model.errors import (
    AllowanceExhausted,
    Fenced,
    IdConflict,
    InputError,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from headgate.model.event import Channel, Event
from headgate.model.payment import Claim, PaymentRow, State, binding_digest, payment_id
from headgate.store import ledger as ledger_module
from headgate.store.ledger import Ledger
from headgate.store.operations import (
    Booked,
    ClaimPayment,
    Held,
    IntendPayment,
    KeptAnswer,
    MovePayment,
    SettlePayment,
)
from headgate.store.sqlite import SqliteDriver
from headgate.testing import DAY_US, START_US, FakeClock, make_standing, make_use
from tests.registries import us
from tests.store.auditing import all_counters, all_events, audit

BLOCK = make_standing(granted=10, beyond=Beyond.BLOCK)
OVERAGE = make_standing(granted=10)
CAPPED = make_standing(granted=2, cap_micros=500_000)

OpenLedger = Callable[[], Any]


@pytest.fixture
async def open_ledger(tmp_path: Path) -> AsyncIterator[OpenLedger]:
    """Opens ledgers as processes would: each with its own driver on the one file."""
    drivers = []

    async def opened() -> Ledger:
        driver = SqliteDriver(tmp_path / "headgate.db")
        drivers.append(driver)
        await driver.migrate()
        ledger = Ledger(driver, AccountingCalendar("UTC"), FakeClock())
        await ledger.open()
        return ledger

    yield opened
    for driver in drivers:
        await driver.close()


@pytest.fixture
async def ledger(open_ledger: OpenLedger) -> Ledger:
    return await open_ledger()


async def die(ledger: Ledger) -> None:
    """What the kernel does when a process is killed: its locks are let go; nothing else happens."""
    await ledger.driver.close()


async def run_sql(ledger: Ledger, sql: str) -> None:
    driver: Any = ledger.driver
    async with driver.write():
        driver._writer.execute(sql)


def channel_units(events: list[Event]) -> dict[str, int]:
    found: dict[str, int] = {}
    for event in events:
        name = Channel(event.channel).name.lower()
        found[name] = found.get(name, 0) + event.units
    return found


# --- batches


async def test_a_result_is_told_after_the_commit(open_ledger: OpenLedger) -> None:
    """Another connection sees the row at the moment the future has its result."""
    ledger, reader = await open_ledger(), sqlite3.connect((await open_ledger()).driver.path)
    seen: list[int] = []

    def look(_: object) -> None:
        seen.append(reader.execute("SELECT COUNT(*) FROM events").fetchone()[0])

    futures = [ledger.submit(make_use(OVERAGE)) for _ in range(5)]
    for future in futures:
        future.add_done_callback(look)
    assert reader.execute("SELECT COUNT(*) FROM events").fetchone()[0] == 0
    await asyncio.gather(*futures)
    await asyncio.sleep(0)
    reader.close()
    assert seen == [5] * 5


async def test_everybody_who_is_ready_shares_one_commit(ledger: Ledger) -> None:
    await asyncio.gather(*(ledger.submit(make_use(OVERAGE)) for _ in range(100)))
    assert (await ledger.driver.rows("slot_state", (1,)))[0][1:3] == (1, 100)
    await audit(ledger.driver, held=0)


async def test_captures_go_before_holds(ledger: Ledger) -> None:
    """A hold submitted first finds the room that a release of the same batch gives back."""
    held = await ledger.hold(Hold(BLOCK, 1, 10, 10))
    later = ledger.submit(Hold(BLOCK, 1, 5, 5))
    ledger.submit(Release(BLOCK, 1, *held))
    assert (await later).units == 5
    await audit(ledger.driver, held=5)


async def test_one_unit_left_goes_to_one_of_many(ledger: Ledger) -> None:
    taken = await asyncio.gather(*(ledger.hold(Hold(BLOCK, 1, 1, 1)) for _ in range(30)))
    assert sorted(held.units for held in taken) == [0] * 20 + [1] * 10


@pytest.mark.parametrize("old_first", [True, False])
async def test_requests_of_one_batch_may_know_different_terms(ledger: Ledger, old_first: bool) -> None:
    """Seats were added and a cap agreed while a request was under way: neither fails the other."""
    old, new = replace(OVERAGE, granted=2), replace(OVERAGE, granted=4, cap_micros=100_000)
    nothing = ledger.submit(make_use(old if old_first else new, 0))
    use, hold = ledger.submit(make_use(new if old_first else old, 3)), ledger.submit(Hold(new, 1, 2, 2))
    await nothing
    booked: Booked = await use
    assert channel_units(list(booked.events)) == {"seat": 3}
    assert (await hold).units == 2
    await audit(ledger.driver, held=2)


@pytest.mark.parametrize("grants", [(2, 4), (4, 2)])
async def test_the_largest_grant_of_a_batch_counts(ledger: Ledger, grants: tuple[int, int]) -> None:
    await ledger.submit(make_use(replace(OVERAGE, granted=2), 0))
    uses = [ledger.submit(make_use(replace(OVERAGE, granted=granted), 2)) for granted in grants]
    await asyncio.gather(*uses)
    assert channel_units(await audit(ledger.driver)) == {"seat": 4}


async def test_a_larger_grant_frees_a_caps_money(ledger: Ledger) -> None:
    held = await ledger.hold(Hold(CAPPED, 1, 7, 7))
    assert (await ledger.hold(Hold(CAPPED, 1, 1, 1))).units == 0
    more = replace(CAPPED, granted=4)
    assert (await ledger.hold(Hold(more, 1, 2, 2))).units == 2
    await ledger.submit(make_use(CAPPED, 7, held=7, lease=held.lease))
    events = await audit(ledger.driver, held=2)
    assert channel_units(events) == {"seat": 4, "overage": 3}


async def test_what_cannot_be_written_fails_alone(ledger: Ledger) -> None:
    """One absurd use in a batch of many: the others are booked, and its hold is given back."""
    held = await ledger.hold(Hold(BLOCK, 7, 3, 3))
    good = [ledger.submit(make_use(OVERAGE)) for _ in range(5)]
    bad = ledger.submit(make_use(BLOCK, 2**70, action=7, held=3, lease=held.lease))
    good += [ledger.submit(make_use(OVERAGE)) for _ in range(5)]
    results = await asyncio.gather(*good, bad, return_exceptions=True)
    assert all(isinstance(result, Booked) for result in results[:-1])
    assert isinstance(results[-1], StoreUnavailable)
    ledger._give_back_owed()
    await ledger.close()
    assert len(await audit(ledger.driver, held=0)) == 10


# --- ids: once each


def record(identifier: bytes, content: bytes = b"same", units: int = 3) -> Any:
    return make_use(OVERAGE, units, record=(identifier * 32, content))


async def test_an_id_gives_the_same_rows_again(ledger: Ledger) -> None:
    first = await ledger.submit(record(b"a", units=12))
    again = await ledger.submit(record(b"a", units=12))
    assert not first.repeated
    assert again == Booked(first.events, repeated=True)
    assert channel_units(list(first.events)) == {"seat": 10, "overage": 2}
    assert len(await audit(ledger.driver)) == 2


async def test_an_id_with_other_content_is_refused(ledger: Ledger) -> None:
    await ledger.submit(record(b"a"))
    with pytest.raises(IdConflict):
        await ledger.submit(record(b"a", b"other"))
    assert len(await audit(ledger.driver)) == 1


async def test_an_id_twice_in_one_batch(ledger: Ledger) -> None:
    batch = [record(b"a"), record(b"b"), record(b"a"), record(b"b", b"other"), record(b"a")]
    first, other, again, conflict, third = await asyncio.gather(
        *map(ledger.submit, batch), return_exceptions=True
    )
    assert again.events == third.events == first.events != other.events
    assert [first.repeated, again.repeated, third.repeated] == [False, True, True]
    assert isinstance(conflict, IdConflict)
    assert len(await audit(ledger.driver)) == 2


async def test_an_id_is_one_in_every_process(open_ledger: OpenLedger) -> None:
    one, two = await open_ledger(), await open_ledger()
    assert one.slot != two.slot
    results = await asyncio.gather(*(ledger.submit(record(b"a")) for ledger in (one, two) for _ in range(3)))
    assert len({booked.events for booked in results}) == 1
    assert sorted(booked.repeated for booked in results) == [False] + [True] * 5
    assert len(await audit(one.driver)) == 1


async def test_an_id_belongs_to_its_customer(ledger: Ledger) -> None:
    other = make_use(make_standing(customer=2, subscription=2), record=(b"a" * 32, b"other"))
    await asyncio.gather(ledger.submit(record(b"a")), ledger.submit(other))
    assert len(await audit(ledger.driver)) == 2


async def test_a_record_that_does_not_fit_is_refused_and_may_be_sent_again(ledger: Ledger) -> None:
    use = make_use(BLOCK, 11, record=(b"a" * 32, b"x"), must_fit=True)
    with pytest.raises(AllowanceExhausted) as caught:
        await ledger.submit(use)
    assert caught.value.resets_at_us == BLOCK.period.end_us
    await ledger.submit(use._replace(standing=replace(BLOCK, granted=11)))
    assert channel_units(await audit(ledger.driver)) == {"seat": 11}


async def test_a_row_is_taken_back_once(open_ledger: OpenLedger) -> None:
    one, two = await open_ledger(), await open_ledger()
    (event,) = (await one.submit(make_use(OVERAGE, 4))).events
    backs = await asyncio.gather(*(ledger.submit(Reverse(event, "r")) for ledger in (one, two, one)))
    assert sorted(back is None for back in backs) == [False, True, True]
    await audit(one.driver)
    assert [counter.used for counter in (await all_counters(one.driver)).values()] == [0]


# --- cancelled requests


async def test_a_request_that_left_while_it_waited_holds_nothing(ledger: Ledger) -> None:
    waiting = [asyncio.ensure_future(ledger.hold(Hold(BLOCK, 1, 2, 2))) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    await ledger.close()
    await audit(ledger.driver, held=4)


async def test_a_request_that_left_as_its_hold_was_granted_holds_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The future has its result, the request has not woken up yet, and is cancelled in between."""
    submit, futures = ledger.submit, []

    def submit_and_cancel(operation: Any) -> asyncio.Future[Any]:
        futures.append(submit(operation))
        futures[0].add_done_callback(lambda _: asking.cancel())
        return futures[0]

    monkeypatch.setattr(ledger, "submit", submit_and_cancel)
    asking = asyncio.ensure_future(ledger.hold(Hold(BLOCK, 1, 2, 2)))
    await asyncio.wait([asking])
    monkeypatch.undo()
    assert asking.cancelled()
    assert futures[0].result().units == 2
    await ledger.close()
    await audit(ledger.driver, held=0)


async def test_a_capture_is_booked_even_if_nobody_waits_for_it(ledger: Ledger) -> None:
    ledger.submit(make_use(OVERAGE)).cancel()
    await ledger.close()
    assert len(await audit(ledger.driver)) == 1


# --- failed commits


@contextmanager
def disk_full(ledger: Ledger) -> Iterator[None]:
    driver: Any = ledger.driver
    pages = driver._writer.execute("PRAGMA page_count").fetchone()[0]
    driver._writer.execute(f"PRAGMA max_page_count={pages}")
    yield
    driver._writer.execute("PRAGMA max_page_count=1073741823")


async def test_a_full_disk_loses_nothing_and_writes_nothing_half(ledger: Ledger) -> None:
    await asyncio.gather(*(ledger.submit(make_use(OVERAGE)) for _ in range(3)))
    held = await ledger.hold(Hold(BLOCK, 7, 3, 3))
    before = await ledger.driver.rows("slot_state", (1,))
    with disk_full(ledger):
        uses = [ledger.submit(make_use(OVERAGE, request_id=bytes([n]) * 16)) for n in range(256)]
        capture = ledger.submit(make_use(BLOCK, 2, action=7, held=3, lease=held.lease))
        failed = await asyncio.gather(*uses, capture, return_exceptions=True)
    assert {type(error) for error in failed} == {StoreFull}
    assert await ledger.driver.rows("slot_state", (1,)) == before
    await audit(ledger.driver, held=3)
    await ledger.submit(make_use(OVERAGE))
    ledger._give_back_owed()
    await ledger.close()
    assert len(await audit(ledger.driver, held=0)) == 4


async def test_a_hold_whose_capture_failed_is_given_back_as_soon_as_it_can_be(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_OWED_AGAIN_S", 0.01)
    held = await ledger.hold(Hold(BLOCK, 1, 3, 3))
    with disk_full(ledger):
        for operation in (make_use(BLOCK, 2, held=1, lease=held.lease), Release(BLOCK, 1, 2, held.lease)):
            big = [ledger.submit(make_use(OVERAGE, action=9)) for _ in range(256)]
            with pytest.raises(StoreFull):
                await ledger.submit(operation)
            await asyncio.gather(*big, return_exceptions=True)
    for _ in range(500):
        if not (ledger._owed or ledger._owing or ledger._flushing):
            break
        await asyncio.sleep(0.01)
    await audit(ledger.driver, held=0)


async def test_a_locked_store_is_told_and_the_next_batch_works(ledger: Ledger) -> None:
    driver: Any = ledger.driver
    driver._writer.execute("PRAGMA busy_timeout=20")
    stranger = sqlite3.connect(driver.path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await ledger.submit(make_use(OVERAGE))
    stranger.execute("ROLLBACK")
    stranger.close()
    await ledger.submit(make_use(OVERAGE))
    assert [event.seq for event in await audit(driver)] == [1]


class Faulty:
    """A connection whose COMMIT says that it failed, after the fact or instead of it."""

    def __init__(self, connection: sqlite3.Connection, *, takes_effect: bool) -> None:
        self._connection = connection
        self._takes_effect = takes_effect
        self.armed = True

    def execute(self, sql: str, params: Any = ()) -> Any:
        if sql != "COMMIT" or not self.armed:
            return self._connection.execute(sql, params)
        self.armed = False
        if self._takes_effect:
            self._connection.execute(sql)
        raise sqlite3.OperationalError("disk I/O error")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize("takes_effect", [True, False])
async def test_a_commit_whose_outcome_is_not_known_is_told_by_the_slot(
    ledger: Ledger, takes_effect: bool
) -> None:
    await ledger.submit(make_use(OVERAGE))
    driver: Any = ledger.driver
    driver._writer = Faulty(driver._writer, takes_effect=takes_effect)
    doubtful = ledger.submit(make_use(OVERAGE))
    if takes_effect:
        assert len((await doubtful).events) == 1
    else:
        with pytest.raises(StoreUnavailable):
            await doubtful
    await ledger.submit(make_use(OVERAGE))
    assert len(await audit(driver)) == (3 if takes_effect else 2)


async def test_a_statement_that_fails_in_the_middle_leaves_nothing(ledger: Ledger) -> None:
    """The events are written and the totals are not: neither is there afterwards."""
    await run_sql(ledger, "ALTER TABLE totals RENAME TO gone")
    for _ in range(2):
        with pytest.raises(StoreError):
            await ledger.submit(make_use(OVERAGE))
    await run_sql(ledger, "ALTER TABLE gone RENAME TO totals")
    await ledger.submit(make_use(OVERAGE))
    assert [event.seq for event in await audit(ledger.driver)] == [1]


# --- losing the slot


async def test_a_fenced_process_writes_nothing_and_goes_on_anew(ledger: Ledger) -> None:
    """Another has taken slot 1: what was held there is given back once, late captures are admitted anew."""
    held = await ledger.hold(Hold(BLOCK, 1, 4, 4))
    await ledger.submit(make_use(OVERAGE, action=2))
    async with ledger.driver.write() as tx:
        await ledger._take_over(tx, 1)
    await audit(ledger.driver, held=0)
    capture = ledger.submit(make_use(BLOCK, 2, held=2, lease=held.lease))
    new = ledger.submit(Hold(BLOCK, 1, 5, 5))
    assert len((await capture).events) == 1
    assert (await new).units == 5
    assert held.lease != ledger.lease
    await ledger.submit(Release(BLOCK, 1, 2, held.lease))  # the rest of the lost hold, a batch later
    events = await audit(ledger.driver, held=5)
    assert [(event.slot, event.seq) for event in events] == [
        (1, 1),
        (1, 2),
    ]  # it let go of it, and took it again


async def test_what_a_fenced_process_left_open_is_not_locked_by_it(open_ledger: OpenLedger) -> None:
    """Its old slot is let go of: its payments can be gone on with, by itself or by others."""
    lost, other = await open_ledger(), await open_ledger()
    await lost.submit(ClaimPayment(payment()))
    await set_state(lost, payment(), State.UNKNOWN)
    async with lost.driver.write() as tx:
        await lost._take_over(tx, lost.slot)
    await lost.submit(make_use(OVERAGE))  # finds out, and goes on
    stored = await read(other, payment())
    assert stored.slot == lost.slot
    await die(lost)
    assert await other.recover_dead() == [lost.slot]
    assert (await read(other, payment())).slot == other.slot


async def test_a_late_capture_that_fits_no_more_is_not_billed(ledger: Ledger) -> None:
    held = await ledger.hold(Hold(BLOCK, 1, 4, 4))
    async with ledger.driver.write() as tx:
        await ledger._take_over(tx, 1)
    await ledger.submit(make_use(BLOCK, 8, must_fit=True))
    with pytest.raises(Fenced):
        await ledger.submit(make_use(BLOCK, 4, held=4, lease=held.lease))
    assert channel_units(await audit(ledger.driver, held=0)) == {"seat": 8}


# --- the dead


async def test_what_a_dead_process_held_is_given_back_exactly(open_ledger: OpenLedger) -> None:
    """Two processes hold of the same contracts, one under a cap; one of them dies."""
    dead, alive = await open_ledger(), await open_ledger()
    await asyncio.gather(
        dead.hold(Hold(BLOCK, 1, 4, 4)),
        dead.hold(Hold(CAPPED, 2, 3, 3)),
        dead.hold(Hold(CAPPED, 3, 2, 2)),
        dead.submit(make_use(CAPPED, 1, action=2)),
    )
    lost = await dead.hold(Hold(BLOCK, 1, 1, 1))
    await dead.submit(Release(BLOCK, 1, *lost))
    kept = await alive.hold(Hold(CAPPED, 2, 2, 2))
    assert await alive.recover_dead() == []
    await audit(alive.driver, held=11)
    await die(dead)
    assert await alive.recover_dead() == [dead.slot]
    await audit(alive.driver, held=2)
    assert await alive.recover_dead() == []
    await alive.submit(make_use(CAPPED, 2, action=2, held=2, lease=kept.lease))
    await audit(alive.driver, held=0)
    assert await alive.driver.rows_sql("SELECT spent_micros, held_micros FROM caps") == [(100_000, 0)]


async def test_a_slot_is_leased_again_and_its_chain_goes_on(open_ledger: OpenLedger) -> None:
    first = await open_ledger()
    await first.submit(make_use(OVERAGE))
    await first.hold(Hold(BLOCK, 2, 2, 2))
    await die(first)
    second = await open_ledger()
    assert (second.slot, second.epoch) == (first.slot, first.epoch + 1)
    await second.submit(make_use(OVERAGE))
    assert [event.seq for event in await audit(second.driver, held=0)] == [1, 2]


async def test_two_processes_interleaved(open_ledger: OpenLedger) -> None:
    one, two = await open_ledger(), await open_ledger()
    standing = make_standing(granted=100)
    for _ in range(10):
        await asyncio.gather(*(ledger.submit(make_use(standing)) for ledger in (one, two) for _ in range(10)))
    events = await audit(two.driver)
    assert channel_units(events) == {"seat": 100, "overage": 100}
    assert {event.slot for event in events} == {1, 2}
    priors = sorted(event.prior for event in events)
    assert priors == list(range(200))


# --- closed months


async def test_a_late_use_of_a_closed_month_is_booked_in_the_open_one(ledger: Ledger) -> None:
    november, december = START_US + DAY_US, START_US + 31 * DAY_US
    clock: Any = ledger._now_us
    clock.now_us = december
    before = (await ledger.submit(make_use(OVERAGE, occurred_us=november))).events[0]
    await run_sql(ledger, "INSERT INTO months (month, closed_us) VALUES (202611, 0)")
    unseen = (await ledger.submit(make_use(OVERAGE, occurred_us=november))).events[0]
    await run_sql(ledger, "UPDATE registry SET generation = generation + 1")
    late = (await ledger.submit(make_use(OVERAGE, occurred_us=november))).events[0]
    back = await ledger.submit(Reverse(before, "r"))
    assert (before.month, before.late_for) == (unseen.month, unseen.late_for) == (202611, None)
    assert (late.month, late.late_for) == (back.month, back.late_for) == (202612, 202611)
    assert late.occurred_us == november
    assert late.booked_us == december
    await audit(ledger.driver)


async def test_time_never_runs_back_in_the_ledger(ledger: Ledger) -> None:
    clock: Any = ledger._now_us
    first = (await ledger.submit(make_use(OVERAGE))).events[0]
    clock.advance(seconds=-3600)
    assert (await ledger.submit(make_use(OVERAGE))).events[0].booked_us == first.booked_us


# --- payments


def payment(nonce: int = 1, path: bytes = b"/a") -> PaymentRow:
    blank = PaymentRow._make([None] * len(PaymentRow._fields))
    payer, signed = b"p" * 20, nonce.to_bytes(32, "big")
    return blank._replace(
        network="eip155:84532", asset="0xab", payer=payer, nonce=signed,
        id=payment_id("eip155:84532", "0xab", payer, signed), state=State.CLAIMED.value, slot=0, epoch=0,
        rail=1, action=1, request_id=bytes(16), binding=binding_digest("POST", path), authorized_micros=100,
        charged_micros=0, units=0, unit_micros=100, per=1, list_micros=0, written_off=0, catalog_version=1,
        valid_before_s=0, occurred_us=START_US, updated_us=0,
    )  # fmt: skip


def intent(row: PaymentRow) -> IntendPayment:
    answer = KeptAnswer(200, b"", b"answer", 1 << 62)
    return IntendPayment(row.id, State.SETTLING, None, 100, 1, 100, 0, b"{}", b"{}", answer, ())


def settlement(row: PaymentRow) -> SettlePayment:
    use = PaidUse(
        *(row.action, None, 1, 0, 100, 1, 1, 100, 100, None, None, None, None, row.request_id, START_US, 1),
        *(84532, row.payer, 100, b"t" * 32, row.id),
    )
    return SettlePayment(use, 0)


async def set_state(ledger: Ledger, row: PaymentRow, state: State) -> None:
    await run_sql(ledger, f"UPDATE payments SET state = {state.value} WHERE id = x'{row.id.hex()}'")


async def test_one_of_many_claims_wins(open_ledger: OpenLedger) -> None:
    """The same payment in two processes at once, some copies for another request."""
    one, two = await open_ledger(), await open_ledger()
    claims = [
        ledger.submit(ClaimPayment(payment(path=path)))
        for ledger in (one, two)
        for path in (b"/a", b"/a", b"/b")
    ]
    outcomes = [claimed.outcome for claimed in await asyncio.gather(*claims)]
    assert outcomes.count(Claim.FRESH) == 1
    assert set(outcomes) == {Claim.FRESH, Claim.RUNNING, Claim.ELSEWHERE}


async def test_a_cancelled_claim_is_released(ledger: Ledger) -> None:
    claim = ledger.submit(ClaimPayment(payment()))
    claim.cancel()
    await ledger.close()
    assert (await ledger.submit(ClaimPayment(payment()))).outcome is Claim.FRESH


async def test_the_payments_of_the_dead_are_adopted(open_ledger: OpenLedger) -> None:
    dead, alive = await open_ledger(), await open_ledger()
    rows = [payment(nonce) for nonce in range(3)]
    for row in rows:
        await dead.submit(ClaimPayment(row))
    await set_state(dead, rows[1], State.SETTLING)
    await set_state(dead, rows[2], State.SETTLED)
    await die(dead)
    assert (await alive.submit(ClaimPayment(rows[1]))).outcome is Claim.PENDING
    assert await alive.recover_dead() == [dead.slot]
    owners = {row[4]: row[6:8] for row in [await read(alive, row) for row in rows]}
    mine = (alive.slot, alive.epoch)
    assert [owners[row.id] for row in rows] == [mine, mine, (dead.slot, dead.epoch)]
    assert (await alive.submit(ClaimPayment(rows[1]))).outcome is Claim.RUNNING


async def test_the_payment_of_a_dead_process_may_be_claimed_before_anything_was_owed(
    open_ledger: OpenLedger,
) -> None:
    dead, alive = await open_ledger(), await open_ledger()
    await dead.submit(ClaimPayment(payment()))
    assert (await alive.submit(ClaimPayment(payment()))).outcome is Claim.RUNNING
    await die(dead)
    assert (await alive.submit(ClaimPayment(payment(path=b"/b")))).outcome is Claim.FRESH
    assert (await alive.submit(ClaimPayment(payment()))).outcome is Claim.ELSEWHERE


async def read(ledger: Ledger, row: PaymentRow) -> PaymentRow:
    return PaymentRow._make((await ledger.driver.rows("payment_read", (row.id,)))[0])


async def test_a_payment_is_booked_once_however_often_it_is_settled(open_ledger: OpenLedger) -> None:
    one, two = await open_ledger(), await open_ledger()
    row = payment()
    await one.submit(ClaimPayment(row))
    await one.submit(intent(row))
    events = await asyncio.gather(*(ledger.submit(settlement(row)) for ledger in (one, one, two)))
    assert sorted(event is None for event in events) == [False, True, True]
    (event,) = await audit(one.driver)
    stored = await read(one, row)
    assert (stored.state, stored.event_slot, stored.event_seq) == (State.SETTLED, event.slot, event.seq)
    assert stored.tx == b"t" * 32


@pytest.mark.parametrize("state", [State.CLAIMED, State.VERIFIED, State.RELEASED])
async def test_nothing_is_booked_for_a_payment_that_cannot_be_settled(ledger: Ledger, state: State) -> None:
    row = payment()
    await ledger.submit(ClaimPayment(row))
    await set_state(ledger, row, state)
    with pytest.raises(InputError, match=state.name):
        await ledger.submit(settlement(row))
    assert await all_events(ledger.driver) == []


async def test_a_payment_moves_once_and_along_the_table(ledger: Ledger) -> None:
    row = payment()
    await ledger.submit(ClaimPayment(row))
    assert await ledger.submit(MovePayment(row.id, State.CLAIMED, State.RELEASED, "a"))
    assert not await ledger.submit(MovePayment(row.id, State.CLAIMED, State.RELEASED, "b"))
    with pytest.raises(InputError, match="RELEASED to SETTLED"):
        await ledger.submit(MovePayment(row.id, State.RELEASED, State.SETTLED, None))
    steps = await ledger.driver.rows("payment_steps_of", (row.id,))
    assert [(step[1], step[2]) for step in steps] == [(State.CLAIMED, None), (State.RELEASED, "a")]


def test_the_clock_of_these_tests_is_in_november() -> None:
    assert us("2026-11-01") == START_US
    assert Held(0, 1).units == 0
