"""A real node (anvil, from npm) with the embedded chain's contracts: a second opinion on what chains say.

Chain id, addresses and funded wallets are the embedded chain's, so the same clients pay on it. Blocks come
every second and with each transaction; two of them make a block final.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eth_account import Account

from headgate.devnet import contracts
from headgate.devnet.calls import encode_call
from headgate.devnet.chain import CHAIN_ID, USDC_EACH_MICROS
from headgate.devnet.wallets import Wallet, derive, payers
from tests.interop.node_tools import installed

ETHER = 10**18
SETTLER = derive("facilitator")


class Anvil:
    """One running node. `wallets` hold USDC and have approved Permit2."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.wallets = payers(10)

    def call(self, method: str, *params: Any) -> Any:
        """A JSON-RPC call's result."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            told = json.load(answer)
        if "error" in told:
            raise RuntimeError(f"{method}: {told['error']}")
        return told.get("result")

    def furnish(self) -> None:
        """Code and storage as the embedded chain's genesis has them; ether for all who send anything."""
        placed = {
            contracts.USDC_ADDRESS: "TestUSDC",
            contracts.PERMIT2_ADDRESS: "Permit2",
            contracts.EXACT_PROXY_ADDRESS: "ExactProxy",
            contracts.UPTO_PROXY_ADDRESS: "UptoProxy",
            contracts.MULTICALL3_ADDRESS: "Multicall3",
        }
        for address, name in placed.items():
            self.call("anvil_setCode", address, "0x" + contracts.load(name).runtime.hex())
        storage = contracts.token_storage(
            balances={wallet.address: USDC_EACH_MICROS for wallet in self.wallets},
            approvals=[(wallet.address, contracts.PERMIT2_ADDRESS) for wallet in self.wallets],
        )
        for slot, value in storage.items():
            self.call("anvil_setStorageAt", contracts.USDC_ADDRESS, f"0x{slot:064x}", f"0x{value:064x}")
        for wallet in (SETTLER, *self.wallets):
            self.call("anvil_setBalance", wallet.address, hex(100 * ETHER))

    def balance_of(self, address: str) -> int:
        """USDC, in millionths."""
        asked = {
            "to": contracts.USDC_ADDRESS,
            "data": "0x" + encode_call("balanceOf(address)", address).hex(),
        }
        return int(self.call("eth_call", asked, "latest"), 16)

    def sent_by(self, wallet: Wallet) -> int:
        """How many transactions a wallet has sent."""
        return int(self.call("eth_getTransactionCount", wallet.address, "pending"), 16)

    def send(self, wallet: Wallet, to: str, data: bytes) -> str:
        """A transaction of a wallet's own; its hash."""
        fields = {
            "chainId": CHAIN_ID,
            "nonce": self.sent_by(wallet),
            "to": to,
            "data": "0x" + data.hex(),
            "gas": 300_000,
            "gasPrice": 5 * 10**9,
            "value": 0,
        }
        raw = Account.from_key(wallet.private_key).sign_transaction(fields).raw_transaction
        return str(self.call("eth_sendRawTransaction", "0x" + raw.hex()))

    def blocks(self, count: int) -> None:
        """So many blocks at once."""
        self.call("anvil_mine", hex(count))


@contextmanager
def running_anvil() -> Iterator[Anvil]:
    """A furnished node on loopback; it ends with the block."""
    program = installed() / ".bin" / "anvil"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(str(program), "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(CHAIN_ID), "--silent"),
        *("--accounts", "1", "--block-time", "1", "--mixed-mining", "--slots-in-an-epoch", "1"),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        node = Anvil(f"http://127.0.0.1:{port}")
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    assert int(node.call("eth_chainId"), 16) == CHAIN_ID
                    break
                except OSError:
                    assert process.poll() is None, "anvil ended at once"
                    assert time.monotonic() < until, "anvil does not answer"
                    time.sleep(0.05)
            node.furnish()
            yield node
        finally:
            process.terminate()
            process.wait(10)
