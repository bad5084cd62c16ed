"""The embedded chain and facilitator: an EVM in the process, play money on it, and x402 in front of it.

For development and tests only. The money is play money: the chain lives in this process's memory, starts
empty every time, and a signature made for it moves nothing anywhere else. Two processes with an embedded
facilitator each have a chain of their own and know nothing of each other's payments; processes that are to
share one chain use one `headgate facilitator` by its URL.

Importing this package needs py-evm, which the `demo` extra installs.
"""

from __future__ import annotations

import sys

_RECURSION_LIMIT = sys.getrecursionlimit()

try:
    from headgate.devnet.chain import CHAIN_ID, NETWORK, DevChain
    from headgate.devnet.contracts import USDC_ADDRESS
    from headgate.devnet.facilitator import PLAY_MONEY, EmbeddedFacilitator
    from headgate.devnet.server import RunningFacilitator, running_facilitator, serve
    from headgate.devnet.signer import ChainSigner
    from headgate.devnet.wallets import Wallet
    from headgate.devnet.web import create_app
except ModuleNotFoundError as error:
    if (error.name or "").split(".", maxsplit=1)[0] != "eth":
        raise
    raise ModuleNotFoundError(
        "the embedded chain needs py-evm, which is not installed: pip install 'headgate[demo]'",
        name=error.name,
    ) from error
finally:
    # py-evm raises the recursion limit of the whole process a hundredfold: enough for nested JSON from a
    # stranger to overflow the C stack and kill it. The contracts here call three deep, so put it back.
    sys.setrecursionlimit(_RECURSION_LIMIT)

__all__ = [
    "CHAIN_ID",
    "NETWORK",
    "PLAY_MONEY",
    "USDC_ADDRESS",
    "ChainSigner",
    "DevChain",
    "EmbeddedFacilitator",
    "RunningFacilitator",
    "Wallet",
    "create_app",
    "running_facilitator",
    "serve",
]
