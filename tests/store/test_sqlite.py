"""The SQLite driver: transactions, turns among processes, slots, and what it says when the disk is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headgate.model.errors import StoreError, StoreFull, StoreUnavailable
from headgate.store import sqlite as sqlite_module
from headgate.store.sqlite import SqliteDriver, translate
from headgate.store.statements import load_migrations


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[SqliteDriver]:
    opened = SqliteDriver(tmp_path / "headgate.db")
    await opened.migrate()
    yield opened
    await opened.close()


async def generation(driver: SqliteDriver) -> int:
    return int((await driver.rows("registry_generation"))[0][0])


# --- transactions


async def test_what_is_committed_is_seen_and_what_raises_is_not(driver: SqliteDriver) -> None:
    before = await generation(driver)

    async def write_and_raise() -> None:
        async with driver.write() as tx:
            await tx.run("registry_bump")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_raise()
    assert await generation(driver) == before
    async with driver.write() as tx:
        await tx.run("registry_bump")
        assert await generation(driver) == before
    assert await generation(driver) == before + 1


async def test_a_cancelled_transaction_is_undone_and_lets_go_of_its_turn(driver: SqliteDriver) -> None:
    entered = asyncio.Event()

    async def hang() -> None:
        async with driver.write() as tx:
            await tx.run("registry_bump")
            entered.set()
            await asyncio.Event().wait()

    before, task = await generation(driver), asyncio.ensure_future(hang())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    async with driver.write() as tx:
        await tx.run("registry_bump")
    assert await generation(driver) == before + 1


async def test_writers_of_two_processes_take_turns(driver: SqliteDriver) -> None:
    """The second waits on the queue, not in SQLite's busy handler, and the loop goes on meanwhile."""
    other = SqliteDriver(driver.path)
    order: list[str] = []
    inside = asyncio.Event()

    async def first() -> None:
        async with driver.write():
            inside.set()
            await asyncio.sleep(0.05)
            order.append("first")

    async def second() -> None:
        await inside.wait()
        async with other.write():
            order.append("second")

    async def loop_goes_on() -> None:
        await inside.wait()
        await asyncio.sleep(0)
        order.append("loop")

    await asyncio.gather(first(), second(), loop_goes_on())
    assert order == ["loop", "first", "second"]
    await other.close()


async def test_who_waits_too_long_is_told_and_does_not_keep_the_turn(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "_LOCK_WAIT_S", 0.05)
    stranger = os.open(driver.path.with_name("headgate.db.locks") / "write", os.O_RDWR)
    fcntl.flock(stranger, fcntl.LOCK_EX)
    with pytest.raises(StoreUnavailable, match="Another process has held"):
        async with driver.write():
            pass
    fcntl.flock(stranger, fcntl.LOCK_UN)
    await asyncio.sleep(0.05)  # the waiting thread gets the lock now, and gives it back
    fcntl.flock(stranger, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(stranger)
    async with driver.write() as tx:
        await tx.run("registry_bump")


async def test_a_snapshot_sees_one_moment(driver: SqliteDriver) -> None:
    before = await generation(driver)
    async with driver.snapshot() as snapshot:
        assert await snapshot.rows("registry_generation") == [(before,)]
        async with driver.write() as tx:
            await tx.run("registry_bump")
        assert await snapshot.rows("registry_generation") == [(before,)]
    async with driver.snapshot() as snapshot:
        assert await snapshot.rows("registry_generation") == [(before + 1,)]


async def test_reports_cannot_write(driver: SqliteDriver) -> None:
    with pytest.raises(StoreError, match=r"readonly|read-only"):
        await driver.rows_sql("UPDATE registry SET generation = 0")


async def test_commits_are_on_disk_before_they_are_told(driver: SqliteDriver) -> None:
    connection: sqlite3.Connection = driver._writer
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- migrations


async def test_the_log_begins_anew_under_steady_load(
    driver: SqliteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "_CHECKPOINT_EVERY_S", 0.01)
    monkeypatch.setattr(sqlite_module, "_CHECKPOINT_PAGES", 8)
    monkeypatch.setattr(sqlite_module, "_LONG_LOG_PAGES", 64)
    log = driver.path.with_name(driver.path.name + "-wal")

    async def write_until_it_shrinks() -> int:
        longest = 0
        while (size := log.stat().st_size) >= longest:
            longest = size
            async with driver.write() as tx:
                await tx.run("registry_bump")
        return longest

    before = await generation(driver)
    async with driver.snapshot() as old:  # a long report: the log grows, and nobody is held up
        assert await old.rows("registry_generation") == [(before,)]
        driver.start()
        for _ in range(300):
            async with driver.write() as tx:
                await tx.run("registry_bump")
        await asyncio.sleep(0.1)
        assert log.stat().st_size > 64 * 4096
        assert await old.rows("registry_generation") == [(before,)]
    assert await write_until_it_shrinks() > 64 * 4096
    assert await generation(driver) > before + 300


async def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    driver = SqliteDriver(tmp_path / "new.db")
    assert await driver.schema_version() == 0
    assert await driver.migrate() == [f"{number:04d}_{name}" for number, name, _ in load_migrations()]
    assert await driver.migrate() == []
    assert await driver.schema_version() == load_migrations()[-1][0]
    await driver.close()


async def test_a_new_store_is_set_up_once_by_two_processes(tmp_path: Path) -> None:
    drivers = [SqliteDriver(tmp_path / "new.db") for _ in range(2)]
    applied = await asyncio.gather(*(driver.migrate() for driver in drivers))
    assert sorted(applied[0] + applied[1]) == [
        f"{number:04d}_{name}" for number, name, _ in load_migrations()
    ]
    for driver in drivers:
        await driver.close()


async def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sqlite_module, "load_migrations", lambda: [(1, "half", "CREATE TABLE a (b); CREATE TABLE a (b);")]
    )
    driver = SqliteDriver(tmp_path / "new.db")
    with pytest.raises(StoreError, match="already exists"):
        await driver.migrate()
    assert await driver.schema_version() == 0
    assert await driver.rows_sql("SELECT name FROM sqlite_master") == []
    await driver.close()


# --- slots


async def test_slots_are_leased_apart_and_free_again_after_death(driver: SqliteDriver) -> None:
    other, third = SqliteDriver(driver.path), SqliteDriver(driver.path)
    assert (await driver.lease_slot(), await other.lease_slot()) == (1, 2)
    with third.dead_slot(2) as dead:
        assert not dead
    await other.close()
    with third.dead_slot(2) as dead:
        assert dead
        assert await driver.lease_slot() == 3  # nobody else can take it meanwhile
    assert await third.lease_slot() == 2
    await third.close()


async def test_closing_twice_closes_nobody_elses_file(driver: SqliteDriver) -> None:
    await driver.lease_slot()
    await driver.close()
    files = [os.open(driver.path, os.O_RDONLY) for _ in range(4)]
    await driver.close()
    for handle in files:
        os.fstat(handle)
        os.close(handle)


# --- a disk that is wrong


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (sqlite3.OperationalError("database or disk is full"), StoreFull, "Free space"),
        (sqlite3.OperationalError("database is locked"), StoreUnavailable, "database is locked"),
        (sqlite3.OperationalError("disk I/O error"), StoreUnavailable, "disk I/O error"),
        (sqlite3.DatabaseError("file is not a database"), StoreError, "restore it from a backup"),
        (sqlite3.DatabaseError("database disk image is malformed"), StoreError, "restore it from a backup"),
        (sqlite3.IntegrityError("UNIQUE constraint failed: a.b"), StoreError, "a.b"),
    ],
)
def test_sqlites_errors_become_ours(error: sqlite3.Error, kind: type[StoreError], words: str) -> None:
    found = translate(error)
    assert type(found) is kind
    assert words in str(found)


async def test_a_file_that_is_no_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "headgate.db"
    path.write_bytes(b"This is a letter, not a database. " * 100)
    with pytest.raises(StoreError, match="is no store"):
        SqliteDriver(path)
    assert path.read_bytes().startswith(b"This is a letter")


async def test_a_damaged_file_is_told(driver: SqliteDriver) -> None:
    await driver.close()
    with driver.path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)

    async def read_it() -> None:
        await SqliteDriver(driver.path).schema_version()

    with pytest.raises(StoreError, match="damaged"):
        await read_it()


@pytest.mark.parametrize("parent", ["missing is made", "a file", "read-only"])
async def test_where_the_store_cannot_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: str
) -> None:
    if parent == "missing is made":
        await SqliteDriver(tmp_path / "a" / "b" / "headgate.db").close()
        return
    if parent == "a file":
        (tmp_path / "a").write_text("")
        with pytest.raises(StoreUnavailable, match="Not a directory"):
            SqliteDriver(tmp_path / "a" / "headgate.db")
        return

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)  # the directory of locks is there, and nothing in it can be made
    with pytest.raises(StoreUnavailable, match="Read-only file system"):
        SqliteDriver(tmp_path / "headgate.db")


FORKING = """
import asyncio, os, signal, sys, time
from headgate.store.sqlite import SqliteDriver

async def main():
    driver = SqliteDriver(sys.argv[1])
    await driver.migrate()
    await driver.lease_slot()
    async with driver.write():
        if os.fork() == 0:
            os.close(1)
            time.sleep(60)
            os._exit(0)
        print("forked", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_child_of_a_killed_process_keeps_none_of_its_locks(tmp_path: Path) -> None:
    """`multiprocessing` forks: an orphan must hold up neither the writers nor whoever takes the slot over."""
    path = tmp_path / "headgate.db"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORKING, str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).strip() == b"forked"
        assert await process.wait() == -signal.SIGKILL
        driver = SqliteDriver(path)
        with driver.dead_slot(1) as dead:
            assert dead
        async with asyncio.timeout(5), driver.write():
            pass
        await driver.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
