"""Holding everything against everything once the story is told: the tally, the ledger, the report, the chain.

Each check adds what it found to the play's differences; what it returns is one line for people.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headgate.demo.books import Books, read_books
from headgate.demo.play import BY_THE_APPLICATION, Difference, Play
from headgate.demo.tally import usd
from headgate.overage.use import OverageUse

_DELIVERY_TRIES = 200
_DELIVERY_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was checked, whether it is as it should be, and a line about it."""

    what: str
    good: bool
    found: str


class Audit:
    """Checks a finished play. `before` are balances, `delivered` what the overage path was handed."""

    def __init__(self, play: Play, before: Mapping[str, int], delivered: list[OverageUse]) -> None:
        self._play = play
        self._before = before
        self._delivered = delivered

    async def run(self) -> tuple[Books, list[Verdict]]:
        """Every check, in an order in which people follow them."""
        play = self._play
        verdicts = [
            Verdict("answers", not play.differences, f"{len(play.exchanges)} answers, each as foretold")
        ]
        verdicts.append(self._judged("bodies", await self._bodies()))
        books = await read_books(play.stage)
        verdicts.append(self._judged("ledger", self._ledger(books)))
        verdicts.append(self._judged("report", self._report(books)))
        verdicts.append(self._judged("chain", self._chain()))
        verdicts.append(self._judged("overage", await self._overage(books)))
        verdicts.append(self._judged("", self._open(books)))
        return books, verdicts

    def _judged(self, what: str, result: tuple[list[Difference], str]) -> Verdict:
        differences, found = result
        self._play.differences.extend(differences)
        if differences and what:
            found = f"{len(differences)} not as it should be: told below"
        return Verdict(what, not differences, found)

    async def _bodies(self) -> tuple[list[Difference], str]:
        """Each answer of the application, asked of the same application without Headgate."""
        differences: list[Difference] = []
        compared = 0
        for exchange in self._play.exchanges:
            answer, asked = exchange.answer, exchange.asked
            if answer.status not in BY_THE_APPLICATION:
                continue
            compared += 1
            bare = await self._play.stage.bare.send(asked)
            what = f"{exchange.who}: {asked.method} {asked.path} {asked.document}"
            if (bare.status, bare.body) != (answer.status, answer.body):
                expected, found = f"{bare.status} {bare.body[:60]!r}", f"{answer.status} {answer.body[:60]!r}"
                differences.append(Difference(f"{what}: the bare application's answer", expected, found))
            if not exchange.paid and bare.lasting_headers != answer.lasting_headers:
                expected, found = str(bare.lasting_headers), str(answer.lasting_headers)
                differences.append(Difference(f"{what}: the bare application's headers", expected, found))
        return differences, f"{compared} answers are, byte for byte, what the bare application answers"

    def _ledger(self, books: Books) -> tuple[list[Difference], str]:
        """The ledger holds exactly what was served: nothing missing, nothing more."""
        differences = _unequal("the ledger", self._play.tally.rows, books.sold)
        return differences, f"{len(books.rows)} rows, exactly what was served"

    def _report(self, books: Books) -> tuple[list[Difference], str]:
        """The report's lines are the tally's sums."""
        expected, found = self._play.tally.sums(), books.sums
        differences = [
            Difference(f"the report on {' '.join(group)}", str(expected.get(group)), str(found.get(group)))
            for group in sorted({*expected, *found})
            if expected.get(group) != found.get(group)
        ]
        if books.months != {self._play.stage.month}:
            differences.append(Difference("the report's month", self._play.stage.month, str(books.months)))
        total = self._play.tally.total()
        return differences, (
            f"list {usd(total.list_micros)}, charged {usd(total.charged_micros)}, "
            f"settled {usd(total.settled_micros)}"
        )

    def _chain(self) -> tuple[list[Difference], str]:
        """On chain: what the receipts say, and not a micro-dollar besides."""
        stage, paid = self._play.stage, [row for row in self._play.tally.rows if row.channel == "x402"]
        earned = sum(row.charged_micros for row in paid)
        moved = dict.fromkeys(self._before, 0)
        moved[stage.seller.address] = earned
        moved[stage.agent.address] -= earned
        differences = [
            Difference(f"the balance of {address}", f"{usd(change)} more", f"{usd(gained)} more")
            for address, change in moved.items()
            if (gained := stage.chain.balance_of(address) - self._before[address]) != change
        ]
        expected = [
            (row.payer, stage.seller.address.lower(), row.charged_micros, row.transaction) for row in paid
        ]
        found = [
            (one.payer.lower(), one.to.lower(), one.value, one.transaction) for one in stage.chain.transfers()
        ]
        differences += _unequal("transfers on chain", expected, found)
        return differences, (
            f"{len(found)} transfers, {usd(earned)} USDC from the agent to the seller, nothing else"
        )

    async def _overage(self, books: Books) -> tuple[list[Difference], str]:
        """What left for the seller's own billing, each use under the id of its row."""
        wanted = [row for row in books.rows if row["channel"] == "overage"]
        for _ in range(_DELIVERY_TRIES):
            if len(self._delivered) >= len(wanted):
                break
            await asyncio.sleep(_DELIVERY_PAUSE_S)
        expected = [
            (row["event_id"], row["customer"], row["action"], row["charged_amount"]) for row in wanted
        ]
        found = [(use.event_id, use.customer, use.action, use.charged_amount) for use in self._delivered]
        differences = _unequal("overage handed to the biller", expected, found)
        return differences, f"{len(found)} uses handed to the seller's billing, under their rows' ids"

    def _open(self, books: Books) -> tuple[list[Difference], str]:
        """No payment is open, no work is unpaid, and the ledger verifies."""
        memo = books.report.memo
        differences = [
            Difference(what, "0", str(count))
            for what, count in (
                ("open payments", memo.pending_payments),
                ("unpaid work", memo.unpaid_payments),
                ("unassigned use", memo.unassigned_events),
            )
            if count
        ]
        differences += [
            Difference("verification of the ledger", "no difference", fault) for fault in books.broken
        ]
        verified = "not verified" if books.broken else "verified"
        return differences, (
            f"open payments {memo.pending_payments}, ledger {verified} "
            f"({len(books.rows)} rows, head {books.report.ledger_head[:12]}…)"
        )


def _unequal(what: str, expected: Iterable[object], found: Iterable[object]) -> list[Difference]:
    """Two collections as multisets: what is missing, and what is there too much."""
    wanted, there = Counter(expected), Counter(found)
    missing = [Difference(f"{what}: missing", str(item), "nothing") for item in (wanted - there).elements()]
    extra = [Difference(f"{what}: too much", "nothing", str(item)) for item in (there - wanted).elements()]
    return missing + extra
