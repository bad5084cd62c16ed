"""Serving whoever must pay: the 402 with its offer, or the payment around the application's work.

`Cashier` and `Storefront` decide and act; here their outcomes become HTTP (contract §4, both tables).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from headgate.config import Limits
from headgate.model.booking import Billed
from headgate.model.catalog import Action
from headgate.model.errors import PaymentError, StoreError
from headgate.model.offer import Reason, SignedPayment
from headgate.model.payment import PaymentRow, State, binding_digest
from headgate.service.admit import Admitted
from headgate.service.pay import RETRY_AFTER_S, Ask, Cashier, Declined, OpenPayment, Receipt, Why, receipt_of
from headgate.service.storefront import KEPT, KEPT_PATH, Storefront
from headgate.web.again import Again, Replies
from headgate.web.answer import STORE_DOWN
from headgate.web.credentials import Credentials
from headgate.web.measure import Meter, ask_readable, measured
from headgate.web.paid import (
    RECEIPT,
    PaidAnswer,
    decode_headers,
    kept_bytes,
    receipt_headers,
    with_receipt,
)
from headgate.web.paid_stream import PaidStream
from headgate.web.payment_replies import ELSEWHERE, NO_OFFERS, PENDING, REPLIES, RUNNING, used_reply, waiting
from headgate.web.prepaid import PrepaidAnswer, settles_first
from headgate.web.problems import (
    EXPOSED,
    NO_STORE,
    App,
    Receive,
    Reply,
    Scope,
    Send,
    problem,
    with_added,
)
from headgate.web.receipts import Receipts
from headgate.web.receiver import BodyRefused, Receiver
from headgate.web.usage import SCOPE_KEY, Usage
from headgate.x402 import wire
from headgate.x402.bazaar import BAZAAR
from headgate.x402.offer import Challenge, resource_url

log = logging.getLogger("headgate.web")

SHORTEST_BODY_S = 10
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"trailer"})


class Exchange(NamedTuple):
    """One admitted request and the way to its answer: what the server handed in, and the application."""

    app: App
    admitted: Admitted
    scope: Scope
    receive: Receive
    send: Send

    async def answer(self, reply: Reply) -> None:
        """Answer with something of Headgate's own."""
        await reply.send(self.send, head=self.scope["method"] == "HEAD")


class Payer:
    """Serves payers for one process; without a cashier (no `[x402]`) nothing is sold to them."""

    def __init__(
        self,
        cashier: Cashier | None,
        storefront: Storefront,
        public_url: str,
        limits: Limits,
        receipts: Receipts,
        now_us: Callable[[], int],
        local_path: Callable[[Scope], str],
    ) -> None:
        self._local_path = local_path
        self._cashier = cashier
        self._storefront = storefront
        self._public_url = public_url.rstrip("/")
        self._limits = limits
        self.receipts = receipts
        self._now_us = now_us
        self._challenges: dict[Challenge, Reply] = {}

    @property
    def sells(self) -> bool:
        """Whether anything is sold by payment here (`[x402]` is configured)."""
        return self._cashier is not None

    @property
    def cashier(self) -> Cashier:
        """Who takes the payments; to be asked for only where something is sold."""
        assert self._cashier is not None
        return self._cashier

    @property
    def storefront(self) -> Storefront:
        """What is offered."""
        return self._storefront

    @property
    def limits(self) -> Limits:
        """The bounds of what is read and kept."""
        return self._limits

    def read(self, action: Action, credentials: Credentials, scope: Scope) -> SignedPayment | Reply:
        """The payment that came with a request, or the answer to one that has none that can be read.

        Without a payment that is what the action costs and how to pay. Nothing is looked up for either:
        strangers send both for nothing, as often as they like.
        """
        if not self._storefront.sells(action.name):
            return NO_OFFERS
        try:
            signed = wire.read_headers(credentials.payments, credentials.payments_v1)
        except PaymentError as error:
            return _unreadable(error.code, str(error))
        return signed or self._challenge(action, scope, Reason.PAYMENT_REQUIRED)

    async def serve(self, exchange: Exchange, signed: SignedPayment) -> None:
        """Answer a request for an action that must be paid, with the payment that came with it."""
        admitted, action = exchange.admitted, exchange.admitted.action
        ask = self._ask(admitted, exchange.scope, signed)
        try:
            opened = await self.cashier.open(
                ask, signed, self._storefront.quotes(action.name), self._storefront.priced
            )
        except StoreError as error:
            log.error("a payment could not be claimed: %s", error)
            await exchange.answer(STORE_DOWN)
            return
        if isinstance(opened, OpenPayment) and settles_first(opened.action):
            await self._settle_first(exchange, opened)
        elif isinstance(opened, OpenPayment) and opened.action.stream and not _is_head(exchange):
            await self._flow(exchange, opened)
        elif isinstance(opened, OpenPayment):
            await self._work(exchange, opened)
        else:
            await self._repeated(exchange, opened)

    async def _repeated(self, exchange: Exchange, declined: Declined) -> None:
        """Answer a payment that opens no new work: it was taken before, or is refused."""
        row = declined.row
        try:
            due_again = row is not None and await self.is_due_again(declined, head=_is_head(exchange))
        except StoreError as error:
            log.error("what is kept for a payment could not be read: %s", error)
            await exchange.answer(PENDING)
            return
        if declined.why is Why.REOPENED and row is not None and _is_owed(row, exchange.admitted):
            await self._prepaid(exchange, row)
        elif row is not None and due_again:
            again = self._again_for(row, exchange.admitted)
            await again.serve(exchange.app, exchange.scope, exchange.receive, exchange.send)
        else:
            await self._declined(exchange, declined)

    def _ask(self, admitted: Admitted, scope: Scope, signed: SignedPayment) -> Ask:
        target = scope.get("raw_path") or scope["path"].encode()
        query = scope.get("query_string", b"")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        binding = binding_digest(method, target + b"?" + query if query else target)
        path, client = self._local_path(scope), scope.get("client")
        ask = self.ask(
            admitted, resource_url(self._public_url, path), binding, None if client is None else client[0]
        )
        if BAZAAR not in signed.extensions:
            return ask
        # Buyers send the offer's declaration back; facilitators are told it in the seller's own words.
        return ask._replace(declared=self._storefront.declared(admitted.action.name, method, path))

    def ask(self, admitted: Admitted, url: str, binding: bytes, client: str | None) -> Ask:
        """An admitted request as the cashier takes it; `binding` is what its payment is good for."""
        standing = admitted.standing
        return Ask(
            action=admitted.action,
            action_id=admitted.action_id,
            route_id=admitted.route_id,
            url=url,
            binding=binding,
            request_id=admitted.request_id,
            occurred_us=admitted.occurred_us,
            customer=admitted.customer,
            subscription=None if standing is None else standing.subscription or None,
            seat=admitted.seat,
            api_key=admitted.api_key,
            client=client,
        )

    # --- settled before the work ------------------------------------------------------------------

    async def _settle_first(self, exchange: Exchange, opened: OpenPayment) -> None:
        """Settle, then do the work: a payment that is settled opens it until it was served once."""
        try:
            outcome = await self.cashier.finish(opened, Billed(1, 0), None, None)
            if isinstance(outcome, Declined):
                await self._declined(exchange, outcome)
                return
            row = PaymentRow._make((await self.cashier.ledger.driver.rows("payment_read", (opened.id,)))[0])
        except StoreError as error:
            log.error("a payment could not be settled before its work: %s", error)
            await exchange.answer(PENDING)
            return
        await self._prepaid(exchange, row)

    async def _prepaid(self, exchange: Exchange, row: PaymentRow) -> None:
        """Do the work that was paid for before, for one request at a time."""
        try:
            taken = await self.cashier.begin_again(row)
        except StoreError as error:
            log.error("paid work could not be begun: %s", error)
            await exchange.answer(PENDING)
            return
        if not taken:
            await exchange.answer(RUNNING)
            return
        receiver = self._watched(exchange.receive)
        answer = PrepaidAnswer(
            *(self.cashier, row, exchange.admitted, self._limits, self.receipts.url(row.id), self._now_us)
        )
        await answer.serve(exchange.app, exchange.scope, receiver, exchange.send)

    # --- streams that are measured ----------------------------------------------------------------

    async def _flow(self, exchange: Exchange, opened: OpenPayment) -> None:
        """Let a measured answer flow, and settle what it used with its end."""
        usage = exchange.scope[SCOPE_KEY] = Usage(exchange.admitted, "x402", opened)
        receiver = self._watched(exchange.receive, opened)
        url = self.receipts.url(opened.id)
        expiry = asyncio.timeout(None)
        ask_readable(exchange.scope, opened.action)
        stream = PaidStream(
            *(
                exchange.send,
                self.cashier,
                opened,
                Meter(opened.action, usage),
                receiver,
                url,
                used_reply(url),
            ),
            *(STORE_DOWN, kept_bytes(self._limits, exchange.scope), expiry),
        )
        try:
            async with expiry:
                await exchange.app(exchange.scope, receiver, stream.send)
        except BaseException as error:
            await stream.finish("the application failed")
            cut_off = isinstance(error, TimeoutError) and expiry.expired()
            if not cut_off and not isinstance(error, BodyRefused):
                raise
        await stream.finish("the application did not answer")
        if receiver.refused is not None and not stream.begun:
            await exchange.answer(receiver.refused)

    # --- the work and its answer ------------------------------------------------------------------

    async def _work(self, exchange: Exchange, opened: OpenPayment) -> None:
        usage = exchange.scope[SCOPE_KEY] = Usage(exchange.admitted, "x402", opened)
        receiver = self._watched(exchange.receive, opened)
        concluded = False

        async def conclude() -> None:
            nonlocal concluded
            if not concluded:
                concluded = True
                await self._conclude(exchange, opened, usage, answer, receiver)

        # Concluded with the answer's last message: what the application does afterwards (background tasks)
        # neither delays the payer nor takes back what it was given.
        answer = PaidAnswer(kept_bytes(self._limits, exchange.scope), conclude)
        ask_readable(exchange.scope, opened.action)
        try:
            try:
                await exchange.app(exchange.scope, receiver, answer.send)
            except Exception as error:
                if not isinstance(error, BodyRefused) and (concluded or receiver.refused is None):
                    raise
                log.info("a payer's body was too large or too slow")
            await conclude()
        except BaseException:
            if not concluded:
                await self.cashier.release(opened, State.CLAIMED, "the application failed")
            raise
        finally:
            answer.close()

    async def _conclude(
        self, exchange: Exchange, opened: OpenPayment, usage: Usage, answer: PaidAnswer, receiver: Receiver
    ) -> None:
        """The work is done: settle and let the answer out, or charge nothing."""
        cashier, action = self.cashier, opened.action
        settling = False
        try:
            try:
                billed = await self._billed(exchange, action, answer, usage, receiver)
                kept = None if billed is None else answer.kept(self._now_us() + cashier.kept_answer_us)
            except BaseException:
                await cashier.release(opened, State.CLAIMED, "the answer could not be measured")
                raise
            if billed is None:
                await cashier.release(opened, State.CLAIMED, _why_released(answer, usage))
                await self._unpaid(answer, receiver, exchange.send)
                return
            settling = True
            outcome = await cashier.finish(opened, billed, kept, receiver.body_digest)
            if isinstance(outcome, Receipt):
                await answer.release(exchange.send, receipt_headers(outcome, self.receipts.url(opened.id)))
            else:
                await self._declined(exchange, outcome)
        except StoreError as error:
            log.error("a paid answer is withheld: %s", error)
            await exchange.answer(PENDING if settling else STORE_DOWN)

    async def _billed(
        self, exchange: Exchange, action: Action, answer: PaidAnswer, usage: Usage, receiver: Receiver
    ) -> Billed | None:
        """What to settle, or None where the answer is not billed.

        A HEAD of which nothing was measured has no body that could be: its GET is what is sold.
        """
        if answer.start is None or not answer.whole or receiver.refused is not None:
            return None
        meter = measured(action, usage, answer.start, answer.messages() if action.variable else ())
        if _is_head(exchange) and not meter.known:
            return None
        billed = meter.billed(answer.status)
        return None if billed is None or await receiver.client_gone() else billed

    async def _unpaid(self, answer: PaidAnswer, receiver: Receiver, send: Send) -> None:
        """The application's own answer, which nothing is charged for."""
        if receiver.refused is not None:
            await receiver.refused.send(send)
        else:
            await answer.release(send)

    def _watched(self, receive: Receive, payment: OpenPayment | None = None) -> Receiver:
        """The request's body, bounded in size and time: the last of a payment's validity is for the work."""
        within_s = self._limits.body_time_us / 1_000_000
        if payment is not None:
            left_s = payment.signed.valid_before_s - self._now_us() // 1_000_000
            within_s = min(within_s, max(SHORTEST_BODY_S, left_s - self.cashier.settings.min_validity_s))
        receiver = Receiver(receive)
        receiver.watch_body(self._limits.max_body_bytes, within_s)
        return receiver

    # --- refusals and repeats ---------------------------------------------------------------------

    def _challenge(self, action: Action, scope: Scope, reason: str) -> Reply:
        challenge = self._storefront.challenge(action.name, scope["method"], self._local_path(scope), reason)
        reply = self._challenges.get(challenge)
        if reply is None:
            if len(self._challenges) >= KEPT:
                self._challenges.clear()
            offer = (b"PAYMENT-REQUIRED", challenge.header_value)
            headers = ((b"content-type", b"application/json"), offer, NO_STORE, EXPOSED)
            reply = Reply(402, headers, challenge.body)
            if len(scope["path"]) <= KEPT_PATH:
                self._challenges[challenge] = reply
        return reply

    async def _declined(self, exchange: Exchange, declined: Declined) -> None:
        if declined.why is Why.REFUSED:
            offer = self._challenge(exchange.admitted.action, exchange.scope, declined.code)
            reply = self._refused(offer, declined)
        elif declined.why is Why.ANSWERED and declined.row is not None:
            reply = await self._again(exchange, declined.row)
        else:
            reply = self.reply_for(declined.why)
            if declined.retry_after_s != RETRY_AFTER_S:
                reply = waiting(reply, declined.retry_after_s)
            reply = self._with_receipt(reply, declined.row)
        await exchange.answer(reply)

    def _with_receipt(self, reply: Reply, row: PaymentRow | None) -> Reply:
        """Where a payer can read what becomes of its payment."""
        return reply if row is None else with_added(reply, ((RECEIPT, self.receipts.url(row.id).encode()),))

    def _refused(self, offer: Reply, declined: Declined) -> Reply:
        """The offer again; a settlement that was tried and refused is told as the HTTP transport says it."""
        row = declined.row
        offer = self._with_receipt(offer, row)
        if row is None or row.state not in (State.SERVED, State.SETTLING, State.UNKNOWN):
            return offer
        told = wire.settlement_header(
            transaction="",
            network=row.network,
            payer="0x" + row.payer.hex(),
            amount_micros=0,
            reason=declined.code,
        )
        return Reply(offer.status, (*offer.headers, (b"PAYMENT-RESPONSE", told)), offer.body)

    def reply_for(self, why: Why) -> Reply:
        """The answer to a payment that opens nothing now, where it is neither an offer nor a kept answer."""
        return REPLIES[why]

    async def is_due_again(self, declined: Declined, *, head: bool = False) -> bool:
        """Whether a settled payment is served once more: reopened, or its answer was too large to keep.

        Not for a HEAD, whose answer is always kept, nor where nothing was paid.
        """
        if declined.why is not Why.ANSWERED or declined.row is None:
            return declined.why is Why.REOPENED
        if head or not declined.row.charged_micros:
            return False
        rows = await self.cashier.ledger.driver.rows("answer_read", (declined.row.id,))
        return bool(rows) and rows[0][2] is None and rows[0][3] >= self._now_us()

    def _again_for(self, row: PaymentRow, admitted: Admitted) -> Again:
        replies = Replies(ELSEWHERE, RUNNING, PENDING)
        return Again(
            self.cashier, row, admitted, self._limits, self.receipts.url(row.id), replies, self._now_us
        )

    async def kept(self, identifier: bytes) -> tuple[int, bytes, bytes | None] | None:
        """Status, encoded headers and body (None: too large) of the answer kept for a payment.

        None: not kept, or no longer.
        """
        rows = await self.cashier.ledger.driver.rows("answer_read", (identifier,))
        if not rows or rows[0][3] < self._now_us():
            return None
        status, headers, body, _ = rows[0]
        return int(status), bytes(headers), None if body is None else bytes(body)

    async def _again(self, exchange: Exchange, row: PaymentRow) -> Reply:
        """The answer kept for a payment that settled before."""
        receiver = self._watched(exchange.receive)
        if row.body_digest is not None and not await _same_body(row.body_digest, receiver):
            return receiver.refused or ELSEWHERE
        url = self.receipts.url(row.id)
        added = receipt_headers(receipt_of(row), url)
        try:
            kept = await self.kept(row.id)
        except StoreError as error:
            log.error("the answer kept for a payment could not be read: %s", error)
            return PENDING
        if kept is None or (kept[2] is None and not _is_head(exchange)):
            return used_reply(url, added[:2])
        status, encoded, body = kept
        headers = decode_headers(encoded)
        # For a HEAD the head is the whole answer, its body's length included.
        dropped = _FRAMING if body is not None else _FRAMING - {b"content-length"}
        lasting = [pair for pair in headers if pair[0].lower() not in dropped]
        return Reply(status, tuple(with_receipt(lasting, added)), body or b"", framed=body is None)


def _is_head(exchange: Exchange) -> bool:
    return bool(exchange.scope["method"] == "HEAD")


def _is_owed(row: PaymentRow, admitted: Admitted) -> bool:
    """Whether a reopened payment was settled before its work and never served."""
    return settles_first(admitted.action) and row.body_digest is None


def _why_released(answer: PaidAnswer, usage: Usage) -> str:
    if usage.voided is not None:
        return f"voided: {usage.voided[:200]}"
    return f"not billed: status {answer.status}" if answer.whole else "the application did not answer"


@lru_cache(maxsize=64)
def _unreadable(code: str, detail: str) -> Reply:
    """The answer to a header that holds no payment."""
    return problem(400, code, detail)


async def _same_body(digest: bytes, receiver: Receiver) -> bool:
    """Whether the body of a repeated request is the one the payment was made with."""
    try:
        while not receiver.complete and not receiver.gone:
            await receiver()
    except BodyRefused:
        return False
    return receiver.body_digest == digest
