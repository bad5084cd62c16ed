"""The networks and USDC tokens Headgate knows: CAIP-2 id, address, EIP-712 domain, common names.

Measured facts: USDC's EIP-712 name is "USD Coin" on Polygon and Base mainnet, "USDC" on Base Sepolia; a
wrong domain makes every signature invalid. Other networks are added by an asset entry in the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asset:
    """A token a payment is made in: `network` in CAIP-2, `address` checksummed, EIP-712 `name`/`version`."""

    network: str
    address: str
    name: str
    version: str
    decimals: int
    test: bool
    title: str


KNOWN_ASSETS: dict[str, Asset] = {
    asset.network: asset
    for asset in (
        Asset(
            "eip155:137", "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", "USD Coin", "2", 6, False, "Polygon"
        ),
        Asset("eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "2", 6, False, "Base"),
        Asset(
            "eip155:80002", "0x41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582", "USDC", "2", 6, True, "Polygon Amoy"
        ),
        Asset(
            "eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "2", 6, True, "Base Sepolia"
        ),
    )
}

NETWORK_NAMES: dict[str, str] = {
    "polygon": "eip155:137",
    "base": "eip155:8453",
    "polygon-amoy": "eip155:80002",
    "base-sepolia": "eip155:84532",
}

TEST_NETWORKS = frozenset(
    f"eip155:{chain}"
    for chain in (
        80002, 84532, 11155111, 11155420, 421614, 43113, 59141, 300, 97, 10143, 1328, 4202, 31337, 1337
    )
)  # fmt: skip
"""Networks whose tokens are worth nothing: also those of which Headgate knows no token."""

FACILITATORS: dict[str, tuple[str, str]] = {
    "polygon": ("https://x402.polygon.technology", "eip155:137"),
    "polygon-amoy": ("https://x402-amoy.polygon.technology", "eip155:80002"),
}
