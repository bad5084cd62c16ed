"""How agents pay here: honestly, with the official client, and dishonestly, by editing what it made."""

from __future__ import annotations

import base64
import json
from typing import Any

from headgate.demo.calls import Answer, Asked, Line
from headgate.devnet.wallets import Wallet
from headgate.model.errors import InputError
from headgate.x402.buyer import Buyer

HEADER = "PAYMENT-SIGNATURE"


async def signed(line: Line, asked: Asked, wallet: Wallet) -> str:
    """Ask without paying, and let the official client sign a payment for the 402 that comes back."""
    return await Buyer(wallet.private_key).sign(_required(await line.send(asked)))


async def pay(line: Line, asked: Asked, payment: str) -> Answer:
    """The request with a payment."""
    return await line.send(asked, {HEADER: payment})


def forged(payment: str) -> str:
    """The same payment with one bit of one byte of its signature changed."""
    payload = _opened(payment)
    signature = bytearray.fromhex(payload["payload"]["signature"][2:])
    signature[10] ^= 1
    payload["payload"]["signature"] = "0x" + signature.hex()
    return _sealed(payload)


async def underpaid(line: Line, asked: Asked, wallet: Wallet) -> str:
    """A genuine signature over one micro-dollar less than is asked, presented as if it were for all of it."""
    required = _opened(_required(await line.send(asked)))
    accepted = required["accepts"][0]
    price = accepted["amount"]
    accepted["amount"] = str(int(price) - 1)
    payload = _opened(await Buyer(wallet.private_key).sign(_sealed(required)))
    payload["accepted"]["amount"] = price
    return _sealed(payload)


def _required(answer: Answer) -> str:
    value = answer.header("payment-required")
    if value is None:
        raise InputError(f"expected a 402 with PAYMENT-REQUIRED, found status {answer.status} without it")
    return value


def _opened(value: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(value))
    return found


def _sealed(payload: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(payload).encode()).decode()
