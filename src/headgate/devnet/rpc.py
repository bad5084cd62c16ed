"""A read-only Ethereum JSON-RPC over the embedded chain: what x402 clients and a reconciler ask a node.

Clients paying through Permit2 look up allowances and permit nonces here; a reconciler looks for what became
of an authorization. Nothing can be sent: transactions come from the facilitator alone. Errors are JSON-RPC's
own codes; a call that a contract refuses is code 3 with the revert data, as nodes answer it.

There is no fork to wait out, so `safe` and `finalized` name the newest block, as `latest` and `pending` do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eth_utils.address import is_address, to_checksum_address

from headgate.devnet.calls import ContractReverted
from headgate.devnet.chain import CHAIN_ID, NOBODY, DevChain
from headgate.devnet.evm import BLOCK_GAS, GAS_PRICE
from headgate.devnet.records import Block, Log, Transaction

MAX_BATCH = 50
NEWEST = frozenset({"latest", "pending", "safe", "finalized"})
ZERO_HASH = "0x" + "00" * 32
EMPTY_UNCLES = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347"

Json = dict[str, Any]


class RpcError(Exception):
    """A request this endpoint cannot answer: JSON-RPC's `code`, a sentence, and perhaps data."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        self.code = code
        self.data = data
        super().__init__(message)


class Rpc:
    """Answers parsed JSON-RPC requests, one or a batch of at most MAX_BATCH. Safe to call from any thread."""

    def __init__(self, chain: DevChain) -> None:
        self._chain = chain
        self._methods: dict[str, Callable[..., Any]] = {
            "eth_chainId": lambda: hex(CHAIN_ID),
            "net_version": lambda: str(CHAIN_ID),
            "web3_clientVersion": lambda: "headgate-devnet (play money)",
            "eth_syncing": lambda: False,
            "eth_gasPrice": lambda: hex(GAS_PRICE),
            "eth_blockNumber": lambda: hex(chain.head().number),
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_call": self._call,
            "eth_getLogs": self._logs,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getBalance": lambda address, at="latest": hex(
                chain.wei(_address(address), at=self._existing(at))
            ),
            "eth_getCode": lambda address, at="latest": _hex(
                chain.code(_address(address), at=self._existing(at))
            ),
            "eth_getTransactionCount": lambda address, at="latest": hex(
                chain.account_nonce(_address(address), at=self._existing(at))
            ),
        }

    def answer(self, request: Any) -> Any:
        """The response to a request or batch."""
        if not isinstance(request, list):
            return self._answer_one(request)
        if not 0 < len(request) <= MAX_BATCH:
            return _failed(None, RpcError(-32600, f"a batch has 1 to {MAX_BATCH} requests"))
        return [self._answer_one(entry) for entry in request]

    def _answer_one(self, request: Any) -> Json:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _failed(None, RpcError(-32600, "a request is an object with `method` and `params`"))
        identity = request.get("id")
        params = request.get("params", [])
        try:
            return {"jsonrpc": "2.0", "id": identity, "result": self._dispatch(request["method"], params)}
        except RpcError as error:
            return _failed(identity, error)
        except ContractReverted as error:
            return _failed(identity, RpcError(3, str(error), _hex(error.data)))

    def _dispatch(self, name: str, params: Any) -> Any:
        method = self._methods.get(name)
        if method is None:
            raise RpcError(
                -32601, f"{name} is not offered; this read-only chain has {', '.join(self._methods)}"
            )
        if not isinstance(params, list):
            raise RpcError(-32602, f"{name}: params is a list")
        try:
            return method(*params)
        except (TypeError, ValueError, AttributeError) as error:
            raise RpcError(-32602, f"{name}: {error}") from error

    def _block_by_number(self, which: str, full: bool = False) -> Json | None:
        number = self._number(which)
        block = self._chain.head() if number is None else self._chain.block(number)
        return None if block is None else self._write_block(block, full)

    def _block_by_hash(self, which: str, full: bool = False) -> Json | None:
        block = self._chain.block(_text(which))
        return None if block is None else self._write_block(block, full)

    def _call(self, call: Json, at: Any = "latest", *_overrides: Any) -> str:
        to = _address(call.get("to"))
        data = _bytes(call.get("input") or call.get("data") or "0x")
        sender = _address(call.get("from") or NOBODY)
        value = int(call.get("value") or "0x0", 16)
        return _hex(self._chain.call(to, data, sender=sender, value=value, at=self._existing(at)))

    def _logs(self, wanted: Json) -> list[Json]:
        if wanted.get("blockHash"):
            block = self._chain.block(_text(wanted["blockHash"]))
            if block is None:
                raise RpcError(-32000, f"there is no block {wanted['blockHash']}")
            first = last = block.number
        else:
            head = self._chain.head().number
            numbers = [self._number(wanted.get(key, "latest")) for key in ("fromBlock", "toBlock")]
            first, last = (head if number is None else number for number in numbers)
        addresses = wanted.get("address") or []
        return [
            _write_log(transaction, entry)
            for transaction, entry in self._chain.logs(
                first=first,
                last=last,
                address=frozenset(_address(a) for a in _listed(addresses)),
                topics=tuple(
                    frozenset(_topic(t) for t in _listed(one)) for one in wanted.get("topics") or []
                ),
            )
        ]

    def _transaction(self, tx_hash: str) -> Json | None:
        transaction = self._chain.transaction(_text(tx_hash))
        return None if transaction is None else _write_transaction(transaction)

    def _receipt(self, tx_hash: str) -> Json | None:
        transaction = self._chain.transaction(_text(tx_hash))
        return None if transaction is None else _write_receipt(transaction)

    def _number(self, which: Any) -> int | None:
        """A block parameter: None for the newest, else a number that may not exist yet."""
        if isinstance(which, dict):  # EIP-1898
            if "blockNumber" in which:
                return self._number(which["blockNumber"])
            block = self._chain.block(_text(which.get("blockHash")))
            if block is None:
                raise RpcError(-32000, f"there is no block {which.get('blockHash')}")
            return block.number
        if which is None or which in NEWEST:
            return None
        number = 0 if which == "earliest" else int(_text(which), 16)
        if number < 0:
            raise ValueError(f"{which} is not a block number")
        return number

    def _existing(self, which: Any) -> int | None:
        number = self._number(which)
        if number is not None and self._chain.block(number) is None:
            raise RpcError(-32000, f"there is no block {number} yet")
        return number

    def _write_block(self, block: Block, full: bool) -> Json:
        return {
            "number": hex(block.number),
            "hash": block.hash,
            "parentHash": block.parent_hash,
            "timestamp": hex(block.timestamp_s),
            "stateRoot": block.state_root,
            "gasUsed": hex(block.gas_used),
            "gasLimit": hex(BLOCK_GAS),
            "baseFeePerGas": hex(block.base_fee),
            "logsBloom": block.bloom,
            "transactions": [_write_transaction(t) if full else t.hash for t in block.transactions],
            # What every client expects to find and nothing here uses.
            "nonce": "0x0000000000000000",
            "sha3Uncles": EMPTY_UNCLES,
            "uncles": [],
            "miner": NOBODY,
            "difficulty": "0x0",
            "totalDifficulty": "0x0",
            "extraData": "0x",
            "size": "0x0",
            "mixHash": ZERO_HASH,
            "transactionsRoot": ZERO_HASH,
            "receiptsRoot": ZERO_HASH,
        }


def _write_transaction(transaction: Transaction) -> Json:
    return {
        **_place(transaction),
        "hash": transaction.hash,
        "from": transaction.sender,
        "to": transaction.to,
        "input": _hex(transaction.input),
        "value": hex(transaction.value),
        "nonce": hex(transaction.nonce),
        "gas": hex(transaction.gas_used),
        "gasPrice": hex(GAS_PRICE),
        "chainId": hex(CHAIN_ID),
        "type": "0x0",
    }


def _write_receipt(transaction: Transaction) -> Json:
    return {
        **_place(transaction),
        "transactionHash": transaction.hash,
        "from": transaction.sender,
        "to": transaction.to,
        "contractAddress": transaction.created,
        "status": "0x1",
        "gasUsed": hex(transaction.gas_used),
        "cumulativeGasUsed": hex(transaction.gas_used),
        "effectiveGasPrice": hex(GAS_PRICE),
        "logs": [_write_log(transaction, entry) for entry in transaction.logs],
        "logsBloom": transaction.bloom,
        "type": "0x0",
    }


def _write_log(transaction: Transaction, entry: Log) -> Json:
    return {
        **_place(transaction),
        "transactionHash": transaction.hash,
        "address": entry.address,
        "topics": list(entry.topics),
        "data": entry.data,
        "logIndex": hex(entry.index),
        "removed": False,
    }


def _place(transaction: Transaction) -> Json:
    return {
        "blockHash": transaction.block_hash,
        "blockNumber": hex(transaction.block_number),
        "transactionIndex": "0x0",
    }


def _failed(identity: Any, error: RpcError) -> Json:
    detail: Json = {"code": error.code, "message": str(error)}
    if error.data is not None:
        detail["data"] = error.data
    return {"jsonrpc": "2.0", "id": identity, "error": detail}


def _listed(value: Any) -> list[Any]:
    """A filter's null, single value or list, as a list; empty matches anything."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a hex string")  # noqa: TRY004 - told to the caller like any bad value
    return value


def _address(value: Any) -> str:
    if not isinstance(value, str) or not is_address(value):
        raise ValueError(f"{value!r} is not an address")
    return to_checksum_address(value)


def _topic(value: Any) -> str:
    return f"0x{int(_text(value), 16):064x}"


def _bytes(value: Any) -> bytes:
    return bytes.fromhex(_text(value).removeprefix("0x"))


def _hex(raw: bytes) -> str:
    return "0x" + raw.hex()
