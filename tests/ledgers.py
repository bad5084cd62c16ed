"""A shop for tests of the readers: customers, contracts, use and payments, booked by the real ledger."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence

import pytest

from headgate.model.booking import PaidUse, Reverse, Use
from headgate.model.calendar import AccountingCalendar
from headgate.model.event import Event
from headgate.model.payment import PaymentRow, State, binding_digest, payment_id
from headgate.model.subscription import standing
from headgate.service.customers import create_customer
from headgate.service.subscribe import Agreement, create_subscription
from headgate.store.driver import Driver
from headgate.store.ledger import Ledger
from headgate.store.names import Names
from headgate.store.operations import (
    Booked,
    ClaimPayment,
    IntendPayment,
    KeptAnswer,
    MovePayment,
    SettlePayment,
)
from headgate.store.registry import Registry
from tests.registries import GRACE, us

NETWORK = "eip155:84532"
ASSET = "0x036cbd53842c5426634e7929541ec2318f3dcf7e"
PAY_TO = "0x" + "20" * 20
ALICE = bytes.fromhex("a1" * 20)
BOB = bytes.fromhex("b0" * 20)
SIGNATURE = "5e" * 65


class Shop:
    """One process of a seller in the zone `zone`; `now_us` is its clock, moved by hand."""

    def __init__(self, driver: Driver, registry: Registry, zone: str = "UTC") -> None:
        self.driver = driver
        self.registry = registry
        self.calendar = AccountingCalendar(zone)
        self.now_us = us("2026-04-16")
        self.ledger = Ledger(driver, self.calendar, lambda: self.now_us)
        self.names = Names(driver)
        self._requests = 0

    async def open(self) -> Shop:
        await self.ledger.open()
        return self

    async def close(self) -> None:
        """The process ends; for shops on a driver of their own."""
        await self.ledger.close()
        await self.driver.close()

    def request(self) -> bytes:
        """A new request id."""
        self._requests += 1
        return hashlib.sha256(b"request %d" % self._requests).digest()[:16]

    async def customer(
        self, ref: str, plan: str | None = None, *, seats: int = 1, start: str = "2026-01-01"
    ) -> int:
        """A customer, on a plan or without a contract; its number."""
        await create_customer(self.registry, ref, now_us=us("2026-01-01"))
        if plan is not None:
            await self.subscribe(ref, plan, seats=seats, start=start)
        found = await self.registry.customer(ref)
        assert found is not None
        return found.id

    async def subscribe(self, ref: str, plan: str, *, seats: int = 1, start: str = "2026-01-01") -> None:
        agreement = Agreement(plan, seats=seats, start_us=us(start))
        await create_subscription(self.registry, ref, agreement, now_us=self.now_us, grace_us=GRACE)

    async def use(
        self,
        ref: str,
        units: int,
        action: str = "doc",
        *,
        at: str | None = None,
        seat: str | None = None,
        key: int | None = None,
        request: bytes | None = None,
    ) -> tuple[Event, ...]:
        """Book a customer's use as of `at` (or now)."""
        if at is not None:
            self.now_us = us(at)
        found = await self.registry.customer(ref)
        assert found is not None
        stands = standing(
            await self.registry.subscriptions(found.id),
            found.id,
            action,
            self.now_us,
            catalog=await self.registry.catalog_at(self.now_us),
            seller_zone="UTC",
            grace_us=GRACE,
        )
        booked: Booked = await self.ledger.submit(
            Use(
                standing=stands,
                action=await self.names.action(action),
                route=await self.names.route(f"POST /{action}"),
                units=units,
                written_off=0,
                held=0,
                seat=None if seat is None else (await self.registry.ensure_seat(found.id, seat)).id,
                api_key=key,
                request_id=request or self.request(),
                occurred_us=self.now_us,
            )
        )
        return booked.events

    async def claim(self, payer: bytes, nonce: int, *, micros: int = 100_000) -> PaymentRow:
        """Claim a payment for one document."""
        rail = await self.names.rail(NETWORK, ASSET, PAY_TO, "exact")
        signed = nonce.to_bytes(32, "big")
        blank = PaymentRow._make(None for _ in PaymentRow._fields)  # type: ignore[arg-type]
        row = blank._replace(
            network=NETWORK,
            asset=ASSET,
            payer=payer,
            nonce=signed,
            id=payment_id(NETWORK, ASSET, payer, signed),
            state=State.CLAIMED.value,
            slot=0,
            epoch=0,
            rail=rail,
            action=await self.names.action("doc"),
            route=await self.names.route("POST /doc"),
            request_id=self.request(),
            binding=binding_digest("POST", b"/doc"),
            authorized_micros=micros,
            charged_micros=0,
            units=0,
            unit_micros=100_000,
            per=1,
            list_micros=0,
            written_off=0,
            catalog_version=1,
            valid_before_s=2_000_000_000,
            occurred_us=self.now_us,
            updated_us=0,
        )
        await self.ledger.submit(ClaimPayment(row))
        return row

    async def serve(self, row: PaymentRow, units: int = 1) -> PaymentRow:
        """The work is done; the settlement goes out."""
        charged = units * row.unit_micros
        answer = KeptAnswer(200, b"", b"", self.now_us)
        authorization = b'{"signature": "0x' + SIGNATURE.encode() + b'"}'
        steps = ((self.now_us, State.VERIFIED, None), (self.now_us, State.SETTLING, None))
        assert await self.ledger.submit(
            IntendPayment(
                row.id, State.SETTLING, None, charged, units, charged, 0, authorization, b"{}", answer, steps
            )
        )
        return row._replace(charged_micros=charged, list_micros=charged, units=units)

    async def settle(self, row: PaymentRow) -> Event:
        """The transfer is proven: the event."""
        use = PaidUse(
            *(row.action, row.route, row.units, 0, row.unit_micros, row.per, row.catalog_version),
            *(row.list_micros, row.charged_micros, row.customer, row.subscription, row.seat, row.api_key),
            *(row.request_id, row.occurred_us, row.rail, 84532, row.payer, row.authorized_micros),
            *(hashlib.sha256(row.id).digest(), row.id),
        )
        event = await self.ledger.submit(SettlePayment(use, self.now_us))
        assert isinstance(event, Event)
        return event

    async def pay(self, payer: bytes, nonce: int, *, at: str | None = None) -> Event:
        """One document, paid from beginning to end."""
        if at is not None:
            self.now_us = us(at)
        return await self.settle(await self.serve(await self.claim(payer, nonce)))

    async def move(self, row: PaymentRow, to: State, note: str = "as it went") -> None:
        """The settlement ended otherwise."""
        assert await self.ledger.submit(MovePayment(row.id, State.SETTLING, to, note))

    async def reverse(self, event: Event, reason: str = "mistake") -> Event:
        """Take a row back."""
        network = 84532 if event.payer else 0
        event = await self.ledger.submit(Reverse(event, reason, network))
        assert isinstance(event, Event)
        return event

    async def write_sql(self, sql: str, params: Sequence[object] = ()) -> int:
        """Tamper with the store behind everybody's back; how many rows changed."""
        async with self.driver.write() as tx:
            tx._sql["tamper"] = sql  # type: ignore[attr-defined]
            return await tx.run("tamper", params)


@pytest.fixture
async def shop(driver: Driver, registry: Registry) -> Shop:
    return await Shop(driver, registry).open()


@pytest.fixture
async def second(shop: Shop) -> AsyncIterator[Shop]:
    """Another process on the same store."""
    driver = type(shop.driver)(shop.driver.path)  # type: ignore[attr-defined, call-arg]
    opened = await Shop(driver, Registry(driver)).open()
    opened._requests = 1_000_000
    yield opened
    await opened.close()


async def april(shop: Shop) -> list[Event]:
    """The ledger most tests read. Its rows in the order they were booked:

    acme is on `team` (500 docs a month for its seat, then overage), globex on `open` (20 docs), trial has no
    contract until 20 April; alice and bob pay per document.
    """
    await shop.customer("acme", "team")
    await shop.customer("globex", "open")
    await shop.customer("trial")
    rows = [
        *await shop.use("acme", 10, at="2026-03-31T23:00"),
        *await shop.use("acme", 499, at="2026-04-02", seat="ann"),
        *await shop.use("acme", 3, at="2026-04-03", seat="ben"),
        *await shop.use("globex", 4, at="2026-04-03"),
        *await shop.use("trial", 5, at="2026-04-04"),
        await shop.pay(ALICE, 1, at="2026-04-05"),
        await shop.pay(BOB, 2, at="2026-04-05T12:00"),
        *await shop.use("acme", 1500, "chat", at="2026-04-06", key=7),
    ]
    await shop.subscribe("trial", "team", seats=2, start="2026-04-20")
    rows += [
        *await shop.use("trial", 2, at="2026-04-21"),
        await shop.pay(ALICE, 3, at="2026-04-30T23:59"),
        await shop.pay(ALICE, 4, at="2026-05-01"),
    ]
    return rows
