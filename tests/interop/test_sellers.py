"""Sellers that are not Headgate, as the x402 SDK documents them, tested by their developers with
`headgate facilitator`; `headgate pay` and the SDK's own client buy from them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.devnet.wallets import payers
from tests.interop.node_tools import NODE, installed, telling
from tests.interop.test_clients import with_httpx, with_node
from tests.x402.buyer import PAY_TO

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]
HEADGATE = str(Path(sys.executable).with_name("headgate"))
Json = dict[str, Any]


@pytest.fixture(scope="module")
def facilitator() -> Iterator[Json]:
    """`headgate facilitator`, as anybody starts it."""
    with telling([HEADGATE, "facilitator", "--port", "0", "--format", "json"]) as line:
        yield json.loads(line)


@pytest.fixture(scope="module", params=["python: fastapi", "node: express"])
def seller(request: pytest.FixtureRequest, facilitator: Json) -> Iterator[str]:
    given = [facilitator["url"], PAY_TO]
    if request.param.startswith("python"):
        command = [sys.executable, "-m", "tests.interop.sdk_seller", *given]
    else:
        installed()
        command = ["node", str(NODE / "seller.mjs"), *given]
    with telling(command) as url:
        yield url


def received(facilitator: Json) -> int:
    """What the chain says that the seller has got."""
    with urllib.request.urlopen(facilitator["url"] + "/transfers", timeout=10) as answer:
        transfers = json.load(answer)["transfers"]
    return sum(int(each["value"]) for each in transfers if each["to"].lower() == PAY_TO.lower())


def pay(*given: str, **environ: str) -> tuple[int, Json]:
    """`headgate pay`: its exit code and the one object it prints."""
    command = [HEADGATE, "pay", *given]
    done = subprocess.run(
        command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize(
    ("path", "scheme", "amount"), [("/weather", "exact", 10_000), ("/tokens", "upto", 30_000)]
)
def test_headgate_pay_buys(path: str, scheme: str, amount: int, seller: str, facilitator: Json) -> None:
    before = received(facilitator)
    code, told = pay(seller + path, HEADGATE_WALLET_KEY=facilitator["wallets"][1]["private_key"])
    assert code == 0
    assert (told["status"], told["paid"], told["scheme"]) == (200, True, scheme)
    assert told["amount"] == f"0.{amount:06d}"
    assert received(facilitator) - before == amount


def test_it_keeps_to_its_cap(seller: str, facilitator: Json) -> None:
    before = received(facilitator)
    key = facilitator["wallets"][1]["private_key"]
    code, told = pay(seller + "/weather", "--max-price", "0.009", HEADGATE_WALLET_KEY=key)
    assert (code, told["paid"]) == (1, False)
    code, told = pay(seller + "/weather", "--dry-run", HEADGATE_WALLET_KEY=key)
    assert told["paid"] is False
    assert received(facilitator) == before


@pytest.mark.parametrize("client", ["httpx", "@x402/fetch"])
@pytest.mark.parametrize(("path", "amount"), [("/weather", 10_000), ("/tokens", 30_000)])
def test_the_sdks_own_clients_buy(
    client: str, path: str, amount: int, seller: str, facilitator: Json
) -> None:
    buy = with_httpx if client == "httpx" else with_node("fetch")
    before = received(facilitator)
    bought = asyncio.run(buy(payers(10)[2], "GET", seller + path, ""))  # type: ignore[arg-type]
    assert bought.status == 200, bought
    assert received(facilitator) - before == amount
