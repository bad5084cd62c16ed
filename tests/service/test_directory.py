"""What a process remembers, and forgets: a change anywhere is seen by the next request everywhere."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest

from headgate.model.errors import InputError
from headgate.model.negotiated import NOTHING_NEGOTIATED
from headgate.model.subscription import StandingKind
from headgate.service.customers import create_customer
from headgate.service.directory import Directory
from headgate.service.keys import create_key, revoke_key
from headgate.service.subscribe import Agreement, cancel_subscription, create_subscription
from headgate.store.driver import Driver
from headgate.store.registry import Registry
from headgate.store.sqlite import SqliteDriver
from tests.registries import CATALOG, DAY, DEARER, GRACE, NOW, us


@pytest.fixture
async def elsewhere(driver: Driver) -> AsyncIterator[Registry]:
    """The registry as another process has it: its own connection to the same store."""
    other = SqliteDriver(driver.path)  # type: ignore[attr-defined]
    yield Registry(other)
    await other.close()


@pytest.fixture
def directory(registry: Registry) -> Directory:
    return Directory(registry, mode="test", zone="UTC", grace_us=GRACE)


async def next_request(directory: Directory) -> None:
    """A round of the event loop later."""
    directory._expire()
    await directory.refresh()


async def customer(registry: Registry, plan: str | None = None, start: str = "2026-04-01") -> int:
    await create_customer(registry, "acme", now_us=NOW)
    if plan is not None:
        agreement = Agreement(plan, start_us=us(start))
        await create_subscription(registry, "acme", agreement, now_us=us(start), grace_us=GRACE)
    found = await registry.customer("acme")
    assert found is not None
    return found.id


async def test_a_key_revoked_in_another_process_is_refused_by_the_next_request(
    directory: Directory, registry: Registry, elsewhere: Registry
) -> None:
    await customer(registry)
    made = await create_key(elsewhere, "acme", mode="test", entropy=bytes(32), now_us=NOW)
    await next_request(directory)
    for _ in range(3):
        owner = await directory.key(made.key.encode(), NOW)
        assert owner is not None
        assert owner.customer == "acme"
    await revoke_key(elsewhere, made.key_id, now_us=NOW)
    await next_request(directory)
    assert await directory.key(made.key.encode(), NOW) is None


async def test_a_key_that_was_unknown_is_known_once_it_is_made(
    directory: Directory, registry: Registry, elsewhere: Registry
) -> None:
    await customer(registry)
    entropy = bytes(range(32))
    made = await create_key(registry, "acme", mode="test", entropy=entropy, now_us=NOW)
    await next_request(directory)
    unknown = made.key[:-8] + "00000000"
    for text in (unknown, "hg_test_", "", "Bearer", "\xff" * 40, made.key.replace("test", "live")):
        assert await directory.key(text.encode("latin-1"), NOW) is None
    assert await directory.key(made.key.encode(), NOW) is not None


async def test_a_remembered_key_ends_at_its_time(directory: Directory, registry: Registry) -> None:
    await customer(registry)
    made = await create_key(
        registry, "acme", mode="test", entropy=bytes(32), now_us=NOW, expires_us=NOW + DAY
    )
    await next_request(directory)
    assert await directory.key(made.key.encode(), NOW + DAY - 1) is not None
    assert await directory.key(made.key.encode(), NOW + DAY) is None


async def test_one_round_of_the_loop_reads_once(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    registry = directory._registry
    ask = registry.generation

    async def counted() -> int:
        reads.append("generation")
        return await ask()

    monkeypatch.setattr(registry, "generation", counted)
    for _ in range(5):
        await directory.refresh()
    assert len(reads) == 1
    await next_request(directory)
    assert len(reads) == 2


async def test_a_contract_ended_elsewhere_ends_here(
    directory: Directory, registry: Registry, elsewhere: Registry
) -> None:
    number = await customer(registry, "team")
    await next_request(directory)
    before = await directory.standing(number, "doc", NOW)
    assert before.kind is StandingKind.COVERED
    await cancel_subscription(elsewhere, f"sub_{before.subscription}", at_us=NOW, now_us=NOW, grace_us=0)
    await next_request(directory)
    assert (await directory.standing(number, "doc", NOW)).kind is StandingKind.ENDED


async def test_what_holds_now_does_not_answer_for_earlier(directory: Directory, registry: Registry) -> None:
    """A contract ended in the middle of a month: a use that is recorded late belongs to it all the same."""
    number = await customer(registry, "team")
    ended_us = us("2026-04-10")
    await cancel_subscription(registry, "sub_1", at_us=ended_us, now_us=ended_us, grace_us=0)
    await next_request(directory)
    for _ in range(2):
        assert (await directory.standing(number, "doc", NOW)).kind is StandingKind.ENDED
        assert (await directory.standing(number, "doc", us("2026-04-05"))).kind is StandingKind.COVERED


async def test_a_standing_is_remembered_until_its_period_ends(
    directory: Directory, registry: Registry
) -> None:
    number = await customer(registry, "team")
    await next_request(directory)
    april = await directory.standing(number, "doc", NOW)
    assert await directory.standing(number, "doc", NOW + 1) is april
    may = await directory.standing(number, "doc", april.period.end_us)
    assert may.period.start_us == april.period.end_us
    assert await directory.standing(number, "doc", april.period.end_us - 1) == april


async def test_a_catalog_published_elsewhere_is_followed(
    directory: Directory, registry: Registry, elsewhere: Registry
) -> None:
    """Also by customers without a contract, and exactly from its time on."""
    number = await customer(registry)
    await next_request(directory)
    told: list[int] = []
    directory.on_catalog = lambda catalogs: told.append(len(catalogs))
    assert (await directory.standing(number, "doc", NOW)).list_price.micros == 100_000
    async with elsewhere.write() as writer:
        await writer.publish(DEARER, effective_us=NOW + DAY, now_us=NOW)
    await next_request(directory)
    assert told == [2]
    assert directory.catalog(NOW).actions == CATALOG.actions
    assert directory.catalog(NOW + DAY).actions == DEARER.actions
    assert directory.catalog(0).version == 1
    assert (await directory.standing(number, "doc", NOW + DAY - 1)).list_price.micros == 100_000
    assert (await directory.standing(number, "doc", NOW + DAY)).list_price.micros == 120_000


async def test_a_customer_never_seen_is_written_down_once_and_the_operator_told(
    directory: Directory, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    await next_request(directory)
    with caplog.at_level(logging.WARNING, "headgate.directory"):
        first = await directory.customer("new", NOW)
        await next_request(directory)
        assert await directory.customer("new", NOW) == first
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'new'" in caplog.text
    stored = await registry.customer("new")
    assert stored is not None
    assert stored.id == first
    assert await directory.seat(first, "ann") == await directory.seat(first, "ann")
    assert await directory.seat(first, "ann") != await directory.seat(first, "bob")


@pytest.mark.parametrize("ref", ["", "a" * 1000, "a\nb", "a\x00"])
async def test_what_cannot_be_an_id_is_refused(directory: Directory, ref: str) -> None:
    await next_request(directory)
    with pytest.raises(InputError):
        await directory.customer(ref, NOW)


async def test_memory_is_bounded(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate.service.directory._KEPT", 10)
    await next_request(directory)
    for n in range(50):
        await directory.key(b"hg_test_%d" % n, NOW)
    assert len(directory._keys) <= 10


async def test_seats_added_are_seen(directory: Directory, registry: Registry, elsewhere: Registry) -> None:
    number = await customer(registry, "team")
    await next_request(directory)
    before = await directory.standing(number, "doc", NOW)
    contract = (await elsewhere.subscriptions(number))[0]
    terms = contract.terms[-1]
    async with elsewhere.write() as writer:
        await writer.add_terms(
            contract.id,
            from_us=NOW,
            catalog_version=1,
            plan="team",
            seats=terms.seats + 1,
            negotiated=NOTHING_NEGOTIATED,
        )
    await next_request(directory)
    assert (await directory.standing(number, "doc", NOW)).granted > before.granted
