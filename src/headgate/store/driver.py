"""What a database driver gives the store: transactions over named statements, and nothing else.

The classes above it (`Ledger`, `Registry`, `Reports`) are written once against this interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

Row = tuple[Any, ...]


class Tx(Protocol):
    """One open write transaction. Statements are named; parameters are positional."""

    async def rows(self, name: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a statement and return its rows."""
        ...

    async def each(self, name: str, many: Sequence[Sequence[Any]]) -> list[list[Row]]:
        """Run a statement once for each set of parameters, in order; the rows of each (pipelined)."""
        ...

    async def run(self, name: str, params: Sequence[Any] = ()) -> int:
        """Run a statement and return how many rows it changed."""
        ...

    async def many(self, name: str, many: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each set of parameters."""
        ...


class Snapshot(Protocol):
    """One read transaction: every statement sees the store as it was when the first one ran."""

    async def rows(self, name: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a named statement and return its rows."""
        ...

    async def rows_sql(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a composed statement and return its rows."""
        ...


class Driver(Protocol):
    """A connection to one store."""

    def write(self) -> AbstractAsyncContextManager[Tx]:
        """A write transaction: committed on leaving the block, rolled back if it raises.

        Raises:
            StoreFull, StoreUnavailable: nothing was written.
        """
        ...

    async def rows(self, name: str, params: Sequence[Any] = ()) -> list[Row]:
        """A small read outside any transaction; sees everything committed before."""
        ...

    async def rows_slow(self, name: str, params: Sequence[Any] = ()) -> list[Row]:
        """A read that may take long (reports, verification); never blocks the event loop."""
        ...

    async def rows_sql(self, sql: str, params: Sequence[Any] = ()) -> list[Row]:
        """Like `rows_slow`, for the few statements that are composed (a report's grouping)."""
        ...

    async def schema_version(self) -> int:
        """The number of the newest migration that was applied; 0 for a new store."""
        ...

    async def migrate(self) -> list[str]:
        """Apply what is missing, each migration in its own transaction; the names of those applied."""
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """A read transaction for numbers that must agree with each other; never blocks the event loop."""
        ...

    async def lease_slot(self) -> int:
        """Take a free slot for this process, until it closes or dies."""
        ...

    def free_slot(self, slot: int) -> None:
        """Let go of a slot that was leased here: nobody works in it any more."""
        ...

    def dead_slot(self, slot: int) -> AbstractContextManager[bool]:
        """Whether a slot has no living owner; if so, nobody else can take it inside the block."""
        ...

    def start(self) -> None:
        """Begin the upkeep that a long-running process owes its store (checkpoints, heartbeats)."""
        ...

    async def close(self) -> None:
        """Give the slot back and close the connections."""
        ...
