"""A payer's measured answer that flows, paid with a signed ceiling (x402 `upto`).

Its first byte leaves once the intent is on disk; its end waits for the settlement of what was used, and stays
away if that is refused. What the headers cannot say any more stands at the address in `Headgate-Receipt`. A
stream that ends early settles what was measured so far: the ceiling if nothing is known and bytes were sent,
nothing if none were (contract §5). One that outlives its payment is settled and cut off before that expires,
also while its application is silent.
"""

from __future__ import annotations

import asyncio
import logging

from headgate.model.booking import Billed
from headgate.model.errors import StoreError
from headgate.model.payment import State, payment_text
from headgate.service.flow import Flow
from headgate.service.pay import Cashier
from headgate.service.paying import Declined, OpenPayment
from headgate.store.operations import KeptAnswer
from headgate.web.measure import Meter, within
from headgate.web.paid import encode_headers, with_receipt
from headgate.web.problems import EXPOSED, Message, Reply, Send, is_last
from headgate.web.receiver import Receiver

log = logging.getLogger("headgate.web")


LONGEST_WAIT_S = 366 * 86_400  # signed validities reach further than a loop's clock can be asked to wait


class PaidStream:
    """Stands in for the server's `send` for one paid stream; `used` is what a repeated payment is told.

    `expiry` bounds the application's work from the first byte on: it is cancelled when the payment must be
    settled.
    """

    def __init__(
        self,
        send: Send,
        cashier: Cashier,
        payment: OpenPayment,
        meter: Meter,
        receiver: Receiver,
        receipt_url: str,
        used: Reply,
        store_down: Reply,
        kept_bytes: int,
        expiry: asyncio.Timeout,
    ) -> None:
        self._send = send
        self._cashier = cashier
        self._payment = payment
        self._meter = meter
        self._receiver = receiver
        self._receipt_url = receipt_url
        self._used = used
        self._store_down = store_down
        self._kept_bytes = kept_bytes
        self._expiry: asyncio.Timeout | None = expiry  # None: the application has ended
        self._flow = Flow(cashier, payment, self._so_far)
        self._start: Message | None = None
        self._headers = b""
        self._body: bytearray | None = bytearray()  # None: too large to keep
        self._sized = False
        self._held: Message | None = None
        self.begun = False  # the intent is on disk
        self._intending = False  # it may be, though nobody waited to see
        self._expiring: asyncio.TimerHandle | None = None
        self._settling: asyncio.Task[bool] | None = None  # its payment would expire
        self._free = False  # nothing is charged: everything passes
        self._ended = False

    def _so_far(self) -> Billed:
        return within(self._payment.action, self._meter.abandoned(self._status))

    @property
    def _status(self) -> int:
        return 500 if self._start is None else int(self._start["status"])

    async def send(self, message: Message) -> None:
        """Take one message of the application."""
        if self._free:
            await self._send(message)
        elif self._ended or self._receiver.refused is not None:
            return
        elif message["type"] == "http.response.start":
            self._start = message
            self._meter.begin(message)
            names = [name.lower() for name, _ in message.get("headers", ())]
            self._sized = b"content-length" in names
        elif self._start is None:
            await self._send(message)
        else:
            await self._take(self._start, message)

    async def _take(self, start: Message, message: Message) -> None:
        if self.begun and await self._is_over():
            return
        self._meter.feed(message)
        if not self.begun and not await self._begin(start):
            if self._free:
                await self._send(start)
                await self._send(message)
            return
        self._remember(message)
        if not is_last(start, message):
            await self._pass_on(message)
            if self._flow.due and not self._ended:
                await self._note()
            return
        self._meter.end()
        billed = self._meter.billed(self._status)
        if billed is None:
            await self._release(State.SERVED, "nothing is charged for it")
            await self._let_end_go(message)
        elif await self._settle(billed, self._whole()):
            await self._let_end_go(message)

    async def _let_end_go(self, message: Message) -> None:
        if self._held is not None:
            await self._send(self._held)
        await self._send(message)

    async def _release(self, since: State, note: str) -> None:
        """Nothing is charged, whether or not that can be written down now."""
        self._ended = True
        try:
            await self._cashier.release(self._payment, since, note)
        except StoreError as error:
            log.error("stream %s is not released yet: %s", payment_text(self._payment.id), error)

    async def _pass_on(self, message: Message) -> None:
        if self._sized:  # who was told the length has the whole answer with its last byte: that one waits
            message_before, self._held = self._held, message
            if message_before is not None:
                await self._pass(message_before)
        else:
            await self._pass(message)

    async def _pass(self, message: Message) -> None:
        await self._send(message)
        self._meter.passed(message)

    async def _is_over(self) -> bool:
        """Whether the stream ends here: its client is gone, or its payment will not wait any longer."""
        gone = self._receiver.hung_up() is True and self._meter.known is not None
        if gone or self._flow.left_s <= 0:
            log.info("stream %s ends early", payment_text(self._payment.id))
            await self._settle(self._so_far(), None)
        return self._ended

    async def _begin(self, start: Message) -> bool:
        """The first byte is about to leave. False: it does not, or (free) nothing is charged for it."""
        if not self._meter.bills(self._status):
            self._free = True
            await self._release(State.CLAIMED, f"not billed: status {self._status}")
            return False
        if await self._receiver.client_gone():
            await self._release(State.CLAIMED, "the client was gone")
            return False
        used = KeptAnswer(self._used.status, encode_headers(self._used.headers), self._used.body, 0)
        self._intending = True
        try:
            self.begun = await self._flow.begin(used)
        except StoreError as error:
            log.error("a paid stream could not begin: %s", error)
        if not self.begun:
            self._ended = True
            self._cashier.done(self._payment)
            await self._store_down.send(self._send)
            return False
        ends_at = asyncio.get_running_loop().time() + min(self._flow.left_s, LONGEST_WAIT_S)
        self._expiring = asyncio.get_running_loop().call_at(ends_at, self._expire)
        self._bound(ends_at)
        self._headers = encode_headers(start.get("headers", ()))
        added = ((b"Headgate-Receipt", self._receipt_url.encode()), EXPOSED)
        start["headers"] = with_receipt(start.get("headers", ()), added)
        await self._send(start)
        return True

    def _bound(self, ends_at: float | None) -> None:
        """Let the application work until then, by the loop's clock; None: for as long as it takes."""
        if self._expiry is not None and not self._expiry.expired():
            self._expiry.reschedule(ends_at)

    def _expire(self) -> None:
        """The payment must be settled now, also where the cancelled application is long in ending.

        Work in a thread, such as a generator's, is waited for however long it takes.
        """
        if not self._ended:
            log.info("stream %s ends before its payment expires", payment_text(self._payment.id))
            self._ended = True
            self._settling = asyncio.ensure_future(self._conclude(self._so_far(), None))

    def _remember(self, message: Message) -> None:
        if self._body is not None:
            self._body += message.get("body", b"")
            if message["type"] != "http.response.body" or len(self._body) > self._kept_bytes:
                self._body = None

    def _whole(self) -> KeptAnswer | None:
        if self._body is None:
            return None
        until_us = self._cashier.now_us() + self._cashier.kept_answer_us
        return KeptAnswer(self._status, self._headers, bytes(self._body), until_us)

    async def _note(self) -> None:
        try:
            await self._flow.note()
        except StoreError as error:
            log.error("a stream's measure could not be written down: %s", error)

    async def _settle(self, billed: Billed, answer: KeptAnswer | None) -> bool:
        """Settle and book; False: the payment came to nothing, so the end stays away."""
        self._ended = True
        self._bound(None)
        return await self._conclude(billed, answer)

    async def _conclude(self, billed: Billed, answer: KeptAnswer | None) -> bool:
        name = payment_text(self._payment.id)
        try:
            outcome = await self._flow.end(billed, answer, self._receiver.body_digest)
        except StoreError as error:
            log.error("stream %s is not settled yet: %s", name, error)
            return False
        if isinstance(outcome, Declined):
            log.error("stream %s is not paid for: %s; its end is withheld", name, outcome.code)
            return False
        return True

    async def finish(self, note: str) -> None:
        """The application is done with it, or has failed: what has not ended was abandoned."""
        self._expiry = None
        if self._expiring is not None:
            self._expiring.cancel()
        if self._settling is not None:
            await asyncio.shield(self._settling)
        if self._ended:
            return
        if not self.begun:
            await self._release(State.SERVED if self._intending else State.CLAIMED, note)
        elif self._meter.voided:
            await self._release(State.SERVED, "voided")
        else:
            await self._settle(self._so_far(), None)
