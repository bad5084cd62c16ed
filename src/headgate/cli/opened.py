"""Configuration and store for one command: opened, used by one coroutine, closed, in one event loop."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from headgate.config import Config
    from headgate.service.opening import Store
    from headgate.store.driver import Driver
    from headgate.store.registry import Registry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opened:
    """What a command works with. `now_us` is the instant at which it began."""

    config: Config
    store: Store
    now_us: int

    @property
    def registry(self) -> Registry:
        """Customers, contracts, keys, catalogs."""
        return self.store.registry

    @property
    def driver(self) -> Driver:
        """The store's connection."""
        return self.store.driver

    @property
    def zone(self) -> str:
        """The seller's time zone."""
        return self.config.seller.time_zone

    @property
    def grace_us(self) -> int:
        """How long a customer is served after its contract ended."""
        return self.config.seller.renewal_grace_us


def read_config(path: str | None) -> Config:
    """The configuration that -c, HEADGATE_CONFIG or this directory names.

    Raises:
        ConfigError: with every problem found.
    """
    from headgate.config import load

    return load(path, os.environ)


def in_store(path: str | None, work: Callable[[Opened], Awaitable[T]]) -> T:
    """Open the configured store, await `work` on it, close it, and hand back what it gave."""
    return awaited(_in_store(read_config(path), work))


def awaited(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in an event loop of its own."""
    import asyncio

    return asyncio.run(work)


async def _in_store(config: Config, work: Callable[[Opened], Awaitable[T]]) -> T:
    from headgate.app import clock_us, make_driver
    from headgate.service.opening import open_store

    file = store_file(config)
    is_new = file is not None and not file.exists()
    driver = make_driver(config)
    try:
        store = await open_store(driver, config, clock_us, os.urandom)
        if is_new:  # worth a word: this may be the wrong directory
            what = f"a new store, {file} ({config.mode} mode), with catalog 1 from {config.path}"
            sys.stderr.write(f"headgate: created {what}\n")
        return await work(Opened(config, store, clock_us()))
    finally:
        await driver.close()


def store_file(config: Config) -> Path | None:
    """The file of a SQLite store; None for other kinds."""
    kind, _, path = config.store.url.partition(":///")
    return Path(path) if kind == "sqlite" and path else None
