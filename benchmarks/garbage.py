"""Payment headers that hold no payment: short as a real one, and as large as is read, by kind."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping


def _sealed(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _object(**members: object) -> str:
    return _sealed(json.dumps({"x402Version": 2, **members}, separators=(",", ":")).encode())


_ADDRESS = "0x" + "1" * 40
_WELL_FORMED = {
    "accepted": {
        "scheme": "exact",
        "network": "eip155:84532",
        "amount": "1",
        "asset": _ADDRESS,
        "payTo": _ADDRESS,
    },
    "payload": {
        "signature": "0x" + "3" * 130,
        "authorization": {
            "from": _ADDRESS,
            "to": _ADDRESS,
            "value": "1",
            "nonce": "0x" + "2" * 64,
            "validAfter": "0",
            "validBefore": "1",
        },
    },
}

SHORT = (
    "no base64 at all!",
    _sealed(bytes(range(256)) * 2),
    _sealed(b'{"x402Version": 2, "accepted": {"scheme": "exact"'),
    _sealed(b"[" * 300),
    _object(payload={"x": "y" * 600}),
)
"""Each in another way; none is longer than a real one."""

LARGE: Mapping[str, str] = {
    "16 KB of no JSON": _sealed(bytes(range(256)) * 47),
    "a list of 6,000 numbers": _sealed(b"[" + b"1," * 6000 + b"1]"),
    "that list in an object": _object(payload=[1] * 5900),
    "an object of 900 members": _object(**{f"k{number}": number for number in range(900)}),
    "400 members, 15 KB": _object(**{f"k{number}": "v" * 18 for number in range(400)}),
    "one text of 12,000": _object(payload={"signature": "y" * 12_000}),
    "a payment, but for one of 450 members": _object(
        **_WELL_FORMED, extensions={f"k{number}": "v" for number in range(450)}, x=0.5
    ),
}
