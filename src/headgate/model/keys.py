"""API keys: what one looks like, how a mistyped one is told from an unknown one, and until when one works.

    hg_test_  <43 base62 digits: 32 bytes of entropy>  <6 base62 digits: CRC-32 of all before it>

Only the SHA-256 of a key is stored: 256 random bits need no slow hash. The checksum guards against typing and
cutting mistakes, not against forgery; it saves a look-up for text that was never a key.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from enum import Enum

from headgate.model.errors import InputError

MODES = ("test", "live")
ENTROPY_BYTES = 32

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIXES = {f"hg_{mode}_": mode for mode in MODES}
_PREFIX_LENGTH = len("hg_test_")
_BODY_LENGTH = 43  # 62**43 > 2**256
_CHECKSUM_LENGTH = 6  # 62**6 > 2**32
_HINT_DIGITS = 4
KEY_LENGTH = _PREFIX_LENGTH + _BODY_LENGTH + _CHECKSUM_LENGTH


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is made: `secret` is shown once and kept by nobody; `digest` and `hint` are stored."""

    secret: str
    digest: bytes
    hint: str


@dataclass(frozen=True, slots=True)
class KeyText:
    """A well-formed key that a caller presented: the mode it says it is for, and the digest to look up."""

    mode: str
    digest: bytes


class KeyState(Enum):
    """Whether a stored key works at an instant. Every state but ACTIVE is answered 401."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. It works in `[created_us, expires_us)` unless revoked; `seat` 0: the customer's own.

    `replaces` is the id of the key it was rotated from, 0 for none.
    """

    id: int
    customer: int
    seat: int
    hint: str
    created_us: int
    expires_us: int | None = None
    revoked_us: int | None = None
    replaces: int = 0

    @property
    def text(self) -> str:
        """The public id, `key_12`."""
        return f"key_{self.id}"

    def state_at(self, at_us: int) -> KeyState:
        """Revocation wins over expiry, so that the list tells what was done on purpose."""
        if self.revoked_us is not None and self.revoked_us <= at_us:
            return KeyState.REVOKED
        if self.expires_us is not None and self.expires_us <= at_us:
            return KeyState.EXPIRED
        return KeyState.ACTIVE


def new_key(mode: str, entropy: bytes) -> NewKey:
    """Make a key from 32 bytes of entropy handed in.

    Raises:
        InputError: not 32 bytes, or a mode that is neither `test` nor `live`.
    """
    if mode not in MODES:
        raise InputError(f'{mode!r} is not a mode; use "test" or "live"')
    if len(entropy) != ENTROPY_BYTES:
        raise InputError(f"a key needs {ENTROPY_BYTES} bytes of entropy, not {len(entropy)}")
    body = f"hg_{mode}_{_base62(int.from_bytes(entropy, 'big'), _BODY_LENGTH)}"
    secret = body + _checksum(body)
    return NewKey(
        secret, hashlib.sha256(secret.encode()).digest(), f"{body[: _PREFIX_LENGTH + _HINT_DIGITS]}…"
    )


def is_headgate_key(text: str) -> bool:
    """Whether text claims to be one of Headgate's keys (and is not, say, the application's own token)."""
    return text[:_PREFIX_LENGTH] in _PREFIXES


def read_key(text: str) -> KeyText | None:
    """Read what a caller presented as a key; None: malformed (wrong prefix, length, digits or checksum)."""
    if len(text) != KEY_LENGTH or not text.isascii():
        return None
    mode = _PREFIXES.get(text[:_PREFIX_LENGTH])
    if mode is None or _checksum(text[:-_CHECKSUM_LENGTH]) != text[-_CHECKSUM_LENGTH:]:
        return None
    return KeyText(mode, hashlib.sha256(text.encode()).digest())


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
