"""The demo's own books: what was sold, told from the answers that came back, with sums of its own.

None of Headgate's code is used here, so that the comparison at the end means something: prices, allowances
and the arithmetic are written a second time, and what an agent paid is read from its receipt.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from headgate.demo.calls import PROCESS, SUMMARISE, Answer

ACTION_AT: Final = {PROCESS: "documents.process", SUMMARISE: "documents.summarise"}
PRICE_MICROS: Final = {"documents.process": 100_000, "documents.summarise": 250_000}


@dataclass(frozen=True, slots=True, order=True)
class Sold:
    """One unit of an action sold: the row that the ledger must hold for it. Money in micro-dollars.

    Who bought it: `customer`, `seat` and `key` (ids as text, "" for none), or `payer` and `transaction`.
    """

    channel: str
    action: str
    list_micros: int
    charged_micros: int
    customer: str = ""
    seat: str = ""
    key: str = ""
    payer: str = ""
    transaction: str = ""


@dataclass(frozen=True, slots=True)
class Sum:
    """A line of the report: money in micro-dollars."""

    events: int = 0
    units: int = 0
    list_micros: int = 0
    charged_micros: int = 0
    settled_micros: int = 0

    def plus(self, row: Sold) -> Sum:
        """This line with one more unit sold."""
        settled = row.charged_micros if row.channel == "x402" else 0
        return Sum(
            self.events + 1,
            self.units + 1,
            self.list_micros + row.list_micros,
            self.charged_micros + row.charged_micros,
            self.settled_micros + settled,
        )


class Tally:
    """Counts what was served. `included` is (customer, action) → units inside the plan."""

    def __init__(self, included: Mapping[tuple[str, str], int]) -> None:
        self.rows: list[Sold] = []
        self._included = included
        self._used: Counter[tuple[str, str]] = Counter()

    def customer(self, path: str, answer: Answer, customer: str, seat: str, key: str) -> str:
        """Count an answer to a customer's key; the channel it was sold through, "" if nothing was sold."""
        action = ACTION_AT.get(path)
        if action is None or not 200 <= answer.status < 300:
            return ""
        price = PRICE_MICROS[action]
        self._used[customer, action] += 1
        inside = self._used[customer, action] <= self._included.get((customer, action), 0)
        channel = "seat" if inside else "overage"
        self.rows.append(Sold(channel, action, price, 0 if inside else price, customer, seat, key))
        return channel

    def agent(self, path: str, answer: Answer) -> str:
        """Count an answer to a payment by its receipt's transaction: the same receipt is the same sale."""
        action = ACTION_AT.get(path)
        receipt = settlement(answer)
        if action is None or receipt is None or not 200 <= answer.status < 300:
            return ""
        transaction = str(receipt.get("transaction", ""))
        if any(row.transaction == transaction for row in self.rows):
            return ""
        price = PRICE_MICROS[action]
        payer = str(receipt.get("payer", "")).lower()
        self.rows.append(Sold("x402", action, price, price, payer=payer, transaction=transaction))
        return "x402"

    def sums(self) -> dict[tuple[str, str], Sum]:
        """The report by channel and action."""
        sums: dict[tuple[str, str], Sum] = {}
        for row in self.rows:
            sums[row.channel, row.action] = sums.get((row.channel, row.action), Sum()).plus(row)
        return sums

    def total(self) -> Sum:
        """The report's last line."""
        total = Sum()
        for row in self.rows:
            total = total.plus(row)
        return total


def settlement(answer: Answer) -> dict[str, object] | None:
    """What `PAYMENT-RESPONSE` says, or None where there is none that can be read."""
    return _opened(answer.header("payment-response"))


def offer(answer: Answer) -> dict[str, object] | None:
    """What `PAYMENT-REQUIRED` says, or None."""
    return _opened(answer.header("payment-required"))


def _opened(value: str | None) -> dict[str, object] | None:
    try:
        found = json.loads(base64.b64decode(value or "", validate=True))
    except (binascii.Error, ValueError):
        return None
    return found if isinstance(found, dict) else None


def usd(micros: int) -> str:
    """Micro-dollars as USD with six places."""
    whole, rest = divmod(abs(micros), 1_000_000)
    return f"{'-' if micros < 0 else ''}{whole}.{rest:06d}"
