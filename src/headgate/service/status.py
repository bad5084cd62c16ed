"""Where a store stands: its catalog, its slots, payments by state, how far exports are. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.model.calendar import format_us
from headgate.model.errors import NotFound
from headgate.model.money import format_usd
from headgate.model.payment import OPEN, OWED, State
from headgate.model.report import ledger_head
from headgate.service.deliver import ExportStatus, export_status
from headgate.store.driver import Driver
from headgate.store.exports import Exports, Scope
from headgate.store.registry import RegistryReader


@dataclass(frozen=True, slots=True)
class SlotView:
    """One writer's place in the ledger. `running`: a living process has it."""

    slot: int
    running: bool
    epoch: int
    events: int


@dataclass(frozen=True, slots=True)
class PaymentsView:
    """Payments in one state; `open`: what becomes of them is not decided. `owed`: their work is due."""

    state: str
    open: bool
    owed: bool
    payments: int
    authorized_amount: str
    oldest_at: str


@dataclass(frozen=True, slots=True)
class ExportView:
    """How far an export is. `waiting` rows are not delivered yet, the oldest since `oldest_at`."""

    export: str
    waiting: int
    oldest_at: str | None
    failures: int
    next_try_at: str | None
    paused: bool
    last_error: str | None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """A store at one moment. `catalog_version` None: nothing was published.

    `owed_work` counts the payments that were taken, and whose work is still to be served.
    """

    mode: str
    schema: int
    catalog_version: int | None
    events: int
    open_payments: int
    owed_work: int
    payments: tuple[PaymentsView, ...]
    exports: tuple[ExportView, ...]
    slots: tuple[SlotView, ...]
    ledger_head: str


async def store_status(
    driver: Driver, registry: RegistryReader, *, mode: str, now_us: int, export_from_us: int | None = None
) -> StoreStatus:
    """Everything an operator asks first. `export_from_us`: exports pass over rows booked before it."""
    rows = await driver.rows("slots_all")
    payments = tuple(_payments(*row) for row in await driver.rows_slow("status_payments"))
    exports = [
        await export_status(Exports(driver, row[0], Scope.OVERAGE, export_from_us or 0), now_us)
        for row in await driver.rows("exports_all")
    ]
    return StoreStatus(
        mode=mode,
        schema=await driver.schema_version(),
        catalog_version=await _catalog_version(registry, now_us),
        events=sum(seq for _, _, seq, _ in rows),
        open_payments=sum(one.payments for one in payments if one.open),
        owed_work=sum(one.payments for one in payments if one.owed),
        payments=payments,
        exports=tuple(_export(one) for one in exports),
        slots=tuple(SlotView(slot, _runs(driver, slot), epoch, seq) for slot, epoch, seq, _ in rows),
        ledger_head=ledger_head([(slot, seq, head) for slot, _, seq, head in rows]),
    )


def _runs(driver: Driver, slot: int) -> bool:
    with driver.dead_slot(slot) as dead:
        return not dead


def _payments(state: int, count: int, authorized_micros: int, oldest_us: int) -> PaymentsView:
    known = State(state)
    return PaymentsView(
        state=known.name.lower(),
        open=known in OPEN,
        owed=known in OWED,
        payments=count,
        authorized_amount=format_usd(authorized_micros),
        oldest_at=format_us(oldest_us),
    )


def _export(one: ExportStatus) -> ExportView:
    return ExportView(
        export=one.name,
        waiting=one.pending,
        oldest_at=_time(one.oldest_us),
        failures=one.failures,
        next_try_at=_time(one.retry_us),
        paused=one.paused,
        last_error=one.last_error,
    )


async def _catalog_version(registry: RegistryReader, now_us: int) -> int | None:
    try:
        return (await registry.catalog_at(now_us)).version
    except NotFound:
        return None


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else format_us(at_us)
