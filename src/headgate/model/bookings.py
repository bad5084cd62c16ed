"""Double entry: what an event means in the books. A pure function of one row; no second ledger is kept.

Every event becomes postings whose debits equal their credits (contract §6, promise 5):

| row       | debit                                                    | credit                            |
|-----------|----------------------------------------------------------|-----------------------------------|
| `seat`    | `memo:included_use` at list value                        | `memo:allowances` at list value   |
| `overage` | `receivable:overage` charged; `discount:overage` the rest | `revenue:overage` at list price   |
| `x402`    | `wallet:x402` charged; `discount:x402` the rest          | `revenue:x402` at list price      |
| refund    | `refunds:<channel>`                                      | `payable:refunds`                 |

Seat use is paid for by the seat's fee, which is not metered: its list value moves between two memorandum
accounts that never touch money. A price negotiated above the list price makes the discount a credit. An
adjustment or reversal is the same row with negative amounts: each posting changes its side. A refund's row
carries a negative charged amount.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from headgate.model.event import Channel, Event, Kind

_ASSET = {Channel.OVERAGE: "receivable:overage", Channel.X402: "wallet:x402"}


class Posting(NamedTuple):
    """One line of a journal entry, in micro-dollars: one of the two amounts is zero, neither is negative."""

    account: str
    debit_micros: int
    credit_micros: int


def postings(event: Event) -> tuple[Posting, ...]:
    """The journal entry of an event; empty where no amount is moved."""
    channel = Channel(event.channel)
    word = channel.name.lower()
    charged = event.charged_micros
    if event.kind == Kind.REFUND:
        entry = [(f"refunds:{word}", -charged), ("payable:refunds", charged)]
    elif channel is Channel.SEAT:
        entry = [("memo:included_use", event.list_micros), ("memo:allowances", -event.list_micros)]
        if charged:
            entry += [("receivable:seat", charged), ("revenue:seat", -charged)]
    else:
        entry = [
            (_ASSET[channel], charged),
            (f"discount:{word}", event.list_micros - charged),
            (f"revenue:{word}", -event.list_micros),
        ]
    return tuple(
        Posting(account, max(0, micros), max(0, -micros)) for account, micros in entry if micros != 0
    )


def balances(entries: Iterable[Posting]) -> dict[str, int]:
    """Each account's balance, debits less credits; the balances of whole entries sum to zero."""
    found: dict[str, int] = {}
    for posting in entries:
        found[posting.account] = found.get(posting.account, 0) + posting.debit_micros - posting.credit_micros
    return found
