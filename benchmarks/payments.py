"""Payments in bulk: for each request a fresh EIP-3009 authorization, signed before the clock starts.

The seller's own 402 is asked for first and echoed (`accepted`, `resource`), so that a payment is legal for
every seller under test. The digest is put together by hand from two hashes, because the official client
takes a millisecond for each; `agrees_with_sdk` holds it against that client. Signatures live in memory only,
are used once, and are worth nothing: the wallets are derived from the name of this benchmark.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing import get_context
from typing import Any, Self

from coincurve import PrivateKey
from eth_account import Account
from eth_hash.auto import keccak

from benchmarks.load import get_request

_DOMAIN_TYPE = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_TRANSFER_TYPE = keccak(
    b"TransferWithAuthorization(address from,address to,uint256 value,"
    b"uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
_WALLETS = 64
"""Many payers, because a seller may bound the work in flight of one."""
_CHUNK = 250


class NoOfferError(Exception):
    """A seller's 402 holds no offer that the benchmark can pay."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a seller asks for one request, as its 402 said it."""

    accepted: Mapping[str, Any]
    resource: Mapping[str, Any]


def fetch_offer(port: int, path: str) -> Offer:
    """Asks without paying, and returns the first `exact` offer of the `PAYMENT-REQUIRED` header.

    Raises:
        NoOfferError: it did not answer 402 with one.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body, header = answer.read(), answer.getheader("PAYMENT-REQUIRED")
    finally:
        connection.close()
    if answer.status != 402 or header is None:
        raise NoOfferError(f"port {port} answered {answer.status} to an unpaid request: {body[:300]!r}")
    required = json.loads(base64.b64decode(header))
    for accepted in required["accepts"]:
        if accepted["scheme"] == "exact":
            return Offer(accepted, required["resource"])
    raise NoOfferError(f"port {port} offers no `exact` payment: {required['accepts']}")


class Signer:
    """Signs in all cores at once; use as a context manager."""

    def __enter__(self) -> Self:
        self._pool = ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def requests(self, offer: Offer, path: str, host: str, count: int) -> tuple[bytes, ...]:
        """`count` GETs of `path`, each with a payment of its own."""
        chunks = [min(_CHUNK, count - first) for first in range(0, count, _CHUNK)]
        jobs = [self._pool.submit(_paid_requests, offer, path, host, size) for size in chunks]
        return tuple(request for job in jobs for request in job.result())


def expired_requests(offer: Offer, path: str, host: str, count: int) -> tuple[bytes, ...]:
    """`count` GETs with payments that were valid until a minute ago, well signed all the same."""
    terms, over = _Terms(offer), int(time.time()) - 60
    return tuple(
        get_request(
            path,
            host,
            [("PAYMENT-SIGNATURE", _header(offer, terms.pay(index % _WALLETS, valid_before=over)))],
        )
        for index in range(count)
    )


def _paid_requests(offer: Offer, path: str, host: str, count: int) -> list[bytes]:
    """One process's share; the wallets take turns."""
    terms = _Terms(offer)
    return [
        get_request(path, host, [("PAYMENT-SIGNATURE", _header(offer, terms.pay(index % _WALLETS)))])
        for index in range(count)
    ]


def _header(offer: Offer, payment: Mapping[str, Any]) -> str:
    """The `PAYMENT-SIGNATURE` header (x402 v2, HTTP transport): base64 of the payment payload's JSON."""
    payload = {"x402Version": 2, "payload": payment, "accepted": offer.accepted, "resource": offer.resource}
    return base64.b64encode(json.dumps(payload, separators=(",", ":")).encode()).decode()


class _Terms:
    """What all payments of one offer share, hashed once."""

    def __init__(self, offer: Offer) -> None:
        accepted = offer.accepted
        self._to: str = accepted["payTo"]
        self._amount: str = accepted["amount"]
        self._domain = keccak(
            _DOMAIN_TYPE
            + keccak(accepted["extra"]["name"].encode())
            + keccak(accepted["extra"]["version"].encode())
            + int(accepted["network"].removeprefix("eip155:")).to_bytes(32, "big")
            + _padded(accepted["asset"])
        )
        self._valid_before = int(time.time()) + int(accepted["maxTimeoutSeconds"])

    def pay(self, wallet: int, nonce: bytes | None = None, valid_before: int | None = None) -> dict[str, Any]:
        """A signed authorization with a fresh nonce: `{"authorization": {…}, "signature": "0x…"}`."""
        address, key = _wallet(wallet)
        nonce = nonce or secrets.token_bytes(32)
        valid_before = valid_before or self._valid_before
        struct = keccak(
            _TRANSFER_TYPE
            + _padded(address)
            + _padded(self._to)
            + int(self._amount).to_bytes(32, "big")
            + bytes(32)
            + valid_before.to_bytes(32, "big")
            + nonce
        )
        signature = key.sign_recoverable(keccak(b"\x19\x01" + self._domain + struct), hasher=None)
        return {
            "authorization": {
                "from": address,
                "to": self._to,
                "value": self._amount,
                "validAfter": "0",
                "validBefore": str(valid_before),
                "nonce": "0x" + nonce.hex(),
            },
            "signature": "0x" + (signature[:64] + bytes([signature[64] + 27])).hex(),
        }


def _padded(address: str) -> bytes:
    return bytes(12) + bytes.fromhex(address[2:])


_wallets: dict[int, tuple[str, PrivateKey]] = {}


def _wallet(index: int) -> tuple[str, PrivateKey]:
    """Address and key of a play wallet, the same every time."""
    if index not in _wallets:
        secret = keccak(b"headgate benchmark wallet %d" % index)
        _wallets[index] = (Account.from_key(secret).address, PrivateKey(secret))
    return _wallets[index]


def agrees_with_sdk(offer: Offer) -> bool:
    """Whether the official client makes the same payload, signature included, for the same nonce and time."""
    from x402.mechanisms.evm.exact.client import ExactEvmScheme
    from x402.schemas import PaymentPayload, PaymentRequirements, ResourceInfo

    account = Account.from_key(keccak(b"headgate benchmark wallet 0"))
    requirements = PaymentRequirements.model_validate(offer.accepted)
    theirs = ExactEvmScheme(account).create_payment_payload(requirements)
    said = theirs["authorization"]
    ours = _Terms(offer).pay(0, bytes.fromhex(said["nonce"][2:]), int(said["validBefore"]))
    whole = PaymentPayload(
        x402_version=2,
        payload=theirs,
        accepted=requirements,
        resource=ResourceInfo.model_validate(offer.resource),
    ).model_dump(by_alias=True, exclude_none=True)
    header = json.loads(base64.b64decode(_header(offer, ours)))
    return bool(whole.keys() - {"extensions"} <= header.keys() and _lowered(theirs) == _lowered(ours))


def _lowered(payment: Mapping[str, Any]) -> str:
    """Hex in one case: addresses may be check-summed or not."""
    return json.dumps(payment, sort_keys=True).lower()
