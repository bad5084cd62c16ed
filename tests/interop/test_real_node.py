"""Headgate, the SDK's own facilitators over HTTP, and a real node: nothing of the embedded chain is used.

The node is anvil with the embedded chain's contracts; `rpc_url` points at it. A facilitator in Python (web3)
and one in JavaScript (viem) settle there. What becomes of payments is then made hard to tell: an answer is
lost, a payer cancels, somebody else settles, the chain reorganises.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate import Headgate
from headgate.config import parse
from headgate.devnet import contracts
from headgate.devnet.calls import encode_call
from headgate.devnet.wallets import Wallet, derive
from headgate.model.calendar import AccountingCalendar
from headgate.model.errors import FacilitatorUncertain
from headgate.service.check_facilitator import facilitator_findings
from headgate.service.finding import Level
from headgate.service.verify import verify
from headgate.x402.facilitator import FacilitatorClient, GuardedFacilitator
from tests.devnet.paying import CANCEL_FIELDS, sign
from tests.interop.anvil import SETTLER, Anvil, running_anvil
from tests.interop.conftest import application
from tests.interop.node_tools import NODE, telling
from tests.interop.test_clients import with_httpx
from tests.web.shop import Calls, Clock, Row, Shop, config_text, paid, problem_of, serving, unpacked, until
from tests.x402.buyer import PAY_TO, SEPOLIA

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]
PRICE = 100_000
Json = dict[str, Any]


@pytest.fixture(scope="module")
def node() -> Iterator[Anvil]:
    with running_anvil() as running:
        yield running


@pytest.fixture(scope="module", params=["python", "node"])
def facilitator(request: pytest.FixtureRequest, node: Anvil) -> Iterator[str]:
    given = [node.url, SETTLER.private_key]
    python = [sys.executable, "-m", "tests.interop.sdk_facilitator", *given]
    command = python if request.param == "python" else ["node", str(NODE / "facilitator.mjs"), *given]
    with telling(command) as url:
        yield url


class Losing:
    """A facilitator's client whose next answers to settle are lost, or that first lets something happen."""

    def __init__(self, url: str) -> None:
        self._client = FacilitatorClient(url, settle_timeout_ms=20_000)
        self.before: list[Any] = []
        self.lose = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def settle(self, *asked: Any) -> Any:
        while self.before:
            await asyncio.to_thread(self.before.pop())
        found = await self._client.settle(*asked)
        if self.lose:
            self.lose -= 1
            raise FacilitatorUncertain("its answer was lost on purpose")
        return found


@dataclass
class World:
    """A seller whose background work the test does."""

    shop: Shop
    client: httpx.AsyncClient
    url: str
    node: Anvil
    asks: Losing
    before: int

    @property
    def received(self) -> int:
        return self.node.balance_of(PAY_TO) - self.before

    async def payment(self, wallet: Wallet) -> dict[str, str]:
        return paid(await self.client.get("/v1/doc"), wallet.account)

    async def resolve(self) -> int:
        assert self.shop.gate._recovery is not None
        return await self.shop.gate._recovery.run_once()

    async def watch(self) -> int:
        assert self.shop.gate._watcher is not None
        return await self.shop.gate._watcher.run_once()

    async def books_agree(self) -> None:
        assert sum(row.charged for row in await self.shop.ledger()) == self.received
        assert self.shop.gate.store is not None
        found = await verify(self.shop.gate.store.driver, calendar=AccountingCalendar("UTC"))
        assert found.differences == ()


def configuration(folder: Path, facilitator: str, node: Anvil) -> str:
    text = config_text(store=str(folder / "headgate.db"), facilitator=facilitator)
    return text.replace(
        f'facilitator = "{facilitator}"', f'facilitator = "{facilitator}"\nrpc_url = "{node.url}"'
    )


@asynccontextmanager
async def opened(folder: Path, facilitator: str, node: Anvil) -> AsyncIterator[World]:
    config = parse(configuration(folder, facilitator, node), file="headgate.toml", environ={})
    clock, asks = Clock(), Losing(facilitator)
    gate = Headgate(config, now_us=clock, facilitators={SEPOLIA: GuardedFacilitator(asks, clock)})  # type: ignore[arg-type]
    app = gate.middleware(application())
    async with serving(app, lifespan="on") as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        await until(lambda: gate.payer.storefront.sells("words"))
        for task in gate._background:
            task.cancel()
        shop = Shop(gate, app, Calls(), clock, None)  # type: ignore[arg-type]  this one does not obey
        yield World(shop, client, url, node, asks, node.balance_of(PAY_TO))


@pytest.fixture
async def world(tmp_path: Path, facilitator: str, node: Anvil) -> AsyncIterator[World]:
    async with opened(tmp_path, facilitator, node) as opened_world:
        yield opened_world


def authorization(payment: dict[str, str]) -> Json:
    found: Json = unpacked(payment["PAYMENT-SIGNATURE"])["payload"]
    return found


# --- buying ---------------------------------------------------------------------------------------


async def test_exact_and_upto_are_settled_and_found_on_chain(world: World) -> None:
    wallet = world.node.wallets[0]
    read = await with_httpx(wallet, "GET", f"{world.url}/v1/doc", "")
    assert read.status == 200, read
    used = await with_httpx(wallet, "POST", f"{world.url}/v1/words", '{"text": "three short words"}')
    assert (used.status, json.loads(used.body)) == (200, {"words": 3}), used
    payer = wallet.address.lower()
    assert await world.shop.ledger() == [
        Row("usage", "x402", 1, PRICE, None, payer),
        Row("usage", "x402", 3, 30_000, None, payer),
    ]
    assert world.received == PRICE + 30_000
    world.shop.clock.ahead_us += 20_000_000
    world.node.blocks(5)
    assert await world.watch() == 0  # both are there, and final
    assert [one.closed for one in world.shop.gate._watcher._watched.values()] == [True, True]  # type: ignore[union-attr]
    await world.books_agree()


async def test_a_wallet_without_money_is_told_so(world: World) -> None:
    answer = await world.client.get("/v1/doc", headers=await world.payment(derive("poor")))
    assert answer.status_code == 402
    assert answer.json()["error"] not in ("payment_required", "payment_refused")
    assert (await world.shop.payments(), world.received) == (["released"], 0)


# --- what became of it ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/doc", "/v1/words"])
async def test_settled_and_its_answer_lost(path: str, world: World) -> None:
    """The logs of the node tell: by `authorizationState` for exact, by the nonce's bitmap for upto."""
    wallet = world.node.wallets[1]
    method, body = ("GET", "") if path == "/v1/doc" else ("POST", '{"text": "three short words"}')
    payment = paid(await world.client.request(method, path), wallet.account)
    world.asks.lose = 1
    answer = await world.client.request(method, path, content=body, headers=payment)
    assert problem_of(answer) == "payment_pending"
    assert await world.resolve() == 0
    again = await world.client.request(method, path, content=body, headers=payment)
    assert again.status_code == 200
    expected = (1, PRICE) if path == "/v1/doc" else (3, 30_000)
    assert await world.shop.ledger() == [Row("usage", "x402", *expected, None, wallet.address.lower())]
    assert unpacked(again.headers["payment-response"])["transaction"].startswith("0x")
    await world.books_agree()


async def test_a_payer_that_cancels_while_the_work_is_done(world: World) -> None:
    wallet = world.node.wallets[2]
    payment = await world.payment(wallet)
    nonce = authorization(payment)["authorization"]["nonce"]
    message = {"authorizer": wallet.address, "nonce": nonce}
    signature = sign(wallet, message, kind="CancelAuthorization", fields=CANCEL_FIELDS)
    cancel = "cancelAuthorization(address,bytes32,bytes)"
    call = encode_call(cancel, wallet.address, bytes.fromhex(nonce[2:]), signature)
    world.asks.before.append(lambda: world.node.send(wallet, contracts.USDC_ADDRESS, call))
    answer = await world.client.get("/v1/doc", headers=payment)
    assert answer.status_code == 402
    assert "payment-response" in answer.headers
    assert (await world.shop.payments(), await world.shop.ledger(), world.received) == (["failed"], [], 0)
    world.shop.clock.ahead_us += 20_000_000
    assert await world.watch() == 0
    assert await world.shop.payments() == ["failed"]


async def test_somebody_else_settles_it_first(world: World) -> None:
    """A transfer under the payment's nonce counts, whoever made it, and is served once."""
    wallet, other = world.node.wallets[3], world.node.wallets[4]
    payment = await world.payment(wallet)
    found = authorization(payment)
    signed = found["authorization"]
    call = encode_call(
        "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)",
        *(signed["from"], signed["to"]),
        *(int(signed[name]) for name in ("value", "validAfter", "validBefore")),
        *(bytes.fromhex(text[2:]) for text in (signed["nonce"], found["signature"])),
    )
    world.asks.before.append(lambda: world.node.send(other, contracts.USDC_ADDRESS, call))
    answer = await world.client.get("/v1/doc", headers=payment)
    if answer.status_code == 503:
        assert problem_of(answer) == "payment_pending"
        assert await world.resolve() == 0
        answer = await world.client.get("/v1/doc", headers=payment)
    assert answer.status_code == 200
    assert await world.shop.ledger() == [Row("usage", "x402", 1, PRICE, None, wallet.address.lower())]
    await world.books_agree()


async def test_the_chain_reorganises_a_settled_transfer_away(world: World) -> None:
    """The event is reversed, the payment is open again, and it is settled a second time."""
    wallet = world.node.wallets[5]
    before = world.node.call("evm_snapshot")
    payment = await world.payment(wallet)
    assert (await world.client.get("/v1/doc", headers=payment)).status_code == 200
    assert world.received == PRICE
    sent = world.node.sent_by(SETTLER)
    assert world.node.call("evm_revert", before) is True
    assert world.received == 0
    for _ in range(sent - world.node.sent_by(SETTLER)):  # a facilitator counts its own transactions on
        world.node.send(SETTLER, SETTLER.address, b"")
    world.node.call("evm_increaseTime", 60)
    world.node.blocks(10)
    world.shop.clock.ahead_us += 20_000_000
    assert await world.watch() == 1
    assert await world.shop.payments() == ["unknown"]
    await world.books_agree()
    assert await world.resolve() == 0
    payer = wallet.address.lower()
    assert await world.shop.ledger() == [
        Row("usage", "x402", 1, PRICE, None, payer),
        Row("reversal", "x402", -1, -PRICE, None, payer),
        Row("usage", "x402", 1, PRICE, None, payer),
    ]
    assert (await world.client.get("/v1/doc", headers=payment)).status_code == 200
    await world.books_agree()


# --- check ----------------------------------------------------------------------------------------


async def test_check_asks_the_facilitator_and_the_node(
    world: World, facilitator: str, tmp_path: Path
) -> None:
    config = parse(configuration(tmp_path, facilitator, world.node), file="headgate.toml", environ={})
    assert [
        each for each in await facilitator_findings(config, Clock()) if each.level is not Level.INFO
    ] == []
    assert config.x402 is not None
    (network,) = config.x402.networks
    wrong = replace(network, asset=replace(network.asset, name="USD Coin"))
    config = replace(config, x402=replace(config.x402, networks=(wrong,)))
    found = await facilitator_findings(config, Clock())
    assert any("USD Coin" in each.message or "domain" in each.message for each in found), found
