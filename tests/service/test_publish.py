"""Publishing: only what differs, in the order of time, with what it touches told before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headgate.model.catalog_diff import CatalogChange
from headgate.model.errors import InputError, NotFound
from headgate.service.customers import create_customer
from headgate.service.publish import (
    compare_catalogs,
    drift,
    list_catalogs,
    publish_catalog,
    show_catalog,
)
from headgate.service.subscribe import Agreement, create_subscription
from headgate.store.driver import Driver
from headgate.store.registry import Registry
from tests.registries import CATALOG, DAY, DEARER, GRACE, NOW, OPEN

PRICE = CatalogChange('actions."doc".price', "0.100000", "0.120000")


async def test_only_what_differs_is_published(registry: Registry) -> None:
    before = await registry.generation()
    report = await publish_catalog(registry, CATALOG, now_us=NOW)
    assert (report.version, report.effective_at, report.changes) == (None, None, ())
    assert await registry.generation() == before
    report = await publish_catalog(registry, DEARER, now_us=NOW)
    assert (report.version, report.changes, report.repriced) == (2, (PRICE,), ("doc",))
    assert (await publish_catalog(registry, DEARER, now_us=NOW + 1)).version is None
    assert (await publish_catalog(registry, CATALOG, now_us=NOW + 1)).version == 3


async def test_a_dry_run_tells_and_keeps_nothing(registry: Registry) -> None:
    report = await publish_catalog(registry, DEARER, now_us=NOW, dry_run=True)
    assert (report.version, report.changes, report.dry_run) == (2, (PRICE,), True)
    assert len(await list_catalogs(registry, now_us=NOW)) == 1
    assert await drift(registry, DEARER) == (PRICE,)
    assert await drift(registry, CATALOG) == ()


async def test_versions_take_effect_in_order(registry: Registry) -> None:
    await publish_catalog(registry, DEARER, now_us=NOW, at_us=NOW + DAY)
    with pytest.raises(InputError, match="is past"):
        await publish_catalog(registry, CATALOG, now_us=NOW, at_us=NOW - 1)
    with pytest.raises(InputError, match="catalog 2 takes effect at 2026-04-17"):
        await publish_catalog(registry, CATALOG, now_us=NOW)
    await publish_catalog(registry, CATALOG, now_us=NOW, at_us=NOW + 2 * DAY)
    found = await list_catalogs(registry, now_us=NOW + DAY)
    assert [(one.version, one.status) for one in found] == [(1, "past"), (2, "in force"), (3, "planned")]
    assert (await show_catalog(registry, now_us=NOW + DAY)).version == 2
    assert (await show_catalog(registry, now_us=NOW, version=3)).version == 3
    assert await compare_catalogs(registry, 1, 2) == (PRICE,)
    assert await compare_catalogs(registry, 1, 3) == ()
    with pytest.raises(NotFound, match="version 4"):
        await compare_catalogs(registry, 1, 4)


async def test_contracts_whose_plan_changes_are_named(registry: Registry) -> None:
    for number, plan in enumerate(("team", "open", "team")):
        await create_customer(registry, f"c{number}", now_us=NOW)
        end_us = NOW + 1 if number == 2 else None
        await create_subscription(
            registry, f"c{number}", Agreement(plan, end_us=end_us), now_us=NOW, grace_us=GRACE
        )
    dropped = await publish_catalog(
        registry, replace(CATALOG, plans={"open": OPEN}), now_us=NOW + 1, dry_run=True
    )
    assert (dropped.at_renewal, dropped.without_plan) == (("sub_1",), ("sub_1",))
    changed = replace(CATALOG, plans={**CATALOG.plans, "open": replace(OPEN, included={"doc": 30})})
    report = await publish_catalog(registry, changed, now_us=NOW + 1)
    assert (report.at_renewal, report.without_plan) == (("sub_2",), ())


async def test_an_empty_store(driver: Driver) -> None:
    registry = Registry(driver)
    assert await list_catalogs(registry, now_us=NOW) == []
    with pytest.raises(NotFound, match="no catalog was published"):
        await drift(registry, CATALOG)
    assert (await publish_catalog(registry, CATALOG, now_us=NOW)).version == 1
