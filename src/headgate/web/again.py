"""Serving a settled payment once more, uncharged (contract §4).

Its answer was too large to keep, or the seller reopened it. The request must be the one that was paid for,
its body too: that is read whole and compared before any work is done, so that nothing is done for another
request. If the work fails, the payment can still be served.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from typing import IO, NamedTuple

from headgate.config import Limits
from headgate.model.catalog import Action
from headgate.model.errors import StoreError
from headgate.model.offer import SignedPayment
from headgate.model.payment import PaymentRow
from headgate.service.admit import Admitted
from headgate.service.pay import Cashier, receipt_of
from headgate.web.paid import IN_MEMORY_BYTES, PaidAnswer, kept_bytes, receipt_headers
from headgate.web.problems import App, Message, Receive, Reply, Scope, Send
from headgate.web.receiver import BodyRefused, Receiver
from headgate.web.usage import SCOPE_KEY, Usage
from headgate.x402 import wire

log = logging.getLogger("headgate.web")
_UNITS = b"headgate-units"


class PaidBefore(NamedTuple):
    """What a handler can know of a payment that settled before."""

    id: bytes
    signed: SignedPayment
    action: Action


class Replies(NamedTuple):
    """The payer's answers where the work cannot be done now."""

    elsewhere: Reply
    running: Reply
    pending: Reply


class Again:
    """One request that was paid for before, and is served once more."""

    def __init__(
        self,
        cashier: Cashier,
        row: PaymentRow,
        admitted: Admitted,
        limits: Limits,
        receipt_url: str,
        replies: Replies,
        now_us: Callable[[], int],
    ) -> None:
        self._cashier = cashier
        self._row = row
        self._admitted = admitted
        self._limits = limits
        self._receipt_url = receipt_url
        self._replies = replies
        self._now_us = now_us
        self._ended = False

    async def serve(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Do the work once more, for the same request only."""
        head = scope["method"] == "HEAD"
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as body:
            reading = Receiver(receive)
            digest = await _spool(reading, body, self._limits)
            if reading.refused is not None:
                await reading.refused.send(send, head=head)
            elif digest is None or self._row.body_digest not in (None, digest):
                await self._replies.elsewhere.send(send, head=head)
            elif (taken := await self._taken()) is None:
                await self._replies.pending.send(send, head=head)
            elif not taken:
                await self._replies.running.send(send, head=head)
            else:
                await self._work(app, scope, Receiver(_replayed(body, receive)), send)

    async def _taken(self) -> bool | None:
        """Whether the payment is this request's to be served; None: the store does not tell."""
        try:
            return await self._cashier.begin_again(self._row)
        except StoreError as error:
            log.error("a payment could not be served again: %s", error)
            return None

    async def _work(self, app: App, scope: Scope, receiver: Receiver, send: Send) -> None:
        row = self._row
        assert row.authorization_json is not None
        paid = PaidBefore(row.id, wire.parse_kept(row.authorization_json), self._admitted.action)
        usage = scope[SCOPE_KEY] = Usage(self._admitted, "x402", paid)

        async def conclude() -> None:
            if not self._ended:
                await self._conclude(answer, usage, receiver, send, head=scope["method"] == "HEAD")

        answer = PaidAnswer(kept_bytes(self._limits, scope), conclude)
        try:
            await app(scope, receiver, answer.send)
            await conclude()
        except BaseException:
            if not self._ended:
                await self._give_up("the application failed")
            raise
        finally:
            answer.close()

    async def _conclude(
        self, answer: PaidAnswer, usage: Usage, receiver: Receiver, send: Send, *, head: bool
    ) -> None:
        row, start = self._row, answer.start
        good = start is not None and self._admitted.action.bills(answer.status) and usage.voided is None
        if start is None or not good or await receiver.client_gone():
            await self._give_up(f"not served: status {answer.status}")
            await answer.release(send)
            return
        start["headers"] = [pair for pair in start.get("headers", ()) if pair[0].lower() != _UNITS]
        self._ended = True
        try:
            await self._cashier.end_again(row, answer.kept(await self._kept_until_us()))
        except StoreError as error:
            log.error("an answer served again is withheld: %s", error)
            await self._replies.pending.send(send, head=head)
            return
        await answer.release(send, receipt_headers(receipt_of(row), self._receipt_url))

    async def _kept_until_us(self) -> int:
        """An answer that is kept for its time is not kept for longer by being asked for."""
        now_us = self._now_us()
        rows = await self._cashier.ledger.driver.rows("answer_read", (self._row.id,))
        until_us = int(rows[0][3]) if rows else 0
        return until_us if until_us >= now_us else now_us + self._cashier.kept_answer_us

    async def _give_up(self, note: str) -> None:
        self._ended = True
        try:
            await self._cashier.end_again(self._row, None, note)
        except StoreError as error:  # recovery finds it, and reopens it
            log.error("that a payment can still be served is not written down: %s", error)


async def _spool(receiver: Receiver, body: IO[bytes], limits: Limits) -> bytes | None:
    """Read a request's body to its end; its SHA-256, or None where it was refused or the client is gone."""
    receiver.watch_body(limits.max_body_bytes, limits.body_time_us / 1_000_000)
    try:
        while not receiver.complete and not receiver.gone:
            body.write((await receiver()).get("body", b""))
    except BodyRefused:
        return None
    return receiver.body_digest


def _replayed(body: IO[bytes], receive: Receive) -> Receive:
    """A `receive` that gives the spooled body, and then what the server has to say."""
    left = body.tell()
    body.seek(0)
    done = False

    async def replay() -> Message:
        nonlocal left, done
        if done:
            return await receive()
        chunk = body.read(IN_MEMORY_BYTES)
        left -= len(chunk)
        done = left <= 0
        return {"type": "http.request", "body": chunk, "more_body": not done}

    return replay
