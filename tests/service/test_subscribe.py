"""Contracts: made, shown, changed, renewed, cancelled; the running period follows in the same transaction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headgate.model.errors import InputError, NotFound
from headgate.model.negotiated import Negotiated
from headgate.model.subscription import NO_CAP, Price, Standing, standing
from headgate.service.contract_views import SubscriptionView
from headgate.service.customers import create_customer
from headgate.service.publish import publish_catalog
from headgate.service.subscribe import (
    Agreement,
    Change,
    cancel_subscription,
    create_subscription,
    list_subscriptions,
    show_subscription,
    update_subscription,
)
from headgate.store.driver import Driver
from headgate.store.registry import Registry
from tests.registries import CATALOG, DAY, DEARER, GRACE, NOW, OPEN, us

START = us("2026-04-01")


@pytest.fixture(autouse=True)
async def acme(registry: Registry) -> None:
    await create_customer(registry, "acme", now_us=NOW)


async def make(registry: Registry, customer: str = "acme", **terms: object) -> SubscriptionView:
    agreement = replace(Agreement("team", 1, START), **terms)  # type: ignore[arg-type]
    return await create_subscription(registry, customer, agreement, now_us=NOW, grace_us=GRACE)


async def change(registry: Registry, at_us: int = NOW, **what: object) -> SubscriptionView:
    return await update_subscription(registry, "sub_1", Change(**what), now_us=at_us, grace_us=GRACE)  # type: ignore[arg-type]


async def stand(registry: Registry, at_us: int, action: str = "doc") -> Standing:
    return standing(
        await registry.subscriptions(1),
        1,
        action,
        at_us,
        catalog=await registry.catalog_at(at_us),
        seller_zone="UTC",
        grace_us=GRACE,
    )


async def use(driver: Driver, registry: Registry, units: int, at_us: int = NOW) -> None:
    """Units booked by the ledger (here by hand) under the standing of that moment."""
    counted = await stand(registry, at_us)
    async with registry.write() as writer:
        await writer.grant(counted, "doc")
    async with driver.write() as tx:
        key = (1, counted.subscription, await action_number(driver), counted.period.start_us)
        counter = (await tx.rows("counter_read", key))[0]
        await tx.run("counter_write", (*key, *counter[:2], units, *counter[3:]))


async def action_number(driver: Driver) -> int:
    return int(dict(await driver.rows("action_ids"))["doc"])


def counted(view: SubscriptionView) -> tuple[int, int, int]:
    """(granted, used, left) of `doc`."""
    found = next(one for one in view.allowances if one.action == "doc")
    return found.granted, found.used, found.left


# --- making


async def test_a_contract_as_shown(registry: Registry) -> None:
    view = await make(registry, seats=3, time_zone="Europe/Berlin")
    assert view == await show_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE)
    assert (view.subscription, view.customer, view.plan, view.catalog_version, view.seats, view.status) == (
        "sub_1", "acme", "team", 1, 3, "active",
    )  # fmt: skip
    assert (view.start_at, view.end_at) == ("2026-04-01T00:00:00.000000Z", "2027-04-01T00:00:00.000000Z")
    assert (view.period_start_at, view.period_end_at) == (
        "2026-04-01T00:00:00.000000Z", "2026-05-01T00:00:00.000000Z",
    )  # fmt: skip
    assert (view.seat_fee, view.beyond, view.overage_cap) == ("147.000000", "overage", "9.000000")
    assert [(one.action, one.granted, one.used, one.unit_price, one.per) for one in view.allowances] == [
        ("chat", 1_000_000, 0, "0.002000", 1000),
        ("doc", 1500, 0, "0.100000", 1),
    ]


async def test_a_contract_starts_now_unless_said(registry: Registry) -> None:
    view = await make(registry, start_us=None)
    assert view.start_at == "2026-04-16T00:00:00.000000Z"


async def test_a_contract_that_began_years_ago_was_renewed_since(registry: Registry) -> None:
    """Failure case 53: an import must not send a paying customer a 402 because its first term is over."""
    view = await make(registry, start_us=us("2023-04-10"))
    assert (view.status, view.end_at) == ("active", "2027-04-10T00:00:00.000000Z")
    assert view.period_start_at == "2026-04-10T00:00:00.000000Z"


async def test_an_open_ended_plan_has_no_end(registry: Registry) -> None:
    view = await make(registry, plan="open")
    assert (view.end_at, view.overage_cap, view.seat_fee) == (None, None, "0.000000")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"plan": "gold"}, "no plan 'gold'; it has open, team"),
        ({"seats": -1}, "number of seats"),
        ({"seats": 10**9}, "number of seats"),
        ({"time_zone": "Mars"}, "not a time zone"),
        ({"anchor": "weekly"}, "not an anchor; use anniversary or calendar"),
        ({"end_us": START}, "end before it starts"),
        ({"start_us": 10**18}, "out of range"),
        ({"negotiated": Negotiated({"nothing": 1})}, "no action 'nothing'"),
        ({"negotiated": Negotiated({"doc": -1})}, "cannot be negative"),
        ({"negotiated": Negotiated({}, {"doc": Price(-1, 1)})}, "cannot be negative"),
        ({"negotiated": Negotiated({}, {"doc": Price(1, 0)})}, "less than one unit"),
        ({"negotiated": Negotiated({}, {}, -2)}, "cannot be negative"),
    ],
)
async def test_what_cannot_be_agreed(registry: Registry, wrong: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        await make(registry, **wrong)
    assert await registry.subscriptions() == ()
    with pytest.raises(NotFound, match="no customer"):
        await make(registry, "other")


async def test_contracts_of_one_customer_do_not_overlap(registry: Registry) -> None:
    await make(registry)
    with pytest.raises(InputError, match="under contract sub_1 from 2026-04-01"):
        await make(registry, start_us=us("2027-03-31"))
    with pytest.raises(InputError, match="under contract"):
        await make(registry, start_us=us("2026-03-01"), end_us=us("2026-04-02"))
    await make(registry, start_us=us("2026-03-01"), end_us=START)
    after = await make(registry, start_us=us("2027-04-01"))
    assert after.status == "scheduled"
    assert (after.period_start_at, after.allowances) == (None, ())
    await create_customer(registry, "other", now_us=NOW)
    await make(registry, "other")
    assert len(await registry.subscriptions()) == 4


async def test_what_was_negotiated_holds(registry: Registry) -> None:
    own = Negotiated({"doc": 7}, {"doc": Price(80_000, 1)}, NO_CAP)
    view = await make(registry, negotiated=own)
    assert counted(view) == (7, 0, 7)
    found = await stand(registry, NOW)
    assert (found.granted, found.overage_price, found.list_price) == (7, Price(80_000, 1), Price(100_000, 1))
    assert (found.cap_micros, view.overage_cap) == (None, None)


# --- seats


async def test_seats_added_in_mid_period_bring_their_share_at_once(
    driver: Driver, registry: Registry
) -> None:
    """Failure case 45, with 300 units used: half of April is left, so two seats bring half of 1,000."""
    await make(registry)
    await use(driver, registry, 300)
    before = await registry.generation()
    view = await change(registry, seats=3)
    assert counted(view) == (1000, 300, 700)
    assert (await stand(registry, NOW)).granted == 1000
    assert await registry.generation() == before + 1
    assert (await stand(registry, us("2026-05-01"))).granted == 1500


async def test_changing_seats_twice_to_the_same_changes_nothing(driver: Driver, registry: Registry) -> None:
    """Failure case 50: a retried command grants nothing twice."""
    await make(registry)
    await change(registry, seats=3)
    before = await registry.generation()
    assert counted(await change(registry, NOW + DAY, seats=3)) == (1000, 0, 1000)
    assert await registry.generation() == before
    assert len((await registry.subscriptions(1))[0].terms) == 2


async def test_removed_seats_keep_what_they_brought(driver: Driver, registry: Registry) -> None:
    await make(registry, seats=3)
    await use(driver, registry, 1400)
    assert counted(await change(registry, seats=1)) == (1500, 1400, 100)
    assert counted(await change(registry, NOW + DAY, seats=3)) == (1500, 1400, 100)
    assert counted(await change(registry, NOW + 2 * DAY, seats=1)) == (1500, 1400, 100)
    assert (await stand(registry, us("2026-05-01"))).granted == 500


async def test_the_counter_is_made_with_the_change_so_that_no_stale_process_makes_it_smaller(
    registry: Registry,
) -> None:
    await make(registry)
    await change(registry, seats=2)
    period = (await stand(registry, NOW)).period
    counters = await registry.counters(1, 1, period.start_us)
    assert {name: counter.granted for name, counter in counters.items()} == {"doc": 750}


async def test_seats_of_a_contract_that_has_not_begun(registry: Registry) -> None:
    await make(registry, start_us=us("2026-06-01"))
    view = await change(registry, seats=5)
    assert (view.seats, view.planned) == (5, ())
    assert (await stand(registry, us("2026-06-01"))).granted == 2500


# --- negotiated terms


async def test_own_terms_change_with_the_next_billing_period(registry: Registry) -> None:
    await make(registry, seats=2)
    own = Negotiated({"doc": 5000}, {"doc": Price(50_000, 1)}, 0)
    view = await change(registry, negotiated=own)
    assert [(one.from_at, one.seats) for one in view.planned] == [("2026-05-01T00:00:00.000000Z", 2)]
    now, then = await stand(registry, NOW), await stand(registry, us("2026-05-01"))
    assert (now.granted, now.overage_price, now.cap_micros) == (1000, Price(100_000, 1), 9_000_000)
    assert (then.granted, then.overage_price, then.cap_micros) == (5000, Price(50_000, 1), 0)


async def test_a_change_of_seats_reaches_terms_agreed_for_later(registry: Registry) -> None:
    await make(registry)
    await change(registry, negotiated=Negotiated({}, {"doc": Price(50_000, 1)}))
    view = await change(registry, NOW + DAY, seats=4)
    assert [one.seats for one in view.planned] == [4]
    assert (await stand(registry, us("2026-05-01"))).granted == 2000


# --- plan, prices, renewal


async def test_plan_and_prices_are_pinned_until_renewal(registry: Registry) -> None:
    """Failure case 44: a new catalog changes nothing that was agreed."""
    await make(registry)
    await publish_catalog(registry, DEARER, now_us=NOW)
    with pytest.raises(InputError, match="pinned until its renewal"):
        await change(registry, plan="open")
    found = await stand(registry, us("2027-03-31"))
    assert (found.list_price, found.catalog_version) == (Price(100_000, 1), 1)
    await create_customer(registry, "other", now_us=NOW)
    assert (await make(registry, "other")).catalog_version == 2


async def test_a_renewal_extends_by_a_term_at_todays_catalog(registry: Registry) -> None:
    await make(registry, seats=2)
    await publish_catalog(registry, DEARER, now_us=NOW)
    view = await change(registry, renew=True)
    assert view.end_at == "2028-04-01T00:00:00.000000Z"
    assert [(one.from_at, one.plan, one.catalog_version, one.seats) for one in view.planned] == [
        ("2027-04-01T00:00:00.000000Z", "team", 2, 2)
    ]
    before, after = await stand(registry, us("2027-03-31")), await stand(registry, us("2027-04-01"))
    assert (before.list_price, after.list_price) == (Price(100_000, 1), Price(120_000, 1))


async def test_a_renewal_can_change_plan_seats_and_own_terms(registry: Registry) -> None:
    await make(registry, seats=2, negotiated=Negotiated({"doc": 9}))
    view = await change(registry, renew=True, plan="open", seats=7, negotiated=Negotiated())
    assert (view.end_at, view.seats, view.plan) == (None, 2, "team")
    after = await stand(registry, us("2027-04-01"))
    assert (after.plan, after.granted) == ("open", 20)
    assert (await stand(registry, us("2027-03-31"))).granted == 9


async def test_what_was_negotiated_survives_a_renewal(registry: Registry) -> None:
    await make(registry, negotiated=Negotiated({"doc": 9}))
    await change(registry, renew=True)
    assert (await stand(registry, us("2027-04-01"))).granted == 9


async def test_a_plan_change_at_renewal_waits_for_the_renewal(registry: Registry) -> None:
    await make(registry)
    view = await change(registry, plan="open", at_renewal=True)
    assert (view.end_at, [one.plan for one in view.planned]) == ("2027-04-01T00:00:00.000000Z", ["open"])
    renewed = await change(registry, NOW + DAY, renew=True)
    assert (renewed.end_at, [one.plan for one in renewed.planned]) == (None, ["open"])


async def test_an_open_ended_contract_renews_with_its_next_period(registry: Registry) -> None:
    await make(registry, plan="open")
    await publish_catalog(registry, DEARER, now_us=NOW)
    view = await change(registry, renew=True)
    assert (view.end_at, [one.from_at for one in view.planned]) == (None, ["2026-05-01T00:00:00.000000Z"])
    assert (await stand(registry, us("2026-05-01"))).list_price == Price(120_000, 1)


async def test_a_renewal_signed_late_continues_the_periods(driver: Driver, registry: Registry) -> None:
    """Failure case 53: in grace since 1 April, 600 of 500 used; renewed on the 3rd, nothing is lost."""
    await make(registry, start_us=us("2025-04-01"), end_us=us("2026-04-01"))
    late = us("2026-04-03")
    assert (await show_subscription(registry, "sub_1", now_us=late, grace_us=GRACE)).status == "grace"
    await use(driver, registry, 600, late)
    with pytest.raises(InputError, match="sub_1 ended"):
        await change(registry, late, seats=2)
    view = await change(registry, late, renew=True, seats=2)
    assert (view.status, view.end_at) == ("active", "2027-04-01T00:00:00.000000Z")
    assert view.period_start_at == "2026-04-01T00:00:00.000000Z"
    assert counted(view) == (500 + 467, 600, 367)  # 500 × 28/30


async def test_a_renewal_needs_the_plan_to_exist_still(registry: Registry) -> None:
    await make(registry)
    await publish_catalog(registry, replace(CATALOG, plans={"open": OPEN}), now_us=NOW)
    with pytest.raises(InputError, match="catalog 2 has no plan 'team'; it has open"):
        await change(registry, renew=True)
    assert (await change(registry, renew=True, plan="open")).end_at is None


# --- cancelling


async def test_cancelling_stops_at_once_and_without_grace(registry: Registry) -> None:
    await make(registry)
    view = await cancel_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE)
    assert (view.status, view.canceled_at) == ("canceled", "2026-04-16T00:00:00.000000Z")
    assert (await stand(registry, NOW)).kind.value == "ended"
    assert (await stand(registry, NOW - 1)).kind.value == "covered"
    for again in (Change(seats=2), Change(renew=True)):
        with pytest.raises(InputError, match="is cancelled"):
            await update_subscription(registry, "sub_1", again, now_us=NOW, grace_us=GRACE)
    with pytest.raises(InputError, match="was cancelled"):
        await cancel_subscription(registry, "sub_1", now_us=NOW + 1, grace_us=GRACE)
    assert (await make(registry, start_us=NOW)).subscription == "sub_2"


async def test_cancelling_for_later_can_be_moved(registry: Registry) -> None:
    await make(registry)
    view = await cancel_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE, at_us=NOW + 5 * DAY)
    assert view.status == "active"
    await cancel_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE, at_us=NOW + 2 * DAY)
    assert (await stand(registry, NOW + 2 * DAY)).kind.value == "ended"
    with pytest.raises(InputError, match="in the past"):
        await cancel_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE, at_us=NOW - 1)
    with pytest.raises(InputError, match="over by then"):
        await cancel_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE, at_us=us("2027-04-08"))
    with pytest.raises(NotFound):
        await cancel_subscription(registry, "sub_5", now_us=NOW, grace_us=GRACE)


async def test_a_contract_cancelled_before_it_begins_never_was(registry: Registry) -> None:
    await make(registry, start_us=NOW + DAY)
    await cancel_subscription(registry, "sub_1", now_us=NOW, grace_us=GRACE)
    assert (await stand(registry, NOW + 2 * DAY)).kind.value == "never"
    await make(registry, start_us=NOW + DAY)


# --- lists


async def test_lists(registry: Registry) -> None:
    await create_customer(registry, "aaa", now_us=NOW)
    await make(registry, start_us=us("2025-04-01"), end_us=START - 8 * DAY)
    await make(registry)
    await make(registry, "aaa", start_us=NOW + DAY)
    found = await list_subscriptions(registry, now_us=NOW, grace_us=GRACE)
    assert [(one.customer, one.subscription, one.status) for one in found] == [
        ("aaa", "sub_3", "scheduled"),
        ("acme", "sub_1", "ended"),
        ("acme", "sub_2", "active"),
    ]
    assert all(one.allowances == () for one in found)
    only = await list_subscriptions(registry, now_us=NOW, grace_us=GRACE, customer="acme")
    assert [one.subscription for one in only] == ["sub_1", "sub_2"]
    with pytest.raises(NotFound):
        await list_subscriptions(registry, now_us=NOW, grace_us=GRACE, customer="zzz")
