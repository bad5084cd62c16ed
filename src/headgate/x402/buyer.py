"""Paying, as an agent does: the official client signs what a 402 asks for. Used by the demo.

Nothing here speaks HTTP. Whoever has a 402 hands its `PAYMENT-REQUIRED` value in, and sends what comes out as
`PAYMENT-SIGNATURE` with the same request again (x402 v2, transports/http).
"""

from __future__ import annotations

from eth_account import Account
from x402 import x402Client
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.upto import UptoEvmScheme
from x402.schemas import PaymentError as SdkPaymentError

from headgate.model.errors import InputError


class Buyer:
    """A wallet in the hands of the official client. `private_key` is 0x and 64 hex digits."""

    def __init__(self, private_key: str) -> None:
        account = Account.from_key(private_key)
        self.address: str = account.address
        self._client = x402Client()
        self._client.register("eip155:*", ExactEvmScheme(account))
        self._client.register("eip155:*", UptoEvmScheme(account))

    async def sign(self, payment_required: str) -> str:
        """The `PAYMENT-SIGNATURE` value for a `PAYMENT-REQUIRED` value: a new payment each time.

        Raises:
            InputError: the header cannot be read, or nothing it offers can be paid with this wallet.
        """
        try:
            required = decode_payment_required_header(payment_required)
            payload = await self._client.create_payment_payload(required)
        except (SdkPaymentError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"the offer cannot be paid by {self.address}: {error}") from error
        return encode_payment_signature_header(payload)
