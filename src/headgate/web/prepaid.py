"""Work that was paid before it: an action that settles first, and every stream at a fixed price.

The payment is settled and booked; now the work is owed until it was served once with an answer that is
billed. If it fails the payer has the application's own answer with its receipt, and the same payment opens
the work again, uncharged (contract §4). A declared stream flows, and an answer that is too large to be kept;
any other is whole before it leaves. A stream whose client hung up after its first byte was served.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from headgate.config import Limits
from headgate.model.catalog import Action
from headgate.model.errors import StoreError
from headgate.model.payment import PaymentRow
from headgate.service.admit import Admitted
from headgate.service.pay import Cashier, receipt_of
from headgate.store.operations import KeptAnswer
from headgate.web.again import PaidBefore
from headgate.web.measure import take_units_header
from headgate.web.paid import encode_headers, kept_bytes, receipt_headers, with_receipt
from headgate.web.problems import App, Message, Scope, Send, is_last, problem, with_added
from headgate.web.receiver import BodyRefused, Receiver
from headgate.web.usage import SCOPE_KEY, Usage
from headgate.x402 import wire

log = logging.getLogger("headgate.web")
FAILED = problem(
    500,
    "paid_work_failed",
    "The work failed after it was paid for. Send the same payment again: it opens the work, uncharged.",
)


def settles_first(action: Action) -> bool:
    """Whether a payment for this action is settled before the work."""
    return action.settle == "before" or (action.stream and not action.variable)


class PrepaidAnswer:
    """Stands in for the server's `send`; `row` is the settled payment, taken by this process."""

    def __init__(
        self,
        cashier: Cashier,
        row: PaymentRow,
        admitted: Admitted,
        limits: Limits,
        receipt_url: str,
        now_us: Callable[[], int],
    ) -> None:
        self._cashier = cashier
        self._row = row
        self._admitted = admitted
        self._limits = limits
        self._added = receipt_headers(receipt_of(row), receipt_url)
        self._now_us = now_us
        self._flows = admitted.action.stream
        self._start: Message | None = None
        self._begun = False  # the start has left
        self._ended = False  # served, or given up
        self._held: list[Message] = []
        self._body: bytearray | None = bytearray()  # None: too large to keep
        self._kept_headers = b""

    async def serve(self, app: App, scope: Scope, receiver: Receiver, send: Send) -> None:
        """Do the work that was paid for."""
        assert self._row.authorization_json is not None
        signed = wire.parse_kept(self._row.authorization_json)
        usage = Usage(self._admitted, "x402", PaidBefore(self._row.id, signed, self._admitted.action))
        scope[SCOPE_KEY] = usage
        self._kept_bytes = kept_bytes(self._limits, scope)
        self._send, self._usage, self._receiver = send, usage, receiver
        try:
            await app(scope, receiver, self._take)
        except BodyRefused:
            log.info("a payer's body was too large or too slow")
        except BaseException as error:
            await self._fail("the application failed")
            if isinstance(error, Exception) and not self._begun:
                # The payer must learn that it has paid, and that the same payment opens the work again.
                self._begun = True
                await with_added(FAILED, self._added).send(send)
            raise
        await self._fail("the application did not finish its answer")
        if receiver.refused is not None and not self._begun:
            await with_added(receiver.refused, self._added).send(send)

    async def _take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if not self._begun:  # a time-out may have cancelled a first answer: nothing of that counts
                self._held, self._body = [], bytearray()
            take_units_header(message)
            self._start = message
            self._kept_headers = encode_headers(message.get("headers", ()))
            message["headers"] = with_receipt(message.get("headers", ()), self._added)
        elif self._start is None:
            await self._send(message)
        elif self._receiver.refused is None:
            await self._body_message(self._start, message)

    async def _body_message(self, start: Message, message: Message) -> None:
        self._remember(message)
        last = is_last(start, message)
        self._held.append(message)
        if last:
            await self._conclude(start)
        if last or self._flows or self._body is None:
            held, self._held = self._held, []
            for one in held if self._begun else (start, *held):
                self._begun = True
                await self._send(one)

    def _remember(self, message: Message) -> None:
        """Keep the body for the payer, as long as it is small."""
        if self._body is not None:
            self._body += message.get("body", b"")
            if message["type"] != "http.response.body" or len(self._body) > self._kept_bytes:
                self._body = None

    @property
    def _good(self) -> bool:
        start = self._start
        return start is not None and self._admitted.action.bills(start["status"]) and not self._usage.voided

    async def _conclude(self, start: Message) -> None:
        """The answer is whole: the work is owed no more, if it is one."""
        if self._ended:
            return
        status = int(start["status"])
        gone = self._body is None and not self._begun and await self._receiver.client_gone()
        if not self._good or gone:
            await self._give_up(f"not served: status {status}")
            return
        body = None if self._body is None else bytes(self._body)
        until_us = self._now_us() + self._cashier.kept_answer_us
        await self._served(KeptAnswer(status, self._kept_headers, body, until_us))

    async def _served(self, answer: KeptAnswer) -> None:
        self._ended = True
        try:
            await self._cashier.end_again(self._row, answer, "served", self._receiver.body_digest)
        except StoreError as error:  # it stays owed: the payer can have it again
            log.error("that a payment was served is not written down: %s", error)

    async def _fail(self, note: str) -> None:
        """The application ended before its answer did."""
        if self._ended:
            return
        if self._flows and self._begun and self._good and await self._receiver.client_gone():
            status = 0 if self._start is None else int(self._start["status"])
            await self._served(KeptAnswer(status, self._kept_headers, None, self._now_us()))
        else:
            await self._give_up(note)

    async def _give_up(self, note: str) -> None:
        self._ended = True
        try:
            await self._cashier.end_again(self._row, None, note)
        except StoreError as error:
            log.error("that a payment is still owed its work is not written down: %s", error)
