"""Play money is in the same hands on every start."""

from __future__ import annotations

from eth_account import Account

from headgate.devnet import DevChain
from headgate.devnet.wallets import payers


def test_the_wallets_are_always_these() -> None:
    first, second = payers(2)
    assert first.address == "0x48F4f4AF800267bc1E739D4F9AAC3DF0B9ba1818"
    assert first.private_key == "0xfddc3c208ae6bb2b6b8dd8662dbde83fe960a8b9b2d5fe39ca88c27d38d310da"
    assert second != first
    assert payers(3)[:2] == (first, second)


def test_two_chains_fund_the_same_wallets() -> None:
    one, other = DevChain(), DevChain()
    assert one.wallets == other.wallets
    assert one.facilitator == other.facilitator
    assert len({wallet.address for wallet in one.wallets}) == 10
    for wallet in one.wallets:
        assert Account.from_key(wallet.private_key).address == wallet.address
        assert one.balance_of(wallet.address) == 1_000_000_000_000
