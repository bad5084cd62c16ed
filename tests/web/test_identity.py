"""Who is calling: `identify`, tokens, the seller's endpoint, cookies, and auth made optional for agents."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from headgate import Headgate
from headgate.config import Config
from headgate.config.types import Auth
from headgate.model.caller import Identity
from headgate.model.errors import ConfigError
from tests.web.shop import Calls, Row, Shop, application, client_of, configured, opened_shop, paid, serving

pytestmark = pytest.mark.timeout(60)
SEAT = Row("usage", "seat", 1, 0, "ada")


@asynccontextmanager
async def identifying(
    folder: Path, identify: Callable[[Request], Any], **more: Any
) -> AsyncIterator[tuple[Shop, httpx.AsyncClient]]:
    """A shop whose application knows its callers."""

    def wrap(app: Any, gate: Headgate) -> Any:
        return gate.middleware(app, identify=identify)

    async with opened_shop(folder, wrap=wrap, **more) as shop, client_of(shop.app, "http") as client:
        yield shop, client


def from_header(request: Request) -> str | None:
    return request.headers.get("x-user")


async def later(request: Request) -> str | None:
    await asyncio.sleep(0)
    return request.headers.get("x-user")


def with_a_seat(request: Request) -> Identity | None:
    user = request.headers.get("x-user")
    return None if user is None else Identity(user, seat="s1")


async def with_a_seat_later(request: Request) -> Identity | None:
    return with_a_seat(request)


@pytest.mark.parametrize(
    "identify", [from_header, later, with_a_seat, with_a_seat_later], ids=lambda f: f.__name__
)
async def test_what_identify_may_return(identify: Any, tmp_path: Path) -> None:
    async with identifying(tmp_path, identify) as (shop, client):
        await shop.customer("ada", "team")
        assert (await client.get("/v1/doc", headers={"X-User": "ada"})).status_code == 200
        assert await shop.ledger() == [SEAT]
        seat = (await shop.sql("SELECT s.ref FROM events e LEFT JOIN seats s ON s.id = e.seat"))[0][0]
        assert seat == ("s1" if "seat" in identify.__name__ else None)
        assert (await client.get("/v1/doc")).status_code == 402
        refused = await client.get("/v1/doc", headers={"Authorization": "Bearer of-nobody"})
        assert refused.status_code == 401  # credentials that identify knows nobody by


async def test_a_customer_never_seen_is_served_and_the_operator_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with identifying(tmp_path, from_header) as (shop, client):
        for _ in range(2):
            assert (await client.get("/v1/doc", headers={"X-User": "new"})).status_code == 200
        assert await shop.ledger() == [Row("usage", "seat", 1, 0, "new")] * 2
        assert [r.message for r in caplog.records if "never seen" in r.message].__len__() == 1


def state(request: Request) -> Any:
    return request.state.customer_id


def user(request: Request) -> Any:
    return request.user.username  # Starlette asserts that its authentication ran


def scope_entry(request: Request) -> Any:
    return request.scope["customer"]


@pytest.mark.parametrize("identify", [state, user, scope_entry], ids=lambda f: f.__name__)
async def test_auth_that_left_nothing_is_nobody(identify: Any, tmp_path: Path) -> None:
    """An agent was let past the auth, so what `identify` reads is not there: it gets its 402, and may pay."""
    async with identifying(tmp_path, identify) as (shop, client):
        offer = await client.get("/v1/doc")
        assert offer.status_code == 402
        assert (await client.get("/v1/doc", headers=paid(offer))).status_code == 200
        refused = await client.get("/v1/doc", headers={"Authorization": "Bearer token"})
        assert refused.status_code == 401  # never opens by a mistake in the set-up
        assert len(await shop.ledger()) == 1


@pytest.mark.parametrize("found", ["", "a\nb", "x" * 1000, 7, ["ada"], {"customer": "ada"}], ids=repr)
async def test_what_cannot_be_a_customer_opens_nothing(found: Any, tmp_path: Path) -> None:
    async with identifying(tmp_path, lambda _request: found) as (shop, client):
        answer = await client.get("/v1/doc", headers={"Authorization": "Bearer x"})
        assert answer.status_code == 401
        assert shop.calls.count == 0
        assert await shop.ledger() == []


async def test_an_identify_that_fails_opens_nothing(tmp_path: Path) -> None:
    def broken(_request: Request) -> str:
        raise RuntimeError("no database")

    async with identifying(tmp_path, broken) as (shop, client):
        assert (await client.get("/v1/doc")).status_code == 500
        assert shop.calls.count == 0


# --- tokens ---------------------------------------------------------------------------------------

SECRET = "a secret that is long enough for HS256"
ISSUER, AUDIENCE = "https://login.example", "acme-api"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    found = {"sub": "ada", "iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, "seat": "s1"} | changes
    return {name: value for name, value in found.items() if value is not ...}


def hs256(key: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm)


def rs256(key: Any = RSA, kid: str = "k1", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, "RS256", headers={"kid": kid})


def with_auth(**auth: Any) -> Callable[[Config], Config]:
    given = {"issuer": ISSUER, "audience": AUDIENCE, "seat_claim": "seat", **auth}
    return lambda config: replace(config, auth=Auth(**given))


TOKENS: dict[str, tuple[Callable[[], str], int]] = {
    "good": (hs256, 200),
    "several audiences": (lambda: hs256(aud=["x", AUDIENCE]), 200),
    "just expired, within the leeway": (lambda: hs256(exp=int(time.time()) - 5), 200),
    "expired": (lambda: hs256(exp=int(time.time()) - 120), 401),
    "without exp": (lambda: hs256(exp=...), 401),
    "not valid yet": (lambda: hs256(nbf=int(time.time()) + 600), 401),
    "another issuer": (lambda: hs256(iss="https://evil.example"), 401),
    "no issuer": (lambda: hs256(iss=...), 401),
    "another audience": (lambda: hs256(aud="other"), 401),
    "no audience": (lambda: hs256(aud=...), 401),
    "no customer": (lambda: hs256(sub=...), 401),
    "an empty customer": (lambda: hs256(sub=""), 401),
    "another secret": (lambda: hs256("another secret that is long enough!"), 401),
    "another algorithm": (lambda: hs256(algorithm="HS512", key=SECRET * 2), 401),
    "unsigned": (lambda: jwt.encode(claims(), None, "none"), 401),
    "not a token": (lambda: "a.b.c", 401),
}


@pytest.mark.parametrize("case", TOKENS, ids=lambda name: name)
async def test_tokens_by_secret(case: str, tmp_path: Path) -> None:
    make, status = TOKENS[case]
    change = with_auth(secret=SECRET)
    async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "http") as client:
        await shop.customer("ada", "team")
        answer = await client.get("/v1/doc", headers={"Authorization": f"Bearer {make()}"})
        assert answer.status_code == status, answer.text
        assert await shop.ledger() == ([SEAT] if status == 200 else [])
        if status == 200:
            assert await shop.sql("SELECT s.ref FROM events e JOIN seats s ON s.id = e.seat") == [("s1",)]
        else:
            assert "www-authenticate" in answer.headers
        assert (await client.get("/v1/doc")).status_code == 402


@asynccontextmanager
async def key_set(keys: dict[str, Any]) -> AsyncIterator[str]:
    async def jwks(_request: Request) -> Response:
        algorithm = jwt.algorithms.RSAAlgorithm
        found = [
            {**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig", "alg": "RS256"}
            for kid, key in keys.items()
        ]
        return JSONResponse({"keys": found})

    async with serving(Starlette(routes=[Route("/jwks", jwks)])) as url:
        yield f"{url}/jwks"


def confused() -> str:
    """A token "signed" with the public key as if it were a shared secret."""
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    parts = [json.dumps({"alg": "HS256", "kid": "k1"}).encode(), json.dumps(claims()).encode()]
    text = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = hmac.digest(pem, text, "sha256")
    return (text + b"." + urlsafe_b64encode(mac).rstrip(b"=")).decode()


async def test_tokens_by_key_set(tmp_path: Path) -> None:
    public = {"k1": RSA}
    async with (
        key_set(public) as url,
        opened_shop(tmp_path, change=with_auth(jwks_url=url)) as shop,
        client_of(shop.app, "http") as client,
    ):
        await shop.customer("ada", "team")

        async def status(token: str) -> int:
            return (await client.get("/v1/doc", headers={"Authorization": f"Bearer {token}"})).status_code

        assert await status(rs256()) == 200
        assert await status(rs256(aud="other")) == 401
        assert await status(rs256(iss="other")) == 401
        assert await status(rs256(OTHER_RSA)) == 401
        assert await status(rs256(OTHER_RSA, kid="k2")) == 401
        assert await status(confused()) == 401
        public["k2"] = OTHER_RSA  # rotated
        jwks = shop.gate._authenticator._jwks
        assert jwks is not None
        jwks.cooldown_duration = 0  # unknown keys are looked for again only so often
        assert await status(rs256(OTHER_RSA, kid="k2")) == 200
        assert len(await shop.ledger()) == 2


async def test_a_key_set_that_cannot_be_fetched_is_503(tmp_path: Path) -> None:
    change = with_auth(jwks_url="http://127.0.0.1:9/jwks")
    async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "http") as client:
        answer = await client.get("/v1/doc", headers={"Authorization": f"Bearer {rs256()}"})
        assert answer.status_code == 503
        assert (await client.get("/v1/doc")).status_code == 402
        assert shop.calls.count == 0


async def test_our_keys_beside_tokens(tmp_path: Path) -> None:
    """A Headgate key is looked up, whatever `[auth]` says."""
    change = with_auth(secret=SECRET)
    async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "http") as client:
        key = await shop.customer("ada", "team")
        assert (await client.get("/v1/doc", headers={"Authorization": f"Bearer {key}"})).status_code == 200


async def test_the_seller_s_own_endpoint(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    async def who(request: Request) -> Response:
        seen.append(dict(request.headers))
        token = request.headers.get("authorization", "")
        if token == "Bearer good":
            return PlainTextResponse("", headers={"Headgate-Customer": "ada", "Headgate-Seat": "s1"})
        return PlainTextResponse(
            "", {"Bearer moved": 302, "Bearer odd": 200, "Bearer down": 500}.get(token, 401)
        )

    async with serving(Starlette(routes=[Route("/who", who)])) as url:
        change = with_auth(forward_url=f"{url}/who")
        async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "http") as client:
            await shop.customer("ada", "team")
            for token, status in (("good", 200), ("bad", 401), ("moved", 503), ("odd", 503), ("down", 503)):
                answer = await client.get(
                    "/v1/doc", headers={"Authorization": f"Bearer {token}", "X-Else": "1"}
                )
                assert (token, answer.status_code) == (token, status)
            assert await shop.ledger() == [SEAT]
            assert all("x-else" not in headers for headers in seen)
            assert all(headers["x-original-uri"] == "/v1/doc" for headers in seen)
            asked = len(seen)
            assert (await client.get("/v1/doc")).status_code == 402
            assert len(seen) == asked  # nobody to ask about


async def test_a_cookie_that_only_the_endpoint_knows(tmp_path: Path) -> None:
    """It is asked before a payment is read: a customer is served whatever its payment contains."""

    async def who(request: Request) -> Response:
        known = request.cookies.get("session") == "ada"
        return PlainTextResponse("", 200 if known else 401, {"Headgate-Customer": "ada"} if known else {})

    async with serving(Starlette(routes=[Route("/who", who)])) as url:
        change = with_auth(forward_url=f"{url}/who")
        async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "http") as client:
            await shop.customer("ada", "team")
            for cookie, status in (("ada", 200), ("eve", 400)):
                headers = {"Cookie": f"session={cookie}", "PAYMENT-SIGNATURE": "garbage"}
                assert (await client.get("/v1/doc", headers=headers)).status_code == status
            assert await shop.ledger() == [Row("usage", "seat", 1, 0, "ada")]


# --- auth made optional ---------------------------------------------------------------------------


class ExistingAuth:
    """A seller's auth by bearer token or session cookie, as pure ASGI."""

    def __init__(self, app: Any, realm: str = "Acme") -> None:
        self.app, self.realm = app, realm

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        known = (
            request.headers.get("authorization") == "Bearer ada" or request.cookies.get("session") == "ada"
        )
        if not known:
            refusal = PlainTextResponse("Who are you?", 401, {"x-auth": self.realm})
            await refusal(scope, receive, send)
            return
        scope.setdefault("state", {})["customer_id"] = "ada"
        await self.app(scope, receive, send)


def behind_auth(app: Any, gate: Headgate) -> Any:
    app.add_middleware(gate.middleware, identify=lambda request: request.state.customer_id)
    app.add_middleware(gate.optional_auth(ExistingAuth), realm="Own")
    return app


def with_cookies(config: Config) -> Config:
    return replace(config, auth=Auth(credentials=("authorization", "x-api-key", "cookie:session")))


CLOSED = [
    ("GET", "/unlisted", {}),
    ("GET", "/healthz", {}),
    ("OPTIONS", "/v1/doc", {}),
    ("DELETE", "/v1/doc", {}),
    ("GET", "/v1/doc", {"Authorization": "Bearer wrong"}),
    ("GET", "/v1/doc", {"X-API-Key": "anything"}),
    ("GET", "/v1/doc", {"Cookie": "theme=dark; session=wrong"}),
    ("GET", "/nowhere", {"PAYMENT-SIGNATURE": "x"}),
]


@pytest.mark.parametrize(("method", "path", "headers"), CLOSED)
async def test_everything_else_stays_as_closed_as_it_was(
    method: str, path: str, headers: dict[str, str], tmp_path: Path
) -> None:
    async with (
        opened_shop(tmp_path, wrap=behind_auth, change=with_cookies) as shop,
        client_of(shop.app, "http") as client,
    ):
        answer = await client.request(method, path, headers=headers)
        assert (answer.status_code, answer.text, answer.headers["x-auth"]) == (401, "Who are you?", "Own")
        assert shop.calls.count == 0


@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer ada"}, {"Cookie": "a=b; session=ada"}], ids=str
)
async def test_customers_come_through_the_auth_as_before(headers: dict[str, str], tmp_path: Path) -> None:
    async with (
        opened_shop(tmp_path, wrap=behind_auth, change=with_cookies) as shop,
        client_of(shop.app, "http") as client,
    ):
        await shop.customer("ada", "team")
        assert (await client.get("/v1/doc", headers=headers)).status_code == 200
        assert (await client.get("/unlisted", headers=headers)).status_code == 200
        assert await shop.ledger() == [SEAT]


async def test_an_agent_passes_to_its_402_and_pays(tmp_path: Path) -> None:
    async with (
        opened_shop(tmp_path, wrap=behind_auth, change=with_cookies) as shop,
        client_of(shop.app, "http") as client,
    ):
        offer = await client.get("/v1/doc", headers={"Cookie": "theme=dark"})
        answer = await client.get("/v1/doc", headers=paid(offer))
        assert answer.status_code == 200
        assert [row.channel for row in await shop.ledger()] == ["x402"]
        receipt = answer.headers["headgate-receipt"].partition("example.com")[2]
        assert (await client.get(receipt)).status_code == 200  # though the payer has no token


async def test_auth_without_headgate_inside_lets_nobody_past(tmp_path: Path) -> None:
    """It says so at start where the server asks, and closes every route where it does not."""
    from tests.web.shop import Wire, scope

    gate = Headgate(configured(tmp_path))
    app = gate.optional_auth(ExistingAuth)(application(Calls()))  # nothing gates inside
    wire = Wire({"type": "lifespan.startup"})
    await app({"type": "lifespan"}, wire.receive, wire.send)
    (failed,) = wire.sent
    assert failed["type"] == "lifespan.startup.failed"
    assert "add Headgate first and the auth after it" in failed["message"]
    with pytest.raises(ConfigError, match="add Headgate first and the auth after it"):
        await app(scope("/v1/doc"), Wire().receive, Wire().send)


async def test_starlette_s_own_authentication(tmp_path: Path) -> None:
    class Backend(AuthenticationBackend):
        async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
            if conn.headers.get("authorization") != "Bearer ada":
                return None
            return AuthCredentials(["authenticated"]), SimpleUser("ada")

    def identify(request: Request) -> str | None:
        return request.user.username if request.user.is_authenticated else None

    def wrap(app: Any, gate: Headgate) -> Any:
        app.add_middleware(gate.middleware, identify=identify)
        app.add_middleware(AuthenticationMiddleware, backend=Backend())
        return app

    async with opened_shop(tmp_path, wrap=wrap) as shop, client_of(shop.app, "http") as client:
        await shop.customer("ada", "team")
        assert (await client.get("/v1/doc", headers={"Authorization": "Bearer ada"})).status_code == 200
        assert (await client.get("/v1/doc", headers={"Authorization": "Bearer eve"})).status_code == 401
        assert (await client.get("/v1/doc")).status_code == 402
