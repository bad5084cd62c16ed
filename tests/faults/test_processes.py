"""Several processes on one store, and `kill -9` among them: what contract §6 promises, counted row by row."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from headgate.model.calendar import AccountingCalendar
from headgate.model.catalog import Beyond, Catalog, Plan
from headgate.model.event import Channel
from headgate.service.customers import create_customer
from headgate.service.subscribe import Agreement, create_subscription
from headgate.store.ledger import Ledger
from headgate.store.registry import Registry
from headgate.store.sqlite import SqliteDriver
from tests.faults.hammer import CUSTOMERS, now_us
from tests.registries import CATALOG, DAY
from tests.store.auditing import audit

ROOT = Path(__file__).parents[2]
PLANS = {
    "open": Plan("open", "Open", None, included={"doc": 1000}, beyond=Beyond.OVERAGE),
    "capped": Plan("capped", "Capped", None, included={"doc": 1000}, beyond=Beyond.OVERAGE,
                   overage_cap_micros=20_000_000),
    "block": Plan("block", "Block", None, included={"doc": 1000}, beyond=Beyond.BLOCK),
    "payer": Plan("payer", "Payer", None, included={"doc": 1000}, beyond=Beyond.X402),
}  # fmt: skip


async def set_up(path: Path, plans: dict[str, Plan]) -> None:
    """A store with one customer on each plan, called as the plan."""
    driver = SqliteDriver(path)
    await driver.migrate()
    registry = Registry(driver)
    catalog: Catalog = replace(CATALOG, plans=plans)
    start_us = now_us() - DAY
    await registry.ensure_catalog(catalog, start_us)
    for name in plans:
        await create_customer(registry, name, now_us=start_us)
        agreement = Agreement(name, seats=1, start_us=start_us)
        await create_subscription(registry, name, agreement, now_us=now_us(), grace_us=0)
    await driver.close()


def start(path: Path, *arguments: object, **pipes: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.faults.hammer", str(path), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("plan", "seat", "overage", "refused"),
    [
        ("open", 1000, 500, {}),
        ("capped", 1000, 200, {"EXHAUSTED": 300}),
        ("block", 1000, 0, {"EXHAUSTED": 500}),
        ("payer", 1000, 0, {"PAY": 500}),
    ],
)
async def test_a_thousand_units_for_three_processes(
    tmp_path: Path, plan: str, seat: int, overage: int, refused: dict[str, int]
) -> None:
    """1,500 requests at once of a customer with 1,000 units left: exactly those; the rest by the plan."""
    path = tmp_path / "headgate.db"
    await set_up(path, PLANS)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    processes = [start(path, "burst", plan, 500, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "ready\n"
    answers: Counter[str] = Counter()
    for process in processes:
        out, _ = await asyncio.to_thread(process.communicate, "go\n", 60)
        assert process.returncode == 0
        answers.update(json.loads(out))
    driver = SqliteDriver(path)
    events = await audit(driver, held=0)
    await driver.close()
    units: Counter[str] = Counter()
    for event in events:
        units[Channel(event.channel).name] += event.units
    assert (units["SEAT"], units["OVERAGE"]) == (seat, overage)
    assert {name: answers[name] for name in answers if name not in ("COUNT", "HELD")} == refused
    assert len({event.slot for event in events}) >= 2


class Told:
    """What a hammer wrote down, over all its lives."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name

    def lines(self) -> list[list[str]]:
        text = self.path.read_text() if self.path.exists() else ""
        return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]

    @property
    def uses(self) -> dict[str, int]:
        return {line[1]: int(line[2]) for line in self.lines() if line[0] == "use"}

    def records(self, word: str = "record") -> list[int]:
        return [int(line[1]) for line in self.lines() if line[0] == word]

    @property
    def following(self) -> int:
        return max([*self.records(), *self.records("refused")], default=-1) + 1


@pytest.mark.slow
async def test_kill_9_at_any_instant(tmp_path: Path) -> None:
    """Three processes of a dozen clients each, killed at random for some seconds; then the books are read."""
    store, chance = tmp_path / "headgate.db", random.Random()
    large = {"open": 3000, "capped": 500, "block": 100_000, "payer": 2000}
    await set_up(store, {name: replace(PLANS[name], included={"doc": large[name]}) for name in CUSTOMERS})
    told = [Told(tmp_path / f"told-{n}", f"hammer{n}") for n in range(3)]
    running: dict[int, subprocess.Popen[str]] = {}

    def revive(n: int) -> None:
        with told[n].path.open("a") as out:
            running[n] = start(store, "forever", told[n].name, told[n].following, stdout=out)

    kills, until = 0, time.monotonic() + 10
    try:
        for n in range(3):
            revive(n)
        while time.monotonic() < until:
            n = chance.randrange(3)
            before, patience = len(told[n].lines()), time.monotonic() + 5
            while len(told[n].lines()) < before + 20 and time.monotonic() < patience:
                assert running[n].poll() is None, "a process ended by itself"
                await asyncio.sleep(0.02)
            await asyncio.sleep(chance.random() / 10)
            running[n].send_signal(signal.SIGKILL)
            assert running[n].wait() == -signal.SIGKILL
            kills += 1
            revive(n)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    assert kills > 5
    await judge(store, told)


async def judge(store: Path, told: list[Told]) -> None:
    driver = SqliteDriver(store)
    ledger = Ledger(driver, AccountingCalendar("UTC"), now_us)
    await ledger.open()
    await ledger.recover_dead()
    events = await audit(driver, held=0)
    booked: Counter[str] = Counter()
    for event in events:
        booked[event.request_id.hex()] += event.units
    # Every acknowledged use is there, and nothing twice: a request is one unit, a record up to three.
    acknowledged = {request: units for one in told for request, units in one.uses.items()}
    assert len(acknowledged) > 100
    assert {request: booked[request] for request in acknowledged} == acknowledged
    claims = {
        row[0]: row[1:] for row in await driver.rows_sql("SELECT key_hash, slot, seq, events FROM claims")
    }
    rows = {(event.slot, event.seq): event for event in events}
    recorded = set()
    for one in told:
        assert len(one.records()) == len(set(one.records()))
        for number in range(one.following + 1):
            claim = claims.pop(hashlib.sha256(f"{one.name}-{number}".encode()).digest(), None)
            assert claim is not None or number not in one.records()
            if claim is not None:
                slot, seq, count = claim
                units = sum(rows[slot, seq + n].units for n in range(count))
                assert units == 1 + number % 3
                recorded.add(rows[slot, seq].request_id.hex())
    assert not claims
    assert all(units == 1 for request, units in booked.items() if request not in recorded)
    await ledger.close()
    await driver.close()
