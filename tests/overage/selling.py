"""A seller with overage to deliver: real contracts in a registry, real rows booked through ledgers.

Every ledger is a process of its own as far as the store can tell: its own connections, its own slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from headgate.model.booking import Reverse, Use
from headgate.model.calendar import AccountingCalendar
from headgate.model.catalog import Beyond
from headgate.model.event import Channel, Event
from headgate.model.negotiated import Negotiated
from headgate.model.subscription import Price, Standing, StandingKind, period_at
from headgate.store.driver import Driver
from headgate.store.ledger import Ledger
from headgate.store.registry import Registry
from headgate.store.sqlite import SqliteDriver
from tests.registries import CATALOG, NOW, us

SECOND = 1_000_000
START = us("2026-04-01")


async def until(condition: Callable[[], Awaitable[object] | object]) -> None:
    """Wait for something that is only seen by looking."""
    while True:
        found = condition()
        if found if not isinstance(found, Awaitable) else await found:
            return
        await asyncio.sleep(0.002)


@dataclass
class Clock:
    """The time, as handed in."""

    us: int = NOW

    def __call__(self) -> int:
        return self.us

    def pass_s(self, seconds: int) -> None:
        self.us += seconds * SECOND


@dataclass
class Shop:
    """Two customers: `acme` has nothing included, so all it uses is overage; `rich` never leaves its plan."""

    driver: Driver
    registry: Registry
    clock: Callable[[], int]
    ledgers: list[Ledger] = field(default_factory=list)
    booked: list[Event] = field(default_factory=list)

    async def ledger(self, path: Path) -> Ledger:
        ledger = Ledger(SqliteDriver(path), AccountingCalendar("UTC"), self.clock)
        await ledger.open()
        self.ledgers.append(ledger)
        return ledger

    async def standing(self, customer: int) -> Standing:
        contract = (await self.registry.subscriptions(customer))[0]
        granted = 0 if customer == 1 else 1 << 40
        return Standing(
            StandingKind.COVERED, customer, contract.id, "team", 1, period_at(contract, NOW), granted,
            Beyond.OVERAGE, Price(100_000, 1), Price(80_000, 1), None, Beyond.BLOCK, 1 << 60,
        )  # fmt: skip

    async def use(self, ledger: Ledger, units: int = 1, *, customer: int = 1, times: int = 1) -> list[Event]:
        """Book uses of `doc`; customer 1's are overage, customer 2's within the allowance."""
        standing = await self.standing(customer)
        use = Use(standing, 1, None, units, 0, 0, None, None, bytes(16), self.clock() - 5 * SECOND)
        events = []
        for future in [ledger.submit(use) for _ in range(times)]:
            events += (await future).events
        self.booked += events
        return events

    async def reverse(self, ledger: Ledger, event: Event) -> Event:
        reversal: Event = await ledger.submit(Reverse(event, "served in error"))
        self.booked.append(reversal)
        return reversal

    @property
    def overage(self) -> list[Event]:
        return [event for event in self.booked if event.channel == Channel.OVERAGE]

    async def close(self) -> None:
        for ledger in self.ledgers:
            await ledger.driver.close()


async def open_shop(driver: Driver, registry: Registry, clock: Callable[[], int]) -> Shop:
    async with registry.write() as writer:
        for ref in ("acme", "rich"):
            number = await writer.create_customer(ref, f"{ref} Inc.", f"ops@{ref}.example", START)
            await writer.set_reference(number, "stripe", f"cus_{ref}")
            contract = await writer.create_subscription(
                number, start_us=START, end_us=None, time_zone="UTC", anchor="calendar", now_us=START
            )
            await writer.add_terms(
                contract, from_us=START, catalog_version=1, plan="team", seats=1, negotiated=Negotiated()
            )
        assert await writer.action_number("doc") == 1
    return Shop(driver, registry, clock)


async def new_shop(path: Path, clock: Callable[[], int]) -> Shop:
    """A shop on a new SQLite file."""
    driver = SqliteDriver(path)
    await driver.migrate()
    registry = Registry(driver)
    await registry.ensure_catalog(CATALOG, us("2026-01-01"))
    return await open_shop(driver, registry, clock)
