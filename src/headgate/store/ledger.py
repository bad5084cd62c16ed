"""The ledger's writer: gathers the operations of the moment into one transaction.

Callers `submit` an operation and wait. Everything submitted until the event loop comes round is one batch:
one turn among processes, one conditional change per counter, one commit. Captures go first, then holds, first
come first served; a result is handed out only after the commit. Nothing depends on this process's memory but
its place in the chain, which the slot's fenced update checks (architecture: "The hot path").
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from headgate.model.admission import always_yes
from headgate.model.booking import (
    Books,
    Hold,
    Release,
    Reverse,
    Use,
    counter_key,
    key_of,
    new_counter,
)
from headgate.model.calendar import AccountingCalendar
from headgate.model.errors import (
    AllowanceExhausted,
    Fenced,
    HeadgateError,
    IdConflict,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from headgate.model.event import GENESIS, Event
from headgate.model.hold import Cap, Counter, CounterKey, pending_micros
from headgate.model.payment import Claim, State
from headgate.model.subscription import Standing
from headgate.store import journal
from headgate.store.driver import Driver, Tx
from headgate.store.journal import Journal
from headgate.store.operations import (
    Booked,
    ClaimPayment,
    Held,
    IntendPayment,
    KeepAgain,
    MovePayment,
    Operation,
    ServeAgain,
    SettlePayment,
    UndoSettlement,
)
from headgate.store.stream_rows import adopt_streams

log = logging.getLogger("headgate.ledger")
NOBODY = 0
"""The slot of payments that wait for somebody who can go on with them; no process has it."""
LEASE_US = 10_000_000
_MAX_BATCH = 512
_OWED_AGAIN_S = 1.0
_HOLDS = (Hold, ClaimPayment)


class Ledger:
    """One process's writer. Open it inside the running event loop; one slot, one hash chain.

    `resolves`: somebody in this process goes on with payments, so those of dead processes may be adopted.
    """

    def __init__(
        self,
        driver: Driver,
        calendar: AccountingCalendar,
        now_us: Callable[[], int],
        *,
        resolves: bool = True,
    ) -> None:
        self.driver = driver
        self._resolves = resolves
        self.slot = 0
        self.epoch = 0
        self.lease = 0
        self._batches = 0
        self._seq = 0
        self._head = GENESIS
        self._journal = Journal(driver)
        self._calendar = calendar
        self._now_us = now_us
        self._pending: list[tuple[Operation, asyncio.Future[Any]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._owed: list[Release] = []
        self._owing: asyncio.TimerHandle | None = None
        self._generation = -1
        self._closed: frozenset[int] = frozenset()
        self._last_us = 0

    # --- opening and taking over ------------------------------------------------------------------

    async def open(self) -> None:
        """Lease a slot; whatever its last owner held is given back.

        A slot that was lost is let go of first: what is left of it is then anybody's to take over, also ours.
        """
        if self.slot:
            self.driver.free_slot(self.slot)
        self.slot = await self.driver.lease_slot()
        async with self.driver.write() as tx:
            state = await self._take_over(tx, self.slot)
            if not self._resolves:  # what its last owner left is for a process that can go on with it
                await self._hand_over(tx, self.slot, NOBODY, 0)
        self.epoch, self._batches, self._seq, self._head = state
        self._journal.slot, self._journal.epoch = self.slot, self.epoch
        self.lease += 1

    async def recover_dead(self) -> list[int]:
        """Take over what dead processes left: give their holds back, adopt their payments and streams.

        Returns the slots that were cleared. What was adopted is this process's to resume and to book.
        """
        cleared = []
        found = [slot for (slot,) in await self.driver.rows("slots_with_work", (self.slot,) * 2)]
        if self._resolves:
            found += [slot for (slot,) in await self.driver.rows("slots_with_payments", (self.slot,))]
        for slot in dict.fromkeys(found):
            with self.driver.dead_slot(slot) as dead:
                if not dead:
                    continue
                async with self.driver.write() as tx:
                    if slot != NOBODY:
                        await self._take_over(tx, slot)
                    if self._resolves:
                        await self._hand_over(tx, slot, self.slot, self.epoch)
                cleared.append(int(slot))
        return cleared

    async def _hand_over(self, tx: Tx, slot: int, to_slot: int, to_epoch: int) -> None:
        """The unfinished payments of a slot are another's from now on."""
        for identifier, state, *_ in await tx.rows("payments_to_resume", (slot,)):
            await tx.run("payment_owner", (to_slot, to_epoch, identifier, state))

    async def _take_over(self, tx: Tx, slot: int) -> tuple[int, int, int, bytes]:
        await tx.run("slot_create", (slot, GENESIS))
        state = (await tx.rows("slot_take", (self._now_us() + LEASE_US, slot)))[0]
        kept = await adopt_streams(tx, slot, self.slot)
        for *key, units in await tx.rows("held_of_slot", (slot,)):
            left = int(units) - kept[CounterKey(*key)]
            if left:
                await self._give_back(tx, CounterKey(*key), left)
        await tx.run("held_clear", (slot,))
        await tx.many("held_add", [(self.slot, *key, units) for key, units in kept.items() if units])
        return int(state[0]), int(state[1]), int(state[2]), bytes(state[3])

    async def _give_back(self, tx: Tx, key: CounterKey, units: int) -> None:
        counter = Counter._make((await tx.rows("counter_read", key))[0])
        after = counter._replace(held=counter.held - units)
        await tx.run("counter_write", (*key, *after))
        cap_key = (key.customer, key.subscription, key.start_us)
        freed = pending_micros(counter) - pending_micros(after)
        for row in await tx.rows("cap_read", cap_key) if freed else ():
            cap = Cap._make(row)
            await tx.run("cap_write", (*cap_key, cap.spent_micros, cap.held_micros - freed))

    # --- submitting -------------------------------------------------------------------------------

    def submit(self, operation: Operation) -> asyncio.Future[Any]:
        """Queue an operation for the next batch; its result, or why it was not written.

        Results: `Use` → Booked, `PaidUse` only inside `SettlePayment`; `Hold` → Held; `Release` → None;
        `ClaimPayment` → Claimed; `IntendPayment`, `MovePayment`, `ServeAgain`, `KeepAgain` → bool;
        `SettlePayment`, `UndoSettlement`, `Reverse` → Event, or None where it had been done before.

        A `Use` or `Release` that fails gives up its hold all the same, as soon as the store can be written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._pending.append((operation, future))
        if self._flushing is None:
            self._flushing = loop.create_task(self._flush())
        return future

    async def hold(self, hold: Hold) -> Held:
        """Submit a hold and wait for it. Who is cancelled just as it is granted leaves none behind."""
        future = self.submit(hold)
        try:
            held: Held = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._undo_unwanted(hold, future.result())
            raise
        return held

    async def _flush(self) -> None:
        try:
            await asyncio.sleep(0)  # everybody who is ready in this round of the loop may join
            while self._pending:
                batch, self._pending = self._pending[:_MAX_BATCH], self._pending[_MAX_BATCH:]
                await self._settle_batch(batch)
        finally:
            self._flushing = None

    async def _settle_batch(self, batch: list[tuple[Operation, asyncio.Future[Any]]]) -> None:
        batch.sort(key=lambda entry: isinstance(entry[0], _HOLDS))
        operations = [operation for operation, _ in batch]
        try:
            try:
                results = await self._commit(operations)
            except Fenced:
                log.error("slot %d was taken over; continuing on another", self.slot)
                await self.open()
                results = await self._commit(operations)
        except (StoreFull, StoreUnavailable, Fenced) as error:
            self._fail(batch, error)
            return
        except asyncio.CancelledError:
            self._fail(batch, StoreUnavailable())
            raise
        except Exception as error:
            if len(batch) > 1:  # one of them cannot be written: the others shall not suffer for it
                for entry in batch:
                    await self._settle_batch([entry])
                return
            log.exception("an operation cannot be written: %s", type(operations[0]).__name__)
            self._fail(batch, error if isinstance(error, HeadgateError) else StoreUnavailable())
            return
        for (operation, future), result in zip(batch, results, strict=True):
            if future.done():
                self._undo_unwanted(operation, result)
            elif isinstance(result, HeadgateError):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _fail(self, batch: list[tuple[Operation, asyncio.Future[Any]]], failure: HeadgateError) -> None:
        """Nothing of the batch was written. Holds that it would have given up are owed to the store."""
        for operation, future in batch:
            if not future.done():
                future.set_exception(failure)
            if isinstance(operation, Use) and operation.held and not operation.stream:
                held = operation.held
                self._owed.append(Release(operation.standing, operation.action, held, operation.lease))
            elif isinstance(operation, Release) and isinstance(failure, StoreError):
                self._owed.append(operation)
        if self._owed and self._owing is None:
            self._owing = asyncio.get_running_loop().call_later(_OWED_AGAIN_S, self._give_back_owed)

    def _give_back_owed(self) -> None:
        self._owing = None
        owed, self._owed = self._owed, []
        for release in owed:
            self._submit_unwatched(release)

    def _submit_unwatched(self, operation: Operation) -> None:
        """Submit what nobody waits for; a failure has been logged or is tried again."""
        self.submit(operation).add_done_callback(lambda done: done.cancelled() or done.exception())

    def _undo_unwanted(self, operation: Operation, result: Any) -> None:
        """The request was cancelled while it waited: what it would have had to give back is given back."""
        if isinstance(operation, Hold) and result.units:
            self._submit_unwatched(Release(operation.standing, operation.action, *result))
        elif isinstance(operation, ClaimPayment) and result.outcome is Claim.FRESH:
            self._submit_unwatched(
                MovePayment(operation.row.id, State.CLAIMED, State.RELEASED, "request cancelled")
            )

    # --- one transaction --------------------------------------------------------------------------

    async def _commit(self, operations: Sequence[Operation]) -> list[Any]:
        operations = [self._without_lost_hold(operation) for operation in operations]
        written: tuple[int, bytes] | None = None
        results: list[Any] = []
        try:
            async with self.driver.write() as tx:
                await self._learn_closed_months(tx)
                now_us = self._last_us = max(self._now_us(), self._last_us)
                books = Books(
                    self.slot, self._seq, self._head, now_us, self._calendar.month_and_day, self._closed
                )
                await self._load(tx, books, operations)
                results = [
                    Booked(tuple(books.book(operation)), repeated=False)
                    if type(operation) is Use
                    and operation.record is None
                    and not (operation.must_fit or operation.stream)
                    else await self._apply(tx, books, operation, now_us)
                    for operation in operations  # what most of a batch is, first and without a detour
                ]
                await self._store(tx, books, now_us)
                written = books.chain
        except StoreError:
            if written is None or not await self._landed(written):
                raise
        assert written is not None
        self._batches += 1
        self._seq, self._head = written
        return results

    def _without_lost_hold(self, operation: Operation) -> Operation:
        """Holds of a slot that was lost were given back by its taker; a late capture is admitted anew."""
        if isinstance(operation, Release) and operation.lease != self.lease:
            return operation._replace(units=0)
        if isinstance(operation, Use) and operation.held and operation.lease != self.lease:
            return operation._replace(held=0, must_fit=not always_yes(operation.standing))
        return operation

    async def _learn_closed_months(self, tx: Tx) -> None:
        generation = (await tx.rows("registry_generation"))[0][0]
        if generation != self._generation:
            self._closed = frozenset(month for (month,) in await tx.rows("months_closed"))
            self._generation = generation

    async def _landed(self, written: tuple[int, bytes]) -> bool:
        """Whether a commit that reported a failure took effect: the slot tells (architecture: "Batch")."""
        try:
            rows = await self.driver.rows("slot_state", (self.slot,))
        except StoreError:
            return False
        return [tuple(row) for row in rows] == [(self.epoch, self._batches + 1, *written)]

    async def _load(self, tx: Tx, books: Books, operations: Sequence[Operation]) -> None:
        """Read, in key order, every counter and cap the batch touches.

        Requests of one batch may have been admitted under different terms of the same period: the largest
        grant counts, and the cap is there as soon as one of them has one.
        """
        wanted: dict[CounterKey, Standing] = {}
        granted: dict[CounterKey, int] = {}
        capped: set[tuple[int, int, int]] = set()
        for operation in operations:
            if isinstance(operation, Use | Hold | Release):
                standing = operation.standing
                key = counter_key(standing, operation.action)
                wanted.setdefault(key, standing)
                granted[key] = max(granted.get(key, 0), standing.granted)
                if standing.cap_micros is not None:
                    capped.add((key.customer, key.subscription, key.start_us))
            elif isinstance(operation, Reverse) and (booked := key_of(operation.event)) is not None:
                await self._load_booked(tx, books, booked)
        keys = sorted(wanted)
        for key, rows in zip(keys, await tx.each("counter_read", keys), strict=True):
            books.counters[key] = Counter._make(rows[0]) if rows else new_counter(wanted[key])
        held = {(key.customer, key.subscription, key.start_us) for key in keys if books.counters[key].held}
        caps = sorted(capped | held)
        for cap_key, rows in zip(caps, await tx.each("cap_read", caps) if caps else (), strict=True):
            if rows or cap_key in capped:
                books.caps[cap_key] = Cap._make(rows[0]) if rows else Cap(0, 0)
        for key in keys:
            books.grant(key, granted[key])

    async def _load_booked(self, tx: Tx, books: Books, key: CounterKey) -> None:
        """The counter and cap of a row that was booked before: both exist, unless there is no cap."""
        books.counters[key] = Counter._make((await tx.rows("counter_read", key))[0])
        cap_key = (key.customer, key.subscription, key.start_us)
        for row in await tx.rows("cap_read", cap_key):
            books.caps[cap_key] = Cap._make(row)

    async def _apply(self, tx: Tx, books: Books, operation: Operation, now_us: int) -> Any:
        match operation:
            case Use():
                return await self._use(tx, books, operation, now_us)
            case Hold():
                return Held(books.hold(operation), self.lease)
            case Release():
                return books.release(operation)
            case Reverse():
                return await journal.reverse(tx, books, operation, now_us)
            case SettlePayment():
                return await self._journal.settle(tx, books, operation, now_us)
            case IntendPayment():
                return await self._journal.intend(tx, operation, now_us)
            case MovePayment():
                return await self._journal.move(tx, operation, now_us)
            case ClaimPayment():
                return await self._journal.claim(tx, operation, now_us)
            case UndoSettlement():
                return await self._journal.undo(tx, books, operation, now_us)
            case ServeAgain():
                return await self._journal.serve_again(tx, operation, now_us)
            case KeepAgain():
                return await self._journal.keep_again(tx, operation, now_us)

    async def _use(self, tx: Tx, books: Books, use: Use, now_us: int) -> Booked | HeadgateError:
        if use.stream and not await tx.run("stream_end", (self.slot, use.request_id)):
            return Booked((), repeated=True)  # who took over this process's slot has booked it, or will
        if use.record is None:
            if use.must_fit and not books.fits(use):
                return Fenced()
            return Booked(tuple(books.book(use)), repeated=False)
        key_hash, digest = use.record
        customer = use.standing.customer
        known = await tx.rows("claim_read", (customer, key_hash))
        if known:
            before, slot, seq, events = known[0]
            if before != digest:
                return IdConflict()
            return Booked(await self._events(tx, books, slot, seq, events), repeated=True)
        if use.must_fit and not books.fits(use):
            return AllowanceExhausted(resets_at_us=use.standing.period.end_us)
        booked = tuple(books.book(use))
        first = booked[0]
        await tx.run("claim_write", (customer, key_hash, digest, first.slot, first.seq, len(booked), now_us))
        return Booked(booked, repeated=False)

    async def _events(self, tx: Tx, books: Books, slot: int, seq: int, events: int) -> tuple[Event, ...]:
        fresh = [event for event in books.events if event.slot == slot and seq <= event.seq < seq + events]
        if fresh:  # booked earlier in this very batch
            return tuple(fresh)
        return tuple(Event._make(row) for row in await tx.rows("events_at", (slot, seq, seq + events)))

    # --- writing ----------------------------------------------------------------------------------

    async def _store(self, tx: Tx, books: Books, now_us: int) -> None:
        seq, head = books.chain
        lease = now_us + LEASE_US
        if not await tx.run("slot_advance", (seq, head, lease, self.slot, self.epoch, self._batches)):
            raise Fenced
        if books.counters:
            await tx.many("counter_write", [(*key, *counter) for key, counter in books.counters.items()])
        if books.caps:
            await tx.many("cap_write", [(*key, *cap) for key, cap in books.caps.items()])
        if books.held:
            held = [(self.slot, *key, units) for key, units in books.held.items() if units]
            await tx.many("held_add", held)
        if books.events:
            slot = self.slot
            await tx.many("event_insert", books.events)
            await tx.many("totals_add", [(*key, slot, *sums) for key, sums in books.totals.items()])
            await tx.many("party_totals_add", [(*key, slot, *sums) for key, sums in books.parties.items()])

    async def close(self) -> None:
        """Write what is queued; holds of requests that are still running are given back by the next owner."""
        if self._owing is not None:
            self._owing.cancel()
            self._give_back_owed()
        while self._flushing is not None:
            await asyncio.wait([self._flushing])
        if self._owing is not None:
            self._owing.cancel()
