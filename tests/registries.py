"""Fixtures shared by the suites of `store/` and `service/`: a store, a registry on it, and a catalog.

`driver` is a parameter, so that every store Headgate runs on is put through the same tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headgate.model.catalog import Action, Beyond, Catalog, Plan, Route
from headgate.store.driver import Driver
from headgate.store.registry import Registry
from headgate.store.sqlite import SqliteDriver

DAY = 86_400_000_000
GRACE = 7 * DAY


def us(text: str) -> int:
    """An instant in UTC."""
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


NOW = us("2026-04-16")  # the middle of a month of 30 days
DOC = Action("doc", "Document", "document", 100_000, routes=(Route("POST", "/docs"),))
CHAT = Action("chat", "Chat", "token", 2_000, 1000, (Route("POST", "/chat"),), 25_000)
TEAM = Plan("team", "Team", 12, 1, 49_000_000, {"doc": 500}, {"chat": 1_000_000}, Beyond.OVERAGE, 9_000_000)
OPEN = Plan("open", "Open", None, 1, 0, {}, {"doc": 20}, Beyond.X402)
CATALOG = Catalog({"doc": DOC, "chat": CHAT}, {"team": TEAM, "open": OPEN}, (Route("GET", "/healthz"),))
DEARER = replace(CATALOG, actions={"doc": replace(DOC, price_micros=120_000), "chat": CHAT})


@pytest.fixture(params=["sqlite"])
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Driver]:
    opened = {"sqlite": SqliteDriver}[request.param](tmp_path / "headgate.db")
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
async def registry(driver: Driver) -> Registry:
    found = Registry(driver)
    await found.ensure_catalog(CATALOG, us("2026-01-01"))
    return found
