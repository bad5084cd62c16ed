"""What buyers send: payments signed with the official SDK, and copies with one thing changed."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

from eth_account import Account
from x402 import x402ClientSync
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.upto import UptoEvmScheme

from headgate.model.assets import KNOWN_ASSETS
from headgate.model.catalog import Action, Measure, Route
from headgate.model.offer import NetworkOffer, Offer
from headgate.x402.offer import build_offers, payment_required

Json = dict[str, Any]

SEPOLIA = "eip155:84532"
POLYGON = "eip155:137"
PAY_TO = "0x00000000000000000000000000000000000A11CE"
SETTLER = "0x0000000000000000000000000000000000FAc111"
PAYER = Account.from_key("0x" + "11" * 32)
URL = "https://api.example.com/v1/documents/process"

FIXED = Action(
    "documents.process",
    "Document processed",
    "document",
    100_000,
    routes=(Route("POST", "/v1/documents/process"),),
)
VARIABLE = Action(
    "chat.complete",
    "Chat completion",
    "token",
    2_000,
    per=1000,
    max_units=25_000,
    measure=Measure("json", "/usage/total_tokens"),
)


def network(caip2: str = SEPOLIA, pay_to: str = PAY_TO, settler: str | None = SETTLER) -> NetworkOffer:
    return NetworkOffer(KNOWN_ASSETS[caip2], pay_to, 300, settler)


def offer(action: Action = FIXED, caip2: str = SEPOLIA, **more: str | None) -> Offer:
    return build_offers(action, [network(caip2, **more)])[0]  # type: ignore[arg-type]


def sdk_client(account: Any = PAYER) -> x402ClientSync:
    client = x402ClientSync()
    client.set_spend_controls(False)  # by default it refuses tokens it does not know, USDC on Amoy among them
    client.register("eip155:*", ExactEvmScheme(account))
    client.register("eip155:*", UptoEvmScheme(account))
    return client


def signed(wanted: Offer, account: Any = PAYER, **challenge: Any) -> bytes:
    """The PAYMENT-SIGNATURE value with which the official client takes up an offer."""
    header = payment_required([wanted], url=URL, **challenge).header_value.decode()
    required = decode_payment_required_header(header)
    payload = sdk_client(account).create_payment_payload(required)
    return encode_payment_signature_header(payload).encode()


def opened(header: bytes) -> Json:
    found: Json = json.loads(base64.b64decode(header))
    return found


def sealed(payload: Any) -> bytes:
    text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return base64.b64encode(text)


def changed(payload: Json, path: str, value: Any) -> Json:
    """A copy with the member at a dotted path replaced, or removed where the value is `...`."""
    result = copy.deepcopy(payload)
    *parents, last = path.split(".")
    target = result
    for name in parents:
        target = target[name]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return result
