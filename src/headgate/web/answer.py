"""A customer's answer on its way out: held back until its event is on disk, otherwise untouched.

The application's own ASGI messages are passed on as they are. A fixed-price use is booked when the first
message after the start arrives, so that a body that goes on for long is not buffered; a measured one when the
body is complete. If the application fails after the booking, a reversal takes it back (contract §3, §6).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from headgate.model.catalog import Action
from headgate.model.errors import StoreError
from headgate.model.event import Event
from headgate.service.admit import Admitted, Desk
from headgate.web.problems import Message, Send, is_last, problem, retry_after
from headgate.web.receiver import Receiver
from headgate.web.usage import Usage

log = logging.getLogger("headgate.web")
UNITS_HEADER = b"headgate-units"
_UNITS_LENGTH = len(UNITS_HEADER)
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
        "_body_size",
        "_desk",
        "_events",
        "_messages",
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
        self._start: Message | None = None
        self._messages: list[Message] = []
        self._body_size = 0
        self._events: tuple[Event, ...] = ()
        self._open = False
        self._refused = False
        self._whole = False

    async def send(self, message: Message) -> None:
        """Take one message of the application."""
        if self._open:
            await self._pass_on(message)
        elif self._refused:
            return
        elif message["type"] == "http.response.start":
            self._start = message
        elif self._start is None:
            await self._send(message)  # early hints and the like
        else:
            self._messages.append(message)
            if self._admitted.action.variable and message.get("more_body", False):
                self._body_size += len(message.get("body", b""))
                if self._body_size <= MEASURED_BYTES:
                    return
            await self._let_go()

    async def _let_go(self) -> None:
        """All that decides about the use is known: book it or give it back, then let the answer out."""
        assert self._start is not None
        try:
            await self._book(self._start)
        except StoreError as error:
            log.error("an answer was withheld: %s", error)
            self._refused = True
            await STORE_DOWN.send(self._send)
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
        admitted, usage = self._admitted, self._usage
        units = measured_units(admitted.action, usage, start, self._messages)
        if (
            not admitted.action.bills(start["status"])
            or usage.voided is not None
            or units is None
            or await self._receiver.client_gone()
        ):
            await self._desk.release(admitted)
        else:
            self._events = await self._desk.capture(admitted, units)
            if self._with_limits:
                add_limits(start, admitted, self._events)

    async def finish(self) -> None:
        """The application has returned."""
        if self._start is not None and not self._open and not self._refused:
            await self._let_go()
        await self._desk.release(self._admitted)

    async def fail(self) -> None:
        """The application has raised: nothing may stay billed, unless the customer has its whole answer."""
        await self._desk.release(self._admitted)
        if self._events and not self._whole:
            await self._desk.reverse(self._events, "the application failed while it answered")


def measured_units(action: Action, usage: Usage, start: Message, messages: Iterable[Message]) -> int | None:
    """The units of an answer: one for a fixed price, else as the action's `measure` says.

    Not a number, negative or missing: `on_unmeasured` decides: the ceiling, or None (nothing is charged and
    the operator is told).
    """
    stated = _take_header(start)
    if not action.variable:
        return 1
    units = usage.units
    if units is None and stated is not None:
        units = int(stated) if stated.isdigit() and len(stated) < 16 else None
    if units is None and action.measure is not None:
        units = _from_body(action, messages)
    if units is not None:
        return units
    if not action.bills(start["status"]):
        return None
    if action.on_unmeasured == "ceiling":
        return action.max_units
    log.error("%s: a use could not be measured and was not charged; see `measure`", action.name)
    return None


def _take_header(start: Message) -> bytes | None:
    """The value of `Headgate-Units`, which is for Headgate only and stripped."""
    headers = start.get("headers", ())
    found: bytes | None = None
    for name, value in headers:
        if len(name) == _UNITS_LENGTH and name.lower() == UNITS_HEADER:
            found = value
            break
    else:
        return None
    start["headers"] = [pair for pair in headers if pair[0].lower() != UNITS_HEADER]
    return found


def _from_body(action: Action, messages: Iterable[Message]) -> int | None:
    measure = action.measure
    if measure is None or measure.kind not in ("json", "bytes"):
        return None
    body = b"".join(message.get("body", b"") for message in messages)
    if measure.kind == "bytes":
        return len(body)
    try:
        value = msgspec.json.decode(body)
        for step in measure.pointer.strip("/").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            value = value[int(name)] if isinstance(value, list) else value[name]
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError):
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


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
