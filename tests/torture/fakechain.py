"""A chain as far as payments can see it: transfers and cancellations by nonce, blocks by the clock.

It answers the JSON-RPC that `headgate.x402.chain` asks, from a few lines of bookkeeping and not from an EVM:
transfers can be made by anybody, vanish (a reorganisation), and be counted at the end, a hundred thousand of
them. `ChainFacilitator` is a scripted facilitator whose settlements happen here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from headgate.model.assets import KNOWN_ASSETS
from headgate.x402.chain import (
    AUTHORIZATION_CANCELED,
    AUTHORIZATION_STATE,
    AUTHORIZATION_USED,
    DOMAIN_SEPARATOR,
    TRANSFER,
)
from headgate.x402.check import token_domain
from tests.x402.buyer import SEPOLIA
from tests.x402.scripted import Answer, ScriptedFacilitator

Json = dict[str, Any]
ASSET = KNOWN_ASSETS[SEPOLIA]
BLOCK_S = 2
GENESIS_AGO_S = 7200


@dataclass(slots=True)
class Entry:
    """What became of a nonce; `to` is empty where it was canceled."""

    transaction: str
    payer: str
    to: str
    value: int
    block: int


@dataclass(slots=True)
class FakeChain:
    """`final_lag` blocks may still be reorganised. `broken` makes every question fail."""

    now_us: Callable[[], int]
    final_lag: int = 30
    chain_id: int = 84532
    broken: bool = False
    entries: dict[str, Entry] = field(default_factory=dict)
    vanished: list[Entry] = field(default_factory=list)
    nonces: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    genesis_s: int = 0
    _made: int = 0

    def __post_init__(self) -> None:
        self.genesis_s = self.now_us() // 1_000_000 - GENESIS_AGO_S

    @property
    def latest(self) -> int:
        return (self.now_us() // 1_000_000 - self.genesis_s) // BLOCK_S

    # --- what happens -----------------------------------------------------------------------------

    def pay(self, authorization: Json, value: int | None = None) -> Entry:
        """The authorization is settled, once; by whoever asks."""
        nonce = str(authorization["nonce"]).lower()
        moved = int(authorization["value"]) if value is None else value
        return self._enter(nonce, authorization["from"], authorization["to"], moved)

    def cancel(self, authorization: Json) -> Entry:
        """Its payer invalidates it."""
        return self._enter(str(authorization["nonce"]).lower(), authorization["from"], "", 0)

    def vanish(self, nonce: str) -> None:
        """The chain reorganises it away."""
        self.vanished.append(self.entries.pop(nonce.lower()))

    def _enter(self, nonce: str, payer: str, to: str, value: int) -> Entry:
        if nonce not in self.entries:
            self._made += 1
            entry = Entry(f"0x{self._made:064x}", payer.lower(), to.lower(), value, self.latest)
            self.entries[nonce] = entry
            self.nonces[entry.transaction] = nonce
        return self.entries[nonce]

    # --- what a node answers ----------------------------------------------------------------------

    def answer(self, request: Json) -> Json:
        """A JSON-RPC response."""
        self.asked += 1
        if self.broken:
            return {
                "jsonrpc": "2.0",
                "id": request["id"],
                "error": {"code": -32000, "message": "out of order"},
            }
        method: Callable[..., Any] = getattr(self, request["method"])
        return {"jsonrpc": "2.0", "id": request["id"], "result": method(*request["params"])}

    def eth_chainId(self) -> str:  # noqa: N802  JSON-RPC's own name
        return hex(self.chain_id)

    def eth_getBlockByNumber(self, which: str, _full: bool) -> Json:  # noqa: N802
        names = {"latest": self.latest, "finalized": max(0, self.latest - self.final_lag)}
        number = names[which] if which in names else int(which, 16)
        time_s = self.genesis_s + number * BLOCK_S
        return {"number": hex(number), "hash": f"0x{number + 1:064x}", "timestamp": hex(time_s)}

    def eth_call(self, call: Json, at: str) -> str:
        if call["data"].startswith(DOMAIN_SEPARATOR):
            return "0x" + token_domain(ASSET).hex()
        assert call["data"].startswith(AUTHORIZATION_STATE)
        found = self.entries.get("0x" + call["data"][-64:].lower())
        block = self.latest if at == "latest" else int(at, 16)
        return f"0x{int(found is not None and found.block <= block):064x}"

    def eth_getLogs(self, wanted: Json) -> list[Json]:  # noqa: N802
        nonce = wanted["topics"][2]
        found = self.entries.get(nonce)
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        return [self._used(nonce, found)] if found is not None and first <= found.block <= last else []

    def eth_getTransactionReceipt(self, transaction: str) -> Json | None:  # noqa: N802
        nonce = self.nonces.get(transaction, "")
        entry = self.entries.get(nonce)
        if entry is None or entry.transaction != transaction:
            return None
        topics = [TRANSFER, _padded(entry.payer), _padded(entry.to)]
        moved = {**self._used(nonce, entry), "topics": topics, "logIndex": "0x1"}
        return {"logs": [self._used(nonce, entry), {**moved, "data": f"0x{entry.value:064x}"}]}

    def _used(self, nonce: str, entry: Entry) -> Json:
        topic = AUTHORIZATION_USED if entry.to else AUTHORIZATION_CANCELED
        return {
            "address": ASSET.address.lower(),
            "topics": [topic, _padded(entry.payer), nonce],
            "data": "0x",
            "logIndex": "0x0",
            "blockNumber": hex(entry.block),
            "transactionHash": entry.transaction,
        }


def _padded(address: str) -> str:
    return "0x" + "0" * 24 + address[2:]


class ChainFacilitator(ScriptedFacilitator):
    """Its settlements are transfers on a chain; asked again, it names the same one."""

    def __init__(self, chain: FakeChain) -> None:
        super().__init__()
        self.chain = chain

    def yes(self, endpoint: str, asked: Json) -> Answer:
        """See ScriptedFacilitator."""
        if endpoint != "settle":
            return ScriptedFacilitator.yes(self, endpoint, asked)
        authorization = asked["paymentPayload"]["payload"]["authorization"]
        entry = self.chain.pay(authorization, int(asked["paymentRequirements"]["amount"]))
        body = {
            "success": bool(entry.to),
            "transaction": entry.transaction if entry.to else "",
            "network": asked["paymentRequirements"]["network"],
            "payer": authorization["from"],
            "errorReason": None if entry.to else "invalid_exact_evm_nonce_already_used",
        }
        self.settled.setdefault(str(authorization["nonce"]), body)
        return Answer(json.dumps(body).encode())
