"""Contract §3, row by row: caller, standing and payment header in; status, ledger and payments out.

Each row runs over real HTTP and as bare ASGI. `used` books use that was no request, so that a customer stands
where the row wants it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.service.keys import revoke_key
from tests.web.shop import (
    DAY_US,
    Row,
    Shop,
    bearer,
    client_of,
    opened_shop,
    paid,
    problem_of,
    unpacked,
)
from tests.x402.buyer import PAYER, changed, sealed

pytestmark = pytest.mark.timeout(60)
Headers = dict[str, str]
Payment = Callable[[httpx.AsyncClient], Awaitable[Headers]]
AGENT = PAYER.address.lower()
PRICE = 100_000


async def nothing(_client: httpx.AsyncClient) -> Headers:
    return {}


async def valid(client: httpx.AsyncClient) -> Headers:
    """A payment for the offer that anybody gets."""
    return paid(await client.get("/v1/doc"))


async def forged(client: httpx.AsyncClient) -> Headers:
    """A payment whose amount was changed after it was signed."""
    signed = unpacked((await valid(client))["PAYMENT-SIGNATURE"])
    worse = changed(signed, "payload.signature", "0x" + "11" * 64 + "1b")
    return {"PAYMENT-SIGNATURE": sealed(worse).decode()}


async def garbage(_client: httpx.AsyncClient) -> Headers:
    return {"PAYMENT-SIGNATURE": "%%% not base64"}


@dataclass(frozen=True)
class Case:
    """One row of the table. `booked` leaves out what `before` booked."""

    name: str
    status: int
    plan: str | None = None
    known: bool = True
    used: int = 0
    payment: Payment = nothing
    booked: tuple[Row, ...] = ()
    payments: tuple[str, ...] = ()
    code: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    later_us: int = 0
    asked: tuple[str, ...] = ()


def seat(units: int = 1) -> Row:
    return Row("usage", "seat", units, 0, "ada")


def overage(charged: int = PRICE) -> Row:
    return Row("usage", "overage", 1, charged, "ada")


def x402(customer: str | None = None) -> Row:
    return Row("usage", "x402", 1, PRICE, customer, AGENT)


SETTLED = ("verify", "settle")
ENDED = 40 * DAY_US
TABLE = (
    Case("inside", 200, "team", booked=(seat(),)),
    Case("inside, valid payment ignored", 200, "team", payment=valid, booked=(seat(),)),
    Case("inside, garbage payment ignored", 200, "closed", payment=garbage, booked=(seat(),)),
    Case("inside a plan that ends in x402", 200, "agents", payment=valid, booked=(seat(),)),
    Case("last unit inside", 200, "closed", used=1, booked=(seat(),)),
    Case("beyond, overage", 200, "team", used=2, booked=(overage(),)),
    Case("beyond, overage, payment ignored", 200, "team", used=2, payment=valid, booked=(overage(),)),
    Case("beyond, overage under the cap", 200, "capped", used=3, booked=(overage(),)),
    Case("cap reached, beyond_cap x402", 402, "capped", used=4, code="payment_required"),
    Case(
        "cap reached, beyond_cap x402, valid",
        200,
        "capped",
        used=4,
        payment=valid,
        booked=(x402("ada"),),
        payments=("settled",),
        asked=SETTLED,
    ),
    Case("cap reached, beyond_cap block", 429, "stopped", used=4, payment=valid, code="allowance_exhausted"),
    Case("beyond, x402, none", 402, "agents", used=2, code="payment_required"),
    Case(
        "beyond, x402, valid",
        200,
        "agents",
        used=2,
        payment=valid,
        booked=(x402("ada"),),
        payments=("settled",),
        asked=SETTLED,
    ),
    Case(
        "beyond, x402, forged",
        402,
        "agents",
        used=2,
        payment=forged,
        code="invalid_exact_evm_payload_signature",
    ),
    Case("beyond, x402, garbage", 400, "agents", used=2, payment=garbage, code="invalid_payload"),
    Case("beyond, block, none", 429, "closed", used=2, code="allowance_exhausted"),
    Case("beyond, block, valid", 429, "closed", used=2, payment=valid, code="allowance_exhausted"),
    Case("never, pass", 200, None, booked=(seat(),)),
    Case("never, pass, payment ignored", 200, None, payment=valid, booked=(seat(),)),
    Case("never, x402", 402, None, settings={"no_subscription": "x402"}, code="payment_required"),
    Case(
        "never, x402, valid",
        200,
        None,
        settings={"no_subscription": "x402"},
        payment=valid,
        booked=(x402("ada"),),
        payments=("settled",),
        asked=SETTLED,
    ),
    Case(
        "never, block",
        403,
        None,
        settings={"no_subscription": "block"},
        payment=valid,
        code="no_subscription",
    ),
    Case("ended, inside grace", 200, "team", later_us=12 * DAY_US, booked=(seat(),)),
    Case("ended, grace over, none", 402, "team", later_us=ENDED, code="payment_required"),
    Case("anonymous, none", 402, known=False, code="payment_required"),
    Case(
        "anonymous, valid",
        200,
        known=False,
        payment=valid,
        booked=(x402(),),
        payments=("settled",),
        asked=SETTLED,
    ),
    Case("anonymous, forged", 402, known=False, payment=forged, code="invalid_exact_evm_payload_signature"),
    Case("anonymous, garbage", 400, known=False, payment=garbage, code="invalid_payload"),
)


async def set_up(shop: Shop, case: Case) -> Headers:
    if not case.known:
        return {}
    terms: dict[str, Any] = {}
    if case.later_us:  # a contract of ten days, looked at that much later
        terms = {"start_us": shop.clock(), "end_us": shop.clock() + 10 * DAY_US}
    key = await shop.customer("ada", case.plan, **terms)
    if case.used:
        await shop.use_up("ada", case.used)
    shop.clock.ahead_us += case.later_us
    return bearer(key)


@pytest.mark.parametrize("transport", ["http", "asgi"])
@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
async def test_row(case: Case, transport: str, tmp_path: Path) -> None:
    async with opened_shop(tmp_path, **case.settings) as shop, client_of(shop.app, transport) as client:
        who = await set_up(shop, case)
        before = await shop.ledger()
        payment = await case.payment(client)
        asked_before = len(shop.asked)
        answer = await client.get("/v1/doc", headers={**who, **payment})

        assert answer.status_code == case.status, answer.text
        assert shop.calls.count == (answer.status_code == 200)
        check_answer(case, answer)
        assert (await shop.ledger())[len(before) :] == list(case.booked)
        assert tuple(await shop.payments()) == case.payments
        assert tuple(shop.asked[asked_before:]) == case.asked
        assert await shop.held() == 0


def check_answer(case: Case, answer: httpx.Response) -> None:
    assert ("payment-response" in answer.headers) == bool(case.payments)
    assert ("payment-required" in answer.headers) == (answer.status_code == 402)
    if answer.status_code == 402:
        assert answer.json()["error"] == case.code
    elif answer.status_code != 200:
        assert problem_of(answer) == case.code
        assert "retry-after" not in answer.headers
    if answer.status_code == 429:
        assert answer.json()["resets_at"].endswith("Z")


async def test_ended_grace_over_then_a_payment_is_taken_for_the_customer(tmp_path: Path) -> None:
    """Its contract is over, its key is not: the row names customer and payer."""
    async with opened_shop(tmp_path) as shop, client_of(shop.app, "http") as client:
        began = shop.clock() - 40 * DAY_US
        key = await shop.customer("ada", "team", start_us=began, end_us=began + 10 * DAY_US)
        answer = await client.get("/v1/doc", headers={**bearer(key), **await valid(client)})
        assert answer.status_code == 200
        assert await shop.ledger() == [x402("ada")]


@pytest.mark.parametrize("how", ["authorization", "x-api-key"])
async def test_a_seat_s_key_in_either_header(shop: Shop, client: httpx.AsyncClient, how: str) -> None:
    key = await shop.customer("ada", "team", seat="ada.1")
    headers = bearer(key) if how == "authorization" else {"X-API-Key": key}
    assert (await client.get("/v1/doc", headers=headers)).status_code == 200
    rows = await shop.sql(
        "SELECT s.ref, e.api_key, e.subscription FROM events e "
        "JOIN seats s ON s.id = e.seat AND s.customer = e.customer"
    )
    assert rows == [("ada.1", 1, 1)]
    (caller,) = shop.calls.callers
    assert (caller.channel, caller.customer, caller.seat, caller.payer) == ("seat", "ada", "ada.1", None)


# --- straddling the boundary ----------------------------------------------------------------------


async def test_straddling_use_is_split_under_one_request_id(shop: Shop) -> None:
    await shop.customer("ada", "team")
    await shop.gate.record("ada", "doc.read", 5, id="batch 1")
    assert await shop.ledger() == [seat(2), Row("usage", "overage", 3, 3 * PRICE, "ada")]
    assert len(await shop.sql("SELECT DISTINCT request_id FROM events")) == 1


async def test_straddling_http_use_is_split(shop: Shop, client: httpx.AsyncClient) -> None:
    key = await shop.customer("ada", "team")
    for units, rows in ((100, [(1, 100)]), (80, [(1, 50), (2, 30)])):
        before = len(await shop.ledger())
        answer = await client.post(
            f"/v1/words?h-headgate-units={units}", headers=bearer(key), content=b"a text"
        )
        assert answer.status_code == 200
        assert "headgate-units" not in answer.headers
        found = await shop.sql("SELECT channel, units, request_id FROM events ORDER BY seq")
        assert [row[:2] for row in found[before:]] == rows
        assert len({row[2] for row in found[before:]}) == 1
    assert (await shop.ledger())[-1].charged == 30 * 10_000


async def test_use_beyond_what_was_held_is_written_off(shop: Shop, client: httpx.AsyncClient) -> None:
    """Where the answer could be no, a variable use holds what is left, and no more is charged."""
    key = await shop.customer("ada", "closed")
    await shop.use_up("ada", 100, "words")
    answer = await client.post("/v1/words?h-headgate-units=80", headers=bearer(key))
    assert answer.status_code == 200
    assert await shop.sql("SELECT units, written_off FROM events ORDER BY seq") == [(100, 0), (50, 30)]
    assert (await client.post("/v1/words", headers=bearer(key))).status_code == 429
    assert await shop.held() == 0


# --- credentials that are none --------------------------------------------------------------------


async def revoked(shop: Shop) -> Headers:
    key = await shop.customer("ada", "team")
    assert shop.gate.store is not None
    await revoke_key(shop.gate.store.registry, shop.keys["ada"].key_id, now_us=shop.clock())
    return bearer(key)


async def expired(shop: Shop) -> Headers:
    from headgate.service.keys import create_key

    await shop.customer("ada", "team")
    assert shop.gate.store is not None
    now_us = shop.clock()
    made = await create_key(
        shop.gate.store.registry,
        "ada",
        mode="test",
        entropy=b"\x07" * 32,
        now_us=now_us,
        expires_us=now_us + 1_000_000,
    )
    shop.clock.ahead_us += 2_000_000
    return bearer(made.key)


async def mistyped(shop: Shop) -> Headers:
    key = await shop.customer("ada", "team")
    return bearer(key[:-1] + ("a" if key[-1] != "a" else "b"))


async def of_live_mode(shop: Shop) -> Headers:
    key = await shop.customer("ada", "team")
    return bearer(key.replace("hg_test_", "hg_live_"))


async def two_keys(shop: Shop) -> Headers:
    one, other = await shop.customer("ada", "team"), await shop.customer("ben", "team")
    return {**bearer(one), "X-API-Key": other}


async def foreign(_shop: Shop) -> Headers:
    return {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}


async def basic(_shop: Shop) -> Headers:
    return {"Authorization": "Basic YTpi"}


async def bare_scheme(_shop: Shop) -> Headers:
    return {"Authorization": "Bearer"}


async def empty_key(_shop: Shop) -> Headers:
    return {"X-API-Key": "hg_test_"}


async def very_long(_shop: Shop) -> Headers:
    return {"X-API-Key": "hg_test_" + "a" * 5_000}


BAD = (revoked, expired, mistyped, of_live_mode, two_keys, foreign, basic, bare_scheme, empty_key, very_long)


@pytest.mark.parametrize("with_payment", [False, True], ids=["none", "valid payment"])
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
async def test_bad_credentials_are_401_and_never_paid_for(
    bad: Callable[[Shop], Awaitable[Headers]], with_payment: bool, shop: Shop, client: httpx.AsyncClient
) -> None:
    headers = {**await bad(shop), **(await valid(client) if with_payment else {})}
    answer = await client.get("/v1/doc", headers=headers)
    assert answer.status_code == 401
    assert problem_of(answer) == "invalid_credentials"
    assert answer.headers["www-authenticate"] == 'Bearer realm="Acme"'
    assert "payment-required" not in answer.headers
    assert shop.calls.count == 0
    assert shop.asked == []
    assert await shop.ledger() == []
    assert await shop.payments() == []


async def test_a_revoked_key_stops_at_the_next_request(shop: Shop, client: httpx.AsyncClient) -> None:
    headers = bearer(await shop.customer("ada", "team"))
    assert (await client.get("/v1/doc", headers=headers)).status_code == 200
    assert shop.gate.store is not None
    await revoke_key(shop.gate.store.registry, shop.keys["ada"].key_id, now_us=shop.clock())
    assert (await client.get("/v1/doc", headers=headers)).status_code == 401
    assert await shop.ledger() == [seat()]


# --- payment headers that cannot be read: 400 -----------------------------------------------------


def _b64(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.b64encode(text).decode()


UNREADABLE = {
    "not base64": ({"PAYMENT-SIGNATURE": "{}"}, "invalid_payload"),
    "empty": ({"PAYMENT-SIGNATURE": ""}, "invalid_payload"),
    "not JSON": ({"PAYMENT-SIGNATURE": _b64(b"{")}, "invalid_payload"),
    "a list": ({"PAYMENT-SIGNATURE": _b64([])}, "invalid_payload"),
    "nothing in it": ({"PAYMENT-SIGNATURE": _b64({"x402Version": 2})}, "invalid_payload"),
    "deep": ({"PAYMENT-SIGNATURE": _b64(b"[" * 5000)}, "invalid_payload"),
    "version 1": ({"PAYMENT-SIGNATURE": _b64({"x402Version": 1})}, "unsupported_x402_version"),
    "version 9": ({"PAYMENT-SIGNATURE": _b64({"x402Version": 9})}, "unsupported_x402_version"),
    "the header of version 1": ({"X-PAYMENT": _b64({"x402Version": 1})}, "unsupported_x402_version"),
    "oversized": ({"PAYMENT-SIGNATURE": "A" * 20_000}, "payment_header_too_large"),
}


@pytest.mark.parametrize("case", UNREADABLE, ids=lambda name: name)
async def test_unreadable_payments_are_400(case: str, shop: Shop, client: httpx.AsyncClient) -> None:
    headers, code = UNREADABLE[case]
    answer = await client.get("/v1/doc", headers=headers)
    assert (answer.status_code, problem_of(answer)) == (400, code)
    assert shop.calls.count == 0
    assert shop.asked == []
    assert await shop.payments() == []


async def test_a_payment_sent_twice_is_400(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = (await valid(client))["PAYMENT-SIGNATURE"]
    answer = await client.get(
        "/v1/doc", headers=[("PAYMENT-SIGNATURE", payment), ("PAYMENT-SIGNATURE", payment)]
    )
    assert (answer.status_code, problem_of(answer)) == (400, "duplicate_payment_header")
    assert await shop.ledger() == []
    once = await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": payment})
    assert once.status_code == 200
    assert await shop.ledger() == [x402()]
