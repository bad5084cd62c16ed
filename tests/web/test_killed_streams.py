"""`kill -9` at each step of a measured stream, of a customer and of a payer (contract §5, §6).

After a restart: at most one event, of what was measured and is on disk; nothing stays held; every transfer
has its event; and a payment that was settled is never charged again.
"""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from eth_account import Account

from headgate.app import clock_us
from headgate.config import parse
from headgate.devnet import RunningFacilitator, running_facilitator
from headgate.model.calendar import AccountingCalendar
from headgate.service.customers import create_customer
from headgate.service.keys import create_key
from headgate.service.opening import open_store
from headgate.service.subscribe import Agreement, create_subscription
from headgate.service.verify import verify
from headgate.store.sqlite import SqliteDriver
from tests.web.killable import STREAM_STEPS
from tests.web.shop import bearer, config_text, paid
from tests.web.test_killed import rows, seller
from tests.x402.buyer import PAY_TO

pytestmark = pytest.mark.timeout(120)
SOLD = """
[actions."flow"]
title = "A stream"
unit = "byte"
price = "0.001"
max_units = 100
measure = "bytes"
stream = true
routes = ["GET /v1/flow"]
[plans.open]
included = { flow = 8 }
beyond = "overage"
[plans.tight]
included = { flow = 8 }
beyond = "block"
"""
WHOLE = b"1234567890"
FIRST = 5  # what is on disk from the first message on, until the measure is written anew


@pytest.fixture(scope="module")
def served() -> Iterator[RunningFacilitator]:
    with running_facilitator() as running:
        yield running


def configured(folder: Path, facilitator: str) -> Path:
    config = folder / "headgate.toml"
    config.write_text(config_text(store=str(folder / "headgate.db"), facilitator=facilitator, more=SOLD))
    return config


async def customer(config: Path, text: str, plan: str) -> str:
    """A customer with a plan, and its key."""
    driver = SqliteDriver(config.parent / "headgate.db")
    try:
        read = parse(text, file=str(config), environ={})
        store = await open_store(driver, read, clock_us, bytes)
        now_us = clock_us()
        await create_customer(store.registry, "ada", now_us=now_us)
        await create_subscription(store.registry, "ada", Agreement(plan=plan), now_us=now_us, grace_us=0)
        key = await create_key(store.registry, "ada", mode="test", entropy=bytes(range(32)), now_us=now_us)
        return key.key
    finally:
        await driver.close()


def received(client: httpx.Client, headers: dict[str, str]) -> bytes:
    """What arrives of a stream whose server is killed; never its end."""
    found = b""
    try:
        with client.stream("GET", "/v1/flow", headers=headers) as answer:
            for part in answer.iter_raw():
                found += part
    except httpx.TransportError:
        return found
    raise AssertionError(f"it ended: {answer.status_code} {found!r}")


def until(store: Path, statement: str, wanted: list[tuple[object, ...]]) -> None:
    """Wait for the background work of a seller's process."""
    deadline = time.monotonic() + 40
    while (found := rows(store, statement)) != wanted:
        assert time.monotonic() < deadline, (statement, found)
        time.sleep(0.05)


async def verified(store: Path) -> None:
    driver = SqliteDriver(store)
    try:
        assert (await verify(driver, calendar=AccountingCalendar("UTC"))).differences == ()
    finally:
        await driver.close()


@pytest.mark.parametrize("plan", ["open", "tight"])
@pytest.mark.parametrize("step", STREAM_STEPS)
def test_a_customer_s_stream(step: str, plan: str, served: RunningFacilitator, tmp_path: Path) -> None:
    config = configured(tmp_path, served.url)
    store = tmp_path / "headgate.db"
    key = asyncio.run(customer(config, config.read_text(), plan))
    with seller(config, step) as (url, process), httpx.Client(base_url=url, timeout=30) as client:
        arrived = received(client, bearer(key))
        assert process.wait(20) == -signal.SIGKILL
    assert WHOLE.startswith(arrived)

    allowed = 8 if plan == "tight" else 10
    units = {"held": 0, "begun": 0, "flowing": FIRST, "ending": FIRST, "ended": allowed}[step]
    with seller(config, "-") as (url, _process), httpx.Client(base_url=url, timeout=30) as client:
        until(store, "SELECT COUNT(*) FROM streams", [(0,)])
        until(store, "SELECT COALESCE(SUM(held), 0) FROM counters", [(0,)])
        assert rows(store, "SELECT COALESCE(SUM(units), 0) FROM events") == [(units,)]
        assert rows(store, "SELECT COALESCE(SUM(units), 0) FROM events WHERE channel = 1") == [
            (min(units, 8),)
        ]
        if units < 8:  # what was not used is there to be used
            answer = client.get("/v1/flow", headers=bearer(key))
            assert answer.content == WHOLE
            total = units + 10 if plan == "open" else 8
            assert rows(store, "SELECT SUM(units) FROM events") == [(total,)]
    asyncio.run(verified(store))
    with closing(sqlite3.connect(store)) as opened:
        assert opened.execute("SELECT COALESCE(SUM(units), 0) FROM held").fetchall() == [(0,)]


@pytest.mark.parametrize("step", [*STREAM_STEPS, "intended", "settled", "booked"])
def test_a_payer_s_stream(step: str, served: RunningFacilitator, tmp_path: Path) -> None:
    config = configured(tmp_path, served.url)
    store = tmp_path / "headgate.db"
    payer = Account.from_key(served.wallets[3].private_key)
    before = served.chain.balance_of(PAY_TO)
    with seller(config, step) as (url, process), httpx.Client(base_url=url, timeout=30) as client:
        offer = client.get("/v1/flow")
        while offer.status_code == 503:  # until the facilitator has said which account settles `upto`
            time.sleep(0.05)
            offer = client.get("/v1/flow")
        payment = paid(offer, payer)
        received(client, payment)
        assert process.wait(20) == -signal.SIGKILL

    whole = step in ("intended", "settled", "booked", "ended")
    units = 0 if step in ("held", "begun") else 10 if whole else FIRST
    with seller(config, "-") as (url, _process), httpx.Client(base_url=url, timeout=30) as client:
        until(store, "SELECT state FROM payments", [(8,)] if step == "held" else [(5,)])
        assert served.chain.balance_of(PAY_TO) - before == units * 1000
        assert rows(store, "SELECT COALESCE(SUM(charged_micros), 0) FROM events") == [(units * 1000,)]
        answer = client.get("/v1/flow", headers=payment)
        if step == "held":  # nothing was taken: the same payment is as good as new
            assert answer.content == WHOLE
            units = 10
        elif whole:  # the answer was kept with the intent: who has paid gets the end of it, too
            assert (answer.status_code, answer.content) == (200, WHOLE)
        else:
            assert (answer.status_code, answer.json()["code"]) == (409, "payment_used")
    assert len(rows(store, "SELECT 1 FROM events")) == 1
    assert served.chain.balance_of(PAY_TO) - before == units * 1000
    assert rows(store, "SELECT units, charged_micros FROM events") == [(units, units * 1000)]
    asyncio.run(verified(store))
