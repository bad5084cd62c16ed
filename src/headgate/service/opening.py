"""Opening a store: is it ours, of this mode, of this version; a new one is set up (contract §2, §12)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headgate.config import Config
from headgate.model.errors import StoreTooNew, StoreTooOld, WrongMode
from headgate.store.driver import Driver
from headgate.store.names import Names
from headgate.store.registry import Registry
from headgate.store.statements import load_migrations

SECRET = "secret"  # noqa: S105  the name of a fact, not one


@dataclass(frozen=True, slots=True)
class Store:
    """An opened store. `secret` signs receipt addresses and exports; it never leaves the store."""

    driver: Driver
    registry: Registry
    names: Names
    secret: bytes


async def open_store(
    driver: Driver, config: Config, now_us: Callable[[], int], entropy: Callable[[int], bytes]
) -> Store:
    """Open a store for work; a new one is migrated, and gets its mode and the file's catalog as version 1.

    Raises:
        StoreTooNew, StoreTooOld, WrongMode: this process may not use it; the message says what to do.
    """
    newest = load_migrations()[-1][0]
    version = await driver.schema_version()
    if version > newest:
        raise StoreTooNew(
            f"The store {config.store.url} has schema {version}, this Headgate knows {newest}: upgrade it."
        )
    if version < newest and (version == 0 or not await driver.rows("meta_read", ("mode",))):
        await driver.migrate()  # new; another process may be setting it up at this moment
    elif version < newest:
        raise StoreTooOld(
            f"The store {config.store.url} has schema {version}, this Headgate needs {newest}; "
            "back it up, then run `headgate migrate`."
        )
    async with driver.write() as tx:
        await tx.run("meta_create", ("mode", config.mode))
        await tx.run("meta_create", (SECRET, entropy(32).hex()))
        await tx.run("meta_create", ("created_us", str(now_us())))
    mode = str((await driver.rows("meta_read", ("mode",)))[0][0])
    if mode != config.mode:
        raise WrongMode(
            f"The store {config.store.url} was created in {mode} mode and {config.path} says {config.mode}; "
            "use a store of its own for each mode."
        )
    secret = bytes.fromhex((await driver.rows("meta_read", (SECRET,)))[0][0])
    registry = Registry(driver)
    await registry.ensure_catalog(config.catalog, now_us())
    return Store(driver, registry, Names(driver), secret)
