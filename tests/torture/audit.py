"""The audit of a run: the books against the chain, and against what payers and customers saw."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from headgate.model.calendar import AccountingCalendar
from headgate.model.payment import State
from headgate.service.verify import verify
from headgate.store.sqlite import SqliteDriver
from tests.torture.asking import Torture
from tests.torture.customers import BOOKED, Booked
from tests.torture.fakechain import Entry, FakeChain, permit_key
from tests.torture.sold import HANDLED
from tests.x402.buyer import PAY_TO


async def audit(torture: Torture, chain: FakeChain, store: Path) -> None:
    """What is wrong is noted in the outcome; verification, payers and customers, each by itself."""
    outcome = torture.outcome
    driver = SqliteDriver(store)
    try:
        found = await verify(driver, calendar=AccountingCalendar("UTC"))
        for each in found.differences[:20]:
            outcome.wrong(f"verify: {each.where}: {each.what}")
    finally:
        await driver.close()
    await asyncio.to_thread(_audit_payers, torture, chain, store)
    handled = store.with_name(HANDLED).read_text()
    booked = await asyncio.to_thread(rows, store, BOOKED)
    torture.customers.audit(map(Booked._make, booked), handled)


def rows(store: Path, statement: str) -> list[tuple[Any, ...]]:
    """Read a store that others write."""
    with closing(sqlite3.connect(store, timeout=30)) as opened:
        return opened.execute(statement).fetchall()


def _audit_payers(torture: Torture, chain: FakeChain, store: Path) -> None:
    """The payments and their events against the chain and against what payers saw."""
    outcome = torture.outcome
    payments = rows(
        store,
        "SELECT p.payer, p.nonce, r.scheme, p.state, p.tx, p.id, p.charged_micros FROM payments p "
        "JOIN rails r ON r.id = p.rail",
    )
    outcome.states = dict(Counter(int(row[3]) for row in payments))
    uses: Counter[bytes] = Counter()
    charged: Counter[bytes] = Counter()
    for payment, kind, amount in rows(
        store, "SELECT payment, kind, charged_micros FROM events WHERE channel = 3"
    ):
        outcome.events["x402"] += 1
        uses[payment] += {1: 1, 4: -1}[kind]
        charged[payment] += amount
    known = {_key(*row[:3]): _Known(*row[3:]) for row in payments}
    released = {key for key in torture.spent_elsewhere & known.keys() if known[key].state == State.RELEASED}
    paid = {
        key: entry
        for key, entry in chain.entries.items()
        if entry.to == PAY_TO.lower() and not entry.stray and key not in released
    }
    outcome.transfers = len(paid)
    if sum(charged.values()) != sum(entry.value for entry in paid.values()):
        total = sum(entry.value for entry in paid.values())
        outcome.wrong(f"charged {sum(charged.values())} micro-dollars, transferred {total}")
    for key, entry in paid.items():
        row = known.get(key)
        booked = row is not None and row.state in (State.SETTLED, State.REOPENED)
        if row is None or not booked or "0x" + (row.tx or b"").hex() != entry.transaction:
            outcome.wrong(f"{key} was transferred in {entry.transaction} and is {row}")
        elif uses[row.id] != 1 or charged[row.id] != entry.value:
            outcome.wrong(f"{key} has {uses[row.id]} events over {charged[row.id]} micro-dollars")
    for key, row in known.items():
        nothing_used = row.state == State.SETTLED and row.charged == 0 and uses[row.id] == 1
        over = row.state in (State.FAILED, State.RELEASED) and not uses[row.id]
        if key not in paid and not nothing_used and not over:
            outcome.wrong(f"{key} is in state {row.state} with {uses[row.id]} events, never transferred")
    _audit_answers(torture, known, paid)
    for key in torture.uncharged & (known.keys() | chain.entries.keys()):
        row = known.get(key)
        if key in chain.entries or row is None or row.state != State.RELEASED or uses[row.id]:
            outcome.wrong(f"{key} was to cost nothing and is {row}, {chain.entries.get(key)}")
    _audit_unmeasured(torture, chain, known, store)
    steps = rows(store, "SELECT payment, at_us, state, note FROM payment_steps") if torture.suspects else []
    for key in torture.suspects & known.keys():
        outcome.wrong(f"{key}: {sorted(step[1:] for step in steps if step[0] == known[key].id)}")


def _audit_unmeasured(torture: Torture, chain: FakeChain, known: dict[str, _Known], store: Path) -> None:
    """What could not be measured: served for nothing, and counted as that."""
    given_away = Counter(
        row[0] for row in rows(store, "SELECT payment FROM events WHERE units = 0 AND written_off > 0")
    )
    for key, served in torture.unmeasured.items():
        row = known.get(key)
        counted = row is not None and row.state == State.SETTLED and given_away[row.id] == 1
        if key in chain.entries or (served and not counted):
            torture.outcome.wrong(f"{key} could not be measured and is {row}, {chain.entries.get(key)}")


def _audit_answers(torture: Torture, known: dict[str, _Known], paid: dict[str, Entry]) -> None:
    """What payers saw, against what was paid."""
    outcome = torture.outcome
    for key, one in torture.payments.items():
        free = key in known and known[key].state == State.SETTLED and known[key].charged == 0
        if one.answers and key not in paid and not free and key not in torture.vanished:
            outcome.wrong(f"{key} was served and is not paid")
        if len(one.answers) > 1:
            outcome.wrong(f"{key} was served {len(one.answers)} different answers")


class _Known(NamedTuple):
    """A payment's row."""

    state: int
    tx: bytes | None
    id: bytes
    charged: int


def _key(payer: bytes, nonce: bytes, scheme: str) -> str:
    if scheme == "exact":
        return "0x" + nonce.hex()
    return permit_key("0x" + payer.hex(), int.from_bytes(nonce, "big"))
