"""Exports in the store: a lease, a cursor for each slot, and the rows beyond it.

One process at a time delivers an export: it holds the lease in the export's row. The lease saves double work;
what keeps the cursors right is that a cursor moves only if its mover still owns the export *and* the cursor
stands where the mover believes, in one transaction. An owner that was paused and lost the export can neither
move a cursor back nor skip a row. Cursors move after delivery: a crash in between delivers the same rows
again.

A slot's rows are committed together with `slots.seq`, without gaps: up to there nothing can appear later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from headgate.model.event import Channel
from headgate.store.driver import Driver, Tx

MAX_ERROR = 500


class Scope(Enum):
    """Which channels an export is about, as a range. Corrections have the channel of what they correct."""

    OVERAGE = (Channel.OVERAGE.value, Channel.OVERAGE.value)
    ALL_USAGE = (Channel.SEAT.value, Channel.OVERAGE.value)


class ExportState(NamedTuple):
    """An export's row. `failures` in a row; the next attempt not before `retry_us`."""

    owner: str
    lease_until_us: int
    failures: int
    retry_us: int
    last_error: str | None

    def leased_by_other(self, owner: str, now_us: int) -> bool:
        """Whether somebody else delivers at the moment."""
        return self.owner != owner and self.lease_until_us > now_us


NEW = ExportState("", 0, 0, 0, None)


class Behind(NamedTuple):
    """A slot with rows beyond the cursor: `(cursor, last]`."""

    slot: int
    cursor: int
    last: int


class ExportRow(NamedTuple):
    """A ledger row as an export needs it: see `model.event.Event`, with names beside the numbers.

    `corrects_booked_us` is the time of booking of the row named by `corrects_slot` and `corrects_seq`.
    """

    slot: int
    seq: int
    kind: int
    channel: int
    action: int
    action_name: str | None
    units: int
    unit_micros: int
    per: int
    prior: int
    catalog_version: int
    list_micros: int
    charged_micros: int
    customer: int | None
    customer_ref: str | None
    subscription: int | None
    period_start_us: int | None
    request_id: bytes
    occurred_us: int
    booked_us: int
    month: int
    late_for: int | None
    corrects_slot: int | None
    corrects_seq: int | None
    corrects_booked_us: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Exports:
    """One export: its name, the rows it is about, and its state in the store.

    Rows booked before `from_us` are passed over; cursors go over them as over rows of other channels.
    """

    driver: Driver
    name: str
    scope: Scope = Scope.OVERAGE
    from_us: int = 0

    async def state(self) -> ExportState:
        """The lease and the latest failures."""
        rows = await self.driver.rows("export_read", (self.name,))
        return ExportState._make(rows[0]) if rows else NEW

    async def take(self, owner: str, now_us: int, until_us: int) -> ExportState | None:
        """Lease the export, or renew the lease; None: somebody else has it."""
        async with self.driver.write() as tx:
            await tx.run("export_create", (self.name,))
            rows = await tx.rows("export_take", (owner, until_us, self.name, owner, now_us))
        return ExportState._make(rows[0]) if rows else None

    async def renew(self, owner: str, until_us: int) -> bool:
        """Keep the lease; False: it was lost."""
        async with self.driver.write() as tx:
            return bool(await tx.run("export_renew", (until_us, self.name, owner)))

    async def release(self, owner: str) -> None:
        """Give the lease back, if it is still this owner's."""
        async with self.driver.write() as tx:
            await tx.run("export_release", (self.name, owner))

    async def behind(self) -> list[Behind]:
        """Slots with rows beyond their cursors, of whatever channel."""
        return [Behind._make(row) for row in await self.driver.rows("cursors_behind", (self.name,))]

    async def rows(self, slot: int, after: int, last: int, limit: int) -> list[ExportRow]:
        """The first rows of a slot with `seq` in (after, last] that this export is about."""
        found = await self.driver.rows_slow(
            "export_rows", (slot, after, last, *self.scope.value, self.from_us, limit)
        )
        return [ExportRow._make(row) for row in found]

    async def pending(self) -> tuple[int, int | None]:
        """(how many rows are still to be delivered, when the oldest was booked). May take long."""
        found = await self.driver.rows_slow("export_pending", (self.name, *self.scope.value, self.from_us))
        count, oldest_us = found[0]
        return int(count), oldest_us

    async def delivered(self, owner: str, moves: Sequence[tuple[int, int, int]], until_us: int) -> bool:
        """The receiver took a batch: move the cursors `(slot, before, after)`, clear its failures.

        False: the export was lost to somebody else, and nothing was changed.
        """
        return await self._move("export_delivered", owner, moves, until_us)

    async def skip(self, owner: str, moves: Sequence[tuple[int, int, int]], until_us: int) -> bool:
        """Move the cursors over rows that are of no interest; failures stay as they are."""
        return await self._move("export_renew", owner, moves, until_us)

    async def _move(
        self, statement: str, owner: str, moves: Sequence[tuple[int, int, int]], until_us: int
    ) -> bool:
        try:
            async with self.driver.write() as tx:
                if not await tx.run(statement, (until_us, self.name, owner)):
                    raise _Lost
                for slot, before, after in moves:
                    await self._move_one(tx, slot, before, after)
        except _Lost:
            return False
        return True

    async def _move_one(self, tx: Tx, slot: int, before: int, after: int) -> None:
        await tx.run("cursor_create", (self.name, slot))
        if not await tx.run("cursor_move", (after, self.name, slot, before)):
            raise _Lost

    async def failed(self, owner: str, retry_us: int, error: str) -> bool:
        """Note a failed delivery; False: the export is somebody else's by now, and nothing was noted."""
        async with self.driver.write() as tx:
            row = (retry_us, error[:MAX_ERROR], self.name, owner)
            return bool(await tx.run("export_failed", row))

    async def resume(self) -> bool:
        """Let the next attempt be made now, whoever delivers; False: nothing was ever tried."""
        async with self.driver.write() as tx:
            return bool(await tx.run("export_resume", (self.name,)))


class _Lost(Exception):
    """Leaves a transaction without committing it: this owner may no longer move the cursors."""


async def export_states(driver: Driver) -> dict[str, ExportState]:
    """Every export there ever was, by name: for the operator."""
    return {row[0]: ExportState._make(row[1:]) for row in await driver.rows("exports_all")}
