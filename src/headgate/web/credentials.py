"""Which of a request's headers are credentials, and which a payment. One pass, no decoding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from headgate.x402.wire import PAYMENT_SIGNATURE

PAYMENT_V1 = b"x-payment"
_KEY_PREFIX = b"hg_"
_SCHEME = b"bearer "


class Credentials(NamedTuple):
    """`key`: text that claims to be a Headgate key. `present`: anything that counts as credentials."""

    key: bytes | None
    present: bool
    payments: tuple[bytes, ...]
    payments_v1: tuple[bytes, ...]

    @property
    def nobody(self) -> bool:
        """Whether nothing says who is calling: whoever it is has to pay."""
        return self.key is None and not self.present


STRANGER = Credentials(None, present=False, payments=(), payments_v1=())
"""Nothing at all: whoever asks has to be made an offer."""


def read_credentials(headers: Iterable[Sequence[bytes]], names: frozenset[bytes]) -> Credentials:
    """Look through the headers once. `names` are lower-case header names, or `cookie:NAME`."""
    key = None
    present = False
    payments: tuple[bytes, ...] = ()
    payments_v1: tuple[bytes, ...] = ()
    for name, value in headers:
        if name in names:
            text = value[7:].strip() if value[:7].lower() == _SCHEME else value
            if text or value:
                present = True
            if text[:3] == _KEY_PREFIX:
                key = text if key is None or key == text else b""
        elif name == PAYMENT_SIGNATURE:
            payments = (*payments[:1], value)  # two are as bad as a thousand, and cost less
        elif name == PAYMENT_V1:
            payments_v1 = (value,)
        elif name == b"cookie" and _has_cookie(value, names):
            present = True
    return Credentials(key, present, payments, payments_v1)


def _has_cookie(value: bytes, names: frozenset[bytes]) -> bool:
    """Whether one of the seller's session cookies is among a request's cookies."""
    return any(b"cookie:" + part.partition(b"=")[0].strip() in names for part in value.split(b";"))
