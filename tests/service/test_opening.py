"""Opening a store: a new one is set up, and one that is not for this process is refused in a sentence."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest

from headgate.config import Config, parse
from headgate.model.errors import StoreTooNew, StoreTooOld, WrongMode
from headgate.service import opening
from headgate.service.opening import Store, open_store
from headgate.store import sqlite as sqlite_module
from headgate.store.sqlite import SqliteDriver
from headgate.store.statements import load_migrations
from headgate.testing import FakeClock

TOML = """
mode = "{mode}"
[seller]
name = "Acme"
public_url = "https://api.example.com"
[actions."doc.read"]
title = "Document read"
unit = "document"
price = "0.10"
routes = ["POST /docs"]
"""


def config(mode: str = "test") -> Config:
    return parse(TOML.format(mode=mode), file="headgate.toml", environ={})


async def opened(path: Path, mode: str = "test") -> Store:
    driver = SqliteDriver(path)
    try:
        return await open_store(driver, config(mode), FakeClock(), os.urandom)
    finally:
        await driver.close()


async def test_a_new_store_gets_mode_secret_and_catalog_once(tmp_path: Path) -> None:
    first = await opened(tmp_path / "headgate.db")
    second = await opened(tmp_path / "headgate.db")
    assert first.secret == second.secret
    assert len(first.secret) == 32
    rows = sqlite3.connect(tmp_path / "headgate.db").execute("SELECT version FROM catalogs").fetchall()
    assert rows == [(1,)]


async def test_two_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    path = tmp_path / "headgate.db"
    stores = await asyncio.gather(*(opened(path) for _ in range(4)))
    assert len({store.secret for store in stores}) == 1


async def test_a_store_that_another_process_is_setting_up_is_not_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other is between the first migration and the second."""
    monkeypatch.setattr(sqlite_module, "load_migrations", lambda: load_migrations()[:1])
    driver = SqliteDriver(tmp_path / "headgate.db")
    await driver.migrate()
    monkeypatch.undo()
    await opened(tmp_path / "headgate.db")
    assert await driver.schema_version() == load_migrations()[-1][0]
    await driver.close()


@pytest.mark.parametrize(
    ("change", "refusal", "advice"), [(+1, StoreTooNew, "upgrade"), (-1, StoreTooOld, "headgate migrate")]
)
async def test_a_store_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int, refusal: type[Exception], advice: str
) -> None:
    path = tmp_path / "headgate.db"
    await opened(path)
    newest = load_migrations()[-1][0]
    if newest + change == 0:  # a store that is too old needs an older version to be
        monkeypatch.setattr(opening, "load_migrations", lambda: [*load_migrations(), (newest + 1, "x", "")])
    else:
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version={newest + change}")
        connection.close()
    with pytest.raises(refusal, match=advice):
        await opened(path)


@pytest.mark.parametrize(("made", "opened_as"), [("test", "live"), ("live", "test")])
async def test_a_store_keeps_its_mode(tmp_path: Path, made: str, opened_as: str) -> None:
    await opened(tmp_path / "headgate.db", made)
    with pytest.raises(WrongMode, match=f"created in {made} mode"):
        await opened(tmp_path / "headgate.db", opened_as)
    await opened(tmp_path / "headgate.db", made)
