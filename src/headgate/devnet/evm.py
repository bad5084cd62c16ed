"""py-evm, held to the few things the embedded chain asks of it: a genesis block, a call, the next block.

Nothing here knows about money or x402, and nothing keeps a notion of "the" chain: every method is told which
block it builds on, which is what makes going back to an earlier block (a reorganisation) trivial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eth.abc import BlockAPI, BlockHeaderAPI, ComputationAPI, ReceiptAPI, SignedTransactionAPI
from eth.chains.base import MiningChain
from eth.constants import POST_MERGE_DIFFICULTY, ZERO_ADDRESS
from eth.db.atomic import AtomicDB
from eth.exceptions import Revert
from eth.typing import AccountDetails, HeaderParams
from eth.vm.forks.cancun import CancunVM
from eth_keys.datatypes import PrivateKey
from eth_typing import Address, BlockNumber
from eth_utils.address import to_canonical_address

from headgate.devnet.calls import ContractReverted

BLOCK_GAS = 30_000_000
CALL_GAS = 10_000_000
GAS_PRICE = 1_000_000_000
WEI = 10**18


class InstantVM(CancunVM):
    """Cancun rules, except that two blocks may carry the same second.

    Every payment gets a block at once. Pushing each a second past its parent, as public chains must, would
    let a burst of payments run ahead of the wall clock and expire authorizations that are still good.
    """

    @classmethod
    def validate_header(cls, header: BlockHeaderAPI, parent_header: BlockHeaderAPI) -> None:
        if header.timestamp < parent_header.timestamp:
            raise ValueError(f"block time ran backwards: {header.timestamp} after {parent_header.timestamp}")


@dataclass(frozen=True, slots=True)
class Allocation:
    """What genesis gives one address: code, storage, and ether in wei."""

    code: bytes = b""
    storage: Mapping[int, int] = field(default_factory=dict)
    wei: int = 0


@dataclass(frozen=True, slots=True)
class Executed:
    """A block as py-evm made it, with the one transaction it carries, if any."""

    block: BlockAPI
    transaction: SignedTransactionAPI | None
    receipt: ReceiptAPI | None
    created: bytes | None


class Evm:
    """State and execution. Not thread-safe: DevChain holds the lock."""

    def __init__(self, *, chain_id: int, genesis: Mapping[str, Allocation], timestamp_s: int) -> None:
        rules = MiningChain.configure(
            __name__="EmbeddedChain", vm_configuration=((0, InstantVM),), chain_id=chain_id
        )
        state: dict[Address, AccountDetails] = {
            to_canonical_address(address): {
                "balance": entry.wei,
                "nonce": 0,
                "code": entry.code,
                "storage": dict(entry.storage),
            }
            for address, entry in genesis.items()
        }
        parameters: dict[str, HeaderParams] = {
            "difficulty": POST_MERGE_DIFFICULTY,
            "gas_limit": BLOCK_GAS,
            "timestamp": timestamp_s,
        }
        self._chain_id = chain_id
        self._chain: Any = rules.from_genesis(AtomicDB(), parameters, state)
        self.genesis: BlockAPI = self._chain.get_canonical_block_by_number(BlockNumber(0))

    def call(
        self, parent: BlockHeaderAPI, *, to: str, data: bytes, sender: str, value: int, timestamp_s: int
    ) -> bytes:
        """What a call would answer in the block after `parent`; nothing it does is kept.

        Raises ContractReverted.
        """
        vm = self._vm(parent, timestamp_s)
        target, caller = to_canonical_address(to), to_canonical_address(sender)
        computation = vm.execute_bytecode(
            origin=caller,
            gas_price=0,
            gas=CALL_GAS,
            to=target,
            sender=caller,
            value=value,
            data=data,
            code=vm.state.get_code(target),
        )
        _raise_if_failed(computation)
        return bytes(computation.output)

    def next_block(
        self, parent: BlockHeaderAPI, *, timestamp_s: int, transaction: SignedTransactionAPI | None = None
    ) -> Executed:
        """The block after `parent`. A transaction that reverts makes no block: raises ContractReverted."""
        vm = self._vm(parent, timestamp_s)
        transactions = [] if transaction is None else [transaction]
        header, receipts, computations = vm.apply_all_transactions(transactions, vm.get_header())
        for computation in computations:
            _raise_if_failed(computation)
        filled = vm.set_block_transactions_and_withdrawals(
            vm.get_block(), header, transactions, receipts, withdrawals=[]
        )
        block = vm.mine_block(filled).block
        self._chain.persist_block(block, perform_validation=False)
        created = next((bytes(c.msg.storage_address) for c in computations if c.msg.is_create), None)
        return Executed(block, transaction, receipts[0] if receipts else None, created)

    def signed(
        self, parent: BlockHeaderAPI, *, private_key: str, to: str | None, data: bytes, value: int, gas: int
    ) -> SignedTransactionAPI:
        """A transaction by the owner of `private_key`, numbered after what `parent` has of that account."""
        key = PrivateKey(bytes.fromhex(private_key.removeprefix("0x")))
        vm = self._vm(parent, parent.timestamp)
        unsigned = vm.create_unsigned_transaction(
            nonce=vm.state.get_nonce(Address(key.public_key.to_canonical_address())),
            gas_price=GAS_PRICE,
            gas=gas,
            to=Address(b"") if to is None else to_canonical_address(to),
            value=value,
            data=data,
        )
        signed: SignedTransactionAPI = unsigned.as_signed_transaction(key, chain_id=self._chain_id)
        return signed

    def code(self, header: BlockHeaderAPI, address: str) -> bytes:
        """The code at an address, empty for an account that is a key."""
        return bytes(self._vm(header, header.timestamp).state.get_code(to_canonical_address(address)))

    def wei(self, header: BlockHeaderAPI, address: str) -> int:
        """The ether of an address, in wei."""
        return int(self._vm(header, header.timestamp).state.get_balance(to_canonical_address(address)))

    def account_nonce(self, header: BlockHeaderAPI, address: str) -> int:
        """How many transactions an account has sent."""
        return int(self._vm(header, header.timestamp).state.get_nonce(to_canonical_address(address)))

    def _vm(self, parent: BlockHeaderAPI, timestamp_s: int) -> Any:
        header = self._chain.create_header_from_parent(parent).copy(
            timestamp=timestamp_s, coinbase=ZERO_ADDRESS, gas_limit=BLOCK_GAS
        )
        return self._chain.get_vm(header)


def _raise_if_failed(computation: ComputationAPI) -> None:
    if not computation.is_error:
        return
    if isinstance(computation.error, Revert):
        raise ContractReverted(bytes(computation.output))
    raise ContractReverted(b"")
