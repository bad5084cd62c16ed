"""Asking a chain what became of a payment, and whether a token is what the configuration says.

The nonce tells whether an authorization was used (EIP-3009 `authorizationState`, Permit2 `nonceBitmap`); logs
tell by whom and for whom. Who submitted the transaction does not matter: a transfer to the seller under the
payment's nonce counts (failure case 10). Only positive evidence is reported: a used nonce whose transaction
cannot be found is a ChainError, never "not paid". Addresses and hashes are lower case here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from headgate.model.assets import Asset
from headgate.model.errors import ChainError
from headgate.model.offer import SignedPayment, Transfer
from headgate.x402.check import EXACT_PROXY, PERMIT2, UPTO_PROXY, chain_id, keccak256, token_domain
from headgate.x402.rpc import Node

Json = dict[str, Any]


def _selector(signature: str) -> str:
    return "0x" + keccak256(signature.encode())[:4].hex()


def _topic(signature: str) -> str:
    return "0x" + keccak256(signature.encode()).hex()


AUTHORIZATION_STATE = _selector("authorizationState(address,bytes32)")
NONCE_BITMAP = _selector("nonceBitmap(address,uint256)")
DOMAIN_SEPARATOR = _selector("DOMAIN_SEPARATOR()")

TRANSFER = _topic("Transfer(address,address,uint256)")
AUTHORIZATION_USED = _topic("AuthorizationUsed(address,bytes32)")
AUTHORIZATION_CANCELED = _topic("AuthorizationCanceled(address,bytes32)")
NONCES_INVALIDATED = _topic("UnorderedNonceInvalidation(address,uint256,uint256)")

LOG_SPAN = 500
"""Blocks asked for at once; public nodes refuse much more."""
BLOCKS_PER_STEP = 100
OURS_SLACK_S = 900
"""By how much the clock that a payment was claimed by may have been ahead, and be right by now."""
UNFINAL_BLOCKS = 128
"""How far behind the newest block is taken as final where a node does not know its chain's finality."""

_PERMIT = "((address,uint256),uint256,uint256)"
_PERMIT_2612 = "(uint256,uint256,bytes32,bytes32,uint8)"
_UPTO_WITNESS, _EXACT_WITNESS = "(address,address,uint256)", "(address,uint256)"
# Where what was signed stands in a proxy's call, in words after the selector: the first word of the permit
# (token, amount, nonce, deadline), the owner, and the first word of the witness.
_SIGNED_AT: dict[tuple[str, str], tuple[int, int, int]] = {
    (UPTO_PROXY.lower(), _selector(f"settle({_PERMIT},uint256,address,{_UPTO_WITNESS},bytes)")): (0, 5, 6),
    (
        UPTO_PROXY.lower(),
        _selector(f"settleWithPermit({_PERMIT_2612},{_PERMIT},uint256,address,{_UPTO_WITNESS},bytes)"),
    ): (5, 10, 11),
    (EXACT_PROXY.lower(), _selector(f"settle({_PERMIT},address,{_EXACT_WITNESS},bytes)")): (0, 4, 5),
    (
        EXACT_PROXY.lower(),
        _selector(f"settleWithPermit({_PERMIT_2612},{_PERMIT},address,{_EXACT_WITNESS},bytes)"),
    ): (5, 9, 10),
}


@dataclass(frozen=True, slots=True)
class Block:
    """A block: its number, hash and time in epoch seconds."""

    number: int
    hash: str
    time_s: int


@dataclass(frozen=True, slots=True)
class Head:
    """The newest block, and the newest that no reorganisation takes away."""

    latest: Block
    final: Block


@dataclass(frozen=True, slots=True)
class Paid:
    """The seller was paid: `value_micros` under the payment's nonce.

    `log_index` tells transfers of one transaction apart; `final` says that no reorganisation takes it away.
    """

    transaction: str
    block_number: int
    log_index: int
    value_micros: int
    final: bool


@dataclass(frozen=True, slots=True)
class Unused:
    """The nonce is unused as of `head.latest`."""

    head: Head

    def never_after(self, valid_before_s: int) -> bool:
        """Whether the payment can no longer be settled: its time is over on the final chain (contract §4)."""
        return self.head.final.time_s > valid_before_s


@dataclass(frozen=True, slots=True)
class Canceled:
    """The payer invalidated the nonce; nothing was transferred under it."""

    transaction: str
    final: bool


@dataclass(frozen=True, slots=True)
class UsedElsewhere:
    """The nonce is used for something else: it paid somebody else, not as signed, or before it was shown."""

    transaction: str
    to: str
    value_micros: int
    final: bool


Fate = Paid | Unused | Canceled | UsedElsewhere


def transfer_key(transaction: bytes, payer: bytes, micros: int) -> bytes:
    """What a transfer to the seller is told by: its transaction (32 bytes), who paid (20 bytes), how much."""
    return transaction + payer + micros.to_bytes(32, "big")


class Chain:
    """One chain, asked through one node. Methods raise ChainError where the node's answer does not tell."""

    def __init__(self, node: Node, *, log_span: int = LOG_SPAN, unfinal_blocks: int = UNFINAL_BLOCKS) -> None:
        self._node = node
        self._log_span = log_span
        self._unfinal_blocks = unfinal_blocks

    async def close(self) -> None:
        """Let go of the node."""
        await self._node.close()

    async def head(self) -> Head:
        """Where the chain stands."""
        latest = await self.block("latest")
        try:
            final = await self.block("finalized")
        except ChainError:
            final = await self.block(max(0, latest.number - self._unfinal_blocks))
        return Head(
            latest, final if final.number <= latest.number else latest
        )  # nodes behind one name differ

    async def block(self, which: int | str) -> Block:
        """A block by its number or name."""
        name = which if isinstance(which, str) else hex(which)
        found = await self._node.call("eth_getBlockByNumber", name, False)
        try:
            block = Block(int(found["number"], 16), found["hash"].lower(), int(found["timestamp"], 16))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ChainError(f"the node has no block {name}, or does not say when it was") from error
        if isinstance(which, int) and which != block.number:
            raise ChainError(f"the node was asked for block {which} and answered block {block.number}")
        return block

    async def misfits(self, asset: Asset) -> str | None:
        """What is wrong with the configured token here, or None: another chain, no token, another domain."""
        told = await self._node.call("eth_chainId")
        if _number(told) != chain_id(asset.network):
            return f"the node is on chain {_number(told)}, not on {asset.network}"
        answer = await self._read(asset.address, DOMAIN_SEPARATOR, "latest")
        if len(answer) != 32:
            return f"{asset.address} on {asset.network} is no token with EIP-712 signatures"
        if answer != token_domain(asset):
            return (
                f"{asset.address} on {asset.network} does not sign as name {asset.name!r}, version "
                f"{asset.version!r}: every payment would be invalid"
            )
        return None

    async def is_used(self, payment: SignedPayment, at: int | str = "latest") -> bool:
        """Whether the payment's nonce is used or invalidated, as of a block."""
        if payment.transfer is Transfer.PERMIT2:
            word, bit = divmod(int.from_bytes(payment.nonce, "big"), 256)
            data = NONCE_BITMAP + _padded(payment.payer) + f"{word:064x}"
            bitmap = await self._read(PERMIT2, data, at)
            return bool(_integer(bitmap) >> bit & 1)
        data = AUTHORIZATION_STATE + _padded(payment.payer) + payment.nonce.hex()
        return bool(_integer(await self._read(payment.asset_text, data, at)))

    async def fate(
        self, payment: SignedPayment, since_s: int, *, now_s: int = 0, ours: str | None = None
    ) -> Fate:
        """What became of a payment; only a transfer made at or after `since_s` (epoch seconds) pays it.

        A signed authorization is public once it is on chain: one that was used before it was shown here has
        paid for something else. `since_s` and `now_s` are by one clock: by how much it is ahead of the
        chain's, the chain is looked at further back. Of transaction `ours`, which a facilitator named when
        it was asked to settle, it is believed that clocks were set right since, within OURS_SLACK_S.
        """
        head = await self.head()
        since_s -= max(0, now_s - head.latest.time_s)
        earliest_s = since_s if ours is None else since_s - OURS_SLACK_S
        if not await self.is_used(payment, head.latest.number):
            return Unused(head)
        first = await self.block_before(earliest_s, head.latest)
        find = self._permit2_fate if payment.transfer is Transfer.PERMIT2 else self._eip3009_fate
        try:
            found = await find(payment, head, first)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ChainError(f"the node's logs cannot be read ({type(error).__name__}: {error})") from error
        if found is None:
            raise ChainError(
                f"nonce 0x{payment.nonce.hex()} of {payment.payer_text} is used on {payment.network}, but by "
                f"no transaction found in blocks {first} to {head.latest.number}; look further back"
            )
        if not isinstance(found, Paid):
            return found
        if found.transaction != ours:
            earliest_s = since_s
        if (await self.block(found.block_number)).time_s < earliest_s:
            to = "0x" + payment.pay_to.hex()
            return UsedElsewhere(found.transaction, to, found.value_micros, found.final)
        return found

    async def transfers_to(
        self, asset: Asset, recipients: Sequence[bytes], first: int, last: int
    ) -> AsyncIterator[bytes]:
        """Transfers of the token to one of the recipients (20 bytes each), block by block, as `transfer_key`.

        Raises:
            ChainError: the node does not answer, or not in logs.
        """
        topics = [TRANSFER, None, ["0x" + _padded(each) for each in recipients]]
        async for log in self._logs(asset.address, topics, first, last):
            try:
                transaction, sender = bytes.fromhex(log["transactionHash"][2:]), log["topics"][1]
                key = transfer_key(transaction, bytes.fromhex(sender[26:]), int(log["data"], 16))
            except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
                raise ChainError(f"the node's logs cannot be read ({type(error).__name__})") from error
            yield key

    async def _eip3009_fate(self, payment: SignedPayment, head: Head, first: int) -> Fate | None:
        topics = [
            [AUTHORIZATION_USED, AUTHORIZATION_CANCELED],
            "0x" + _padded(payment.payer),
            "0x" + payment.nonce.hex(),
        ]
        async for found in self._logs(payment.asset_text, topics, first, head.latest.number):
            transaction, final = (
                found["transactionHash"].lower(),
                _number(found["blockNumber"]) <= head.final.number,
            )
            if found["topics"][0].lower() == AUTHORIZATION_CANCELED:
                return Canceled(transaction, final)
            return await self._transfer_beside(payment, found, transaction, final)
        return None

    async def _transfer_beside(
        self, payment: SignedPayment, used: Json, transaction: str, final: bool
    ) -> Paid | UsedElsewhere:
        """The transfer logged with an authorization's use: the payer's next, else its last before."""
        receipt = await self._node.call("eth_getTransactionReceipt", transaction)
        if not isinstance(receipt, dict):
            raise ChainError(f"the node knows a log of transaction {transaction} but not its receipt")
        index = _number(used["logIndex"])
        transfers = [log for log in receipt["logs"] if _is_transfer(log, payment.asset_text, payment.payer)]
        if not transfers:
            raise ChainError(f"transaction {transaction} used the authorization but logged no transfer")
        after = [log for log in transfers if _number(log["logIndex"]) > index]
        return _paid_or_elsewhere(payment, after[0] if after else transfers[-1], final)

    async def _permit2_fate(self, payment: SignedPayment, head: Head, first: int) -> Fate | None:
        """Permit2 logs no nonce: transfers of the payer are looked through for the call that names it.

        Only a call of the official proxies with exactly what was signed is a payment: the payer chooses the
        nonce, and can sign other permits with it.
        """
        sender = "0x" + _padded(payment.payer)
        async for found in self._logs(payment.asset_text, [TRANSFER, sender], first, head.latest.number):
            call = await self._node.call("eth_getTransactionByHash", found["transactionHash"])
            if not isinstance(call, dict):
                raise ChainError(
                    f"the node knows a log of {found['transactionHash']} but not the transaction"
                )
            final = _number(found["blockNumber"]) <= head.final.number
            match _spends(call, payment):
                case Spent.AS_SIGNED:
                    return _paid_or_elsewhere(payment, found, final)
                case Spent.OTHERWISE:
                    transaction, to = found["transactionHash"].lower(), "0x" + found["topics"][2][26:].lower()
                    return UsedElsewhere(transaction, to, _integer(bytes.fromhex(found["data"][2:])), final)
        word, bit = divmod(int.from_bytes(payment.nonce, "big"), 256)
        async for found in self._logs(PERMIT2, [NONCES_INVALIDATED, sender], first, head.latest.number):
            data = bytes.fromhex(found["data"][2:])
            if _integer(data[:32]) == word and _integer(data[32:64]) >> bit & 1:
                final = _number(found["blockNumber"]) <= head.final.number
                return Canceled(found["transactionHash"].lower(), final)
        return None

    async def _logs(self, address: str, topics: list[Any], first: int, last: int) -> AsyncIterator[Json]:
        while first <= last:
            until = min(last, first + self._log_span - 1)
            wanted = {
                "address": address.lower(),
                "topics": topics,
                "fromBlock": hex(first),
                "toBlock": hex(until),
            }
            found = await self._node.call("eth_getLogs", wanted)
            if not isinstance(found, list):
                raise ChainError("the node answered a question for logs with something else")
            for log in found:
                if not isinstance(log, dict):
                    raise ChainError("the node answered a question for logs with something else")
                if not log.get("removed"):
                    yield log
            first = until + 1

    async def block_before(self, time_s: int, latest: Block) -> int:
        """The number of a block made before `time_s`, close to it: long steps back, then halves."""
        low, high, step = latest, latest, BLOCKS_PER_STEP
        while low.time_s >= time_s and low.number > 0:
            high, low, step = low, await self.block(max(0, latest.number - step)), step * 4
        while high.number - low.number > BLOCKS_PER_STEP:
            middle = await self.block((low.number + high.number) // 2)
            low, high = (low, middle) if middle.time_s >= time_s else (middle, high)
        return low.number

    async def _read(self, to: str, data: str, at: int | str) -> bytes:
        block = at if isinstance(at, str) else hex(at)
        answer = await self._node.call("eth_call", {"to": to.lower(), "data": data}, block)
        try:
            return bytes.fromhex(answer.removeprefix("0x"))
        except (AttributeError, ValueError) as error:
            raise ChainError(f"the node answered a call of {to} with no bytes") from error


class Spent(Enum):
    """What a transaction's call has to do with a payment's Permit2 nonce."""

    AS_SIGNED = "as signed"  # it settles what the payer signed for the seller
    OTHERWISE = "otherwise"  # it settles another permit that the payer signed with the same nonce
    NOT = "not"  # nothing says that it has to do with it


def _spends(call: Json, payment: SignedPayment) -> Spent:
    data, to = bytes.fromhex(call["input"][2:]), (call.get("to") or "").lower()
    places = _SIGNED_AT.get((to, "0x" + data[:4].hex()))
    if places is None:
        return Spent.NOT

    def words(first: int, count: int) -> list[bytes]:
        return [data[4 + 32 * word :][:32] for word in range(first, first + count)]

    permit, owner, witness = places
    token, amount, nonce, deadline = words(permit, 4)
    if nonce != payment.nonce or words(owner, 1) != [bytes(12) + payment.payer]:
        return Spent.NOT
    witnessed = [bytes(12) + payment.pay_to]
    if payment.witness_facilitator is not None:
        witnessed.append(bytes(12) + payment.witness_facilitator)
    witnessed.append(payment.valid_after_s.to_bytes(32, "big"))
    signed = [
        bytes(12) + (payment.token or b""),
        payment.amount.to_bytes(32, "big"),
        payment.valid_before_s.to_bytes(32, "big"),
    ]
    as_signed = [token, amount, deadline] == signed and words(witness, len(witnessed)) == witnessed
    return Spent.AS_SIGNED if as_signed else Spent.OTHERWISE


def _is_transfer(log: Json, asset: str, sender: bytes) -> bool:
    topics = log["topics"]
    return (
        log["address"].lower() == asset
        and len(topics) == 3
        and topics[0].lower() == TRANSFER
        and topics[1].lower() == "0x" + _padded(sender)
    )


def _paid_or_elsewhere(payment: SignedPayment, transfer: Json, final: bool) -> Paid | UsedElsewhere:
    to = bytes.fromhex(transfer["topics"][2][26:])
    value = _integer(bytes.fromhex(transfer["data"][2:]))
    transaction = transfer["transactionHash"].lower()
    another = payment.transfer is Transfer.EIP3009 and value != payment.amount
    if to != payment.pay_to or another:  # the same nonce can be signed twice, the second time for less
        return UsedElsewhere(transaction, "0x" + to.hex(), value, final)
    return Paid(transaction, _number(transfer["blockNumber"]), _number(transfer["logIndex"]), value, final)


def _padded(address: bytes) -> str:
    return bytes(12).hex() + address.hex()


def _integer(data: bytes) -> int:
    if len(data) != 32:
        raise ChainError(f"a contract answered {len(data)} bytes where a number has 32; is it the right one?")
    return int.from_bytes(data, "big")


def _number(text: Any) -> int:
    try:
        return int(text, 16)
    except (TypeError, ValueError) as error:
        raise ChainError(f"the node wrote {str(text)[:40]!r} where a number belongs") from error
