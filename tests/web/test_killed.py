"""`kill -9` at each step of a payment, with the chain in another process (contract §4, failure case 5).

After a restart: one transfer at most, never two events, no transfer without an event, and the payer who asks
again with the same payment gets its answer. Where the work is paid before it, it is owed until it was done.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from eth_account import Account

from headgate.devnet import RunningFacilitator, running_facilitator
from headgate.model.payment import State
from tests.web.killable import PREPAID_STEPS, STEPS
from tests.web.shop import config_text, paid, problem_of, unpacked
from tests.x402.buyer import PAY_TO

pytestmark = pytest.mark.timeout(120)
PRICE = 100_000
RUNS = {"claimed": 1, "verified": 1, "working": 2, "served": 2, "intended": 1, "settled": 1, "booked": 1}
PREPAID = """
[actions."first"]
title = "Paid first"
price = "0.10"
settle = "before"
routes = ["POST /v1/first"]
"""


class Death(NamedTuple):
    """What a death at a step leaves: the payment's state, transfers, events, runs; and runs in the end."""

    state: State
    transfers: int
    events: int
    runs: int
    in_the_end: int


DEATHS = {
    "claimed": Death(State.CLAIMED, 0, 0, 0, 1),
    "verified": Death(State.CLAIMED, 0, 0, 0, 1),
    "intended": Death(State.SETTLING, 0, 0, 0, 1),
    "settled": Death(State.SETTLING, 1, 0, 0, 1),
    "booked": Death(State.REOPENED, 1, 1, 0, 1),
    "taken": Death(State.REPEATING, 1, 1, 0, 1),
    "working": Death(State.REPEATING, 1, 1, 1, 2),
    "done": Death(State.REPEATING, 1, 1, 1, 2),
    "kept": Death(State.SETTLED, 1, 1, 1, 1),
}


@pytest.fixture(scope="module")
def served() -> Iterator[RunningFacilitator]:
    with running_facilitator() as running:
        yield running


@contextmanager
def seller(config: Path, step: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A seller's process; killed at the end if it still lives."""
    command = [sys.executable, "-m", "tests.web.killable", str(config), step]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http"), "the seller did not start"
            yield url, process
        finally:
            process.kill()


def rows(store: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(store)) as opened:
        return opened.execute(statement).fetchall()


def answer_in_the_end(client: httpx.Client, payment: dict[str, str], path: str = "/v1/doc") -> httpx.Response:
    """Ask with the same payment for as long as one is told to ask again; never is a new one asked for."""
    until = time.monotonic() + 60
    while True:
        answer = client.post(path, headers=payment, content=b"the same body")
        if answer.status_code not in (409, 503) or time.monotonic() > until:
            return answer
        assert answer.json()["code"] in ("payment_in_progress", "payment_pending")
        assert "payment-required" not in answer.headers
        time.sleep(0.1)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at(step: str, served: RunningFacilitator, tmp_path: Path) -> None:
    store, config = tmp_path / "headgate.db", tmp_path / "headgate.toml"
    config.write_text(config_text(store=str(store), facilitator=served.url))
    payer = Account.from_key(served.wallets[STEPS.index(step) % len(served.wallets)].private_key)
    before = served.chain.balance_of(PAY_TO)

    with seller(config, step) as (url, process), httpx.Client(base_url=url, timeout=30) as client:
        payment = paid(client.post("/v1/doc"), payer)
        with pytest.raises(httpx.TransportError):
            client.post("/v1/doc", headers=payment, content=b"the same body")
        assert process.wait(20) == -signal.SIGKILL

    with seller(config, "-") as (url, _process), httpx.Client(base_url=url, timeout=30) as client:
        answer = answer_in_the_end(client, payment)
        assert answer.status_code == 200, answer.text
        assert "payment-response" in answer.headers
        runs = RUNS[step]
        assert answer.text == f"answer {runs} b'the same body'"
        again = client.post("/v1/doc", headers=payment, content=b"the same body")
        assert (again.status_code, again.text) == (200, answer.text)
        other = client.post("/v1/doc", headers=payment, content=b"another body")
        assert other.status_code == 409

    assert len((tmp_path / "handled").read_text().split()) == runs
    assert served.chain.balance_of(PAY_TO) - before == PRICE
    assert rows(store, "SELECT kind, channel, units, charged_micros FROM events") == [(1, 3, 1, PRICE)]
    assert rows(store, "SELECT state FROM payments") == [(5,)]
    transaction = rows(store, "SELECT tx FROM events")[0][0]
    assert isinstance(transaction, bytes)
    assert rows(store, "SELECT tx FROM payments") == [(transaction,)]
    assert rows(store, "SELECT SUM(settled_micros) FROM totals") == [(PRICE,)]


@pytest.mark.parametrize("step", PREPAID_STEPS)
def test_prepaid_and_killed_at(step: str, served: RunningFacilitator, tmp_path: Path) -> None:
    """Settled before the work: paid once, one event, and the same payment gets its work, uncharged."""
    store, config, handled = tmp_path / "headgate.db", tmp_path / "headgate.toml", tmp_path / "handled"
    config.write_text(config_text(store=str(store), facilitator=served.url, more=PREPAID))
    payer = Account.from_key(served.wallets[PREPAID_STEPS.index(step) % len(served.wallets)].private_key)
    before = served.chain.balance_of(PAY_TO)
    death = DEATHS[step]
    handled.touch()

    with seller(config, step) as (url, process), httpx.Client(base_url=url, timeout=30) as client:
        payment = paid(client.post("/v1/first"), payer)
        with pytest.raises(httpx.TransportError):
            client.post("/v1/first", headers=payment, content=b"the same body")
        assert process.wait(20) == -signal.SIGKILL
    assert rows(store, "SELECT state FROM payments") == [(death.state,)]
    assert served.chain.balance_of(PAY_TO) - before == death.transfers * PRICE
    assert rows(store, "SELECT COUNT(*) FROM events") == [(death.events,)]
    assert len(handled.read_text().split()) == death.runs

    with seller(config, "-") as (url, _process), httpx.Client(base_url=url, timeout=30) as client:
        answer = answer_in_the_end(client, payment, "/v1/first")
        assert answer.status_code == 200, answer.text
        assert unpacked(answer.headers["payment-response"])["success"] is True
        assert answer.text == f"answer {death.in_the_end} b'the same body'"
        again = client.post("/v1/first", headers=payment, content=b"the same body")
        assert (again.status_code, again.text) == (200, answer.text)
        other = client.post("/v1/first", headers=payment, content=b"another body")
        assert (other.status_code, problem_of(other)) == (409, "payment_bound_elsewhere")

    assert len(handled.read_text().split()) == death.in_the_end
    assert served.chain.balance_of(PAY_TO) - before == PRICE
    assert rows(store, "SELECT kind, channel, units, charged_micros FROM events") == [(1, 3, 1, PRICE)]
    assert rows(store, "SELECT state FROM payments") == [(State.SETTLED,)]
    assert rows(store, "SELECT COUNT(*) FROM owed") == [(0,)]
    transaction = rows(store, "SELECT tx FROM events")
    assert transaction == rows(store, "SELECT tx FROM payments")
    assert unpacked(answer.headers["payment-response"])["transaction"] == _hex(transaction)
    assert rows(store, "SELECT SUM(settled_micros) FROM totals") == [(PRICE,)]


def _hex(found: list[tuple[object, ...]]) -> str:
    ((transaction,),) = found
    assert isinstance(transaction, bytes)
    return "0x" + transaction.hex()
