"""The contracts of the embedded chain: their addresses, their compiled code, and how genesis fills them.

The sources are Vyper, in contracts/ of the repository; `scripts/build_contracts.py` compiles them to the JSON
files beside this module. None has a constructor: the genesis block allocates code and storage directly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from eth_utils.address import to_canonical_address
from eth_utils.crypto import keccak

USDC_ADDRESS = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
PERMIT2_ADDRESS = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
EXACT_PROXY_ADDRESS = "0x402085c248EeA27D92E8b30b2C58ed07f9E20001"
UPTO_PROXY_ADDRESS = "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"
MULTICALL3_ADDRESS = "0xcA11bde05977b3631167028862bE2a173976CA11"

USDC_NAME = "USDC"  # the EIP-712 name of USDC on Base Sepolia; on main networks it is "USD Coin"
USDC_VERSION = "2"
UNLIMITED = 2**256 - 1


@dataclass(frozen=True, slots=True)
class Contract:
    """One compiled contract: its ABI, the code genesis allocates, and its variables' storage slots."""

    name: str
    abi: tuple[dict[str, Any], ...]
    runtime: bytes
    storage: dict[str, int]


@cache
def load(name: str) -> Contract:
    """The shipped contract of that name, e.g. `TestUSDC`."""
    text = files("headgate.devnet").joinpath("compiled", f"{name}.json").read_text("utf-8")
    data = json.loads(text)
    return Contract(
        name=data["contract"],
        abi=tuple(data["abi"]),
        runtime=bytes.fromhex(data["runtime"].removeprefix("0x")),
        storage=data["storage"],
    )


def token_storage(
    *,
    name: str = USDC_NAME,
    version: str = USDC_VERSION,
    balances: dict[str, int],
    approvals: Iterable[tuple[str, str]] = (),
) -> dict[int, int]:
    """Storage of a TestUSDC: its EIP-712 domain, who holds how much, and who may spend whose without limit.

    `balances` are in the token's smallest unit (millionths of a dollar); `approvals` are (owner, spender).
    """
    slots = load("TestUSDC").storage
    storage = {
        **_string(slots["name"], name),
        **_string(slots["symbol"], "USDC"),
        **_string(slots["version"], version),
        slots["totalSupply"]: sum(balances.values()),
    }
    for holder, amount in balances.items():
        storage[_entry(slots["balanceOf"], _word(holder))] = amount
    for owner, spender in approvals:
        storage[_entry(slots["allowance"], _word(owner), _word(spender))] = UNLIMITED
    return storage


def _string(slot: int, text: str) -> dict[int, int]:
    """A short Vyper string: its length in one slot, its bytes from the left in the next."""
    raw = text.encode()
    if not 0 < len(raw) <= 32:
        raise ValueError(f"{text!r} does not fit one storage slot: use 1 to 32 bytes")
    return {slot: len(raw), slot + 1: int.from_bytes(raw.ljust(32, b"\0"), "big")}


def _entry(slot: int, *keys: bytes) -> int:
    """Where Vyper keeps `mapping[key]…`: the hash of the mapping's slot and the key, once per level."""
    place = slot.to_bytes(32, "big")
    for key in keys:
        place = keccak(place + key)
    return int.from_bytes(place, "big")


def _word(address: str) -> bytes:
    return to_canonical_address(address).rjust(32, b"\0")
