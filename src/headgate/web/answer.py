"""A customer's answer on its way out: held back until its event is on disk, otherwise untouched.

The application's own ASGI messages are passed on as they are. A fixed-price use is booked when the first
message after the start arrives, so that a body that goes on for long is not buffered; a measured one when the
body is complete. A measured body that grows beyond MEASURED_BYTES, or is a declared stream, flows instead
(`headgate.web.stream`). If the application fails after the booking, a reversal takes it back (contract §3).
"""

from __future__ import annotations

import asyncio
import logging

from headgate.model.errors import StoreError
from headgate.model.event import Event
from headgate.service.admit import Admitted, Desk
from headgate.web.measure import Meter
from headgate.web.problems import Message, Send, is_last, problem, retry_after
from headgate.web.receiver import Receiver
from headgate.web.stream import StreamedAnswer
from headgate.web.usage import Usage

log = logging.getLogger("headgate.web")
MEASURED_BYTES = 16 * 1024 * 1024
STORE_DOWN = problem(
    503,
    "store_unavailable",
    "The request could not be recorded, so its answer is withheld and nothing was billed. Try again.",
    headers=(retry_after(2),),
)


class CustomerAnswer:
    """Stands in for the server's `send` while one customer's request is served."""

    __slots__ = (
        "_admitted",
        "_capturing",
        "_desk",
        "_events",
        "_flowing",
        "_messages",
        "_meter",
        "_open",
        "_receiver",
        "_refused",
        "_send",
        "_start",
        "_usage",
        "_whole",
        "_with_limits",
    )

    def __init__(
        self,
        send: Send,
        desk: Desk,
        admitted: Admitted,
        usage: Usage,
        receiver: Receiver,
        *,
        with_limits: bool,
    ) -> None:
        self._send = send
        self._desk = desk
        self._admitted = admitted
        self._usage = usage
        self._receiver = receiver
        self._with_limits = with_limits
        self._meter = Meter(admitted.action, usage)
        self._start: Message | None = None
        self._messages: list[Message] = []
        self._events: tuple[Event, ...] = ()
        self._capturing: asyncio.Future[tuple[Event, ...]] | None = None
        self._flowing: StreamedAnswer | None = None
        self._open = False
        self._refused = False
        self._whole = False

    async def send(self, message: Message) -> None:
        """Take one message of the application."""
        if self._open:
            await self._pass_on(message)
        elif self._flowing is not None:
            await self._flowing.send(message)
        elif self._refused:
            return
        elif message["type"] == "http.response.start":
            if self._start is not None:
                self._restart()
            self._start = message
            self._meter.begin(message)
        elif self._start is None:
            await self._send(message)  # early hints and the like
        else:
            await self._take(self._start, message)

    def _restart(self) -> None:
        """The application answers anew (a time-out cancelled its first answer): nothing has left of that."""
        self._messages.clear()
        self._meter = Meter(self._admitted.action, self._usage)

    async def _find_out(self) -> None:
        """Whether a booking that nobody waited for took place."""
        capturing, self._capturing = self._capturing, None
        if capturing is None:
            return
        try:
            self._events = await asyncio.shield(capturing)
        except StoreError as error:
            log.error("a use whose answer was cancelled is not booked: %s", error)

    async def _take_back(self, reason: str) -> None:
        await self._find_out()
        events, self._events = self._events, ()
        if events:
            await self._desk.reverse(events, reason)

    async def _take(self, start: Message, message: Message) -> None:
        """One message after the start, while nothing has left yet."""
        action = self._admitted.action
        self._messages.append(message)
        self._meter.feed(message)
        if not action.variable or is_last(start, message) or not self._meter.bills(start["status"]):
            await self._let_go()
        elif self._flows or self._meter.seen > MEASURED_BYTES:
            if await self._receiver.client_gone():
                await self._let_go()
            else:
                await self._flow(start)

    @property
    def _flows(self) -> bool:
        return self._admitted.action.variable and self._admitted.action.stream

    async def _flow(self, start: Message) -> None:
        """Let the answer flow: its use will be booked with its end."""
        flowing = StreamedAnswer(self._send, self._desk, self._admitted, self._meter, self._receiver, start)
        messages, self._messages = self._messages, []
        self._flowing = flowing  # from here on the stream alone books this use, however it ends
        try:
            await flowing.begin(messages)
        except BaseException as error:
            if flowing.on_disk:
                raise
            self._flowing = None  # nothing has left, and nothing is to be booked: the hold goes back
            if not isinstance(error, StoreError):
                raise
            await self._refuse(error)

    async def _refuse(self, error: StoreError) -> None:
        log.error("an answer was withheld: %s", error)
        self._refused = True
        await STORE_DOWN.send(self._send)

    async def _let_go(self) -> None:
        """All that decides about the use is known: book it or give it back, then let the answer out."""
        assert self._start is not None
        try:
            await self._book(self._start)
        except StoreError as error:
            self._capturing = None
            await self._refuse(error)
            return
        self._open = True
        await self._send(self._start)
        for message in self._messages:
            await self._pass_on(message)
        self._messages.clear()

    async def _pass_on(self, message: Message) -> None:
        await self._send(message)
        self._whole = self._whole or (self._start is not None and is_last(self._start, message))

    async def _book(self, start: Message) -> None:
        self._meter.end()
        units = self._meter.billable(start["status"])
        await self._find_out()
        if units is None or await self._receiver.client_gone():
            await self._take_back("the application answered otherwise in the end")
            await self._desk.release(self._admitted)
        else:
            if not self._events:  # an answer that was cancelled may have been booked: one request, one use
                # Whoever answers may be cancelled here; whether it is booked is then known a little later.
                self._capturing = asyncio.ensure_future(self._desk.capture(self._admitted, units))
                await asyncio.shield(self._capturing)
                self._events, self._capturing = self._capturing.result(), None
            if self._with_limits:
                add_limits(start, self._admitted, self._events)

    async def finish(self) -> None:
        """The application has returned."""
        if self._flowing is not None:
            await self._flowing.finish()
            return
        begun = self._start is not None and not (self._open or self._refused)
        if begun and not self._flows:  # a stream that never sent a byte owes nothing
            await self._let_go()
        await self._desk.release(self._admitted)

    async def fail(self) -> None:
        """The application has raised: nothing may stay billed, unless the customer has its whole answer.

        A client that hung up while it was served is no failure of the application's, however it shows there.
        """
        if self._flowing is not None:
            await self._flowing.finish()
            return
        await self._desk.release(self._admitted)
        booked = self._events or self._capturing is not None
        if booked and not self._whole and not await self._receiver.client_gone():
            await self._take_back("the application failed while it answered")


def add_limits(start: Message, admitted: Admitted, events: tuple[Event, ...]) -> None:
    """The IETF `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers), where the seller asked for them."""
    standing = admitted.standing
    if standing is None or not events or not standing.subscription:
        return
    last = events[-1]
    left = max(0, standing.granted - last.prior - last.units)
    reset_s = max(0, (standing.period.end_us - admitted.occurred_us) // 1_000_000)
    start["headers"] = [
        *start.get("headers", ()),
        (b"ratelimit-policy", f'"allowance";q={standing.granted}'.encode()),
        (b"ratelimit", f'"allowance";r={left};t={reset_s}'.encode()),
    ]
