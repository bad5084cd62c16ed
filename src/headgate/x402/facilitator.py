"""Facilitators as the seller's side sees them: over HTTP, in this process, and guarded by a circuit breaker.

All are spoken to in x402 v2's JSON objects, as `wire.facilitator_payload` and `offer.requirements` make them.
What an answer means is `headgate.x402.answers`' affair; here is told whether the question was ever asked:
a connection that could not be made asked nothing, whatever fails later may have been acted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import aiohttp
from yarl import URL

from headgate.model.errors import (
    FacilitatorUncertain,
    FacilitatorUnreachable,
    FacilitatorUnusable,
    described,
)
from headgate.model.offer import address_bytes
from headgate.x402.answers import (
    ANSWER_BYTES,
    Refused,
    Settled,
    Supported,
    Unverified,
    Verified,
    settle_answer,
    supported_answer,
    verify_answer,
)
from headgate.x402.breaker import Breakers, network_of
from headgate.x402.transport import Connections, NoAnswer, NotReached, Reply
from headgate.x402.wire import encode_json

__all__ = [
    "Facilitator",
    "FacilitatorClient",
    "GuardedFacilitator",
    "InProcessFacilitator",
    "Refused",
    "Settled",
    "Supported",
    "Unverified",
    "Verified",
]

Json = Mapping[str, Any]


class Facilitator(Protocol):
    """Who verifies and settles. `payment` is a paymentPayload of x402, `requirements` paymentRequirements."""

    async def verify(self, payment: Json, requirements: Json) -> Verified | Refused:
        """Would this payment settle now? Raises FacilitatorUnreachable; asking again is always safe."""
        ...

    async def settle(self, payment: Json, requirements: Json) -> Settled | Refused | Unverified:
        """Settle `requirements["amount"]` of this payment.

        Raises:
            FacilitatorUnreachable: it was never asked; nothing happened.
            FacilitatorUncertain: it may have been asked; only facilitator or chain can tell what happened.
        """
        ...

    async def supported(self) -> Supported:
        """What it settles. Raises FacilitatorUnreachable."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class FacilitatorClient:
    """A facilitator over HTTP. One pool of kept-alive connections per event loop, made when first needed."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        connect_timeout_ms: int = 3_000,
        verify_timeout_ms: int = 10_000,
        settle_timeout_ms: int = 60_000,
    ) -> None:
        base = url.rstrip("/")
        self.url = base
        self._verify_url, self._settle_url = URL(base + "/verify"), URL(base + "/settle")
        self._supported_url = URL(base + "/supported")
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "headgate",
            **(headers or {}),
        }
        self._post_headers = {**self._headers, "Content-Type": "application/json"}
        self._connections = Connections(max_answer_bytes=ANSWER_BYTES, connect_timeout_ms=connect_timeout_ms)
        self._verify_timeout = self._connections.timeout(verify_timeout_ms)
        self._settle_timeout = self._connections.timeout(settle_timeout_ms)

    async def verify(self, payment: Json, requirements: Json) -> Verified | Refused:
        """See Facilitator. A connection that the other side had dropped is replaced once."""
        body = _question(payment, requirements)
        retried = False
        while True:
            try:
                reply = await self._post(self._verify_url, body, self._verify_timeout)
            except NoAnswer as error:
                if retried or not error.dropped:
                    raise FacilitatorUnusable(f"{self.url} did not answer verify ({error})") from error
                retried = True
            else:
                return verify_answer(self.url, reply.status, reply.body, _payer(payment))

    async def settle(self, payment: Json, requirements: Json) -> Settled | Refused | Unverified:
        """See Facilitator."""
        body = _question(payment, requirements)
        try:
            reply = await self._post(self._settle_url, body, self._settle_timeout)
        except NoAnswer as error:
            raise FacilitatorUncertain(f"{self.url} may have settled but did not say ({error})") from error
        return _settled(self.url, reply.status, reply.body, payment, requirements)

    async def supported(self) -> Supported:
        """See Facilitator."""
        try:
            reply = await self._connections.ask(
                "GET", self._supported_url, headers=self._headers, timeout=self._verify_timeout
            )
        except (NotReached, NoAnswer) as error:
            raise FacilitatorUnreachable(f"{self.url} did not say what it supports ({error})") from error
        return supported_answer(self.url, reply.status, reply.body)

    async def close(self) -> None:
        """Close its connections; the next question opens new ones."""
        await self._connections.close()

    async def _post(self, url: URL, body: bytes, timeout: aiohttp.ClientTimeout) -> Reply:
        try:
            return await self._connections.ask(
                "POST", url, headers=self._post_headers, timeout=timeout, body=body
            )
        except NotReached as error:
            raise FacilitatorUnreachable(f"{self.url} cannot be reached ({error})") from error


class InProcessFacilitator:
    """A facilitator in this process: an object with `verify`, `settle` and `supported` over JSON objects."""

    def __init__(self, embedded: Any, name: str = "the embedded facilitator", *, owned: bool = False) -> None:
        self._embedded = embedded
        self._owned = owned
        self._name = name

    async def verify(self, payment: Json, requirements: Json) -> Verified | Refused:
        """See Facilitator."""
        try:
            answer = await self._embedded.verify(payment, requirements)
        except Exception as error:
            raise FacilitatorUnusable(f"{self._name} failed at verify ({described(error)})") from error
        return verify_answer(self._name, 200, encode_json(answer), _payer(payment))

    async def settle(self, payment: Json, requirements: Json) -> Settled | Refused | Unverified:
        """See Facilitator."""
        try:
            answer = await self._embedded.settle(payment, requirements)
        except Exception as error:
            raise FacilitatorUncertain(f"{self._name} failed at settle ({described(error)})") from error
        return _settled(self._name, 200, encode_json(answer), payment, requirements)

    async def supported(self) -> Supported:
        """See Facilitator."""
        return supported_answer(self._name, 200, encode_json(await self._embedded.supported()))

    async def close(self) -> None:
        """Close the embedded facilitator, if it was made for this object alone."""
        if self._owned:
            self._embedded.close()


class GuardedFacilitator:
    """A facilitator behind circuit breakers: while it fails, no new work is begun that could not be paid for.

    Verifying and settling are counted apart, so that one which verifies everything and settles nothing (out
    of gas, failure case 11) is found out. Only `verify` is held back: a settlement that is due is always
    tried. A connection that cannot be made is nobody's fault; what else fails is counted by client where it
    was to be verified, since new signatures cost nothing, and by payer where it was to be settled.
    """

    def __init__(self, facilitator: Facilitator, now_us: Callable[[], int]) -> None:
        self.unguarded = facilitator
        """For questions that tell nothing new: a settlement that recovery asks for again and again."""
        self._now_us = now_us
        self.verifying = Breakers()
        self.settling = Breakers()

    def wait_us(self, payment: Json, client: str | None = None) -> int:
        """How long until this payment, from a client at that address, would be verified; 0 is now."""
        now_us, payer = self._now_us(), _payer(payment)
        return max(
            self.verifying.wait_us(_asker(client, payer), now_us), self.settling.wait_us(payer, now_us)
        )

    async def verify(
        self, payment: Json, requirements: Json, client: str | None = None
    ) -> Verified | Refused:
        """See Facilitator; raises FacilitatorUnreachable at once while a breaker is open."""
        wait_us = self.wait_us(payment, client)
        if wait_us:
            raise FacilitatorUnreachable(
                f"the facilitator failed too often; it is asked again in {wait_us // 1_000_000 + 1} s"
            )
        now_us, payer = self._now_us(), _payer(payment)
        asker = _asker(client, payer)
        self.verifying.attempted(asker, now_us)
        self.settling.attempted(payer, now_us)
        try:
            result = await self.unguarded.verify(payment, requirements)
        except FacilitatorUnreachable as error:
            whoever_asks = not isinstance(error, FacilitatorUnusable)
            self.verifying.failed(asker, self._now_us(), whoever_asks=whoever_asks)
            self.settling.given_up(payer, self._now_us())
            raise
        except BaseException:
            self.verifying.given_up(asker, self._now_us())
            self.settling.given_up(payer, self._now_us())
            raise
        self.verifying.succeeded(asker)
        if isinstance(result, Refused):  # no settlement will follow: the next payment is the attempt
            self.settling.given_up(payer, self._now_us())
        return result

    async def settle(self, payment: Json, requirements: Json) -> Settled | Refused | Unverified:
        """See Facilitator."""
        payer = _payer(payment)
        try:
            result = await self.unguarded.settle(payment, requirements)
        except (FacilitatorUnreachable, FacilitatorUncertain) as error:
            whoever_asks = isinstance(error, FacilitatorUnreachable)
            self.settling.failed(payer, self._now_us(), whoever_asks=whoever_asks)
            raise
        if isinstance(result, Settled):
            self.settling.succeeded(payer)
        elif isinstance(result, Unverified) or result.doubtful:
            # None of them says that this payer cannot pay: of several, they mean that it cannot settle.
            self.settling.failed(payer, self._now_us(), whoever_asks=False)
        return result

    async def supported(self) -> Supported:
        """See Facilitator."""
        return await self.unguarded.supported()

    async def close(self) -> None:
        """See Facilitator."""
        await self.unguarded.close()


def _asker(client: str | None, payer: bytes) -> bytes:
    return payer if client is None else network_of(client).encode()


def _question(payment: Json, requirements: Json) -> bytes:
    return encode_json({"x402Version": 2, "paymentPayload": payment, "paymentRequirements": requirements})


def _payer(payment: Json) -> bytes:
    payload = payment["payload"]
    return address_bytes((payload.get("authorization") or payload["permit2Authorization"])["from"])


def _settled(
    who: str, status: int, answer: bytes, payment: Json, requirements: Json
) -> Settled | Refused | Unverified:
    return settle_answer(
        who,
        status,
        answer,
        payer=_payer(payment),
        network=requirements["network"],
        amount_micros=int(requirements["amount"]),
    )
