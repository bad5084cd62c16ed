"""Resolving a payment by hand, where neither its facilitator nor a chain tells what became of it.

A payment stays `unknown` for as long as it may have been paid (contract §4): its payer is never asked to sign
again. The seller can look the transfer up elsewhere, in an explorer of the network or in its own wallet, and
say what it found. Where a chain can be asked (`rpc_url`), its word counts and not the seller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headgate.config import Config, X402Config
from headgate.model.calendar import AccountingCalendar
from headgate.model.errors import InputError, NotFound
from headgate.model.payment import PaymentRow, State, payment_text
from headgate.service.events import read_transaction
from headgate.service.facilitators import Witness
from headgate.service.opening import Store
from headgate.service.pay import Cashier
from headgate.service.payments import PaymentView, read_payment_id, show_payment
from headgate.store.ledger import Ledger
from headgate.store.operations import MovePayment
from headgate.x402.chain import Paid

_MOST_REASON = 500


async def resolve_payment(
    store: Store,
    config: Config,
    payment_id: str,
    *,
    tx: str | None,
    reason: str,
    now_us: Callable[[], int],
    chains: Mapping[str, Witness],
) -> PaymentView:
    """Settle a payment by the transaction that paid it, or (`tx` None) fail it as unpaid; as it is then.

    `chains` are those that can be asked, by network. What was settled is booked as it would have been at the
    time, and is served to whoever shows the payment.

    Raises:
        NotFound: there is no such payment.
        InputError: no reason is given, its state is not open to that, or the chain says otherwise.
        ChainError: there is a chain to ask, and it does not tell now.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= _MOST_REASON:
        raise InputError(f"say how you know, in 1 to {_MOST_REASON} characters: --reason")
    transaction = None if tx is None else read_transaction(tx)
    row = await _read(store, read_payment_id(payment_id))
    state = State(row.state)
    if state is not State.UNKNOWN and not (state is State.FAILED and transaction is not None):
        raise InputError(
            f"payment {payment_text(row.id)} is {state.name.lower()}; by hand only an unknown one is "
            "resolved, or a failed one settled"
        )
    ledger = Ledger(store.driver, AccountingCalendar(config.seller.time_zone), now_us)
    await ledger.open()
    try:
        row = await _as_the_chain_says(row, chains.get(row.network), transaction, now_us())
        if transaction is None:
            moved = await ledger.submit(MovePayment(row.id, state, State.FAILED, f"by hand: {reason}"))
            if not moved:
                raise InputError(f"payment {payment_text(row.id)} was resolved by somebody else meanwhile")
        else:
            cashier = _cashier(store, config, ledger, now_us)
            await cashier.book(row, transaction, f"by hand: {reason}")
    finally:
        await ledger.close()
    return await show_payment(store.driver, payment_id)


async def _read(store: Store, identifier: bytes) -> PaymentRow:
    rows = await store.driver.rows("payment_read", (identifier,))
    if not rows:
        raise NotFound(
            f"there is no payment {payment_text(identifier)} here; `headgate payments list` shows them"
        )
    return PaymentRow._make(rows[0])


async def _as_the_chain_says(
    row: PaymentRow, witness: Witness | None, tx: bytes | None, now_us: int
) -> PaymentRow:
    """The row with what the chain shows was moved, where it can be asked and agrees."""
    if witness is None:
        return row
    fate = await witness.fate(row, now_us)
    paid = fate if isinstance(fate, Paid) else None
    if tx is None and paid is not None:
        raise InputError(f"the chain shows that it was paid: --tx {paid.transaction}")
    if tx is not None and (paid is None or paid.transaction != "0x" + tx.hex()):
        found = "no transfer of it" if paid is None else f"{paid.transaction}"
        raise InputError(f"the chain shows {found}; it is resolved by what the chain shows")
    return row if paid is None else row._replace(charged_micros=paid.value_micros)


def _cashier(store: Store, config: Config, ledger: Ledger, now_us: Callable[[], int]) -> Cashier:
    settings = X402Config(networks=()) if config.x402 is None else config.x402
    return Cashier(settings, ledger, store.names, {}, now_us, config.limits.kept_answer_us)
