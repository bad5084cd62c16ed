"""Taking an x402 payment: match, check, claim, verify; then intend, settle and book (contract §4, steps 2–8).

`Cashier.open` ends with a claimed and verified payment, or with the reason why not. `Cashier.finish` writes
the intent and the answer, settles, and books the event with the settlement in one transaction. A process that
dies in between leaves a row that `headgate.service.recover` goes on from.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from headgate.config import X402Config
from headgate.model.booking import Billed, PaidUse
from headgate.model.catalog import Action
from headgate.model.errors import (
    ChainError,
    FacilitatorUncertain,
    FacilitatorUnreachable,
    FacilitatorUnusable,
    StoreError,
)
from headgate.model.event import Event
from headgate.model.offer import Offer, Quotes, Reason, SignedPayment
from headgate.model.payment import Claim, PaymentRow, State, claim_outcome, payment_text
from headgate.service.facilitators import Witness
from headgate.service.in_flight import InFlight
from headgate.service.paying import (
    RETRY_AFTER_S,
    Ask,
    Declined,
    OpenPayment,
    Receipt,
    Why,
    receipt_of,
    repeated,
)
from headgate.store.ledger import Ledger
from headgate.store.names import Names
from headgate.store.operations import (
    Claimed,
    ClaimPayment,
    IntendPayment,
    KeepAgain,
    KeptAnswer,
    MovePayment,
    ServeAgain,
    SettlePayment,
)
from headgate.x402 import check, wire
from headgate.x402 import offer as offers
from headgate.x402.answers import Refused, Settled, Unverified, Verified
from headgate.x402.breaker import Clients, Refusals
from headgate.x402.chain import Paid, Unused
from headgate.x402.facilitator import GuardedFacilitator

__all__ = [
    "RETRY_AFTER_S",
    "Ask",
    "Cashier",
    "Declined",
    "OpenPayment",
    "Receipt",
    "Why",
    "receipt_of",
    "says_used",
    "why_nothing",
]

log = logging.getLogger("headgate.payments")
FINISH_WITHIN_S = 60


class Cashier:
    """Takes payments for one process. Facilitators are by network."""

    def __init__(
        self,
        settings: X402Config,
        ledger: Ledger,
        names: Names,
        facilitators: Mapping[str, GuardedFacilitator],
        now_us: Callable[[], int],
        kept_answer_us: int,
        chains: Mapping[str, Witness] | None = None,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self.facilitators = facilitators
        self.chains: Mapping[str, Witness] = chains or {}
        self.now_us = now_us
        self.kept_answer_us = kept_answer_us
        self.proven: dict[bytes, bytes] = {}
        """Transactions of settled payments that the store cannot take yet, by payment: nobody else knows."""
        self.unowed: dict[bytes, str] = {}
        """Payments whose work was served for nothing, where that is not written down yet: why, by payment."""
        self.unwritten: dict[bytes, Callable[[], Awaitable[bool]]] = {}
        """What streams came to that the store could not take at their end: what writes it, by payment."""
        self._finishing: set[asyncio.Future[Receipt | Declined]] = set()
        self._in_flight = InFlight(settings.payer_in_flight)
        self._names = names
        self._refusals = Refusals()
        self._clients = Clients(settings.client_refusals)

    def is_working(self, identifier: bytes) -> bool:
        """Whether a request of this process is at work with a payment."""
        return identifier in self._in_flight

    def done(self, payment: OpenPayment) -> None:
        """No request is at work with a payment any more; `finish` and `release` say so themselves."""
        if not payment.ended:
            payment.ended = True
            self._in_flight.end(payment.id, payment.counted)

    # --- before the work --------------------------------------------------------------------------

    async def open(
        self, ask: Ask, signed: SignedPayment, quotes: Quotes, priced: Callable[[Offer], Action]
    ) -> OpenPayment | Declined:
        """Steps 2 to 5: match, check locally, claim, verify. `priced` finds the action as it was offered."""
        now_us = self.now_us()
        offer = quotes.match(signed.accepted, now_us)
        if offer is None:
            return await self._known_or(signed, ask, Reason.NO_MATCHING_OFFER)
        reason = check.check_locally(
            signed,
            offer,
            now_s=now_us // 1_000_000,
            min_validity_s=self.settings.min_validity_s,
            skew_s=self.settings.clock_skew_s,
            blocked=self.settings.blocked_payers,
        )
        if reason is not None:
            return await self._known_or(signed, ask, reason)
        refused = self._refusals.reason(signed, now_us)
        if refused is not None:
            return await self._known_or(signed, ask, refused)
        limited = self._limited(ask, signed, now_us)
        if limited is not None:
            return await self._taken_before(signed, ask) or limited
        payment = await self._row(ask, signed, offer, priced(offer))
        payment.asked = self._clients.ask(ask.client, payment.counted, now_us)
        # Before the claim is written: recovery leaves alone what is at work here.
        self._in_flight.begin(payment.id, payment.counted)
        try:
            claimed: Claimed = await self.ledger.submit(ClaimPayment(payment.row, _name_hash(signed)))
        except BaseException:
            self._not_asked(payment)
            self.done(payment)
            raise
        if claimed.outcome is Claim.FRESH:
            self.unowed.pop(payment.id, None)
        else:
            self._not_asked(payment)
            self.done(payment)
            return repeated(claimed.outcome, claimed.existing, signed, checked=not signed.needs_facilitator)
        try:
            return await self._verify(payment)
        except BaseException:
            await self.release(payment, State.CLAIMED, "verification was interrupted")
            raise

    def _limited(self, ask: Ask, signed: SignedPayment, now_us: int) -> Declined | None:
        """Whether this payer has enough at work, or this client was refused enough, for now."""
        if self._in_flight.is_full(signed.payer):
            return Declined(Why.BUSY, "too_many_payments_in_flight")
        proven = None if signed.needs_facilitator else signed.payer
        wait_us = self._clients.wait_us(ask.client, proven, now_us)
        if wait_us:
            wait_s = max(RETRY_AFTER_S, -(-wait_us // 1_000_000))
            return Declined(Why.THROTTLED, "too_many_refused_payments", retry_after_s=wait_s)
        return None

    def _not_asked(self, payment: OpenPayment) -> None:
        """No facilitator was asked about it, or its answer says nothing against the client."""
        self._clients.give_back(payment.asked, self.now_us())
        payment.asked = None

    async def _known_or(self, signed: SignedPayment, ask: Ask, reason: str) -> Declined:
        """A payment that is no good for this request now may be one that was taken before.

        Made for another request, or for this one and expired since, or at a price that is offered no more, or
        refused by this process a moment ago and taken by another: who may have paid is never asked to sign
        again (contract §4, the table's rows on repeated payments).
        """
        return await self._taken_before(signed, ask) or Declined(Why.REFUSED, reason)

    async def _taken_before(self, signed: SignedPayment, ask: Ask) -> Declined | None:
        rows = await self.ledger.driver.rows("payment_read", (signed.id,))
        if not rows:
            return None
        row = PaymentRow._make(rows[0])
        outcome = claim_outcome(row, ask.binding, owner_alive=True)
        if outcome in (Claim.FRESH, Claim.SPENT):
            return None
        return repeated(outcome, row, signed, checked=False)

    async def _row(self, ask: Ask, signed: SignedPayment, offer: Offer, action: Action) -> OpenPayment:
        network, asset, payer, nonce = signed.key
        rail = await self._names.rail(network, asset, offer.pay_to.lower(), offer.scheme)
        row = PaymentRow(
            *(network, asset, payer, nonce, signed.id, State.CLAIMED.value, 0, 0, rail),
            *(ask.action_id, ask.route_id, ask.customer, ask.subscription, ask.seat, ask.api_key),
            *(ask.request_id, ask.binding, None, offer.amount_micros, 0, 0),
            *(action.price_micros, action.per, 0, 0),
            *(offer.catalog_version, signed.valid_before_s, ask.occurred_us, 0),
            *(None, None, None, None, None, None),
        )
        payload = wire.facilitator_payload(
            signed, offer, url=ask.url, mime_type=action.mime_type, declared=ask.declared
        )
        proven = None if signed.needs_facilitator else payer
        return OpenPayment(
            *(signed.id, signed, offer, action, rail, row, self.facilitators[network], payload),
            client=ask.client,
            counted=proven,
        )

    async def _verify(self, payment: OpenPayment) -> OpenPayment | Declined:
        requirements = offers.requirements(payment.offer)
        try:
            verdict = await payment.facilitator.verify(payment.payload, requirements, payment.client)
        except (FacilitatorUnreachable, FacilitatorUncertain) as error:
            if not isinstance(error, FacilitatorUnusable):  # that one may be the client's doing
                self._not_asked(payment)
            log.warning("payment %s could not be verified: %s", payment_text(payment.id), error)
            await self.release(payment, State.CLAIMED, "facilitator out of reach")
            wait_s = _wait_s(payment)
            return Declined(Why.UNREACHABLE, "facilitator_unavailable", retry_after_s=wait_s)
        if not isinstance(verdict, Verified):
            if payment.counted is not None:
                self._clients.forget(payment.counted)
            self._refusals.remember(payment.signed, verdict.reason, self.now_us())
            await self.release(payment, State.CLAIMED, verdict.reason)
            return Declined(Why.REFUSED, verdict.reason)
        payer = payment.signed.payer
        self._not_asked(payment)
        self._clients.good(payer)
        if payment.counted is None:  # now it is proven whose work this is
            if self._in_flight.is_full(payer):
                await self.release(payment, State.CLAIMED, "too many requests of its payer were at work")
                return Declined(Why.BUSY, "too_many_payments_in_flight")
            self._in_flight.prove(payer)
            payment.counted = payer
        payment.steps.append((self.now_us(), State.VERIFIED, None))
        return payment

    async def release(self, payment: OpenPayment, since: State, note: str) -> None:
        """Nothing was settled and nothing will be: the same payment may be used again."""
        try:
            await self.ledger.submit(MovePayment(payment.id, since, State.RELEASED, note))
        except StoreError:
            if since is State.SERVED:  # its intent is on disk, and would be settled
                self.unowed[payment.id] = note
            raise
        finally:
            self.done(payment)

    # --- after the work ---------------------------------------------------------------------------

    async def finish(
        self,
        payment: OpenPayment,
        billed: Billed,
        answer: KeptAnswer | None,
        body_digest: bytes | None,
    ) -> Receipt | Declined:
        """Steps 7 and 8. Goes on to its end even where the request is cancelled meanwhile.

        Without an answer the work is still to be done: the payment is settled, and reopened for it.
        """
        return await self.to_its_end(self._finish(payment, billed, answer, body_digest))

    async def to_its_end(self, work: Coroutine[Any, Any, Receipt | Declined]) -> Receipt | Declined:
        """Await what must not stop halfway: whoever awaits may be cancelled, the work goes on."""
        task = asyncio.ensure_future(work)
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        return await asyncio.shield(task)

    async def finished(self) -> None:
        """Wait for what is being settled and booked, before the store and the facilitators are let go of."""
        if self._finishing:
            await asyncio.wait(self._finishing, timeout=FINISH_WITHIN_S)

    async def _finish(
        self,
        payment: OpenPayment,
        billed: Billed,
        answer: KeptAnswer | None,
        body_digest: bytes | None,
    ) -> Receipt | Declined:
        try:
            action = payment.action
            tell_written_off(action, billed)
            charged = action.x402_micros(billed.units)
            requirements = offers.requirements(payment.offer, charged)
            now_us = self.now_us()
            intend = IntendPayment(
                payment=payment.id,
                state=State.SETTLING,
                body_digest=body_digest,
                charged_micros=charged,
                units=billed.units,
                list_micros=charged,
                written_off=billed.written_off,
                authorization_json=wire.encode_json(payment.payload),
                requirements_json=wire.encode_json(requirements),
                answer=answer,
                steps=(*payment.steps, *_intended(now_us, before=answer is None)),
                refund_due_us=0 if answer is not None else now_us + self.settings.refund_after_us,
            )
            if not await self.ledger.submit(intend):
                return Declined(Why.PENDING, "payment_pending")
            row = payment.row._replace(
                state=State.SETTLING.value,
                charged_micros=charged,
                units=billed.units,
                list_micros=charged,
                written_off=billed.written_off,
                authorization_json=intend.authorization_json,
            )
            outcome = await self.settle(row, payment.facilitator, payment.payload, requirements)
            self.judge(payment, outcome)
            return outcome
        finally:
            self.done(payment)

    def judge(self, payment: OpenPayment, outcome: Receipt | Declined) -> None:
        """Remember of a client and its payer that work of theirs ended unpaid."""
        if isinstance(outcome, Declined) and (outcome.why is Why.REFUSED or outcome.doubtful):
            self._clients.unpaid(payment.client, self.now_us())
            self._clients.forget(payment.signed.payer)

    async def settle(
        self,
        row: PaymentRow,
        facilitator: GuardedFacilitator,
        payload: wire.Json,
        requirements: wire.Json,
    ) -> Receipt | Declined:
        """Ask the facilitator to settle what was intended, and write down what it says."""
        since = State(row.state)
        if row.charged_micros == 0:
            return await self.book(row, None, why_nothing(row))
        try:
            outcome = await facilitator.settle(payload, requirements)
        except (FacilitatorUnreachable, FacilitatorUncertain) as error:
            log.warning("payment %s: outcome of settling unknown: %s", payment_text(row.id), error)
            await self._unknown(row, since, "the facilitator's answer did not arrive")
            return Declined(Why.PENDING, "payment_pending", row)
        if isinstance(outcome, Settled):
            tx = self.proven[row.id] = bytes.fromhex(outcome.transaction.removeprefix("0x"))
            return await self.book(row, tx, None)
        if isinstance(outcome, Unverified):
            log.error("payment %s: settlement not as agreed: %s", payment_text(row.id), outcome.what)
            await self._unknown(row, since, f"settlement unverified: {outcome.what}")
            return Declined(Why.UNVERIFIED, "settlement_unverified", row)
        return await self._refused(row, since, outcome)

    async def _refused(self, row: PaymentRow, since: State, refused: Refused) -> Receipt | Declined:
        """A refusal is believed only as far as the chain, where it can be asked, does not know better.

        The first attempt may have gone through and its answer been lost, or somebody else may have settled
        the payment (failure cases 2 and 10): a transfer to the seller counts, whoever made it.
        """
        log.warning("payment %s was refused at settlement: %s", payment_text(row.id), refused.reason)
        witness = self.chains.get(row.network)
        fate = None
        try:
            fate = None if witness is None else await witness.fate(row, self.now_us())
        except ChainError as error:
            log.warning("payment %s: what became of it is not known: %s", payment_text(row.id), error)
        if isinstance(fate, Paid) and fate.value_micros >= row.charged_micros:
            return await self.book_found(row, fate, f"refused ({refused.reason}), but paid on chain")
        # A node may lag behind the facilitator's: that it knows of no use yet proves nothing.
        in_doubt = refused.doubtful or says_used(refused.reason)
        if in_doubt and (fate is None or isinstance(fate, Unused)):
            await self._unknown(row, since, f"refused ({refused.reason}); whether it is paid is not known")
            return Declined(Why.PENDING, "payment_pending", row, doubtful=True)
        await self.ledger.submit(MovePayment(row.id, since, State.FAILED, refused.reason))
        return Declined(Why.REFUSED, refused.reason, row)

    async def _unknown(self, row: PaymentRow, since: State, note: str) -> None:
        if since is not State.UNKNOWN:
            await self.ledger.submit(MovePayment(row.id, since, State.UNKNOWN, note))

    async def book_found(self, row: PaymentRow, paid: Paid, note: str) -> Receipt:
        """Book a transfer that the chain shows, with what it moved."""
        if paid.value_micros != row.charged_micros:
            log.error(
                "payment %s: %d micro-dollars were to be settled, transaction %s moved %d: that is booked",
                *(payment_text(row.id), row.charged_micros, paid.transaction, paid.value_micros),
            )
        tx = bytes.fromhex(paid.transaction.removeprefix("0x"))
        return await self.book(row._replace(charged_micros=paid.value_micros), tx, note)

    async def book(self, row: PaymentRow, tx: bytes | None, note: str | None) -> Receipt:
        """Payment settled and event booked, together."""
        use = PaidUse(
            action=row.action,
            route=row.route,
            units=row.units,
            written_off=row.written_off,
            unit_micros=row.unit_micros,
            per=row.per,
            catalog_version=row.catalog_version,
            list_micros=row.list_micros,
            charged_micros=row.charged_micros,
            customer=row.customer,
            subscription=row.subscription,
            seat=row.seat,
            api_key=row.api_key,
            request_id=row.request_id,
            occurred_us=row.occurred_us,
            rail=row.rail,
            network=check.chain_id(row.network),
            payer=row.payer,
            authorized_micros=row.authorized_micros,
            tx=tx,
            payment=row.id,
        )
        keep_us = self.now_us() + self.kept_answer_us
        event: Event | None = await self.ledger.submit(SettlePayment(use, keep_us, note))
        self.proven.pop(row.id, None)
        if event is None:
            log.info("payment %s had been booked before", payment_text(row.id))
        return receipt_of(row._replace(tx=tx))

    # --- served again, uncharged ------------------------------------------------------------------

    async def begin_again(self, row: PaymentRow) -> bool:
        """Take a settled payment to be served again; False where that is not due, or somebody is at it."""
        self._in_flight.begin(row.id, row.payer)
        taken: bool = False
        try:
            taken = await self.ledger.submit(ServeAgain(row.id))
        finally:
            if not taken:
                self._in_flight.end(row.id, row.payer)
        return taken

    async def end_again(
        self,
        row: PaymentRow,
        answer: KeptAnswer | None,
        note: str | None = None,
        body_digest: bytes | None = None,
    ) -> None:
        """It was served, and this is the answer to keep; without one it can still be served."""
        try:
            if answer is not None:
                kept = KeepAgain(row.id, answer, body_digest)
                await self.ledger.submit(kept if note is None else kept._replace(note=note))
            else:
                await self.ledger.submit(MovePayment(row.id, State.REPEATING, State.REOPENED, note))
        finally:
            self._in_flight.end(row.id, row.payer)


def _intended(now_us: int, *, before: bool) -> tuple[tuple[int, State, str | None], ...]:
    """The steps of an intent: the work is done, or will be when it is paid for."""
    if before:
        return ((now_us, State.SETTLING, "settled before the work"),)
    return (now_us, State.SERVED, None), (now_us, State.SETTLING, None)


def tell_written_off(action: Action, billed: Billed) -> None:
    """Tell the operator what a payer used beyond the ceiling it signed."""
    if billed.units and billed.written_off:
        log.warning("%s: %d units beyond the ceiling are written off", action.name, billed.written_off)


def why_nothing(row: PaymentRow) -> str:
    """The note on a payment of which nothing is settled."""
    what = "its use could not be measured" if row.written_off else "nothing was used"
    return f"{what}: nothing is settled"


def says_used(reason: str) -> bool:
    """Whether a facilitator's reason means that the authorization is used: perhaps by us."""
    return reason.endswith("invalid_nonce") or not {"used", "already"}.isdisjoint(reason.split("_"))


def _wait_s(payment: OpenPayment) -> int:
    """When it is worth asking again: while a breaker is open, when it closes."""
    wait_us = payment.facilitator.wait_us(payment.payload, payment.client)
    return max(RETRY_AFTER_S, -(-wait_us // 1_000_000))


def _name_hash(signed: SignedPayment) -> bytes | None:
    """The name a payer gave its payment, scoped to the payer, once its signature proves who that is."""
    if signed.identifier is None or signed.needs_facilitator:
        return None
    return hashlib.sha256(signed.payer + signed.identifier.encode()).digest()
