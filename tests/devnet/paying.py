"""Payments for the tests of the embedded chain: offers, and signatures by the official client or by hand."""

from __future__ import annotations

import secrets
import time
from typing import Any

from eth_account import Account
from eth_account.messages import encode_typed_data
from x402.client import x402ClientSync
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.upto import UptoEvmScheme
from x402.schemas import PaymentRequired

from headgate.devnet import CHAIN_ID, NETWORK, USDC_ADDRESS, DevChain, Wallet
from headgate.devnet.wallets import derive

SELLER = derive("seller of the tests").address
Json = dict[str, Any]

AUTHORIZATION_FIELDS = [
    {"name": "from", "type": "address"},
    {"name": "to", "type": "address"},
    {"name": "value", "type": "uint256"},
    {"name": "validAfter", "type": "uint256"},
    {"name": "validBefore", "type": "uint256"},
    {"name": "nonce", "type": "bytes32"},
]
CANCEL_FIELDS = [{"name": "authorizer", "type": "address"}, {"name": "nonce", "type": "bytes32"}]

UPTO_PERMIT_FIELDS = {
    "PermitWitnessTransferFrom": [
        {"name": "permitted", "type": "TokenPermissions"},
        {"name": "spender", "type": "address"},
        {"name": "nonce", "type": "uint256"},
        {"name": "deadline", "type": "uint256"},
        {"name": "witness", "type": "Witness"},
    ],
    "TokenPermissions": [{"name": "token", "type": "address"}, {"name": "amount", "type": "uint256"}],
    "Witness": [
        {"name": "to", "type": "address"},
        {"name": "facilitator", "type": "address"},
        {"name": "validAfter", "type": "uint256"},
    ],
}


def offer(amount: int = 100_000, *, scheme: str = "exact", **changes: Any) -> Json:
    """What a seller accepts: one entry of `accepts`."""
    extra = {"name": "USDC", "version": "2"}
    if scheme == "upto":
        extra["facilitatorAddress"] = derive("facilitator").address
    return {
        "scheme": scheme,
        "network": NETWORK,
        "asset": USDC_ADDRESS,
        "amount": str(amount),
        "payTo": SELLER,
        "maxTimeoutSeconds": 300,
        "extra": extra,
    } | changes


def pay(wallet: Wallet, accepted: Json, **required: Any) -> Json:
    """The payment payload that the official Python client makes for this offer."""
    client = x402ClientSync()
    client.register(NETWORK, ExactEvmScheme(wallet.account))
    client.register(NETWORK, UptoEvmScheme(wallet.account))
    asked = PaymentRequired.model_validate({"x402Version": 2, "accepts": [accepted], **required})
    return client.create_payment_payload(asked).model_dump(by_alias=True, exclude_none=True)


def domain(**changes: Any) -> Json:
    """USDC's EIP-712 domain on the embedded chain."""
    fields = {"name": "USDC", "version": "2", "chainId": CHAIN_ID, "verifyingContract": USDC_ADDRESS}
    return fields | changes


def authorization(wallet: Wallet, value: int = 100_000, **changes: Any) -> Json:
    """The fields of an EIP-3009 transfer, with a fresh nonce, valid now."""
    return {
        "from": wallet.address,
        "to": SELLER,
        "value": value,
        "validAfter": 0,
        "validBefore": int(time.time()) + 300,
        "nonce": "0x" + secrets.token_hex(32),
    } | changes


def sign(
    wallet: Wallet,
    message: Json,
    *,
    kind: str = "TransferWithAuthorization",
    fields: list[dict[str, str]] = AUTHORIZATION_FIELDS,
    **domain_changes: Any,
) -> bytes:
    """A 65-byte signature by hand, over whatever is asked."""
    signable = encode_typed_data(domain(**domain_changes), {kind: fields}, message)
    return bytes(Account.sign_message(signable, wallet.private_key).signature)


def payload(message: Json, signature: bytes, accepted: Json) -> Json:
    """A v2 payment payload around a hand-made EIP-3009 signature."""
    texts = {key: str(value) for key, value in message.items()}
    return {
        "x402Version": 2,
        "payload": {"authorization": texts, "signature": "0x" + signature.hex()},
        "accepted": accepted,
    }


def arguments(message: Json) -> list[Any]:
    """The authorization as the token's functions take it, before the signature."""
    nonce = bytes.fromhex(message["nonce"][2:])
    return [*(message[key] for key in ("from", "to", "value", "validAfter", "validBefore")), nonce]


def vrs(signature: bytes) -> tuple[int, bytes, bytes]:
    """A signature in three parts."""
    return signature[64], signature[:32], signature[32:64]


def poor(chain: DevChain, amount_micros: int = 0, name: str = "newcomer") -> Wallet:
    """An account that genesis does not know, with what it is given and no approval for anybody."""
    wallet = derive(name)
    if amount_micros:
        chain.fund(wallet.address, amount_micros)
    return wallet
