"""The catalog: publish the file's, list, show and compare what was published.

Versions take effect in the order of their numbers. Contracts keep the version they are pinned to, old events
are never priced again, and an offer made under the version before is honoured for `quote_ttl`.
"""

from __future__ import annotations

from dataclasses import dataclass

from headgate.model.calendar import format_us
from headgate.model.catalog import Catalog
from headgate.model.catalog_diff import CatalogChange, diff_catalogs, repriced_actions
from headgate.model.errors import InputError, NotFound
from headgate.model.public_ids import SUBSCRIPTION, write_id
from headgate.model.subscription import contract_end_us, latest_terms
from headgate.store.registry import Publication, Registry, RegistryReader, catalog_digest


@dataclass(frozen=True, slots=True)
class PublishedView:
    """A published catalog. `status`: in force, planned or past."""

    version: int
    status: str
    effective_at: str
    published_at: str
    digest: str


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What was, or would be, published; `version` None: nothing differs, so nothing was.

    `repriced` are actions whose open quotes keep the old price for a while; `at_renewal` are contracts whose
    plan the new catalog changes or drops: they notice when they renew, and those in `without_plan` need
    another plan then.
    """

    version: int | None
    effective_at: str | None
    changes: tuple[CatalogChange, ...]
    repriced: tuple[str, ...]
    at_renewal: tuple[str, ...]
    without_plan: tuple[str, ...]
    dry_run: bool


async def publish_catalog(
    registry: Registry, catalog: Catalog, *, now_us: int, at_us: int | None = None, dry_run: bool = False
) -> PublishReport:
    """Publish a catalog as the next version, effective now or later, if it differs from the newest one.

    Raises:
        InputError: it would take effect in the past, or before a version that is published already.
    """
    effective_us = now_us if at_us is None else at_us
    if effective_us < now_us:
        raise InputError(f"{format_us(effective_us)} is past; prices do not change for what was sold already")
    async with registry.write(dry_run=dry_run) as writer:
        published = await writer.publications()
        newest = await writer.catalog(published[-1].version) if published else Catalog({}, {})
        if published and published[-1].digest == catalog_digest(catalog):
            return PublishReport(None, None, (), (), (), (), dry_run)
        if effective_us < newest.effective_us:
            raise InputError(
                f"catalog {newest.version} takes effect at {format_us(newest.effective_us)}; "
                "publish this one for that time or later"
            )
        at_renewal, without_plan = await _touched(writer, newest, catalog, now_us)
        made = await writer.publish(catalog, effective_us=effective_us, now_us=now_us)
    return PublishReport(
        made.version,
        format_us(effective_us),
        diff_catalogs(newest, catalog),
        repriced_actions(newest, catalog),
        at_renewal,
        without_plan,
        dry_run,
    )


async def _touched(
    registry: RegistryReader, newest: Catalog, catalog: Catalog, now_us: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    touched, without_plan = [], []
    for contract in await registry.subscriptions():
        end_us = contract_end_us(contract)
        plan = latest_terms(contract).plan.name
        if (end_us is not None and end_us <= now_us) or newest.plans.get(plan) == catalog.plans.get(plan):
            continue
        touched.append(write_id(SUBSCRIPTION, contract.id))
        if plan not in catalog.plans:
            without_plan.append(touched[-1])
    return tuple(touched), tuple(without_plan)


async def list_catalogs(registry: RegistryReader, *, now_us: int) -> list[PublishedView]:
    """Every published version, oldest first."""
    published = await registry.publications()
    in_force = (await registry.catalog_at(now_us)).version if published else 0
    return [_view(one, in_force) for one in published]


async def show_catalog(registry: RegistryReader, *, now_us: int, version: int | None = None) -> Catalog:
    """A published version; by default the one in force.

    Raises:
        NotFound: there is none.
    """
    return await (registry.catalog_at(now_us) if version is None else registry.catalog(version))


async def drift(registry: RegistryReader, catalog: Catalog) -> tuple[CatalogChange, ...]:
    """What publishing the file's catalog would change; nothing where file and newest version agree.

    Raises:
        NotFound: nothing was published yet.
    """
    published = await registry.publications()
    if not published:
        raise NotFound("no catalog was published yet; `headgate publish` publishes the file's")
    return diff_catalogs(await registry.catalog(published[-1].version), catalog)


async def compare_catalogs(registry: RegistryReader, old: int, new: int) -> tuple[CatalogChange, ...]:
    """What differs between two published versions.

    Raises:
        NotFound: one of them does not exist.
    """
    return diff_catalogs(await registry.catalog(old), await registry.catalog(new))


def _view(one: Publication, in_force: int) -> PublishedView:
    status = "in force" if one.version == in_force else "past" if one.version < in_force else "planned"
    return PublishedView(
        one.version, status, format_us(one.effective_us), format_us(one.published_us), one.digest.hex()
    )
