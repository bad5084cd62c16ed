"""A customer's measured answer that flows: everything but its end leaves as it is produced.

Before its first byte the stream is on disk with the hold it has (`headgate.service.stream`); its last message
waits until the measured use is booked. A stream that ends early, because the client is gone or the
application failed, is booked with what was measured so far: the ceiling if nothing is known and bytes were
sent, nothing if none were (contract §5). If its end cannot be booked it stays away, so that the client sees
an answer cut off.

Declared streams go this way, and measured answers that grow too large to be held back whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from headgate.model.errors import StoreError
from headgate.model.event import request_id_text
from headgate.service.admit import Admitted, Desk
from headgate.web.measure import Meter
from headgate.web.problems import Message, Send, is_last
from headgate.web.receiver import Receiver

log = logging.getLogger("headgate.web")


class StreamedAnswer:
    """Takes the messages of one measured answer that is to be billed; `start` has not left yet."""

    __slots__ = (
        "_admitted",
        "_desk",
        "_ended",
        "_kept",
        "_meter",
        "_receiver",
        "_send",
        "_sized",
        "_start",
        "on_disk",
    )

    def __init__(
        self, send: Send, desk: Desk, admitted: Admitted, meter: Meter, receiver: Receiver, start: Message
    ) -> None:
        self._send = send
        self._desk = desk
        self._admitted = admitted
        self._meter = meter
        self._receiver = receiver
        self._start = start
        # A client that was told the length has the whole answer with its last byte: then that is the end.
        self._sized = any(name.lower() == b"content-length" for name, _ in start.get("headers", ()))
        self._kept: Message | None = None
        self._ended = False
        self.on_disk = False

    async def begin(self, messages: Iterable[Message]) -> None:
        """Put the stream on disk and let it begin, with the messages the meter has seen already.

        Raises:
            StoreError: nothing was written, and nothing has left.
        """
        use = self._desk.use(self._admitted, 0)
        if use is not None:
            await self._desk.streams.begin(use, self._so_far)
        self.on_disk = True
        try:
            await self._send(self._start)
            for message in messages:
                await self._take(message)
            await self._note()
        except BaseException:  # it is on disk, and nobody else knows of it yet: it ends here
            await self.finish()
            raise

    def _so_far(self) -> int:
        return self._meter.abandoned(int(self._start["status"]))

    async def send(self, message: Message) -> None:
        """Take one more message of the application."""
        if self._ended:
            return
        if self._receiver.hung_up() is True and self._meter.known is not None:
            await self._end(self._so_far())  # what comes now reaches nobody
            return
        self._meter.feed(message)
        await self._take(message)

    async def _take(self, message: Message) -> None:
        if is_last(self._start, message):
            self._meter.end()
            if not await self._end(self._meter.billable(int(self._start["status"]))):
                return
            if self._kept is not None:
                await self._pass(self._kept)
            await self._pass(message)
        elif not self._sized:
            await self._pass(message)
        else:
            before, self._kept = self._kept, message
            if before is not None:
                await self._pass(before)

    async def _pass(self, message: Message) -> None:
        await self._send(message)
        self._meter.passed(message)

    async def _note(self) -> None:
        """From the first byte on the disk says what to book; then it is told every few seconds."""
        if self._ended or not self._meter.sent:
            return
        try:
            await self._desk.streams.note(self._admitted.request_id)
        except StoreError as error:
            log.error("a stream's measure could not be written down: %s", error)

    async def _end(self, units: int | None) -> bool:
        """Book the stream, or (None) give its hold back; False: it could not be booked yet."""
        self._ended = True
        use = self._desk.use(self._admitted, units or 0)
        self._admitted.held = 0
        if use is None:
            return True
        try:
            await self._desk.streams.end(use, booked=units is not None)
        except StoreError as error:
            name = request_id_text(self._admitted.request_id)
            log.error("the end of stream %s is withheld: %s", name, error)
            return False
        return True

    async def finish(self) -> None:
        """The application is done with it, or has failed: what has not ended was abandoned."""
        if not self._ended:
            voided = self._meter.voided
            await self._end(None if voided else self._so_far())
