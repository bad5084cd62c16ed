"""Measured streams of customers: on disk before their first byte, booked when they end by whoever then lives.

The answer of a stream leaves before its use is known, so the row in `streams` says what is to be booked if
nothing more is heard of it. The process that serves it writes the measure anew every few seconds; when that
process dies, who takes over its slot keeps the streams' holds and books them (contract §5).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from headgate.model.booking import Release, Use
from headgate.model.errors import StoreError
from headgate.model.event import Event, request_id_text
from headgate.store.ledger import Ledger
from headgate.store.stream_rows import read_use, write_use

log = logging.getLogger("headgate.ledger")
NOTE_EVERY_US = 3_000_000


class Streams:
    """The running streams of one process, and those it has to book for others."""

    def __init__(self, ledger: Ledger, now_us: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now_us = now_us
        self._running: dict[bytes, Callable[[], int]] = {}
        self._ended: dict[bytes, Use | None] = {}  # not booked yet: the store was out of reach
        self._noted_us = 0

    async def begin(self, use: Use, units: Callable[[], int]) -> None:
        """Put a stream on disk, before its first byte leaves. `units` tells what to book if it ends now.

        Raises:
            StoreError: the stream must not begin. Nothing was written, as with whatever else is raised.
        """
        identifier = use.request_id
        self._running[identifier] = units
        base = write_use(use._replace(units=0, written_off=0))
        row = (self._ledger.slot, identifier, units(), use.held, base, self._now_us())
        try:
            async with self._ledger.driver.write() as tx:
                await tx.run("stream_begin", row)
        except BaseException:
            del self._running[identifier]
            raise

    async def end(self, use: Use, *, booked: bool = True) -> tuple[Event, ...]:
        """Book a stream, or (`booked` false) give its hold back; its row goes with that.

        Raises:
            StoreError: it is not booked yet, and will be as soon as the store can be written.
        """
        identifier = use.request_id
        self._ended[identifier] = use if booked else None
        self._running.pop(identifier, None)
        if not booked:
            await self._drop(use)
            events: tuple[Event, ...] = ()
        else:
            events = (await self._ledger.submit(use._replace(stream=True))).events
        self._ended.pop(identifier, None)
        return events

    async def _drop(self, use: Use) -> None:
        # The row first: a crash between the two leaves a hold, which is given back with the slot.
        async with self._ledger.driver.write() as tx:
            there = await tx.run("stream_end", (self._ledger.slot, use.request_id))
        if there and use.held:
            await self._ledger.submit(Release(use.standing, use.action, use.held, use.lease))

    async def work(self) -> int:
        """Write the running streams' measures, now and then, and book what ended without a booking here.

        Returns how many were booked.
        """
        now_us = self._now_us()
        if self._running and not 0 <= now_us - self._noted_us < NOTE_EVERY_US:
            await self.note()
            self._noted_us = now_us
        return await self._book_left()

    async def note(self, only: bytes | None = None) -> None:
        """Write down what every running stream (or one of them) has used so far."""
        now_us, slot = self._now_us(), self._ledger.slot
        measured = [
            (units(), now_us, slot, identifier)
            for identifier, units in self._running.items()
            if only in (None, identifier)
        ]
        async with self._ledger.driver.write() as tx:
            await tx.many("stream_note", measured)

    async def _book_left(self) -> int:
        """Streams of dead processes whose slot came to this one, and own ones that could not be booked."""
        ledger, booked = self._ledger, 0
        rows = await ledger.driver.rows("streams_of_slot", (ledger.slot,))
        for identifier in self._ended.keys() - {row[0] for row in rows}:
            del self._ended[identifier]  # booked meanwhile, though nobody waited for it
        for identifier, units, held, text in rows:
            if identifier in self._running:
                continue
            use: Use | None = self._left(read_use(text), units, held)
            if identifier in self._ended:
                use = self._ended[identifier]
            try:
                if use is None:
                    await self._drop(read_use(text)._replace(held=held, lease=ledger.lease))
                else:
                    await ledger.submit(use._replace(held=held, lease=ledger.lease, stream=True))
            except StoreError as error:
                log.error("stream %s is not booked yet: %s", request_id_text(identifier), error)
                continue
            self._ended.pop(identifier, None)
            booked += 1
            log.warning("stream %s was booked after its process ended", request_id_text(identifier))
        return booked

    @staticmethod
    def _left(use: Use, units: int, held: int) -> Use:
        """What a stream is booked as that nobody ended: its last measure, within what was held for it."""
        billed = min(units, held) if held else units
        return use._replace(units=billed, written_off=units - billed)
