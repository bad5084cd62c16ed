"""The chain: time, blocks, what became of an authorization, and going back."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from headgate.devnet import USDC_ADDRESS, DevChain, Wallet
from headgate.devnet.calls import ContractReverted, encode_call
from headgate.devnet.records import parse_nonce
from tests.devnet.paying import SELLER, arguments, authorization, sign, vrs

TRANSFER = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)"
T0 = 1_795_000_000


@dataclass
class Clock:
    now_s: int = T0

    def __call__(self) -> int:
        return self.now_s * 1_000_000


def settle(chain: DevChain, payer: Wallet, message: dict[str, object]) -> str:
    call = encode_call(TRANSFER, *arguments(message), *vrs(sign(payer, message)))
    return chain.send(chain.facilitator, USDC_ADDRESS, call).hash


def test_blocks_follow_the_clock_that_was_handed_in() -> None:
    clock = Clock()
    chain = DevChain(now_us=clock)
    assert (chain.block_number(), chain.block_time()) == (0, T0)
    clock.now_s += 60
    chain.fund(SELLER, 1)
    assert (chain.block_number(), chain.block_time()) == (1, T0 + 60)


def test_an_idle_chain_does_not_stop_time() -> None:
    clock = Clock()
    chain = DevChain(now_us=clock)
    clock.now_s += 1
    assert (chain.block_number(), chain.block_time()) == (0, T0)
    clock.now_s += 3_600
    assert (chain.block_number(), chain.block_time()) == (1, T0 + 3_601)


def test_a_burst_of_payments_does_not_run_ahead_of_the_clock() -> None:
    chain = DevChain(now_us=Clock())
    for _ in range(20):
        chain.fund(SELLER, 1)
    assert (chain.block_number(), chain.block_time()) == (20, T0)


def test_a_clock_that_steps_back_does_not_take_the_chain_along() -> None:
    clock = Clock()
    chain = DevChain(now_us=clock)
    clock.now_s -= 600
    chain.fund(SELLER, 1)
    assert chain.block_time() == T0


def test_an_authorization_lives_by_the_chains_time_both_ends_excluded() -> None:
    clock = Clock()
    chain = DevChain(now_us=clock)
    payer = chain.wallets[0]
    message = authorization(payer, validAfter=T0, validBefore=T0 + 10)
    with pytest.raises(ContractReverted, match="not yet valid"):
        settle(chain, payer, message)
    clock.now_s = T0 + 10
    with pytest.raises(ContractReverted, match="expired"):
        settle(chain, payer, message)
    clock.now_s = T0 + 9  # the refusals above made no block, so the chain is not past this
    settle(chain, payer, message)
    assert chain.balance_of(SELLER) == 100_000


def test_a_transfer_is_found_by_what_the_payer_signed(chain: DevChain, payer: Wallet) -> None:
    message = authorization(payer, 123)
    nonce = message["nonce"]
    assert chain.find_transfer(USDC_ADDRESS, payer.address, nonce) is None
    assert chain.authorization(USDC_ADDRESS, payer.address, nonce).state == "unused"
    tx_hash = settle(chain, payer, message)
    found = chain.find_transfer(USDC_ADDRESS.lower(), payer.address.lower(), nonce.upper().replace("X", "x"))
    assert found is not None
    assert found == chain.find_transfer(USDC_ADDRESS, payer.address, bytes.fromhex(nonce[2:]))
    assert (found.transaction, found.method, found.nonce) == (tx_hash, "eip3009", nonce)
    assert (found.payer, found.to, found.value, found.asset) == (payer.address, SELLER, 123, USDC_ADDRESS)
    block = chain.block(found.block_number)
    assert block is not None
    assert (block.hash, block.timestamp_s) == (found.block_hash, found.block_time_s)
    assert [each.hash for each in block.transactions] == [tx_hash]
    fate = chain.authorization(USDC_ADDRESS, payer.address, nonce)
    assert (fate.state, fate.transfer) == ("used", found)
    assert chain.find_transfer(USDC_ADDRESS, chain.wallets[1].address, nonce) is None
    assert chain.find_transfer(SELLER, payer.address, nonce) is None
    assert chain.transfers() == [found]


def test_logs_are_found_by_address_and_topic(chain: DevChain, payer: Wallet) -> None:
    message = authorization(payer)
    tx_hash = settle(chain, payer, message)
    chain.fund(SELLER, 5)
    used = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5"  # AuthorizationUsed
    hits = chain.logs(topics=(frozenset({used}), frozenset(), frozenset({message["nonce"]})))
    assert [(transaction.hash, log.index) for transaction, log in hits] == [(tx_hash, 0)]
    assert len(chain.logs(address=frozenset({USDC_ADDRESS}))) == 3
    assert len(chain.logs(first=2)) == 1
    assert chain.logs(address=frozenset({SELLER})) == []
    assert chain.logs(topics=(frozenset({used}), frozenset({used}))) == []


def test_a_refused_transaction_leaves_no_trace(chain: DevChain, payer: Wallet) -> None:
    message = authorization(payer, 10**18)
    with pytest.raises(ContractReverted, match="exceeds balance"):
        settle(chain, payer, message)
    assert chain.block_number() == 0
    assert chain.account_nonce(chain.facilitator.address) == 0
    assert chain.authorization_state(USDC_ADDRESS, payer.address, message["nonce"]) is False


def test_a_reorganisation_undoes_a_transfer_and_the_payment_can_settle_again(
    chain: DevChain, payer: Wallet
) -> None:
    chain.fund(SELLER, 7)
    before = chain.snapshot()
    message = authorization(payer)
    tx_hash = settle(chain, payer, message)
    assert chain.balance_of(SELLER) == 100_007
    chain.revert(before)
    assert chain.snapshot() == before
    assert chain.balance_of(SELLER) == 7
    assert chain.transaction(tx_hash) is None
    assert chain.transfers() == []
    assert chain.logs(first=before.number + 1) == []
    assert chain.authorization(USDC_ADDRESS, payer.address, message["nonce"]).state == "unused"
    chain.fund(SELLER, 1)
    settle(chain, payer, message)
    assert chain.balance_of(SELLER) == 100_008
    assert chain.authorization(USDC_ADDRESS, payer.address, message["nonce"]).state == "used"
    after = chain.snapshot()
    chain.revert(before)
    with pytest.raises(ValueError, match="not part of this chain"):
        chain.revert(after)


def test_the_past_can_be_asked(chain: DevChain, payer: Wallet) -> None:
    chain.fund(SELLER, 10)
    chain.fund(SELLER, 10)
    balance = encode_call("balanceOf(address)", SELLER)
    assert [int.from_bytes(chain.call(USDC_ADDRESS, balance, at=at)) for at in (0, 1, 2)] == [0, 10, 20]


def test_many_threads_settle_one_authorization_exactly_once(chain: DevChain, payer: Wallet) -> None:
    message = authorization(payer)
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def attempt() -> None:
        start.wait()
        try:
            settle(chain, payer, message)
            outcomes.append("settled")
        except ContractReverted as refusal:
            outcomes.append(refusal.reason)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["FiatTokenV2: authorization is used or canceled"] * 7 + ["settled"]
    assert chain.balance_of(SELLER) == 100_000
    assert chain.account_nonce(chain.facilitator.address) == 1


@pytest.mark.parametrize(
    ("nonce", "read"),
    [
        ("0x" + "AB" * 32, ("eip3009", "0x" + "ab" * 32)),
        ("0X" + "AB" * 32, ("eip3009", "0x" + "ab" * 32)),
        (bytes(31) + b"\x01", ("eip3009", "0x" + "00" * 31 + "01")),
        (7, ("permit2", "7")),
        ("007", ("permit2", "7")),
    ],
)
def test_how_a_nonce_is_written_does_not_matter(nonce: str | bytes | int, read: tuple[str, str]) -> None:
    assert parse_nonce(nonce) == read


@pytest.mark.parametrize("nonce", ["", "0x", "0x12", "-1", "1.0", "x", "٣", 2**256, -1, "0x" + "zz" * 32])
def test_what_is_no_nonce_is_refused(nonce: str | int) -> None:
    with pytest.raises(ValueError):
        parse_nonce(nonce)
