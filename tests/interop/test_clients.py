"""Unmodified official x402 clients buy from Headgate: Python's httpx and requests, npm's fetch and axios."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from eth_account import Account
from x402 import x402Client, x402ClientSync
from x402.http.clients.httpx import x402HttpxClient
from x402.http.clients.requests import x402_requests
from x402.mechanisms.evm import EthAccountSigner
from x402.mechanisms.evm.exact.register import register_exact_evm_client
from x402.mechanisms.evm.upto import UptoEvmScheme

from headgate.devnet import Wallet
from headgate.devnet.wallets import derive
from tests.interop.conftest import Seller
from tests.interop.node_tools import NODE, installed
from tests.web.shop import Row, until
from tests.x402.buyer import PAY_TO

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]
PRICE = 100_000


class Bought(NamedTuple):
    """What a client got back; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: str


Buyer = Callable[[Wallet, str, str, str], Awaitable[Bought]]


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


async def with_httpx(wallet: Wallet, method: str, url: str, body: str) -> Bought:
    client = x402Client()
    register_exact_evm_client(client, EthAccountSigner(Account.from_key(wallet.private_key)))
    client.register("eip155:*", UptoEvmScheme(EthAccountSigner(Account.from_key(wallet.private_key))))
    async with x402HttpxClient(client) as http:
        answer = await http.request(method, url, content=body or None)
        await answer.aread()
        return Bought(answer.status_code, _lower(answer.headers), answer.text)


async def with_requests(wallet: Wallet, method: str, url: str, body: str) -> Bought:
    def buy() -> Bought:
        client = x402ClientSync()
        register_exact_evm_client(client, EthAccountSigner(Account.from_key(wallet.private_key)))
        client.register("eip155:*", UptoEvmScheme(EthAccountSigner(Account.from_key(wallet.private_key))))
        with x402_requests(client) as session:
            answer = session.request(method, url, data=body or None, timeout=30)
            return Bought(answer.status_code, _lower(answer.headers), answer.text)

    return await asyncio.to_thread(buy)


def with_node(client: str) -> Buyer:
    async def buy(wallet: Wallet, method: str, url: str, body: str) -> Bought:
        await asyncio.to_thread(installed)
        process = await asyncio.create_subprocess_exec(
            *("node", str(NODE / "buyer.mjs"), client, method, url, body),
            env={**os.environ, "HEADGATE_WALLET_KEY": wallet.private_key},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        found = json.loads(out)
        return Bought(found["status"], _lower(found["headers"]), found["body"])

    return buy


BUYERS: dict[str, Buyer] = {
    "httpx": with_httpx,
    "requests": with_requests,
    "@x402/fetch": with_node("fetch"),
    "@x402/axios": with_node("axios"),
}


@pytest.mark.parametrize("client", BUYERS)
async def test_a_client_buys(client: str, seller: Seller) -> None:
    """402, signature, 200 with a receipt: by GET, and by POST with a body that is sent twice."""
    buy = BUYERS[client]
    wallet = seller.wallets[list(BUYERS).index(client)]
    chain = seller.embedded.chain
    before = chain.balance_of(PAY_TO)

    first = await buy(wallet, "GET", f"{seller.url}/v1/doc", "")
    assert first.status == 200, first
    assert json.loads(first.body) == {"read": True, "payer": wallet.address.lower()}
    second = await buy(wallet, "POST", f"{seller.url}/v1/doc", '{"text": "three short words"}')
    assert json.loads(second.body) == {"words": 3}

    row = Row("usage", "x402", 1, PRICE, None, wallet.address.lower())
    assert await seller.shop.ledger() == [row, row]
    assert chain.balance_of(PAY_TO) - before == 2 * PRICE
    told = [json.loads(base64.b64decode(each.headers["payment-response"])) for each in (first, second)]
    assert all(each["success"] for each in told)
    booked = await seller.shop.sql("SELECT tx FROM events ORDER BY seq")
    assert [each["transaction"] for each in told] == ["0x" + tx.hex() for (tx,) in booked]
    for each in (first, second):
        assert each.headers["headgate-receipt"].startswith("https://api.example.com/")


@pytest.mark.parametrize("client", BUYERS)
async def test_a_client_buys_what_it_uses(client: str, seller: Seller) -> None:
    """`upto`: the ceiling is signed, three words are settled."""
    await until(lambda: seller.shop.gate.payer.storefront.sells("words"))
    chain = seller.embedded.chain
    before = chain.balance_of(PAY_TO)
    wallet = seller.wallets[list(BUYERS).index(client)]
    answer = await BUYERS[client](wallet, "POST", f"{seller.url}/v1/words", '{"text": "three short words"}')
    assert (answer.status, json.loads(answer.body)) == (200, {"words": 3})
    assert "headgate-units" not in answer.headers
    assert await seller.shop.ledger() == [Row("usage", "x402", 3, 30_000, None, wallet.address.lower())]
    assert await seller.shop.sql("SELECT authorized_micros FROM events") == [(1_000_000,)]
    assert chain.balance_of(PAY_TO) - before == 30_000
    assert json.loads(base64.b64decode(answer.headers["payment-response"]))["amount"] == "30000"


@pytest.mark.parametrize("client", BUYERS)
async def test_a_client_without_money(client: str, seller: Seller) -> None:
    """It is refused with a reason, and nothing moves."""
    poor = derive(f"poor buyer with {client}")
    before = seller.embedded.chain.balance_of(PAY_TO)
    refused = await BUYERS[client](poor, "GET", f"{seller.url}/v1/doc", "")
    assert refused.status == 402, refused
    assert "payment-response" not in refused.headers
    assert await seller.shop.ledger() == []
    assert await seller.shop.payments() in ([], ["released"])
    assert seller.embedded.chain.balance_of(PAY_TO) == before


@pytest.mark.parametrize("client", ["httpx", "requests", "@x402/fetch"])
async def test_a_client_whose_work_fails_pays_nothing(client: str, seller: Seller) -> None:
    wallet = seller.wallets[0]
    before = seller.embedded.chain.balance_of(wallet.address)
    failed = await BUYERS[client](wallet, "GET", f"{seller.url}/v1/files/broken", "")
    assert (failed.status, json.loads(failed.body)) == (500, {"sorry": True})
    assert seller.embedded.chain.balance_of(wallet.address) == before
    assert await seller.shop.payments() == ["released"]
