"""What became of a payment, told by the embedded chain, and by nodes that fail, lie or lag."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from eth_account.messages import encode_typed_data

from headgate.devnet import DevChain, EmbeddedFacilitator, Wallet, running_facilitator
from headgate.devnet.calls import encode_call
from headgate.devnet.rpc import Rpc
from headgate.model.assets import KNOWN_ASSETS
from headgate.model.errors import ChainError, described
from headgate.model.offer import Offer, SignedPayment
from headgate.x402 import wire
from headgate.x402.chain import Block, Canceled, Chain, Head, Paid, Unused, UsedElsewhere
from headgate.x402.check import PERMIT2, UPTO_PROXY
from headgate.x402.offer import build_offers, requirements
from headgate.x402.rpc import HttpNode, InProcessNode
from tests.devnet.paying import CANCEL_FIELDS, UPTO_PERMIT_FIELDS, arguments, authorization, sign
from tests.x402 import buyer
from tests.x402.buyer import SEPOLIA, URL
from tests.x402.scripted import ScriptedFacilitator, answering, drop

USDC = KNOWN_ASSETS[SEPOLIA]
TRANSFER_BYTES = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)"
EARLY_S = 0


@pytest.fixture(scope="module")
def devchain() -> DevChain:
    return DevChain()


@pytest.fixture(scope="module")
def facilitator(devchain: DevChain) -> Iterator[EmbeddedFacilitator]:
    with EmbeddedFacilitator(devchain) as running:
        yield running


@pytest.fixture(scope="module")
def payer(devchain: DevChain) -> Wallet:
    return devchain.wallets[0]


@pytest.fixture
def chain(devchain: DevChain) -> Chain:
    return Chain(InProcessNode(Rpc(devchain).answer), log_span=3)


def made(devchain: DevChain, scheme: str) -> Offer:
    action = buyer.FIXED if scheme == "exact" else buyer.VARIABLE
    return build_offers(action, [buyer.network(settler=devchain.facilitator.address)])[0]


def paying(devchain: DevChain, payer: Wallet, scheme: str) -> SignedPayment:
    return wire.decode(buyer.signed(made(devchain, scheme), payer.account))


async def settle(
    facilitator: EmbeddedFacilitator, payment: SignedPayment, offer: Offer, amount: int | None = None
) -> str:
    sent = wire.facilitator_payload(payment, offer, url=URL, mime_type="application/json")
    answer = await facilitator.settle(sent, requirements(offer, amount))
    assert answer["success"], answer
    transaction: str = answer["transaction"]
    return transaction


@pytest.mark.parametrize("scheme", ["exact", "upto"])
async def test_an_unused_payment_is_unused_until_its_time_is_over(
    scheme: str, chain: Chain, devchain: DevChain, payer: Wallet
) -> None:
    payment = paying(devchain, payer, scheme)
    fate = await chain.fate(payment, EARLY_S)
    assert isinstance(fate, Unused)
    assert not fate.never_after(payment.valid_before_s)
    assert fate.never_after(fate.head.final.time_s - 1)
    assert not fate.never_after(fate.head.final.time_s)


@pytest.mark.parametrize(("scheme", "amount"), [("exact", 100_000), ("upto", 50_000), ("upto", 1)])
async def test_a_settled_payment_is_paid_with_what_was_settled(
    scheme: str,
    amount: int,
    chain: Chain,
    devchain: DevChain,
    facilitator: EmbeddedFacilitator,
    payer: Wallet,
) -> None:
    payment, offer = paying(devchain, payer, scheme), made(devchain, scheme)
    for other in ("exact", "upto"):  # transfers of the same payer to the same seller all around
        await settle(facilitator, paying(devchain, payer, other), made(devchain, other))
    transaction = await settle(facilitator, payment, offer, amount)
    for other in ("upto", "exact"):
        await settle(facilitator, paying(devchain, payer, other), made(devchain, other))
    fate = await chain.fate(payment, EARLY_S)
    assert isinstance(fate, Paid)
    assert (fate.transaction, fate.value_micros, fate.final) == (transaction.lower(), amount, True)
    found = devchain.transaction(transaction)
    assert found is not None
    assert fate.block_number == found.block_number


@pytest.mark.parametrize("scheme", ["exact", "upto"])
async def test_a_reorganised_transfer_is_unused_again(
    scheme: str, chain: Chain, devchain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    payment, offer = paying(devchain, payer, scheme), made(devchain, scheme)
    snapshot = devchain.snapshot()
    await settle(facilitator, payment, offer)
    assert isinstance(await chain.fate(payment, EARLY_S), Paid)
    devchain.revert(snapshot)
    assert isinstance(await chain.fate(payment, EARLY_S), Unused)


@pytest.mark.parametrize("scheme", ["exact", "upto"])
async def test_a_nonce_that_paid_somebody_else_did_not_pay_the_seller(
    scheme: str, chain: Chain, devchain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    payment = paying(devchain, payer, scheme)
    await settle(facilitator, payment, made(devchain, scheme))
    other = b"\xee" * 20
    fate = await chain.fate(replace(payment, pay_to=other), EARLY_S)
    assert isinstance(fate, UsedElsewhere)
    assert fate.to == "0x" + payment.pay_to.hex()
    assert fate.value_micros == payment.amount


async def test_the_nonce_signed_a_second_time_for_less_did_not_pay(
    chain: Chain, devchain: DevChain, payer: Wallet
) -> None:
    """EIP-3009: the payer sends another authorization with the payment's nonce, to the seller, for 1."""
    payment = paying(devchain, payer, "exact")
    other = authorization(
        payer, 1, to="0x" + payment.pay_to.hex(), nonce="0x" + payment.nonce.hex(), validAfter=0
    )
    sent = devchain.send(
        payer, devchain.usdc, encode_call(TRANSFER_BYTES, *arguments(other), sign(payer, other))
    )
    fate = await chain.fate(payment, EARLY_S)
    assert isinstance(fate, UsedElsewhere)
    assert (fate.transaction, fate.value_micros) == (sent.hash.lower(), 1)


async def test_another_permit_with_the_same_nonce_did_not_pay(
    chain: Chain, devchain: DevChain, payer: Wallet
) -> None:
    """Permit2: the payer names itself as the facilitator of a second permit, and settles 1 of it."""
    payment = paying(devchain, payer, "upto")
    amount, deadline, after = payment.amount, payment.valid_before_s, payment.valid_after_s
    nonce, to = int.from_bytes(payment.nonce, "big"), "0x" + payment.pay_to.hex()
    message = {
        "permitted": {"token": devchain.usdc, "amount": amount},
        "spender": UPTO_PROXY,
        "nonce": nonce,
        "deadline": deadline,
        "witness": {"to": to, "facilitator": payer.address, "validAfter": after},
    }
    domain = {"name": "Permit2", "chainId": devchain.chain_id, "verifyingContract": PERMIT2}
    signable = encode_typed_data(domain, UPTO_PERMIT_FIELDS, message)
    signature = payer.account.sign_message(signable).signature
    call = encode_call(
        "settle(((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)",
        ((devchain.usdc, amount), nonce, deadline),
        *(1, payer.address, (to, payer.address, after), bytes(signature)),
    )
    sent = devchain.send(payer, UPTO_PROXY, call)
    fate = await chain.fate(payment, EARLY_S)
    assert fate == UsedElsewhere(sent.hash.lower(), to, 1, final=True)


async def test_transfers_that_only_look_like_the_payment_did_not_pay(
    chain: Chain, devchain: DevChain, payer: Wallet
) -> None:
    """The payer chooses its nonce: that a call holds the number somewhere says nothing."""
    payment = replace(paying(devchain, payer, "upto"), nonce=(1).to_bytes(32, "big"))
    devchain.send(payer, PERMIT2, encode_call("invalidateUnorderedNonces(uint256,uint256)", 0, 2))
    devchain.send(payer, devchain.usdc, encode_call("approve(address,uint256)", payer.address, 10))
    to = "0x" + payment.pay_to.hex()
    call = encode_call("transferFrom(address,address,uint256)", payer.address, to, 1)
    devchain.send(payer, devchain.usdc, call)
    assert isinstance(await chain.fate(payment, EARLY_S), Canceled)


async def test_a_canceled_authorization(chain: Chain, devchain: DevChain, payer: Wallet) -> None:
    payment = paying(devchain, payer, "exact")
    message = {"authorizer": payer.address, "nonce": "0x" + payment.nonce.hex()}
    signature = sign(payer, message, kind="CancelAuthorization", fields=CANCEL_FIELDS)
    call = encode_call("cancelAuthorization(address,bytes32,bytes)", payer.address, payment.nonce, signature)
    sent = devchain.send(devchain.facilitator, devchain.usdc, call)
    fate = await chain.fate(payment, EARLY_S)
    assert fate == Canceled(sent.hash.lower(), final=True)


async def test_an_invalidated_permit2_nonce(chain: Chain, devchain: DevChain, payer: Wallet) -> None:
    payment = paying(devchain, payer, "upto")
    word, bit = divmod(int.from_bytes(payment.nonce, "big"), 256)
    call = encode_call("invalidateUnorderedNonces(uint256,uint256)", word, 1 << bit)
    sent = devchain.send(payer, PERMIT2, call)
    assert await chain.fate(payment, EARLY_S) == Canceled(sent.hash.lower(), final=True)


async def test_a_used_nonce_whose_transaction_is_not_found_is_no_evidence() -> None:
    ahead_us = 0
    devchain = DevChain(now_us=lambda: time.time_ns() // 1000 + ahead_us)
    payer = devchain.wallets[0]
    payments = [paying(devchain, payer, scheme) for scheme in ("exact", "upto")]
    with EmbeddedFacilitator(devchain) as facilitator:
        for payment in payments:
            await settle(facilitator, payment, made(devchain, payment.scheme))
    for _ in range(110):
        ahead_us += 2_000_000
        devchain.mine()
    chain = Chain(InProcessNode(Rpc(devchain).answer))
    for payment in payments:
        assert isinstance(await chain.fate(payment, EARLY_S), Paid)
        with pytest.raises(ChainError, match="look further back"):
            await chain.fate(payment, devchain.head().timestamp_s)


@pytest.mark.parametrize("back_s", [0, 10, 400, 4000, 250_000, 10_000_000])
async def test_the_chain_is_searched_from_a_time(back_s: int) -> None:
    asked = 0

    def at(which: str, _full: bool) -> Any:
        nonlocal asked
        asked += 1
        number = 1_000_000 if which == "latest" else int(which, 16)
        return block(number, 3 * number)

    chain = Chain(Told(eth_getBlockByNumber=at))
    latest = await chain.block("latest")
    time_s = latest.time_s - back_s
    number = await chain.block_before(time_s, latest)
    assert number == 0 or time_s - 3 * 101 <= 3 * number < time_s
    assert asked < 30


# --- is this the token? ---


async def test_the_configured_token_is_found(chain: Chain) -> None:
    assert await chain.misfits(USDC) is None


@pytest.mark.parametrize(
    ("asset", "complaint"),
    [
        (replace(USDC, name="USD Coin"), "does not sign as name 'USD Coin'"),
        (replace(USDC, version="1"), "every payment would be invalid"),
        (replace(USDC, address="0x" + "12" * 20), "is no token"),
        (KNOWN_ASSETS["eip155:137"], "on chain 84532, not on eip155:137"),
    ],
)
async def test_a_misconfigured_token_is_named(asset: Any, complaint: str, chain: Chain) -> None:
    assert complaint in (await chain.misfits(asset) or "")


# --- over HTTP, and nodes that misbehave ---


async def test_over_http() -> None:
    with running_facilitator() as running:
        chain = Chain(HttpNode(running.rpc_url))
        assert await chain.misfits(USDC) is None
        payment = paying(running.chain, running.wallets[0], "exact")
        await settle(running.facilitator, payment, made(running.chain, "exact"))
        assert isinstance(await chain.fate(payment, int(time.time()) - 60), Paid)
        await chain.close()


@pytest.mark.parametrize(
    "step",
    [
        answering(b"<html>"),
        answering([]),
        answering({"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "no"}}),
        answering({"jsonrpc": "2.0", "id": 99, "result": "0x1"}),
        answering({"jsonrpc": "2.0", "id": 1}),
        drop,
    ],
)
async def test_a_node_that_gives_no_answer_is_a_chain_error_without_its_key(step: Any) -> None:
    async with ScriptedFacilitator() as scripted:
        scripted.script.supported.append(step)
        node = HttpNode(scripted.url + "/s3cret-key/supported")
        with pytest.raises(ChainError) as caught:
            await node.call("eth_chainId")
        assert "s3cret" not in str(caught.value)
        await node.close()


class Told:
    """A node that answers from a table."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    async def call(self, method: str, *params: Any) -> Any:
        answer = self.answers[method]
        answer = answer(*params) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return json.loads(json.dumps(answer))

    async def close(self) -> None: ...


def block(number: int, time_s: int) -> dict[str, str]:
    return {"number": hex(number), "hash": "0x" + "AB" * 32, "timestamp": hex(time_s)}


async def test_finality_is_the_nodes_or_a_distance() -> None:
    def known(which: str, _full: bool) -> Any:
        return block({"latest": 1000, "finalized": 990}.get(which, 0), 5)

    def unknown(which: str, _full: bool) -> Any:
        if which == "finalized":
            return ChainError("no such block")
        return block(1000 if which == "latest" else int(which, 16), 5)

    def ahead(which: str, _full: bool) -> Any:
        return block(1000 if which == "latest" else 1001, 5)

    latest = Block(1000, "0x" + "ab" * 32, 5)
    assert await Chain(Told(eth_getBlockByNumber=known)).head() == Head(latest, replace(latest, number=990))
    assert (await Chain(Told(eth_getBlockByNumber=unknown), unfinal_blocks=64).head()).final.number == 936
    assert (await Chain(Told(eth_getBlockByNumber=ahead)).head()).final.number == 1000


USED = "0x" + "1".rjust(64, "0")


@pytest.mark.parametrize(
    "answers",
    [
        {"eth_getBlockByNumber": None},
        {"eth_getBlockByNumber": {"number": "x"}},
        {"eth_getBlockByNumber": block(5, 100), "eth_call": USED},  # whichever block was asked for
        {"eth_call": "0x"},
        {"eth_call": 5},
        {"eth_call": USED, "eth_getLogs": {}},
        {"eth_call": USED, "eth_getLogs": [5]},
        {"eth_call": USED, "eth_getLogs": [{}]},
        {"eth_call": USED, "eth_getLogs": []},
        {"eth_call": USED, "eth_getLogs": [{"transactionHash": "0x", "blockNumber": "?", "topics": []}]},
    ],
)
async def test_nonsense_is_a_chain_error(answers: dict[str, Any], exact_header: bytes) -> None:
    def at(which: str, _full: bool) -> Any:
        number = 5 if which in ("latest", "finalized") else int(which, 16)
        return block(number, 20 * number)

    node = Told(**{"eth_getBlockByNumber": at, **answers})
    with pytest.raises(ChainError):
        await Chain(node).fate(wire.decode(exact_header), 50)


MANGLED = {
    "another protocol": b"\x15\x03\x01\x00\x02\x02\x46",
    "no status": b"hello there\r\n\r\n",
    "a broken header": b"HTTP/1.1 200 OK\r\nA B C\r\n\r\n",
    "a broken length": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "a broken chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello",
    "too long a header": b"HTTP/1.1 429 No\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", MANGLED.values(), ids=MANGLED)
async def test_no_error_shows_more_of_an_address_than_its_host(answer: bytes) -> None:
    """A node's address and a webhook's carry keys; what a broken answer is told by must not."""

    async def mangle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(mangle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    node = HttpNode(f"http://127.0.0.1:{port}/v3/SECRET?key=SECRET")
    try:
        with pytest.raises(ChainError) as caught:
            await node.call("eth_chainId")
        assert "SECRET" not in str(caught.value)
        assert "127.0.0.1" in str(caught.value)
    finally:
        await node.close()
        server.close()


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ConnectionTimeoutError("Connection timeout to host https://n.example/v3/SECRET"),
        aiohttp.InvalidURL("https://n.example/v3/SECRET", "no host"),
        OSError("nobody at https://u:SECRET@n.example/ today"),
    ],
)
def test_an_address_is_taken_out_of_whatever_is_said(error: Exception) -> None:
    assert "SECRET" not in described(error)
    assert type(error).__name__ in described(error)
