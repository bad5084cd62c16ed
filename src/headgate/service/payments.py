"""Reading x402 payments: listed by state, found by transaction, payer or request, shown with their timeline.

What was signed stays in the store: a view never holds the authorization, only who paid what, where, and when.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headgate.model.calendar import format_us
from headgate.model.errors import InputError, NotFound
from headgate.model.event import event_id, request_id_text
from headgate.model.money import format_usd
from headgate.model.payment import State, payment_text
from headgate.model.public_ids import KEY, SUBSCRIPTION, write_id
from headgate.service.events import read_address, read_request, read_transaction
from headgate.store.driver import Driver, Row

_ID = re.compile(r"pay_([0-9a-f]{32})")
_LATEST = 1 << 62
MOST = 1000


@dataclass(frozen=True, slots=True)
class PaymentStep:
    """One line of a payment's history."""

    at: str
    state: str
    note: str | None


@dataclass(frozen=True, slots=True)
class PaymentView:
    """A payment as shown: times in RFC 3339 UTC, amounts as decimal text, addresses and hashes in 0x form.

    `charged_amount` is what was or will be settled (nothing before the work is done); `event_id` names the
    ledger row once it is settled. `timeline` is filled where one payment is shown.
    """

    payment_id: str
    state: str
    network: str
    asset: str
    payer: str
    nonce: str
    pay_to: str | None
    scheme: str | None
    action: str
    route: str | None
    customer: str | None
    subscription: str | None
    seat_id: str | None
    key_id: str | None
    request_id: str
    units: int
    written_off: int
    unit_price: str
    per: int
    catalog_version: int
    authorized_amount: str
    charged_amount: str
    list_amount: str
    valid_before: str
    occurred_at: str
    updated_at: str
    transaction: str | None
    reason: str | None
    event_id: str | None
    timeline: tuple[PaymentStep, ...] = ()


async def list_payments(
    driver: Driver, *, state: str | None = None, limit: int = 100, after: str | None = None
) -> tuple[PaymentView, ...]:
    """Payments, the last changed first; `after` is the id of the last payment of the page before.

    Raises:
        InputError: no such state.
        NotFound: no payment `after`.
    """
    at_us, last = _LATEST, b""
    if after is not None:
        row = await _row(driver, read_payment_id(after))
        at_us, last = int(row[25]), bytes(row[0])
    place = (at_us, at_us, last, _checked_limit(limit))
    if state is None:
        rows = await driver.rows_slow("payments_recent", place)
    else:
        rows = await driver.rows_slow("payments_recent_in_state", (read_state(state).value, *place))
    return await _views(driver, rows)


async def find_payments(
    driver: Driver,
    *,
    tx: str | None = None,
    payer: str | None = None,
    request: str | None = None,
    limit: int = 100,
) -> tuple[PaymentView, ...]:
    """Payments by exactly one of transaction hash, payer's address or request id, oldest first; maybe none.

    Raises:
        InputError: not exactly one of them, or one that cannot be read.
    """
    limit = _checked_limit(limit)
    match (tx, payer, request):
        case (str(), None, None):
            rows = await driver.rows_slow("payments_of_tx", (read_transaction(tx), limit))
        case (None, str(), None):
            rows = await driver.rows_slow("payments_of_payer", (read_address(payer), limit))
        case (None, None, str()):
            rows = await driver.rows_slow("payments_of_request", (read_request(request), limit))
        case _:
            raise InputError("say one of transaction, payer or request to find payments by")
    return await _views(driver, rows)


async def show_payment(driver: Driver, payment_id: str) -> PaymentView:
    """One payment with its timeline.

    Raises:
        NotFound: there is none with this id.
    """
    identifier = read_payment_id(payment_id)
    row = await _row(driver, identifier)
    steps = await driver.rows_slow("payment_steps_of", (identifier,))
    return _view(row, tuple(PaymentStep(format_us(at), _word(state), note) for at, state, note in steps))


def is_payment_id(text: str) -> bool:
    """Whether a text has the form of a payment's id."""
    return _ID.fullmatch(text.strip().lower()) is not None


def read_state(text: str) -> State:
    """`settled` → State.SETTLED; raises InputError for a word that is none."""
    try:
        return State[text.strip().upper()]
    except KeyError:
        words = ", ".join(_word(state.value) for state in State)
        raise InputError(f"{text!r} is not a payment's state; use one of {words}") from None


def read_payment_id(text: str) -> bytes:
    """`pay_…` → the payment's id as stored; raises NotFound for a text that is none."""
    found = _ID.fullmatch(text.strip().lower())
    if found is None:
        raise NotFound(f"{text!r} is not the id of a payment; it looks like pay_ and 32 hexadecimal digits")
    return bytes.fromhex(found[1])


def _checked_limit(limit: int) -> int:
    if not 1 <= limit <= MOST:
        raise InputError(f"{limit} payments cannot be listed at once; ask for 1 to {MOST}")
    return limit


async def _row(driver: Driver, identifier: bytes) -> Row:
    rows = await driver.rows_slow("payment_shown", (identifier,))
    if not rows:
        raise NotFound(
            f"there is no payment {payment_text(identifier)} here; `headgate payments list` shows them"
        )
    return rows[0]


async def _views(driver: Driver, rows: list[Row]) -> tuple[PaymentView, ...]:
    return tuple([_view(await _row(driver, row[0])) for row in rows])


def _view(row: Row, timeline: tuple[PaymentStep, ...] = ()) -> PaymentView:
    (identifier, state, network, asset, payer, nonce, pay_to, scheme, action, route, customer) = row[:11]
    (subscription, seat, api_key, request_id, units, written_off, unit_micros, per, version) = row[11:20]
    (authorized, charged, listed, valid_before_s, occurred_us, updated_us, tx, reason) = row[20:28]
    event_slot, event_seq, booked_us = row[28:]
    return PaymentView(
        payment_id=payment_text(identifier),
        state=_word(state),
        network=network,
        asset=asset,
        payer="0x" + payer.hex(),
        nonce="0x" + nonce.hex(),
        pay_to=pay_to,
        scheme=scheme,
        action=action or "",
        route=route,
        customer=customer,
        subscription=None if subscription is None else write_id(SUBSCRIPTION, subscription),
        seat_id=seat,
        key_id=None if api_key is None else write_id(KEY, api_key),
        request_id=request_id_text(request_id),
        units=units,
        written_off=written_off,
        unit_price=format_usd(unit_micros),
        per=per,
        catalog_version=version,
        authorized_amount=format_usd(authorized),
        charged_amount=format_usd(charged),
        list_amount=format_usd(listed),
        valid_before=_instant(valid_before_s),
        occurred_at=format_us(occurred_us),
        updated_at=format_us(updated_us),
        transaction=None if tx is None else "0x" + tx.hex(),
        reason=reason,
        event_id=None if booked_us is None else event_id(booked_us, event_slot, event_seq),
        timeline=timeline,
    )


def _instant(seconds: int) -> str:
    """A signed `validBefore`, which may lie further ahead than calendars go (payers write 2**64 - 1)."""
    try:
        return format_us(seconds * 1_000_000)
    except OverflowError:
        return "never"


def _word(state: int) -> str:
    return State(state).name.lower()
