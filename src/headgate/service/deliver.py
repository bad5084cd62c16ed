"""Delivering booked overage: next rows → sink → cursors, at least once, in order, by one process at a time.

A batch is read beyond the cursors, handed to the sink, and only then do the cursors move, durably. Whatever
dies in between is delivered again under the same ids. A batch that fails stays at the head and is tried
again, smaller and later each time (`overage/backoff.py`): a row the receiver cannot take holds up those
behind it, visibly, until it is taken or the operator acts; none is ever skipped. The order is that of the
ledger for each slot; across slots it is that of booking, as far as `overage/batch.py` says.

When the receiver is gone for good (410) delivery pauses: until `resume`, or until another process takes over,
which a restart amounts to. Rows stay in the ledger all the while; nothing is ever lost by a pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from headgate.model.duration import SECOND_US
from headgate.model.errors import InputError, StoreError
from headgate.model.event import Channel, Kind, event_id, request_id_text
from headgate.model.public_ids import SUBSCRIPTION, write_id
from headgate.model.subscription import Subscription, period_at
from headgate.overage.backoff import PAUSED_US, backoff_us, batch_limit, is_due
from headgate.overage.batch import Batch, Window, next_batch
from headgate.overage.sink import DeliveryFailed, Sink
from headgate.overage.use import OverageUse
from headgate.store.driver import Driver
from headgate.store.exports import Behind, ExportRow, Exports, ExportState, Scope
from headgate.store.registry import Registry

log = logging.getLogger("headgate.overage")
LEASE_US = 30 * SECOND_US
SCAN_ROWS = 20_000  # read at once where most rows are not for the receiver
SKIP_ROWS = 1_000  # so many uninteresting rows are worth a commit to pass over


@dataclass(frozen=True, slots=True)
class Delivered:
    """What one round did: rows the receiver took, rows that stay at the head, whether there may be more."""

    count: int
    failed: int
    more: bool = False


IDLE = Delivered(0, 0)


@dataclass(frozen=True, slots=True)
class ExportStatus:
    """How an export stands. `failures` in a row; `retry_us` is when it is tried again, None when at once."""

    name: str
    pending: int
    oldest_us: int | None
    oldest_age_us: int | None
    failures: int
    retry_us: int | None
    paused: bool
    last_error: str | None


def may_try(state: ExportState, owner: str, now_us: int, *, paused_here: bool) -> bool:
    """Whether this process may deliver now. A pause binds the process that met it; another tries once."""
    if state.leased_by_other(owner, now_us):
        return False
    if state.retry_us == PAUSED_US:
        return not paused_here
    return is_due(state.retry_us, now_us)


async def export_status(exports: Exports, now_us: int) -> ExportStatus:
    """How an export stands, for any process: the deliverer's own, or a command's."""
    state = await exports.state()
    pending, oldest_us = await exports.pending()
    paused = state.retry_us == PAUSED_US
    return ExportStatus(
        name=exports.name,
        pending=pending,
        oldest_us=oldest_us,
        oldest_age_us=None if oldest_us is None else max(0, now_us - oldest_us),
        failures=state.failures,
        retry_us=None if paused or is_due(state.retry_us, now_us) else state.retry_us,
        paused=paused,
        last_error=state.last_error,
    )


class Deliverer:
    """Delivers one export to one sink. `owner` is unique to this object; `below(n)` draws from [0, n)."""

    def __init__(
        self,
        driver: Driver,
        registry: Registry,
        sink: Sink,
        now_us: Callable[[], int],
        *,
        owner: str,
        below: Callable[[int], int],
        from_us: int | None = None,
        scope: Scope = Scope.OVERAGE,
        poll_us: int = SECOND_US,
        gather_us: int = SECOND_US // 10,
        lease_us: int = LEASE_US,
    ) -> None:
        self.exports = Exports(driver, sink.name, scope, from_us or 0)
        self._registry = registry
        self._sink = sink
        self._now_us = now_us
        self._owner = owner
        self._below = below
        self._poll_s = poll_us / SECOND_US
        self._gather_s = gather_us / SECOND_US
        self._lease_us = lease_us
        self._paused_here = False
        self._wake = asyncio.Event()

    # --- what others call -------------------------------------------------------------------------

    def notify(self) -> None:
        """Hint that overage was booked: `run` looks soon instead of at the next poll."""
        self._wake.set()

    async def status(self) -> ExportStatus:
        """How the export stands."""
        return await export_status(self.exports, self._now_us())

    async def resume(self) -> None:
        """Try again now, after a pause or in the middle of a backoff."""
        await self.exports.resume()
        self.notify()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set, then give the lease back. A batch under way is finished first."""
        try:
            while not stop.is_set():
                self._wake.clear()
                if not (await self._round()).more:
                    await self._wait(stop)
        finally:
            with contextlib.suppress(StoreError):
                if (await self.exports.state()).owner == self._owner:
                    await self.exports.release(self._owner)

    async def run_once(self) -> Delivered:
        """Deliver at most one batch.

        Raises:
            StoreError: the store is out of reach. If the receiver took rows before, they come again.
        """
        state = await self.exports.state()
        if not self._may_try(state) or not await self._worth_a_lease(state):
            return IDLE
        leased = await self._lease(state)
        if leased is None or not self._may_try(leased):
            return IDLE
        limit = batch_limit(leased.failures, self._sink.batch_size)
        windows = await self._windows(limit)
        if not await self._skip(windows):
            return Delivered(0, 0, more=True)  # the cursors stand elsewhere now; look again
        batch = next_batch(windows, limit)
        if not batch.rows:
            return IDLE
        return await self._attempt(batch, leased, limit)

    # --- one round --------------------------------------------------------------------------------

    async def _round(self) -> Delivered:
        """`run_once`, with what cannot be helped now written to the log: the loop goes on."""
        try:
            return await self.run_once()
        except StoreError as error:
            log.warning("%s: nothing can be delivered while the store is out of reach: %s", self._name, error)
        except Exception:
            log.exception("%s: a round of delivery failed; trying again", self._name)
        return IDLE

    async def _wait(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(waits, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._wake.is_set() and not stop.is_set():
            await asyncio.sleep(self._gather_s)  # let a few more rows join: each batch costs a commit

    @property
    def _name(self) -> str:
        return f"overage export {self.exports.name!r}"

    def _may_try(self, state: ExportState) -> bool:
        return may_try(state, self._owner, self._now_us(), paused_here=self._paused_here)

    async def _worth_a_lease(self, state: ExportState) -> bool:
        """Whether there is anything to deliver or to pass over: a look that costs no commit."""
        for slot in await self.exports.behind():
            if slot.last - slot.cursor >= SKIP_ROWS:
                return True
            if state.failures or await self.exports.rows(*slot, 1):
                return True
        return False

    async def _lease(self, state: ExportState) -> ExportState | None:
        now_us = self._now_us()
        if state.owner == self._owner and state.lease_until_us > now_us + self._lease_us // 2:
            return state
        return await self.exports.take(self._owner, now_us, now_us + self._lease_us)

    async def _windows(self, limit: int) -> list[Window[ExportRow]]:
        return [await self._window(slot, limit) for slot in await self.exports.behind()]

    async def _window(self, slot: Behind, limit: int) -> Window[ExportRow]:
        """The slot's next `limit` rows, however many others lie between them."""
        rows: list[ExportRow] = []
        scanned = slot.cursor
        while scanned < slot.last and len(rows) < limit:
            last = min(slot.last, scanned + SCAN_ROWS)
            rows += await self.exports.rows(slot.slot, scanned, last, limit - len(rows))
            scanned = rows[-1].seq if len(rows) == limit else last
        return Window(slot.slot, slot.cursor, scanned, tuple(rows))

    async def _skip(self, windows: Sequence[Window[ExportRow]]) -> bool:
        """Pass over long stretches of other channels' rows even while the receiver is down, so that they are
        not read again and again. True: there were none."""
        long = [move for move in next_batch(windows, 0).moves if move.after - move.before >= SKIP_ROWS]
        if long:
            await self.exports.skip(self._owner, long, self._now_us() + self._lease_us)
        return not long

    async def _attempt(self, batch: Batch[ExportRow], state: ExportState, limit: int) -> Delivered:
        failure = await self._deliver(batch.rows)
        if failure is not None:
            await self._failed(failure, batch.rows, state.failures + 1)
            return Delivered(0, len(batch.rows))
        if await self.exports.delivered(self._owner, batch.moves, self._now_us() + self._lease_us):
            if state.failures:
                log.info("%s: delivered again after %d failures", self._name, state.failures)
        else:
            log.warning(
                "%s: another process took over while %d rows were delivered; they may arrive twice, with the "
                "same ids",
                self._name,
                len(batch.rows),
            )
        return Delivered(len(batch.rows), 0, more=len(batch.rows) == limit)

    async def _deliver(self, rows: Sequence[ExportRow]) -> DeliveryFailed | None:
        try:
            async with self._renewing():
                await self._sink.deliver(await self._described(rows))
        except DeliveryFailed as failure:
            return failure
        except StoreError:
            raise
        except Exception as error:  # a sink is not all ours: whatever it raises, the rows stay at the head
            log.exception("%s: the sink failed", self._name)
            return DeliveryFailed(f"the sink raised {type(error).__name__}: {error}")
        return None

    async def _failed(self, failure: DeliveryFailed, rows: Sequence[ExportRow], failures: int) -> None:
        first = rows[0]
        head = event_id(first.booked_us, first.slot, first.seq)
        error = f"{failure} (at the head: event {head})"
        if failure.gone:
            self._paused_here = True
            await self.exports.failed(self._owner, PAUSED_US, error)
            log.error("%s is paused: %s", self._name, error)
            return
        wait_us = backoff_us(failures, self._below, failure.retry_after_us)
        await self.exports.failed(self._owner, self._now_us() + wait_us, error)
        log.warning(
            "%s: %d rows not delivered (failure %d in a row, again in %d s): %s",
            *(self._name, len(rows), failures, -(-wait_us // SECOND_US), error),
        )

    @contextlib.asynccontextmanager
    async def _renewing(self) -> AsyncIterator[None]:
        """Keep the lease while a receiver takes its time."""
        renewal = asyncio.ensure_future(self._renew())
        try:
            yield
        finally:
            renewal.cancel()
            await asyncio.wait([renewal])

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_us / SECOND_US / 3)
            with contextlib.suppress(StoreError):
                if not await self.exports.renew(self._owner, self._now_us() + self._lease_us):
                    return

    # --- rows as the receiver sees them -----------------------------------------------------------

    async def _described(self, rows: Sequence[ExportRow]) -> list[OverageUse]:
        references: dict[int, dict[str, str]] = {}
        contracts: dict[int, Subscription | None] = {}
        for row in rows:
            if row.customer is not None and row.customer not in references:
                customer = await self._registry.customer_by_id(row.customer)
                references[row.customer] = dict(customer.references) if customer else {}
            if row.subscription is not None and row.subscription not in contracts:
                contracts[row.subscription] = await self._registry.subscription(row.subscription)
        return [
            describe(row, references.get(row.customer or 0, {}), contracts.get(row.subscription or 0))
            for row in rows
        ]


def describe(row: ExportRow, references: dict[str, str], contract: Subscription | None) -> OverageUse:
    """A ledger row as the receiver sees it.

    Raises:
        DeliveryFailed: the row names a customer or an action that the store does not have.
    """
    identifier = event_id(row.booked_us, row.slot, row.seq)
    if row.customer_ref is None or row.action_name is None:
        missing = f"customer {row.customer}" if row.customer_ref is None else f"action {row.action}"
        raise DeliveryFailed(f"event {identifier} names {missing}, which this store does not have")
    corrects = None
    if row.corrects_slot is not None and row.corrects_seq is not None and row.corrects_booked_us is not None:
        corrects = event_id(row.corrects_booked_us, row.corrects_slot, row.corrects_seq)
    return OverageUse(
        event_id=identifier,
        slot=row.slot,
        seq=row.seq,
        kind=Kind(row.kind).name.lower(),
        channel=Channel(row.channel).name.lower(),
        customer=row.customer_ref,
        action=row.action_name,
        units=row.units,
        charged_micros=row.charged_micros,
        list_micros=row.list_micros,
        unit_micros=row.unit_micros,
        per=row.per,
        prior=row.prior,
        catalog_version=row.catalog_version,
        subscription=None if row.subscription is None else write_id(SUBSCRIPTION, row.subscription),
        period_start_us=row.period_start_us,
        period_end_us=_period_end_us(row, contract),
        occurred_us=row.occurred_us,
        booked_us=row.booked_us,
        month=row.month,
        late_for=row.late_for,
        request_id=request_id_text(row.request_id),
        corrects=corrects,
        reason=row.reason,
        references=references,
    )


def _period_end_us(row: ExportRow, contract: Subscription | None) -> int | None:
    if contract is None or row.period_start_us is None:
        return None
    with contextlib.suppress(InputError):
        return period_at(contract, row.period_start_us).end_us
    return None
