"""The payment journal: what the ledger's batch writes about payments (contract §4).

Each function is one operation inside the ledger's open transaction. A payment's row changes only from a state
that may lead to the next (`headgate.model.payment.NEXT`), and every change leaves a line in its history. What
books an event does so in the same transaction: a settled payment without its event, or the other way round,
cannot be found at any instant.
"""

from __future__ import annotations

import hashlib

from headgate.model.booking import Books, Reverse
from headgate.model.errors import HeadgateError, InputError
from headgate.model.event import Event
from headgate.model.payment import BOOKED, NEXT, Claim, PaymentRow, State, claim_outcome, payment_text
from headgate.store.driver import Driver, Tx
from headgate.store.operations import (
    Claimed,
    ClaimPayment,
    IntendPayment,
    KeepAgain,
    KeptAnswer,
    MovePayment,
    ServeAgain,
    SettlePayment,
    UndoSettlement,
)

_MOST_STEPS, _FEWER_STEPS, _FIRST_STEPS = 100, 50, 10
"""How long a history of claims and releases grows, by how much it is cut then, and what of it stays."""
_WORKED_ON = frozenset({State.CLAIMED, State.VERIFIED, State.REPEATING})


class Journal:
    """Payments as written by one process's slot. `slot` and `epoch` follow the ledger's lease."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.slot = 0
        self.epoch = 0

    async def claim(self, tx: Tx, claim: ClaimPayment, now_us: int) -> Claimed:
        """Make a payment this process's to work on, or tell why it is not."""
        row = claim.row._replace(slot=self.slot, epoch=self.epoch, updated_us=now_us)
        if claim.name_hash is not None:
            namesake = await self._namesake(tx, claim.name_hash, row)
            if namesake is not None:
                return namesake
            await tx.run("payment_name", (claim.name_hash, row.id))
        if await tx.run("payment_insert", row):
            await step(tx, row.id, State.CLAIMED, None, now_us)
            return Claimed(Claim.FRESH, None)
        existing = await read(tx, row.id)
        alive = await self._alive(tx, existing.slot, existing.epoch)
        outcome = claim_outcome(existing, row.binding, owner_alive=alive)
        if outcome is Claim.FRESH:
            await tx.run(
                "payment_reclaim",
                (
                    *(self.slot, self.epoch, row.rail, row.action, row.route, row.customer, row.subscription),
                    *(row.seat, row.api_key, row.request_id, row.binding, row.authorized_micros),
                    *(row.unit_micros, row.per, row.catalog_version, row.valid_before_s, row.occurred_us),
                    *(now_us, row.id),
                ),
            )
            note = "again; earlier lines are left out" if await _shorten(tx, row.id) else "again"
            await step(tx, row.id, State.CLAIMED, note, now_us)
        return Claimed(outcome, existing)

    async def _namesake(self, tx: Tx, name_hash: bytes, row: PaymentRow) -> Claimed | None:
        """Another payment under the same name: it answers for this one, unless it came to nothing."""
        named = await tx.rows("payment_named", (name_hash,))
        if not named or named[0][0] == row.id:
            return None
        before = await read(tx, named[0][0])
        alive = await self._alive(tx, before.slot, before.epoch)
        outcome = claim_outcome(before, row.binding, owner_alive=alive)
        return None if outcome in (Claim.FRESH, Claim.SPENT) else Claimed(outcome, before)

    async def _alive(self, tx: Tx, slot: int, epoch: int) -> bool:
        if slot == self.slot:
            return epoch == self.epoch
        state = await tx.rows("slot_state", (slot,))
        if not state or state[0][0] != epoch:
            return False
        with self._driver.dead_slot(slot) as dead:
            return not dead

    async def intend(self, tx: Tx, intend: IntendPayment, now_us: int) -> bool:
        """The work is done: intent and answer on disk, before anything is settled."""
        changed = await tx.run(
            "payment_intend",
            (
                *(intend.state, intend.body_digest, intend.charged_micros, intend.units, intend.list_micros),
                *(intend.written_off, intend.authorization_json, intend.requirements_json, now_us),
                *(intend.payment, self.slot, self.epoch),
            ),
        )
        if not changed:
            return False
        if intend.answer is not None:
            await _keep(tx, intend.payment, intend.answer)
        if intend.refund_due_us:
            await tx.run("owed_write", (intend.payment, intend.refund_due_us))
        for at_us, state, note in intend.steps:
            await step(tx, intend.payment, state, note, at_us)
        return True

    async def settle(
        self, tx: Tx, books: Books, settle: SettlePayment, now_us: int
    ) -> Event | HeadgateError | None:
        """The transfer is proven: payment settled and event booked; None where it had been."""
        paid = settle.use
        rows = await tx.rows("payment_read", (paid.payment,))
        if not rows or rows[0][5] in BOOKED:
            return None
        if State.SETTLED not in NEXT[State(rows[0][5])]:
            name = payment_text(paid.payment)
            return InputError(f"payment {name} is {State(rows[0][5]).name} and cannot be settled")
        event = books.book_paid(paid)
        await tx.run(
            "payment_settled",
            (paid.tx, paid.charged_micros, event.slot, event.seq, now_us, paid.payment),
        )
        await step(tx, paid.payment, State.SETTLED, settle.note, now_us)
        await tx.run("answer_keep_until", (settle.kept_until_us, paid.payment))
        # Who has paid must get what it paid for: work that is still owed, or, however late it settled, the
        # answer that is no longer kept.
        note = "paid before the work, which is owed" if await tx.rows("owed_read", (paid.payment,)) else None
        if note is None and not await tx.rows("answer_read", (paid.payment,)):
            note = "settled when its answer was no longer kept: it may be served"
        if note is not None:
            await move(tx, MovePayment(paid.payment, State.SETTLED, State.REOPENED, note), now_us)
        return event

    async def undo(self, tx: Tx, books: Books, undo: UndoSettlement, now_us: int) -> Event | None:
        """The chain took a transfer back: its event is reversed and the payment is open again.

        None where the payment no longer stands by that transfer: somebody else has undone it.
        """
        row = await read(tx, undo.payment)
        if row.state not in BOOKED or row.tx != undo.tx or row.event_seq is None:
            return None
        gone = Event._make((await tx.rows("event_at", (row.event_slot, row.event_seq)))[0])
        event = await reverse(tx, books, Reverse(gone, undo.reason, undo.network), now_us)
        await tx.run("payment_unsettled", (undo.reason, self.slot, self.epoch, now_us, undo.payment))
        await step(tx, undo.payment, State.UNKNOWN, undo.reason, now_us)
        return event

    async def move(self, tx: Tx, change: MovePayment, now_us: int) -> bool | HeadgateError:
        """Move a payment along the table; one that a process works on is moved by its own slot only."""
        return await move(tx, change, now_us, own=self.slot if change.since in _WORKED_ON else None)

    # --- served again, uncharged ------------------------------------------------------------------

    async def serve_again(self, tx: Tx, again: ServeAgain, now_us: int) -> bool:
        """Take a settled payment to be served again; False where that is not due, or somebody is at it."""
        row = await read(tx, again.payment)
        state = State(row.state)
        if state is State.SETTLED:
            kept = await tx.rows("answer_read", (row.id,))
            kept_apart = bool(kept) and kept[0][2] is None and kept[0][3] >= now_us
            due = kept_apart and row.charged_micros > 0  # or it would be served for nothing, again and again
        elif state is State.REPEATING:
            due = not await self._alive(tx, row.slot, row.epoch)
        else:
            due = state is State.REOPENED
        if due:
            await tx.run("payment_repeat", (self.slot, self.epoch, now_us, row.id))
            await step(tx, row.id, State.REPEATING, None, now_us)
        return due

    async def keep_again(self, tx: Tx, keep: KeepAgain, now_us: int) -> bool:
        """The payment was served again: its new answer is kept."""
        done = MovePayment(keep.payment, State.REPEATING, State.SETTLED, keep.note)
        if not await move(tx, done, now_us):
            return False
        if keep.body_digest is not None:
            await tx.run("payment_served_for", (keep.body_digest, keep.payment))
        await tx.run("owed_clear", (keep.payment,))
        await _keep(tx, keep.payment, keep.answer)
        return True


async def move(tx: Tx, change: MovePayment, now_us: int, *, own: int | None = None) -> bool | HeadgateError:
    """Move a payment along the table; False: it was not in the state that was seen, or not slot `own`'s."""
    if change.to not in NEXT[change.since]:
        return InputError(f"a payment cannot go from {change.since.name} to {change.to.name}")
    changed = (change.to, change.note, now_us, change.payment, change.since)
    moved = (
        await tx.run("payment_state", changed)
        if own is None
        else await tx.run("payment_state_own", (*changed, own))
    )
    if not moved:
        return False
    await step(tx, change.payment, change.to, change.note, now_us)
    return True


async def reverse(tx: Tx, books: Books, taken_back: Reverse, now_us: int) -> Event | None:
    """Take a booked row back with one that names it; None where that had been done."""
    gone = taken_back.event
    once = hashlib.sha256(f"reversal|{gone.slot}|{gone.seq}".encode()).digest()
    if await tx.rows("claim_read", (0, once)):
        return None
    event = books.reverse(taken_back)
    await tx.run("claim_write", (0, once, gone.row_hash, event.slot, event.seq, 1, now_us))
    return event


async def read(tx: Tx, identifier: bytes) -> PaymentRow:
    """A payment's row, which exists."""
    return PaymentRow._make((await tx.rows("payment_read", (identifier,)))[0])


async def step(tx: Tx, payment: bytes, state: int, note: str | None, at_us: int) -> None:
    """One line of a payment's history."""
    await tx.run("payment_step", (payment, at_us * 16 + int(state), at_us, int(state), note))


async def _shorten(tx: Tx, payment: bytes) -> bool:
    """Leave out the middle of a history that has grown too long; whether it had.

    A payment that is released may be claimed again, as often as somebody likes to send it.
    """
    too_many = int((await tx.rows("payment_steps_count", (payment,)))[0][0]) - _MOST_STEPS
    if too_many <= 0:
        return False
    await tx.run("payment_steps_cut", (payment, payment, too_many + _FEWER_STEPS, _FIRST_STEPS))
    return True


async def _keep(tx: Tx, payment: bytes, answer: KeptAnswer) -> None:
    await tx.run("answer_write", (payment, answer.status, answer.headers, answer.body, answer.kept_until_us))
