"""The seller's auth where it is configured rather than called: a JWT, or the seller's own endpoint."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import jwt
from starlette.requests import Request

from headgate.config.types import Auth
from headgate.model.caller import Identity
from headgate.model.errors import StoreUnavailable

log = logging.getLogger("headgate.auth")
_FORWARDED = ("authorization", "cookie", "x-api-key")
_TIMEOUT = aiohttp.ClientTimeout(total=5, sock_connect=2)


class Authenticator:
    """Asks what `[auth]` names. None: nobody the seller knows (with credentials present: 401)."""

    def __init__(self, settings: Auth) -> None:
        self._settings = settings
        self._jwks = None if settings.jwks_url is None else jwt.PyJWKClient(settings.jwks_url, timeout=5)
        self._session: aiohttp.ClientSession | None = None

    async def identify(self, request: Request) -> Identity | None:
        """The identity behind a request's credentials."""
        settings = self._settings
        if settings.jwks_url is not None or settings.secret is not None:
            return await self._token(request)
        if settings.forward_url is not None:
            return await self._forward(request, settings.forward_url)
        return None

    async def _token(self, request: Request) -> Identity | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        settings = self._settings
        try:
            key = settings.secret
            if self._jwks is not None:
                # Its key set is fetched with blocking HTTP now and then: never on the event loop.
                found = await asyncio.get_running_loop().run_in_executor(
                    None, self._jwks.get_signing_key_from_jwt, token
                )
                key = found.key
            assert key is not None
            claims = jwt.decode(
                token,
                key,
                algorithms=list(settings.algorithms) or (["RS256", "ES256"] if self._jwks else ["HS256"]),
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_us // 1_000_000,
                options={"require": ["exp"], "verify_aud": settings.audience is not None},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise StoreUnavailable(
                "The seller's key set cannot be fetched; nobody can be identified now."
            ) from error
        except jwt.PyJWTError as error:
            log.info("a token was refused: %s", type(error).__name__)
            return None
        customer = claims.get(settings.customer_claim)
        seat = claims.get(settings.seat_claim) if settings.seat_claim else None
        if not isinstance(customer, str | int) or customer == "":
            log.warning("a valid token has no %r claim; set [auth] customer_claim", settings.customer_claim)
            return None
        return Identity(str(customer), None if seat is None else str(seat))

    async def _forward(self, request: Request, url: str) -> Identity | None:
        """Ask the seller's endpoint: 200 with `Headgate-Customer` (and `Headgate-Seat`), or 401/403."""
        headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
        if not headers:
            return None
        headers |= {"X-Original-Method": request.method, "X-Original-URI": request.url.path}
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                customer = answer.headers.get("Headgate-Customer")
                if answer.status == 200 and customer:
                    return Identity(customer, answer.headers.get("Headgate-Seat"))
                if answer.status in (401, 403):
                    return None
                log.error("the auth endpoint answered %d without Headgate-Customer", answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            log.error("the auth endpoint did not answer: %s", type(error).__name__)
        raise StoreUnavailable(
            "The seller's auth endpoint gave no usable answer; nobody can be identified now."
        )

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
