"""Standard Webhooks signatures (standardwebhooks.com, symmetric `v1`): signing, and checking for receivers.

Signed is `id.timestamp.body` with HMAC-SHA256. While a secret is rotated the sender signs with the old one
and the new one, and the receiver takes either. A receiver written in Python can use `verify` as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from headgate.model.duration import MINUTE_US, SECOND_US
from headgate.model.errors import HeadgateError, InputError

PREFIX = "whsec_"
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE_US = 5 * MINUTE_US
_SHORTEST, _LONGEST = 24, 64


class SignatureInvalid(HeadgateError):
    """The message does not come from who it claims to, was changed on the way, or is too old; refuse it."""


def read_secrets(text: str) -> tuple[bytes, ...]:
    """The keys in a secret's text: one, or several separated by blanks or commas; the newest first.

    Raises:
        InputError: there is none, or one is not `whsec_` and the base64 of 24 to 64 bytes. The text is not
            repeated in the message.
    """
    secrets = tuple(_read_secret(part) for part in text.replace(",", " ").split())
    if not secrets:
        raise InputError(f"the webhook's secret is empty; {_FIX}")
    return secrets


_FIX = f'write "{PREFIX}" and the output of `openssl rand -base64 32`'


def _read_secret(text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"the webhook's secret is not base64; {_FIX}") from None
    if not _SHORTEST <= len(secret) <= _LONGEST:
        raise InputError(
            f"the webhook's secret has {len(secret)} bytes, not {_SHORTEST} to {_LONGEST}; {_FIX}"
        )
    return secret


def sign(secrets: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The three headers of a message. `timestamp_s` is the time of this attempt, in seconds."""
    return {
        ID: message_id,
        TIMESTAMP: str(timestamp_s),
        SIGNATURE: " ".join(_signature(secret, message_id, str(timestamp_s), body) for secret in secrets),
    }


def _signature(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[bytes], now_us: int) -> str:
    """Check a received message; its id.

    `headers` by lower-case name (or any mapping that does not mind case); `body` exactly as received.

    Raises:
        SignatureInvalid: a header is missing, no signature fits, or its time is more than 5 minutes off.
    """
    try:
        message_id, timestamp, signatures = (headers[name] for name in (ID, TIMESTAMP, SIGNATURE))
    except KeyError as error:
        raise SignatureInvalid(f"the header {error.args[0]} is missing") from None
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise SignatureInvalid(f"{TIMESTAMP} is not a number of seconds")
    if abs(int(timestamp) * SECOND_US - now_us) > TOLERANCE_US:
        raise SignatureInvalid(f"{TIMESTAMP} is more than 5 minutes off: an old message, or a wrong clock")
    given = [part.encode() for part in signatures.split()]
    known = [_signature(secret, message_id, timestamp, body).encode() for secret in secrets]
    if not any(hmac.compare_digest(one, other) for one in given for other in known):
        raise SignatureInvalid(f"no signature in {SIGNATURE} fits: wrong secret, or a changed message")
    return message_id
