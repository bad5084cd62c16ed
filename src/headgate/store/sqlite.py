"""The SQLite driver: connections, the write queue, slot locks, checkpoints, error translation.

Writes run on the event loop: a grouped commit takes about a third of a millisecond, less than handing it to a
thread and back costs under the interpreter lock. Processes queue on a file lock before `BEGIN IMMEDIATE`,
because SQLite's own busy handler polls and starves some of them. Checkpoints run in a thread of their own
connection, since they can take far longer than a commit. Locks live beside the database in `NAME.locks/`;
the kernel releases them when their process dies, however it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from headgate.model.errors import StoreError, StoreFull, StoreUnavailable
from headgate.store.driver import Row
from headgate.store.statements import load_migrations, load_statements, split_script

_LOCK_WAIT_S = 10
T = TypeVar("T")
_CHECKPOINT_EVERY_S = 1.0
_CHECKPOINT_PAGES = 4096
_LONG_LOG_PAGES = 4 * _CHECKPOINT_PAGES
_LOG_WAIT_MS = 50
_LOG_TRIES = 200
_DIALECT = {"{bytes}": "BLOB", "{clustered}": "WITHOUT ROWID"}


def translate(error: sqlite3.Error) -> StoreError:
    """The one place where SQLite's errors become Headgate's."""
    text = str(error)
    if "full" in text:
        return StoreFull(f"{StoreFull.__doc__} ({text})")
    if isinstance(error, sqlite3.OperationalError):
        return StoreUnavailable(f"{StoreUnavailable.__doc__} ({text})")
    if "malformed" in text or "not a database" in text:
        return StoreError(f"The store's file is damaged or is no store ({text}); restore it from a backup.")
    return StoreError(f"The store refused a statement: {text}")


_DRIVERS: weakref.WeakSet[SqliteDriver] = weakref.WeakSet()


def _let_go_of_locks() -> None:
    """In a child that was forked: a lock lives as long as any copy of its descriptor, and this is one."""
    for driver in _DRIVERS:
        driver.let_go()


os.register_at_fork(after_in_child=_let_go_of_locks)


class SqliteTx:
    """An open transaction. Coroutines for the interface's sake: none of them suspends."""

    __slots__ = ("_connection", "_sql")

    def __init__(self, connection: sqlite3.Connection, sql: dict[str, str]) -> None:
        self._connection = connection
        self._sql = sql

    async def rows(self, name: str, params: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(self._sql[name], params).fetchall()

    async def each(self, name: str, many: Sequence[Sequence[Any]]) -> list[list[Row]]:
        sql, execute = self._sql[name], self._connection.execute
        return [execute(sql, params).fetchall() for params in many]

    async def run(self, name: str, params: Sequence[Any] = ()) -> int:
        return self._connection.execute(self._sql[name], params).rowcount

    async def many(self, name: str, many: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(self._sql[name], many)


class SqliteSnapshot:
    """An open read transaction on a connection of its own; statements run in the driver's reading threads."""

    __slots__ = ("_connection", "_driver")

    def __init__(self, driver: SqliteDriver, connection: sqlite3.Connection) -> None:
        self._driver = driver
        self._connection = connection

    async def rows(self, name: str, params: Sequence[Any] = ()) -> list[Row]:
        return await self.rows_sql(self._driver.statement(name), params)

    async def rows_sql(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return await self._driver.run_reading(self._execute, sql, params)

    def _execute(self, sql: str, params: Sequence[Any]) -> list[Row]:
        try:
            return self._connection.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error


class SqliteDriver:
    """One process's connections to one SQLite file. Use from one event loop."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._sql = load_statements()
        self._locks = self.path.with_name(self.path.name + ".locks")
        try:
            self._locks.mkdir(parents=True, exist_ok=True)
            self._queue = os.open(self._locks / "write", os.O_RDWR | os.O_CREAT, 0o644)
            self._pause = os.open(self._locks / "write", os.O_RDWR | os.O_CREAT, 0o644)
            self._writer = self._connect()
            self._reader = self._connect()
        except OSError as error:
            raise StoreUnavailable(f"Cannot open the store at {path}: {error.strerror}.") from error
        except sqlite3.Error as error:
            raise translate(error) from error
        self._tx = SqliteTx(self._writer, self._sql)
        self._turn = asyncio.Lock()
        self._slot_locks: dict[int, int] = {}  # descriptors, by slot
        self._slow = ThreadPoolExecutor(2, "headgate-read")
        self._slow_local = threading.local()
        self._slow_connections: list[sqlite3.Connection] = []
        self._idle_snapshots: list[sqlite3.Connection] = []
        self._stop = threading.Event()
        self._checkpointer: threading.Thread | None = None
        _DRIVERS.add(self)

    def _connect(self, *, readonly: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=5, isolation_level=None, check_same_thread=False, cached_statements=512
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("PRAGMA cache_size=-65536")
        connection.execute("PRAGMA mmap_size=268435456")
        if readonly:
            connection.execute("PRAGMA query_only=ON")
        return connection

    # --- migrations -------------------------------------------------------------------------------

    async def schema_version(self) -> int:
        """The number of the newest migration that was applied; 0 for a new store."""
        try:
            return int(self._writer.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.Error as error:
            raise translate(error) from error

    async def migrate(self) -> list[str]:
        """Apply what is missing, each migration in its own transaction; the names of those applied."""
        applied = []
        for number, name, text in load_migrations():
            for marker, word in _DIALECT.items():
                text = text.replace(marker, word)
            async with self.write():
                if number <= await self.schema_version():
                    continue
                for statement in split_script(text):
                    self._writer.execute(statement)
                self._writer.execute(f"PRAGMA user_version={number}")
            applied.append(f"{number:04d}_{name}")
        return applied

    # --- transactions and reads -------------------------------------------------------------------

    @asynccontextmanager
    async def write(self) -> AsyncIterator[SqliteTx]:
        async with self._turn:
            await self._wait_for_turn()
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._tx
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                raise translate(error) from error
            finally:
                if self._writer.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._writer.execute("ROLLBACK")
                fcntl.flock(self._queue, fcntl.LOCK_UN)

    async def _wait_for_turn(self) -> None:
        """Queue among processes. Free: taken at once. Held: wait in a thread, so that the loop goes on."""
        try:
            fcntl.flock(self._queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            waiting = loop.run_in_executor(None, fcntl.flock, self._queue, fcntl.LOCK_EX)
            try:
                await asyncio.wait_for(asyncio.shield(waiting), _LOCK_WAIT_S)
            except (TimeoutError, asyncio.CancelledError) as error:
                # The thread may still get the lock: then it is given back at once.
                queue = self._queue
                waiting.add_done_callback(lambda _: fcntl.flock(queue, fcntl.LOCK_UN))
                if isinstance(error, asyncio.CancelledError):
                    raise
                raise StoreUnavailable(
                    f"Another process has held {self.path.name} for {_LOCK_WAIT_S} s; nothing was written."
                ) from None

    async def rows(self, name: str, params: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._reader.execute(self._sql[name], params).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error

    async def rows_slow(self, name: str, params: Sequence[Any] = ()) -> list[Row]:
        return await self.rows_sql(self._sql[name], params)

    async def rows_sql(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        return await self.run_reading(self._read, sql, params)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[SqliteSnapshot]:
        connection = self._idle_snapshots.pop() if self._idle_snapshots else self._connect(readonly=True)
        connection.execute("BEGIN")
        try:
            yield SqliteSnapshot(self, connection)
            connection.execute("COMMIT")
        except BaseException:
            # A cancelled statement may still run in its thread: stop it, and use the connection no more.
            connection.interrupt()
            self._slow.submit(connection.close)
            raise
        self._idle_snapshots.append(connection)

    def statement(self, name: str) -> str:
        """A named statement's SQL."""
        return self._sql[name]

    async def run_reading(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in one of the reading threads."""
        return await asyncio.get_running_loop().run_in_executor(self._slow, function, *arguments)

    def _read(self, sql: str, params: Sequence[Any]) -> list[Row]:
        connection = getattr(self._slow_local, "connection", None)
        try:
            if connection is None:
                connection = self._slow_local.connection = self._connect(readonly=True)
                self._slow_connections.append(connection)
            return connection.execute(sql, params).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error

    # --- slots ------------------------------------------------------------------------------------

    async def lease_slot(self) -> int:
        for slot in range(1, 1 << 16):
            lock = self._try_lock(slot)
            if lock is not None:
                self._slot_locks[slot] = lock
                return slot
        raise StoreUnavailable("All 65,535 slots are taken; stop processes that are not needed.")

    def free_slot(self, slot: int) -> None:
        lock = self._slot_locks.pop(slot, None)
        if lock is not None:
            os.close(lock)

    @contextlib.contextmanager
    def dead_slot(self, slot: int) -> Iterator[bool]:
        lock = self._try_lock(slot)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    def _try_lock(self, slot: int) -> int | None:
        try:
            handle = os.open(self._locks / f"slot-{slot}", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreUnavailable(f"Cannot lock slot {slot} in {self._locks}: {error.strerror}.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return handle

    # --- checkpoints and the end ------------------------------------------------------------------

    def start(self) -> None:
        """Move the write-ahead log into the database now and then, in a thread of its own."""
        if self._checkpointer is None:
            self._checkpointer = threading.Thread(
                target=self._checkpoint, name="headgate-checkpoint", daemon=True
            )
            self._checkpointer.start()

    def _checkpoint(self) -> None:
        log = self.path.with_name(self.path.name + "-wal")
        connection = self._connect()
        connection.execute(f"PRAGMA busy_timeout={_LOG_WAIT_MS}")
        page = int(connection.execute("PRAGMA page_size").fetchone()[0])
        while not self._stop.wait(_CHECKPOINT_EVERY_S):
            with contextlib.suppress(OSError, sqlite3.Error):
                if log.stat().st_size > _CHECKPOINT_PAGES * page:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                if log.stat().st_size > _LONG_LOG_PAGES * page:
                    self._begin_log_anew(connection)
        connection.close()

    def _begin_log_anew(self, connection: sqlite3.Connection) -> None:
        """Under steady load the log is never wholly moved, so it only grows: make writers wait once.

        What is left to move is little, and readers of an old state are waited for only so long: while a
        report is read, the log goes on growing.
        """
        for _ in range(_LOG_TRIES):
            try:
                fcntl.flock(self._pause, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._stop.wait(0.002)
                continue
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                fcntl.flock(self._pause, fcntl.LOCK_UN)
            return

    async def close(self) -> None:
        self._stop.set()
        if self._checkpointer is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._checkpointer.join)
        self._slow.shutdown(wait=True)
        for connection in (*self._slow_connections, *self._idle_snapshots, self._reader, self._writer):
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self.let_go()

    def let_go(self) -> None:
        """Close what locks are held by, once: a descriptor's number may be somebody else's file by then."""
        handles = (*self._slot_locks.values(), self._queue, self._pause)
        self._slot_locks, self._queue, self._pause = {}, -1, -1
        for handle in handles:
            if handle >= 0:
                os.close(handle)
