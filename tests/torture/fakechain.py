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

from headgate.devnet.calls import encode_call
from headgate.model.assets import KNOWN_ASSETS
from headgate.x402.chain import (
    AUTHORIZATION_CANCELED,
    AUTHORIZATION_STATE,
    AUTHORIZATION_USED,
    DOMAIN_SEPARATOR,
    NONCE_BITMAP,
    NONCES_INVALIDATED,
    TRANSFER,
)
from headgate.x402.check import UPTO_PROXY, token_domain
from tests.x402.buyer import SEPOLIA
from tests.x402.scripted import Answer, ScriptedFacilitator

Json = dict[str, Any]
ASSET = KNOWN_ASSETS[SEPOLIA]
BLOCK_S = 2
GENESIS_AGO_S = 7200


@dataclass(slots=True)
class Entry:
    """What became of a nonce; `to` is empty where it was canceled.

    `spent` is the nonce in hexadecimal where it is one of Permit2, and `call` what settled it. `stray`: the
    payer itself sent it, under a nonce that was signed for something else.
    """

    transaction: str
    payer: str
    to: str
    value: int
    block: int
    spent: str = ""
    call: str = ""
    stray: bool = False


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
    permits: dict[str, list[Entry]] = field(default_factory=dict)
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
        """The authorization is settled, once; by whoever asks. Another value is the payer's own doing."""
        nonce = str(authorization["nonce"]).lower()
        signed = int(authorization["value"])
        entry = self._enter(
            nonce, authorization["from"], authorization["to"], signed if value is None else value
        )
        entry.stray = entry.value != signed
        return entry

    def pay_permit(self, permit: Json, value: int) -> Entry:
        """A Permit2 permit is settled for so much, once, as its facilitator calls the official proxy."""
        nonce, witness = int(permit["nonce"]), permit["witness"]
        after = int(witness["validAfter"])
        call = encode_call(
            "settle(((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)",
            (
                (permit["permitted"]["token"], int(permit["permitted"]["amount"])),
                *(nonce, int(permit["deadline"])),
            ),
            *(value, permit["from"], (witness["to"], witness["facilitator"], after), b""),
        )
        entry = self._enter(permit_key(permit["from"], nonce), permit["from"], witness["to"], value)
        entry.spent, entry.call = f"0x{nonce:064x}", "0x" + call.hex()
        return entry

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
            if ":" in nonce:
                self.permits.setdefault(entry.payer, []).append(entry)
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
        if call["data"].startswith(NONCE_BITMAP):
            return self._bitmap(call["data"][-128:], at)
        assert call["data"].startswith(AUTHORIZATION_STATE)
        found = self.entries.get("0x" + call["data"][-64:].lower())
        block = self.latest if at == "latest" else int(at, 16)
        return f"0x{int(found is not None and found.block <= block):064x}"

    def _bitmap(self, asked: str, at: str) -> str:
        """Which of 256 Permit2 nonces of a payer are spent."""
        payer, word = "0x" + asked[24:64].lower(), int(asked[64:], 16)
        block = self.latest if at == "latest" else int(at, 16)
        bits = 0
        for entry in self.permits.get(payer, ()):
            if self._stands(entry) and entry.block <= block and int(entry.spent, 16) >> 8 == word:
                bits |= 1 << (int(entry.spent, 16) & 255)
        return f"0x{bits:064x}"

    def _stands(self, entry: Entry) -> bool:
        return self.entries.get(self.nonces[entry.transaction]) is entry

    def eth_getTransactionByHash(self, transaction: str) -> Json:  # noqa: N802
        entry = self.entries[self.nonces[transaction]]
        return {"to": UPTO_PROXY if entry.call else ASSET.address, "input": entry.call or "0x"}

    def eth_getLogs(self, wanted: Json) -> list[Json]:  # noqa: N802
        if wanted["topics"][0] == NONCES_INVALIDATED:
            return []
        if wanted["topics"][0] == TRANSFER:
            return self._transfers(wanted)
        nonce = wanted["topics"][2]
        found = self.entries.get(nonce)
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        return [self._used(nonce, found)] if found is not None and first <= found.block <= last else []

    def _transfers(self, wanted: Json) -> list[Json]:
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        if wanted["topics"][1] is None:
            to = {"0x" + topic[26:] for topic in wanted["topics"][2]}
            found = [
                entry for entry in self.entries.values() if first <= entry.block <= last and entry.to in to
            ]
            return [self._moved(entry) for entry in found]
        payer = "0x" + wanted["topics"][1][26:]
        found = [entry for entry in self.permits.get(payer, ()) if self._stands(entry)]
        return [self._moved(entry) for entry in found if first <= entry.block <= last]

    def _moved(self, entry: Entry) -> Json:
        topics = [TRANSFER, _padded(entry.payer), _padded(entry.to)]
        return {**self._used("", entry), "topics": topics, "data": f"0x{entry.value:064x}"}

    def eth_getTransactionReceipt(self, transaction: str) -> Json | None:  # noqa: N802
        nonce = self.nonces.get(transaction, "")
        entry = self.entries.get(nonce)
        if entry is None or entry.transaction != transaction:
            return None
        return {"logs": [self._used(nonce, entry), {**self._moved(entry), "logIndex": "0x1"}]}

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


def permit_key(payer: str, nonce: int) -> str:
    """What stands for a Permit2 nonce among the entries: nonces there are per payer."""
    return f"{payer.lower()}:{nonce}"


def _padded(address: str) -> str:
    return "0x" + "0" * 24 + address[2:]


class ChainFacilitator(ScriptedFacilitator):
    """Its settlements are transfers on a chain; asked again, it names the same one."""

    def __init__(self, chain: FakeChain) -> None:
        super().__init__()
        self.chain = chain

    def yes(self, endpoint: str, asked: Json) -> Answer:
        """See ScriptedFacilitator."""
        if endpoint == "verify" and self._is_used(asked["paymentPayload"]["payload"]):
            told = {"isValid": False, "invalidReason": "invalid_exact_evm_nonce_already_used"}
            return Answer(json.dumps(told).encode())
        if endpoint != "settle":
            return ScriptedFacilitator.yes(self, endpoint, asked)
        payload, amount = asked["paymentPayload"]["payload"], int(asked["paymentRequirements"]["amount"])
        authorization = payload.get("authorization") or payload["permit2Authorization"]
        if not amount:
            return ScriptedFacilitator.yes(self, endpoint, asked)
        if "permit2Authorization" in payload:
            entry = self.chain.pay_permit(authorization, amount)
        else:
            entry = self.chain.pay(authorization)
        good = bool(entry.to) and not entry.stray
        body = {
            "success": good,
            "transaction": entry.transaction if good else "",
            "network": asked["paymentRequirements"]["network"],
            "payer": authorization["from"],
            "errorReason": None if good else "invalid_exact_evm_nonce_already_used",
        }
        self.settled.setdefault(str(authorization["nonce"]), body)
        return Answer(json.dumps(body).encode())

    def _is_used(self, payload: Json) -> bool:
        signed = payload.get("authorization")
        return signed is not None and str(signed["nonce"]).lower() in self.chain.entries
