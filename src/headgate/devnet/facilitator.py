"""The embedded facilitator: the official SDK's schemes on the embedded chain, spoken to in plain JSON.

verify, settle and supported take and give dicts as x402 v2's HTTP API writes them. The SDK's synchronous
facilitator runs in one worker thread, so that an event loop is never held up and payments settle one at
a time. A payment that is wrong is an answer (`isValid: false`, `success: false`), never an exception.

Settling the same payment again: the SDK alone answers a repeat with "nonce already used", and a seller whose
first answer got lost cannot tell that from theft. With `idempotent=True` (the default) the first success is
answered again, the same transaction, for as long as the chain has it; another payload with the same nonce is
refused by the chain. `idempotent=False` gives the SDK's own behaviour, which public facilitators have.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError
from x402.extensions.eip2612_gas_sponsoring import EIP2612_GAS_SPONSORING
from x402.facilitator import x402FacilitatorSync
from x402.mechanisms.evm.exact import ExactEvmFacilitatorScheme
from x402.mechanisms.evm.upto import UptoEvmFacilitatorScheme
from x402.schemas import PaymentPayload, PaymentRequirements, SchemeNotFoundError

from headgate.devnet.chain import NETWORK, DevChain
from headgate.devnet.signer import ChainSigner

log = logging.getLogger(__name__)

PLAY_MONEY = (
    "PLAY MONEY: this facilitator settles on a chain that exists only in the memory of this process. "
    "Its dollars are worth nothing and are gone when it stops. Never point a live service at it."
)

Json = dict[str, Any]


class EmbeddedFacilitator:
    """verify, settle, supported: for `exact` (EIP-3009 and Permit2) and `upto` on eip155:84532.

    Owns its chain unless given one. Use it as a context manager, or close() it, to end its thread.
    """

    def __init__(self, chain: DevChain | None = None, *, idempotent: bool = True) -> None:
        self.chain = chain or DevChain()
        self.idempotent = idempotent
        signer = ChainSigner(self.chain)
        self._sdk = x402FacilitatorSync()
        self._sdk.register([NETWORK], ExactEvmFacilitatorScheme(signer))
        self._sdk.register([NETWORK], UptoEvmFacilitatorScheme(signer))
        self._sdk.register_extension(EIP2612_GAS_SPONSORING)
        self._settled: dict[bytes, Json] = {}
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="headgate-facilitator")

    async def verify(self, payload: Mapping[str, Any], requirements: Mapping[str, Any]) -> Json:
        """Would settling this succeed now? `{"isValid", "payer"?, "invalidReason"?, "invalidMessage"?}`."""
        return await self._run(self._verify, payload, requirements)

    async def settle(self, payload: Mapping[str, Any], requirements: Mapping[str, Any]) -> Json:
        """`{"success", "transaction", "network", "payer"?, "amount"?, "errorReason"?, "errorMessage"?}`.

        For `upto`, `requirements["amount"]` is what to settle, at most what was signed; 0 settles nothing and
        succeeds with an empty transaction.
        """
        return await self._run(self._settle, payload, requirements)

    async def supported(self) -> Json:
        """`{"kinds": [{"x402Version", "scheme", "network", "extra"?}], "extensions", "signers"}`."""
        answer: Json = self._sdk.get_supported().model_dump(by_alias=True, exclude_none=True)
        return answer

    def close(self) -> None:
        """End the worker thread, after what it is doing."""
        self._worker.shutdown(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _run(
        self,
        step: Callable[[Mapping[str, Any], Mapping[str, Any]], Json],
        payload: Mapping[str, Any],
        requirements: Mapping[str, Any],
    ) -> Json:
        return await asyncio.get_running_loop().run_in_executor(self._worker, step, payload, requirements)

    def _verify(self, payload: Mapping[str, Any], requirements: Mapping[str, Any]) -> Json:
        try:
            result = self._sdk.verify(*_parse(payload, requirements))
        except Exception as error:  # noqa: BLE001 - strangers' input inside the SDK: the outermost edge
            reason, message = _refusal(error, "unexpected_verify_error")
            return {"isValid": False, "invalidReason": reason, "invalidMessage": message}
        return result.model_dump(by_alias=True, exclude_none=True)

    def _settle(self, payload: Mapping[str, Any], requirements: Mapping[str, Any]) -> Json:
        try:
            parsed = _parse(payload, requirements)
            key = _fingerprint(*parsed)
            known = self._known(key)
            if known is not None:
                return known
            answer: Json = self._sdk.settle(*parsed).model_dump(by_alias=True, exclude_none=True)
        except Exception as error:  # noqa: BLE001 - strangers' input inside the SDK: the outermost edge
            reason, message = _refusal(error, "unexpected_settle_error")
            failed = {"success": False, "errorReason": reason, "errorMessage": message}
            return {**failed, "transaction": "", "network": NETWORK}
        if answer["success"] and answer["transaction"]:
            self._settled[key] = answer
        return answer

    def _known(self, key: bytes) -> Json | None:
        """The first success of this very payment, unless the chain reorganised it away."""
        answer = self._settled.get(key) if self.idempotent else None
        if answer is None or self.chain.transaction(answer["transaction"]) is None:
            return None
        return dict(answer)


def _parse(
    payload: Mapping[str, Any], requirements: Mapping[str, Any]
) -> tuple[PaymentPayload, PaymentRequirements]:
    version = payload.get("x402Version")
    if version != 2:
        raise _Refused("invalid_x402_version", f"x402Version is {version!r}; this facilitator speaks 2")
    try:
        signed = PaymentPayload.model_validate(dict(payload))
    except ValidationError as error:
        raise _Refused("invalid_payload", str(error)) from error
    try:
        wanted = PaymentRequirements.model_validate(dict(requirements))
    except ValidationError as error:
        raise _Refused("invalid_payment_requirements", str(error)) from error
    # The SDK widens one registered network to eip155:*, and would hold another chain's payment against ours.
    for network in (signed.accepted.network, wanted.network):
        if network != NETWORK:
            raise _Refused("invalid_network", f"{network} is not settled here: this chain is {NETWORK}")
    return signed, wanted


class _Refused(ValueError):
    """A payment that cannot be looked at; `reason` is x402's error code."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def _refusal(error: Exception, otherwise: str) -> tuple[str, str]:
    """x402's error code and a sentence for what went wrong; what nobody foresaw is logged in full."""
    if isinstance(error, _Refused):
        return error.reason, str(error)
    if isinstance(error, SchemeNotFoundError):
        return "unsupported_scheme", str(error)
    if isinstance(error, (KeyError, ValueError, TypeError, AttributeError)):
        return "invalid_payload", f"{type(error).__name__}: {error}"
    log.error("the embedded facilitator failed on a payment", exc_info=error)
    return otherwise, f"{type(error).__name__}: {error}"


def _fingerprint(payload: PaymentPayload, requirements: PaymentRequirements) -> bytes:
    """The same for the same signed payment against the same terms, whatever rides along unsigned."""
    terms = requirements.model_dump(by_alias=True, exclude={"extra", "max_timeout_seconds"})
    text = json.dumps([payload.payload, terms], sort_keys=True)
    return hashlib.sha256(text.encode()).digest()
