"""Where payers read about their payments: addresses on the seller's own origin that cannot be guessed."""

from __future__ import annotations

import hashlib
import hmac

from headgate.model.payment import payment_text

RECEIPT_PATH = "/.well-known/headgate/receipts/"


class Receipts:
    """Addresses of receipts below `public_url`; `key` is the store's, so every process knows them all."""

    def __init__(self, public_url: str, key: bytes) -> None:
        self._public_url = public_url.rstrip("/")
        self._key = key

    def url(self, identifier: bytes) -> str:
        """Where a payer reads about its payment; the tag makes the address unguessable."""
        return f"{self._public_url}{RECEIPT_PATH}{payment_text(identifier)}.{self._tag(identifier)}"

    def payment_of(self, token: str) -> bytes | None:
        """The payment a receipt address names, if it is one of ours."""
        text, _, tag = token.partition(".")
        try:
            identifier = bytes.fromhex(text.removeprefix("pay_"))
        except ValueError:
            return None
        good = hmac.compare_digest(tag.encode(), self._tag(identifier).encode())
        return identifier if good and text.startswith("pay_") else None

    def _tag(self, identifier: bytes) -> str:
        return hmac.new(self._key, identifier, hashlib.sha256).hexdigest()[:32]
