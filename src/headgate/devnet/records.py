"""What the embedded chain remembers of its blocks: transactions, logs, and the signed transfers among them.

Hashes and addresses are text as JSON-RPC writes them (0x…, addresses checksummed); amounts are in a token's
smallest unit; times are seconds since the epoch, as on chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from headgate.devnet.calls import argument_types, selector, topic
from headgate.devnet.contracts import EXACT_PROXY_ADDRESS, UPTO_PROXY_ADDRESS

Method = Literal["eip3009", "permit2"]

TRANSFER = topic("Transfer(address,address,uint256)")
AUTHORIZATION_USED = topic("AuthorizationUsed(address,bytes32)")
AUTHORIZATION_CANCELED = topic("AuthorizationCanceled(address,bytes32)")

_PERMIT = "((address,uint256),uint256,uint256)"
_PERMIT_2612 = "(uint256,uint256,bytes32,bytes32,uint8)"
_EXACT_WITNESS, _UPTO_WITNESS = "(address,uint256)", "(address,address,uint256)"
# Calls that spend a Permit2 nonce: which proxy, which function, where in its arguments permit and owner are.
_PERMIT2_CALLS = {
    (EXACT_PROXY_ADDRESS, selector(signature)): (signature, permit_at, owner_at)
    for signature, permit_at, owner_at in (
        (f"settle({_PERMIT},address,{_EXACT_WITNESS},bytes)", 0, 1),
        (f"settleWithPermit({_PERMIT_2612},{_PERMIT},address,{_EXACT_WITNESS},bytes)", 1, 2),
    )
} | {
    (UPTO_PROXY_ADDRESS, selector(signature)): (signature, permit_at, owner_at)
    for signature, permit_at, owner_at in (
        (f"settle({_PERMIT},uint256,address,{_UPTO_WITNESS},bytes)", 0, 2),
        (f"settleWithPermit({_PERMIT_2612},{_PERMIT},uint256,address,{_UPTO_WITNESS},bytes)", 1, 3),
    )
}


@dataclass(frozen=True, slots=True)
class Log:
    """One event of one transaction."""

    address: str
    topics: tuple[str, ...]
    data: str
    index: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction that was carried out, with its receipt. Those that revert never get into a block."""

    hash: str
    block_number: int
    block_hash: str
    sender: str
    to: str | None
    input: bytes
    value: int
    nonce: int
    gas_used: int
    created: str | None
    bloom: str
    logs: tuple[Log, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A block: at most one transaction, mined the moment it was sent."""

    number: int
    hash: str
    parent_hash: str
    timestamp_s: int
    gas_used: int
    base_fee: int
    state_root: str
    bloom: str
    transactions: tuple[Transaction, ...]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A token transfer made by spending a signed authorization: the on-chain half of a payment.

    `nonce` is written as the payer signed it: 0x and 64 hex digits for EIP-3009, decimal for Permit2.
    """

    method: Method
    asset: str
    payer: str
    to: str
    value: int
    nonce: str
    transaction: str
    block_number: int
    block_hash: str
    block_time_s: int


def parse_nonce(nonce: str | bytes | int) -> tuple[Method, str]:
    """Whose nonce this is and how it is written: bytes and 0x… are EIP-3009's, numbers are Permit2's.

    Raises ValueError for anything else.
    """
    if isinstance(nonce, bytes):
        nonce = "0x" + nonce.hex()
    if isinstance(nonce, int):
        nonce = str(nonce)
    if nonce[:2].lower() == "0x":
        if len(nonce) == 66:
            return "eip3009", f"0x{int(nonce, 16):064x}"
    elif nonce.isascii() and nonce.isdecimal() and int(nonce) < 2**256:
        return "permit2", str(int(nonce))
    raise ValueError(f"{nonce!r} is not a nonce: use 0x and 64 hex digits (EIP-3009) or a number (Permit2)")


def topic_address(text: str) -> str:
    """The address in a topic."""
    return to_checksum_address("0x" + text[-40:])


def cancellations(transactions: Iterable[Transaction]) -> Iterator[tuple[str, str, str]]:
    """(asset, authorizer, nonce) of every authorization that was called off."""
    for transaction in transactions:
        for log in transaction.logs:
            if log.topics[:1] == (AUTHORIZATION_CANCELED,):
                yield log.address, topic_address(log.topics[1]), log.topics[2]


def transfers(block: Block) -> Iterator[Transfer]:
    """The signed transfers in a block, in the order they happened."""
    for transaction in block.transactions:
        yield from _authorized(block, transaction)
        yield from _permitted(block, transaction)


def _authorized(block: Block, transaction: Transaction) -> Iterator[Transfer]:
    """EIP-3009: the token says which nonce it spent, and the transfer is the next thing it says."""
    for position, log in enumerate(transaction.logs):
        if log.topics[:1] == (AUTHORIZATION_USED,):
            moved = _moved(transaction.logs[position:], log.address, topic_address(log.topics[1]))
            if moved is not None:
                yield _transfer(block, transaction, "eip3009", log.topics[2], moved)


def _permitted(block: Block, transaction: Transaction) -> Iterator[Transfer]:
    """Permit2: no event carries the nonce, so it is read from the call that spent it."""
    call = _PERMIT2_CALLS.get((transaction.to or "", transaction.input[:4]))
    if call is None:
        return
    signature, permit_at, owner_at = call
    try:
        arguments = decode(argument_types(signature), transaction.input[4:])
    except DecodingError:
        return
    (token, _ceiling), nonce, _deadline = arguments[permit_at]
    moved = _moved(transaction.logs, to_checksum_address(token), to_checksum_address(arguments[owner_at]))
    if moved is not None:
        yield _transfer(block, transaction, "permit2", str(nonce), moved)


def _moved(logs: Iterable[Log], asset: str, payer: str) -> Log | None:
    for log in logs:
        if log.address == asset and log.topics[:1] == (TRANSFER,) and topic_address(log.topics[1]) == payer:
            return log
    return None


def _transfer(block: Block, transaction: Transaction, method: Method, nonce: str, moved: Log) -> Transfer:
    return Transfer(
        method=method,
        asset=moved.address,
        payer=topic_address(moved.topics[1]),
        to=topic_address(moved.topics[2]),
        value=int(moved.data, 16),
        nonce=nonce,
        transaction=transaction.hash,
        block_number=block.number,
        block_hash=block.hash,
        block_time_s=block.timestamp_s,
    )
