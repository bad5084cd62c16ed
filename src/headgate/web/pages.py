"""Headgate's own page on the seller's origin: the receipt behind `Headgate-Receipt`."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headgate.model.calendar import format_us
from headgate.model.event import request_id_text
from headgate.model.money import format_usd
from headgate.model.payment import BOOKED, PaymentRow, State, payment_text, public_note
from headgate.store.driver import Driver
from headgate.web.problems import EXPOSED, NO_STORE, Receive, Reply, Scope, Send, problem
from headgate.web.receipts import RECEIPT_PATH, Receipts

NOT_THERE = problem(404, "no_such_receipt", "There is no receipt at this address; take it as it was given.")


class ReceiptPage:
    """Answers `GET …/receipts/TOKEN` for whoever holds the token: its payer."""

    def __init__(self, receipts: Receipts, driver: Driver, local_path: Callable[[Scope], str]) -> None:
        self._receipts = receipts
        self._driver = driver
        self._local_path = local_path

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        identifier = self._receipts.payment_of(self._local_path(scope).removeprefix(RECEIPT_PATH))
        rows = [] if identifier is None else await self._driver.rows("payment_read", (identifier,))
        head = scope["method"] == "HEAD"
        if scope["method"] not in ("GET", "HEAD") or not rows:
            await NOT_THERE.send(send, head=head)
            return
        row = PaymentRow._make(rows[0])
        steps = await self._driver.rows("payment_steps_of", (row.id,))
        headers = ((b"content-type", b"application/json"), NO_STORE, EXPOSED)
        await Reply(200, headers, msgspec.json.encode(receipt(row, steps))).send(send, head=head)


def receipt(row: PaymentRow, steps: list[tuple[int, int, str | None]]) -> dict[str, object]:
    """A payment as its payer may read it."""
    settled = row.state in BOOKED and row.event_slot is not None and row.event_seq is not None
    return {
        "payment": payment_text(row.id),
        "state": State(row.state).name.lower(),
        "request_id": request_id_text(row.request_id),
        "network": row.network,
        "asset": row.asset,
        "payer": "0x" + row.payer.hex(),
        "currency": "USD",
        "authorized_amount": format_usd(row.authorized_micros),
        "charged_amount": format_usd(row.charged_micros if settled else 0),
        "units": row.units if settled else 0,
        "transaction": None if row.tx is None else "0x" + row.tx.hex(),
        "reason": public_note(row.reason),
        "timeline": [
            {"at": format_us(at_us), "state": State(state).name.lower(), "note": public_note(note)}
            for at_us, state, note in steps
        ],
    }
