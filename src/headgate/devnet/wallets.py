"""Who holds play money: accounts whose keys anybody can derive, the same on every start.

The keys are hashes of a published phrase. They are for this chain only; whatever is sent to these addresses
on a public chain belongs to whoever picks it up first.
"""

from __future__ import annotations

from dataclasses import dataclass

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

PHRASE = "headgate play money"


@dataclass(frozen=True, slots=True)
class Wallet:
    """An account: `address` checksummed, `private_key` as 0x and 64 hex digits."""

    address: str
    private_key: str

    @property
    def account(self) -> LocalAccount:
        """The account as `eth_account` and the official x402 clients take it."""
        account: LocalAccount = Account.from_key(self.private_key)
        return account


def derive(name: str) -> Wallet:
    """The wallet of that name; the same name gives the same wallet, always."""
    key = "0x" + keccak(text=f"{PHRASE}: {name}").hex()
    return Wallet(address=Account.from_key(key).address, private_key=key)


def payers(count: int) -> tuple[Wallet, ...]:
    """The first `count` funded wallets, in an order that never changes."""
    return tuple(derive(f"payer {number}") for number in range(count))
