"""DevChain: a chain of play money in this process's memory, and every question one may ask it.

It knows wallets, contracts, blocks and time. A transaction is mined into its own block the moment it is sent;
one that would revert is refused instead, as a node refuses it when it estimates the gas. Blocks follow the
wall clock: an empty one is mined when somebody asks for the head and the last is older than BLOCK_INTERVAL_S,
so that an idle chain does not stop the time of those who wait for `validBefore` to pass.

Nothing is kept across restarts, and two processes never share a chain. Every method may be called from any
thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from eth.abc import BlockHeaderAPI
from eth_abi.abi import decode
from eth_utils.address import to_checksum_address

from headgate.devnet import contracts
from headgate.devnet.calls import encode_call
from headgate.devnet.contracts import USDC_ADDRESS
from headgate.devnet.evm import WEI, Allocation, Evm, Executed
from headgate.devnet.records import (
    Block,
    Log,
    Method,
    Transaction,
    Transfer,
    cancellations,
    parse_nonce,
    transfers,
)
from headgate.devnet.wallets import Wallet, derive, payers

CHAIN_ID = 84532  # Base Sepolia's: official clients know its USDC and pay on it without being told to
NETWORK = f"eip155:{CHAIN_ID}"
BLOCK_INTERVAL_S = 2
WALLETS = 10
USDC_EACH_MICROS = 1_000_000 * 1_000_000
TRANSACTION_GAS = 2_000_000
NOBODY = "0x" + "00" * 20

NonceState = Literal["unused", "used", "canceled"]


@dataclass(frozen=True, slots=True)
class Authorization:
    """What became of a signed authorization. `transfer` is there exactly when it is `used` by a transfer."""

    method: Method
    state: NonceState
    transfer: Transfer | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A block to come back to."""

    number: int
    hash: str


class DevChain:
    """An EVM chain with a test USDC, Permit2 and the x402 proxies at their public addresses.

    `now_us` is the clock (microseconds since the epoch); the default is the system's. `usdc_name` and
    `usdc_version` are the token's EIP-712 domain. The funded wallets have approved Permit2, so that `upto`
    works for clients without an RPC; fund() pays accounts that have not.
    """

    chain_id = CHAIN_ID
    network = NETWORK
    usdc = USDC_ADDRESS

    def __init__(
        self,
        *,
        now_us: Callable[[], int] | None = None,
        wallets: int = WALLETS,
        usdc_each_micros: int = USDC_EACH_MICROS,
        usdc_name: str = contracts.USDC_NAME,
        usdc_version: str = contracts.USDC_VERSION,
    ) -> None:
        self.wallets: tuple[Wallet, ...] = payers(wallets)
        self.facilitator: Wallet = derive("facilitator")
        self._faucet: Wallet = derive("faucet")
        self._now_us = now_us or (lambda: time.time_ns() // 1_000)
        self._lock = threading.RLock()
        balances = {wallet.address: usdc_each_micros for wallet in self.wallets}
        balances[self._faucet.address] = usdc_each_micros * 1_000
        token = contracts.token_storage(
            name=usdc_name,
            version=usdc_version,
            balances=balances,
            approvals=[(wallet.address, contracts.PERMIT2_ADDRESS) for wallet in self.wallets],
        )
        self._evm = Evm(chain_id=CHAIN_ID, genesis=self._genesis(token), timestamp_s=self._now_s())
        self._headers: list[BlockHeaderAPI] = []
        self._blocks: list[Block] = []
        self._transactions: dict[str, Transaction] = {}
        self._transfers: dict[tuple[str, str, str], Transfer] = {}
        self._canceled: set[tuple[str, str, str]] = set()
        self._add(Executed(self._evm.genesis, None, None, None))

    def _genesis(self, token: Mapping[int, int]) -> dict[str, Allocation]:
        code = {
            contracts.PERMIT2_ADDRESS: "Permit2",
            contracts.EXACT_PROXY_ADDRESS: "ExactProxy",
            contracts.UPTO_PROXY_ADDRESS: "UptoProxy",
            contracts.MULTICALL3_ADDRESS: "Multicall3",
        }
        genesis = {address: Allocation(code=contracts.load(name).runtime) for address, name in code.items()}
        genesis[USDC_ADDRESS] = Allocation(code=contracts.load("TestUSDC").runtime, storage=token)
        for wallet in (*self.wallets, self.facilitator, self._faucet):
            genesis[wallet.address] = Allocation(wei=1_000_000 * WEI)
        return genesis

    # --- time and blocks --------------------------------------------------------------------------

    def block_time(self) -> int:
        """The newest block's time, in seconds since the epoch."""
        return self.head().timestamp_s

    def block_number(self) -> int:
        """The newest block's number."""
        return self.head().number

    def head(self) -> Block:
        """The newest block; mined now where the last one is older than BLOCK_INTERVAL_S."""
        with self._lock:
            if self._now_s() >= self._blocks[-1].timestamp_s + BLOCK_INTERVAL_S:
                self.mine()
            return self._blocks[-1]

    def mine(self) -> Block:
        """Mine an empty block."""
        with self._lock:
            return self._add(self._evm.next_block(self._headers[-1], timestamp_s=self._next_time_s()))

    def block(self, which: int | str) -> Block | None:
        """A block by number or hash; None where there is none."""
        with self._lock:
            if isinstance(which, int):
                return self._blocks[which] if 0 <= which < len(self._blocks) else None
            return next((block for block in reversed(self._blocks) if block.hash == which.lower()), None)

    def snapshot(self) -> Snapshot:
        """The newest block, to revert() to."""
        with self._lock:
            return Snapshot(self._blocks[-1].number, self._blocks[-1].hash)

    def revert(self, snapshot: Snapshot) -> None:
        """Forget every block after the snapshot, with all they moved: a reorganisation.

        Raises ValueError where the snapshot's own block is no longer part of the chain.
        """
        with self._lock:
            block = self.block(snapshot.number)
            if block is None or block.hash != snapshot.hash:
                raise ValueError(
                    f"block {snapshot.number} ({snapshot.hash}) is not part of this chain any more"
                )
            kept = self._blocks[: snapshot.number + 1]
            del self._headers[snapshot.number + 1 :]
            self._blocks, self._transactions, self._transfers, self._canceled = [], {}, {}, set()
            for block in kept:
                self._remember(block)

    # --- calls and transactions -------------------------------------------------------------------

    def call(
        self, to: str, data: bytes, *, sender: str = NOBODY, value: int = 0, at: int | None = None
    ) -> bytes:
        """What a contract answers, on top of the newest block or of block `at`. Raises ContractReverted."""
        with self._lock:
            parent = self._headers[-1 if at is None else at]
            timestamp_s = self._next_time_s() if at is None else parent.timestamp
            return self._evm.call(
                parent, to=to, data=data, sender=sender, value=value, timestamp_s=timestamp_s
            )

    def send(
        self,
        wallet: Wallet,
        to: str | None,
        data: bytes,
        *,
        value: int = 0,
        gas: int = TRANSACTION_GAS,
    ) -> Transaction:
        """Carry out a transaction in a block of its own; `to` None deploys `data`.

        Raises ContractReverted, and then nothing happened.
        """
        with self._lock:
            parent = self._headers[-1]
            transaction = self._evm.signed(
                parent, private_key=wallet.private_key, to=to, data=data, value=value, gas=gas
            )
            block = self._add(
                self._evm.next_block(parent, timestamp_s=self._next_time_s(), transaction=transaction)
            )
            return block.transactions[0]

    def transaction(self, tx_hash: str) -> Transaction | None:
        """A transaction with its receipt, by hash; None where this chain has none."""
        with self._lock:
            return self._transactions.get(tx_hash.lower())

    def logs(
        self,
        *,
        first: int = 0,
        last: int | None = None,
        address: frozenset[str] = frozenset(),
        topics: tuple[frozenset[str], ...] = (),
    ) -> list[tuple[Transaction, Log]]:
        """Events of blocks `first` to `last` (both included), matched like eth_getLogs does.

        An empty set matches anything.
        """
        with self._lock:
            blocks = self._blocks[first : None if last is None else last + 1]
        return [
            (transaction, log)
            for block in blocks
            for transaction in block.transactions
            for log in transaction.logs
            if (not address or log.address in address) and _topics_match(log.topics, topics)
        ]

    # --- accounts ---------------------------------------------------------------------------------

    def code(self, address: str, *, at: int | None = None) -> bytes:
        """The code at an address; empty where there is no contract."""
        with self._lock:
            return self._evm.code(self._headers[-1 if at is None else at], address)

    def wei(self, address: str, *, at: int | None = None) -> int:
        """The ether of an address, in wei."""
        with self._lock:
            return self._evm.wei(self._headers[-1 if at is None else at], address)

    def account_nonce(self, address: str, *, at: int | None = None) -> int:
        """How many transactions an account has sent."""
        with self._lock:
            return self._evm.account_nonce(self._headers[-1 if at is None else at], address)

    def balance_of(self, owner: str, asset: str = USDC_ADDRESS) -> int:
        """The tokens of `owner`, in the asset's smallest unit."""
        return int(decode(["uint256"], self.call(asset, encode_call("balanceOf(address)", owner)))[0])

    def fund(self, address: str, amount_micros: int) -> Transaction:
        """Give an account test USDC."""
        data = encode_call("transfer(address,uint256)", address, amount_micros)
        return self.send(self._faucet, USDC_ADDRESS, data)

    # --- signed authorizations --------------------------------------------------------------------

    def authorization_state(self, asset: str, payer: str, nonce: str | bytes) -> bool:
        """Whether the token calls this EIP-3009 nonce spent: used or canceled."""
        method, text = parse_nonce(nonce)
        if method != "eip3009":
            raise ValueError(f"{nonce!r} is a Permit2 nonce: ask permit2_nonce_used()")
        call = encode_call("authorizationState(address,bytes32)", payer, bytes.fromhex(text[2:]))
        return bool(decode(["bool"], self.call(asset, call))[0])

    def nonce_bitmap(self, owner: str, word: int) -> int:
        """Permit2's 256 nonces of `owner` from 256 × word on; a set bit is a spent nonce."""
        call = encode_call("nonceBitmap(address,uint256)", owner, word)
        return int(decode(["uint256"], self.call(contracts.PERMIT2_ADDRESS, call))[0])

    def permit2_nonce_used(self, owner: str, nonce: str | int) -> bool:
        """Whether a Permit2 nonce is spent or invalidated."""
        method, text = parse_nonce(nonce)
        if method != "permit2":
            raise ValueError(f"{nonce!r} is an EIP-3009 nonce: ask authorization_state()")
        return bool(self.nonce_bitmap(owner, int(text) >> 8) >> (int(text) & 255) & 1)

    def find_transfer(self, asset: str, payer: str, nonce: str | bytes | int) -> Transfer | None:
        """The transfer that spent this nonce, by whoever sent it; None where none did (yet).

        An EIP-3009 nonce is bytes or 0x…, a Permit2 nonce a number or its decimal text.
        """
        key = (to_checksum_address(asset), to_checksum_address(payer), parse_nonce(nonce)[1])
        with self._lock:
            return self._transfers.get(key)

    def authorization(self, asset: str, payer: str, nonce: str | bytes | int) -> Authorization:
        """What became of a signed authorization: unused, used (with its transfer) or canceled."""
        method, text = parse_nonce(nonce)
        with self._lock:
            transfer = self.find_transfer(asset, payer, text)
            if transfer is not None:
                return Authorization(method, "used", transfer)
            if method == "permit2":
                canceled = self.permit2_nonce_used(payer, text)
            else:
                canceled = (to_checksum_address(asset), to_checksum_address(payer), text) in self._canceled
            return Authorization(method, "canceled" if canceled else "unused", None)

    def transfers(self) -> list[Transfer]:
        """Every signed transfer so far, oldest first."""
        with self._lock:
            return list(self._transfers.values())

    # --- the record -------------------------------------------------------------------------------

    def _now_s(self) -> int:
        return self._now_us() // 1_000_000

    def _next_time_s(self) -> int:
        # A clock that steps back must not: no block is older than its parent.
        return max(self._now_s(), self._blocks[-1].timestamp_s)

    def _add(self, executed: Executed) -> Block:
        self._headers.append(executed.block.header)
        block = _block(executed)
        self._remember(block)
        return block

    def _remember(self, block: Block) -> None:
        self._blocks.append(block)
        for transaction in block.transactions:
            self._transactions[transaction.hash] = transaction
        for transfer in transfers(block):
            self._transfers[transfer.asset, transfer.payer, transfer.nonce] = transfer
        self._canceled.update(cancellations(block.transactions))


def _topics_match(topics: tuple[str, ...], wanted: tuple[frozenset[str], ...]) -> bool:
    return len(topics) >= len(wanted) and all(
        not choices or topic in choices for topic, choices in zip(topics, wanted, strict=False)
    )


def _block(executed: Executed) -> Block:
    header = executed.block.header
    return Block(
        number=header.block_number,
        hash=_hex(header.hash),
        parent_hash=_hex(header.parent_hash),
        timestamp_s=header.timestamp,
        gas_used=header.gas_used,
        base_fee=header.base_fee_per_gas or 0,
        state_root=_hex(header.state_root),
        bloom=f"0x{header.bloom:0512x}",
        transactions=tuple(_transaction(executed)),
    )


def _transaction(executed: Executed) -> list[Transaction]:
    signed, receipt = executed.transaction, executed.receipt
    if signed is None or receipt is None:
        return []
    logs = tuple(
        Log(
            address=to_checksum_address(log.address),
            topics=tuple(f"0x{topic:064x}" for topic in log.topics),
            data=_hex(log.data),
            index=index,
        )
        for index, log in enumerate(receipt.logs)
    )
    return [
        Transaction(
            hash=_hex(signed.hash),
            block_number=executed.block.number,
            block_hash=_hex(executed.block.hash),
            sender=to_checksum_address(signed.sender),
            to=to_checksum_address(signed.to) if signed.to else None,
            input=signed.data,
            value=signed.value,
            nonce=signed.nonce,
            gas_used=receipt.gas_used,
            created=to_checksum_address(executed.created) if executed.created else None,
            bloom=f"0x{receipt.bloom:0512x}",
            logs=logs,
        )
    ]


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()
