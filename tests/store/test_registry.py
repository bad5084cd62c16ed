"""The registry on every store: rows come back as they went in, and every change is told to every process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headgate.model.errors import NotFound
from headgate.model.hold import Counter
from headgate.model.keys import new_key
from headgate.model.negotiated import NOTHING_NEGOTIATED, Negotiated
from headgate.model.subscription import NO_CAP, Price, period_at, standing
from headgate.store.driver import Driver
from headgate.store.registry import Registry, RegistryWriter, catalog_digest, make_terms
from tests.registries import CATALOG, DAY, DEARER, NOW, us

START = us("2026-04-01")


async def make_customer(registry: Registry, ref: str = "acme") -> int:
    async with registry.write() as writer:
        return await writer.create_customer(ref, "Acme", None, NOW)


async def make_contract(
    writer: RegistryWriter, customer: int, own: Negotiated = NOTHING_NEGOTIATED, start_us: int = START
) -> int:
    number = await writer.create_subscription(
        customer, start_us=start_us, end_us=None, time_zone="Europe/Berlin", anchor="calendar", now_us=NOW
    )
    await writer.add_terms(number, from_us=start_us, catalog_version=1, plan="team", seats=2, negotiated=own)
    return number


# --- transactions and generations


async def test_every_change_raises_the_generation_once(registry: Registry) -> None:
    before = await registry.generation()
    async with registry.write() as writer:
        customer = await writer.create_customer("acme", None, None, NOW)
        await writer.set_reference(customer, "stripe", "cus_1")
        await make_contract(writer, customer)
    assert await registry.generation() == before + 1
    async with registry.write() as writer:
        assert await writer.customer("acme") is not None
    assert await registry.generation() == before + 1


@pytest.mark.parametrize("fault", ["raises", "dry run"])
async def test_what_is_not_committed_never_was(registry: Registry, fault: str) -> None:
    before = await registry.generation()
    try:
        async with registry.write(dry_run=fault == "dry run") as writer:
            await writer.create_customer("acme", None, None, NOW)
            assert await writer.customer("acme") is not None
            await writer.publish(DEARER, effective_us=NOW, now_us=NOW)
            assert (await writer.catalog(2)).version == 2
            if fault == "raises":
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert await registry.customer("acme") is None
    assert await registry.generation() == before
    with pytest.raises(NotFound):
        await registry.catalog(2)


async def test_a_registry_in_another_process_sees_everything(driver: Driver, registry: Registry) -> None:
    other = Registry(driver)
    await make_customer(registry)
    assert await other.generation() == await registry.generation()
    assert (await other.catalog_at(NOW)).actions == CATALOG.actions


# --- catalogs


async def test_a_new_store_publishes_the_files_catalog_once(driver: Driver) -> None:
    registry = Registry(driver)
    with pytest.raises(NotFound, match="no catalog was published"):
        await registry.catalog_at(NOW)
    first = await registry.ensure_catalog(CATALOG, NOW)
    assert first == replace(CATALOG, version=1, effective_us=NOW)
    again = await registry.ensure_catalog(DEARER, NOW + DAY)
    assert again == first
    assert [(one.version, one.digest) for one in await registry.publications()] == [
        (1, catalog_digest(CATALOG))
    ]


async def test_catalogs_take_effect_at_their_time(registry: Registry) -> None:
    async with registry.write() as writer:
        await writer.publish(DEARER, effective_us=NOW + DAY, now_us=NOW)
    versions = [(await registry.catalog_at(at)).version for at in (0, NOW, NOW + DAY - 1, NOW + DAY)]
    assert versions == [1, 1, 1, 2]
    assert (await registry.catalog(2)).actions["doc"].price_micros == 120_000
    assert await registry.next_catalog_us(NOW) == NOW + DAY
    assert await registry.next_catalog_us(NOW + DAY) is None


# --- customers and seats


async def test_customers_and_their_references(registry: Registry) -> None:
    customer = await make_customer(registry)
    async with registry.write() as writer:
        await writer.set_reference(customer, "stripe", "cus_1")
        await writer.set_reference(customer, "crm", "17")
        await writer.set_reference(customer, "stripe", "cus_2")
        await writer.set_reference(customer, "crm", "")
        await writer.update_customer(customer, None, "a@acme.test")
    found = await registry.customer("acme")
    assert found is not None
    assert (found.id, found.name, found.email, found.references) == (
        customer,
        None,
        "a@acme.test",
        {"stripe": "cus_2"},
    )
    assert await registry.customer_by_id(customer) == found
    assert await registry.reference_holders("stripe", "cus_2") == [customer]
    assert await registry.reference_holders("stripe", "cus_1") == []
    assert await registry.customer("ACME") is None


async def test_customers_are_listed_in_pages(registry: Registry) -> None:
    numbers = [await make_customer(registry, ref) for ref in ("b", "a", "c", "d")]
    assert numbers == [1, 2, 3, 4]
    async with registry.write() as writer:
        await writer.archive_customer(3, NOW)
    assert [one.ref for one in await registry.customers()] == ["a", "b", "d"]
    assert [one.ref for one in await registry.customers(limit=2)] == ["a", "b"]
    assert [one.ref for one in await registry.customers(after="b", limit=2)] == ["d"]
    assert [one.ref for one in await registry.customers(archived=True)] == ["a", "b", "c", "d"]


async def test_seats(registry: Registry) -> None:
    one, other = await make_customer(registry, "one"), await make_customer(registry, "other")
    ann = await registry.ensure_seat(one, "ann")
    assert await registry.ensure_seat(one, "ann") == ann
    before = await registry.generation()
    assert (await registry.ensure_seat(other, "ann")).id != ann.id
    assert await registry.generation() == before + 1
    async with registry.write() as writer:
        assert (await writer.ensure_seat(one, "ann", "Ann A.")).name == "Ann A."
        assert (await writer.ensure_seat(one, "ann")).name == "Ann A."
    assert [(seat.ref, seat.name) for seat in await registry.seats(one)] == [("ann", "Ann A.")]
    async with registry.write() as writer:
        await writer.ensure_seat(one, "ann", "")
    assert [seat.name for seat in await registry.seats()] == [None, None]


# --- keys


async def test_keys(registry: Registry) -> None:
    customer = await make_customer(registry)
    seat = await registry.ensure_seat(customer, "ann")
    key, second = new_key("test", b"k" * 32), new_key("test", b"l" * 32)
    async with registry.write() as writer:
        number = await writer.create_key(customer, seat.id, key, now_us=NOW, expires_us=NOW + DAY)
        after = await writer.create_key(customer, None, second, now_us=NOW, expires_us=None, replaces=number)
    owner = await registry.key_by_digest(key.digest)
    assert owner is not None
    assert (owner.customer, owner.seat, owner.key.seat, owner.key.expires_us) == (
        "acme",
        "ann",
        seat.id,
        NOW + DAY,
    )
    assert await registry.key(number) == owner
    assert await registry.key_by_digest(b"?" * 32) is None
    assert await registry.key_successor(number) == after
    assert await registry.key_successor(after) is None
    assert [one.key.id for one in await registry.keys(customer)] == [number, after]
    assert [one.seat for one in await registry.keys()] == ["ann", None]
    async with registry.write() as writer:
        assert await writer.revoke_key(number, NOW + 1)
        assert not await writer.revoke_key(number, NOW + 2)
        await writer.expire_key(after, NOW + 5)
    keys = [one.key for one in await registry.keys(customer)]
    assert (keys[0].revoked_us, keys[1].expires_us, keys[1].replaces) == (NOW + 1, NOW + 5, number)


async def test_no_secret_is_stored(driver: Driver, registry: Registry) -> None:
    customer = await make_customer(registry)
    key = new_key("test", b"s" * 32)
    async with registry.write() as writer:
        await writer.create_key(customer, None, key, now_us=NOW, expires_us=None)
    rows = await driver.rows_sql("SELECT * FROM api_keys")
    assert key.secret[16:] not in repr(rows)
    assert key.digest in rows[0]


# --- contracts


async def test_contracts_come_back_with_pinned_terms(registry: Registry) -> None:
    customer = await make_customer(registry)
    own = Negotiated({"doc": 7}, {"doc": Price(80_000, 1)}, NO_CAP)
    async with registry.write() as writer:
        await writer.publish(DEARER, effective_us=NOW, now_us=NOW)
        number = await make_contract(writer, customer, own)
        await writer.add_terms(
            number, from_us=NOW, catalog_version=2, plan="open", seats=3, negotiated=NOTHING_NEGOTIATED
        )
        await writer.add_terms(
            number, from_us=START + DAY, catalog_version=1, plan="team", seats=9, negotiated=own
        )
    found = await registry.subscription(number)
    assert found is not None
    assert (found.customer, found.start_us, found.time_zone, found.anchor) == (
        customer, START, "Europe/Berlin", "calendar",
    )  # fmt: skip
    assert found.terms == (
        make_terms(await registry.catalog(1), "team", 2, own, START),
        make_terms(await registry.catalog(1), "team", 9, own, START + DAY),
        make_terms(await registry.catalog(2), "open", 3, NOTHING_NEGOTIATED, NOW),
    )
    assert found.terms[0].prices["doc"] == Price(100_000, 1)
    assert found.terms[2].prices["doc"] == Price(120_000, 1)
    assert await registry.subscriptions(customer) == await registry.subscriptions() == (found,)
    assert await registry.subscription(99) is None
    assert await registry.subscriptions(99) == ()
    async with registry.write() as writer:
        await writer.end_subscription(number, NOW + DAY)
        await writer.cancel_subscription(number, NOW + 1)
    ended = (await registry.subscriptions(customer))[0]
    assert (ended.end_us, ended.canceled_us) == (NOW + DAY, NOW + 1)


async def test_contracts_belong_to_their_customers(registry: Registry) -> None:
    one, other = await make_customer(registry, "one"), await make_customer(registry, "other")
    async with registry.write() as writer:
        numbers = [await make_contract(writer, customer) for customer in (other, one, other)]
    assert [found.id for found in await registry.subscriptions(other)] == [numbers[0], numbers[2]]
    assert [found.id for found in await registry.subscriptions()] == [numbers[1], numbers[0], numbers[2]]


# --- counters


async def test_a_grant_changes_what_is_granted_and_what_held_units_may_cost(
    driver: Driver, registry: Registry
) -> None:
    """A running period: 1,100 used of 1,000 granted, 50 held at 0.10 each; then 1,120 are granted."""
    customer = await make_customer(registry)
    async with registry.write() as writer:
        number = await make_contract(writer, customer)
    contract = await registry.subscription(number)
    assert contract is not None
    start_us = period_at(contract, NOW).start_us
    async with driver.write() as tx:
        action = (await tx.rows("action_create", ("doc",)))[0][0]
        row = (customer, number, action, start_us, 1000, 0, 1100, 50, 1, 100_000, 1, 100_000, 1)
        await tx.run("counter_grant", row)
        await tx.run("cap_write", (customer, number, start_us, 10_000_000, 5_000_000))
    counted = standing((contract,), customer, "doc", NOW, catalog=CATALOG, seller_zone="UTC", grace_us=0)
    async with registry.write() as writer:
        await writer.grant(replace(counted, granted=1120), "doc")
    counter = (await registry.counters(customer, number, start_us))["doc"]
    assert counter == Counter(1120, 0, 1100, 50, 1, 100_000, 1, 100_000, 1)
    cap = (await driver.rows("cap_read", (customer, number, start_us)))[0]
    assert tuple(cap) == (10_000_000, 3_000_000)


async def test_use_before_the_import_is_counted_apart(registry: Registry) -> None:
    customer = await make_customer(registry)
    async with registry.write() as writer:
        contract = await writer.subscription(await make_contract(writer, customer))
        assert contract is not None
        counted = standing((contract,), customer, "doc", NOW, catalog=CATALOG, seller_zone="UTC", grace_us=0)
        await writer.open_counter(counted, "doc", 30)
    found = await registry.counters(customer, contract.id, counted.period.start_us)
    assert found == {"doc": Counter(1000, 30, 30, 0, 1, 100_000, 1, 100_000, 1)}
    assert await registry.openings(customer, contract.id) == {"doc": 30}
    assert await registry.counters(customer, contract.id, 0) == {}
