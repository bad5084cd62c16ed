"""The desk: callers in, rows out, and no hold left behind whatever becomes of the request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headgate.model.admission import Decision
from headgate.model.calendar import AccountingCalendar
from headgate.model.caller import Identity
from headgate.model.catalog import Action, Beyond, Plan
from headgate.model.errors import InputError, StoreFull
from headgate.model.event import Channel, Kind
from headgate.service.admit import Admitted, Desk, Presented
from headgate.service.customers import create_customer
from headgate.service.directory import Directory
from headgate.service.ids import RequestIds
from headgate.service.keys import create_key, revoke_key
from headgate.service.subscribe import Agreement, create_subscription
from headgate.store.ledger import Ledger
from headgate.store.names import Names
from headgate.store.registry import Registry
from headgate.store.sqlite import SqliteDriver
from headgate.testing import FakeClock
from tests.registries import CATALOG, CHAT, DAY, DOC, GRACE, NOW
from tests.store.auditing import audit

FREE = Action("ping", "Ping", "ping", 0)
NOBODY = Presented(None, None, credentials=False)
INCLUDED = {"doc": 2, "chat": 70}
PLANS = {
    "overage": Plan("overage", "O", None, included=INCLUDED, beyond=Beyond.OVERAGE),
    "capped": Plan(
        *("capped", "C", None, 1, 0, {}, INCLUDED, Beyond.OVERAGE),
        overage_cap_micros=100_000,
        beyond_cap=Beyond.X402,
    ),
    "x402": Plan("x402", "X", None, included=INCLUDED, beyond=Beyond.X402),
    "block": Plan("block", "B", None, included=INCLUDED, beyond=Beyond.BLOCK),
}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """One customer on each plan, `gone` whose contract is over; `nobody_yet` was never seen."""
    driver = SqliteDriver(tmp_path / "headgate.db")
    await driver.migrate()
    registry = Registry(driver)
    catalog = replace(CATALOG, actions={**CATALOG.actions, "ping": FREE}, plans=PLANS)
    await registry.ensure_catalog(catalog, NOW - 300 * DAY)
    for name in PLANS:
        await create_customer(registry, name, now_us=NOW)
        agreement = Agreement(name, start_us=NOW - DAY)
        await create_subscription(registry, name, agreement, now_us=NOW, grace_us=GRACE)
    await create_customer(registry, "gone", now_us=NOW)
    ended = Agreement("overage", start_us=NOW - 200 * DAY, end_us=NOW - GRACE)
    await create_subscription(registry, "gone", ended, now_us=NOW, grace_us=GRACE)
    clock = FakeClock(NOW)
    ledger = Ledger(driver, AccountingCalendar("UTC"), clock)
    await ledger.open()
    directory = Directory(registry, mode="test", zone="UTC", grace_us=GRACE)
    await directory.refresh()
    yield Desk(directory, ledger, Names(driver), clock, RequestIds(), "pass")
    await ledger.close()
    await driver.close()


def by(customer: str, seat: str | None = None) -> Presented:
    return Presented(None, Identity(customer, seat), credentials=True)


async def serve(desk: Desk, who: Presented, action: Action = DOC, units: int = 1) -> tuple[str, list[Any]]:
    """One request from beginning to end: the decision, and (channel, units, charged) of its rows."""
    admitted = await desk.admit(action, "POST /x", who)
    if admitted.decision not in (Decision.COUNT, Decision.HELD):
        return admitted.decision.name, []
    events = await desk.capture(admitted, units)
    return admitted.decision.name, [(Channel(e.channel).name, e.units, e.charged_micros) for e in events]


SEAT, OVER = [("SEAT", 1, 0)], [("OVERAGE", 1, 100_000)]
LEDGER = {
    "overage": [("COUNT", SEAT), ("COUNT", SEAT), ("COUNT", OVER), ("COUNT", OVER)],
    "capped": [("HELD", SEAT), ("HELD", SEAT), ("HELD", OVER), ("PAY", [])],
    "x402": [("HELD", SEAT), ("HELD", SEAT), ("PAY", []), ("PAY", [])],
    "block": [("HELD", SEAT), ("HELD", SEAT), ("EXHAUSTED", []), ("EXHAUSTED", [])],
    "gone": [("PAY", [])],
    "nobody_yet": [("COUNT", SEAT), ("COUNT", SEAT), ("COUNT", SEAT)],
}


@pytest.mark.parametrize("customer", list(LEDGER))
async def test_request_after_request(desk: Desk, customer: str) -> None:
    found = [await serve(desk, by(customer)) for _ in LEDGER[customer]]
    assert found == LEDGER[customer]
    events = await audit(desk.ledger.driver, held=0)
    assert len({event.request_id for event in events}) == len(events)
    assert {event.subscription is None for event in events} <= {customer == "nobody_yet"}


@pytest.mark.parametrize("customer", list(PLANS))
async def test_all_at_once_is_the_same(desk: Desk, customer: str) -> None:
    found = await asyncio.gather(*(serve(desk, by(customer)) for _ in LEDGER[customer]))
    assert sorted(found) == sorted(LEDGER[customer])
    await audit(desk.ledger.driver, held=0)


async def test_who_is_nobody(desk: Desk) -> None:
    assert await serve(desk, NOBODY) == ("PAY", [])
    assert await serve(desk, NOBODY, FREE) == ("FREE", [])
    assert await serve(desk, Presented(None, None, credentials=True)) == ("UNAUTHORIZED", [])
    assert await serve(desk, Presented(b"hg_test_nonsense", None, credentials=True)) == ("UNAUTHORIZED", [])


async def test_a_key_is_its_customers_until_it_is_revoked(desk: Desk) -> None:
    registry: Any = desk.directory._registry
    made = await create_key(registry, "block", mode="test", entropy=bytes(32), now_us=NOW, seat="ann")
    admitted = await desk.admit(DOC, None, Presented(made.key.encode(), None, credentials=True))
    (event,) = await desk.capture(admitted, 1)
    assert f"key_{event.api_key}" == made.key_id
    assert (admitted.customer_ref, admitted.seat_ref, event.seat) == ("block", "ann", admitted.seat)
    await revoke_key(registry, made.key_id, now_us=NOW)
    await asyncio.sleep(0)
    await desk.directory.refresh()
    refused = await desk.admit(DOC, None, Presented(made.key.encode(), None, credentials=True))
    assert refused.decision is Decision.UNAUTHORIZED


async def test_a_variable_use_holds_what_is_left_and_writes_off_what_exceeds_it(desk: Desk) -> None:
    """70 tokens are left of a ceiling of 25,000: they are held; 100 were used: 30 are written off."""
    admitted = await desk.admit(CHAT, None, by("x402"))
    assert (admitted.decision, admitted.held) == (Decision.HELD, 70)
    second = await desk.admit(CHAT, None, by("x402"))
    assert second.decision is Decision.PAY
    (event,) = await desk.capture(admitted, 100)
    assert (event.units, event.written_off, event.charged_micros) == (70, 30, 0)
    await audit(desk.ledger.driver, held=0)


async def test_a_smaller_use_gives_the_rest_back(desk: Desk) -> None:
    admitted = await desk.admit(CHAT, None, by("x402"))
    await desk.capture(admitted, 20)
    assert (await desk.admit(CHAT, None, by("x402"))).held == 50


@pytest.mark.parametrize("customer", ["x402", "block", "capped"])
async def test_a_free_action_is_never_sold(desk: Desk, customer: str) -> None:
    assert await serve(desk, by(customer), FREE) == ("COUNT", [("OVERAGE", 1, 0)])


async def test_a_hold_is_given_back_once(desk: Desk) -> None:
    admitted = await desk.admit(DOC, None, by("block"))
    await desk.release(admitted)
    await desk.release(admitted)
    await audit(desk.ledger.driver, held=0)
    assert (await desk.admit(DOC, None, by("block"))).held == 1


async def test_a_captured_hold_is_not_released_as_well(desk: Desk) -> None:
    first, second = [await desk.admit(DOC, None, by("block")) for _ in range(2)]
    await desk.capture(first, 1)
    await desk.release(first)
    await audit(desk.ledger.driver, held=1)
    await desk.release(second)


@pytest.mark.parametrize("rounds", range(12))
async def test_a_request_cancelled_at_any_moment_of_its_admission_holds_nothing(
    desk: Desk, rounds: int
) -> None:
    asking = asyncio.ensure_future(desk.admit(DOC, "POST /x", by("block")))
    for _ in range(rounds):
        await asyncio.sleep(0)
    arrived = asking.done()
    asking.cancel()
    await asyncio.wait([asking])
    await desk.ledger.close()
    await audit(desk.ledger.driver, held=1 if arrived else 0)


async def test_a_capture_that_could_not_be_written_is_not_billed_and_holds_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    admitted: Admitted = await desk.admit(DOC, None, by("block"))

    async def full(*_: Any) -> None:
        raise StoreFull

    monkeypatch.setattr(desk.ledger, "_store", full)
    with pytest.raises(StoreFull):
        await desk.capture(admitted, 1)
    monkeypatch.undo()
    await desk.release(admitted)
    await desk.ledger.close()
    assert await audit(desk.ledger.driver, held=0) == []


async def test_both_rows_of_a_straddling_use_are_taken_back(desk: Desk) -> None:
    admitted = await desk.admit(DOC, None, by("overage"))
    events = await desk.capture(admitted, 3)
    assert len(events) == 2
    await desk.reverse(events, "the application failed")
    await desk.reverse(events, "the application failed")
    rows = await audit(desk.ledger.driver, held=0)
    assert [row.kind for row in rows] == [Kind.USAGE, Kind.USAGE, Kind.REVERSAL, Kind.REVERSAL]
    assert sum(row.charged_micros for row in rows) == 0
    assert await serve(desk, by("overage")) == ("COUNT", SEAT)


async def test_what_identify_returns_must_be_able_to_be_a_customer(desk: Desk) -> None:
    with pytest.raises(InputError):
        await desk.admit(DOC, None, by(""))
