"""Payments that a stranger has tampered with: never a failure of ours, and nothing is left behind by them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from x402.http.utils import decode_payment_required_header, encode_payment_signature_header

from headgate import Headgate
from headgate.model.errors import PaymentError
from headgate.web.credentials import read_credentials
from headgate.web.mcp_payer import read_payment
from headgate.x402 import wire
from headgate.x402.check import LONGEST_VALIDITY_S
from tests.web.shop import Row, Shop, Wire, client_of, opened_shop, paid, problem_of, scope, unpacked
from tests.web.test_payments import again_signed
from tests.x402.buyer import PAYER, changed, sdk_client, sealed

pytestmark = pytest.mark.timeout(60)
Json = dict[str, Any]
HALF = "\ud83d"  # half of a surrogate pair: JSON can spell it, UTF-8 cannot
MEMBERS = [
    *("x402Version", "accepted", "payload", "resource", "extensions"),
    *("accepted.scheme", "accepted.network", "accepted.asset", "accepted.payTo", "accepted.amount"),
    *("accepted.extra", "accepted.extra.name", "resource.url", "payload.signature", "payload.authorization"),
    *(f"payload.authorization.{name}" for name in ("from", "to", "value", "nonce")),
    *("payload.authorization.validAfter", "payload.authorization.validBefore", "payload.new", "new"),
    *("extensions.new", "extensions.payment-identifier", "extensions.bazaar"),
]


async def good(shop: Shop, path: str = "/v1/doc") -> Json:
    """A payment that would be served, signed by the official client."""
    unpaid = Wire()
    await shop.app(scope(path=path), unpaid.receive, unpaid.send)
    return unpacked(paid(httpx.Response(402, headers=unpaid.sent[0]["headers"]))["PAYMENT-SIGNATURE"])


async def answered(shop: Shop, *headers: bytes) -> Wire:
    """What a GET of /v1/doc is answered with these payment headers, as bare ASGI: what is raised is seen."""
    asked = scope()
    asked["headers"] = [(b"payment-signature", value) for value in headers]
    found = Wire()
    await shop.app(asked, found.receive, found.send)
    return found


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("accepted.network", HALF),
        ("extensions.new", HALF),
        ("extensions.new", {HALF: 1}),
        ("extensions.new", [{"deep": [HALF]}]),
        ("resource.url", "https://x/" + HALF),
        (HALF, 1),
        ("payload.new", HALF),
    ],
)
async def test_half_a_surrogate_pair_is_no_text(member: str, value: Any, shop: Shop) -> None:
    payment = await good(shop)
    found = await answered(shop, sealed(changed(payment, member, value)))
    assert (found.status, json.loads(found.body)["code"]) == (400, "invalid_payload")
    assert (await shop.payments(), shop.asked, shop.calls.count) == ([], [], 0)
    assert (await answered(shop, sealed(payment))).status == 200
    whole = changed(await good(shop), "extensions.new", "\N{GRINNING FACE}")
    assert (await answered(shop, sealed(whole))).status == 200  # both halves are a character


@pytest.mark.parametrize("member", ["accepted.network", "extensions.new", HALF])
async def test_nor_is_it_for_a_tool(member: str, shop: Shop) -> None:
    payment = changed(await good(shop), member, HALF)
    for given_ in (payment, json.dumps(payment)):
        with pytest.raises(PaymentError) as refused:
            read_payment(given_)
        assert refused.value.code == "invalid_payload"


@contextlib.contextmanager
def counted_statements(shop: Shop) -> Iterator[list[str]]:
    """What this task asks of the store: background work has tasks of its own."""
    asked: list[str] = []
    task = asyncio.current_task()
    assert shop.gate.store is not None
    driver = shop.gate.store.driver

    def counting(name: str, method: Any) -> Any:
        def count(*args: Any) -> Any:
            if asyncio.current_task() is task:
                asked.append(f"{name} {args[0] if args else ''}")
            return method(*args)

        return count

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rows", "rows_slow", "rows_sql", "write", "snapshot"):
            patch.setattr(driver, name, counting(name, getattr(driver, name)))
        yield asked


STRANGERS: dict[str, Callable[[Any, Headgate], Any]] = {
    "nobody is asked": lambda app, gate: gate.middleware(app),
    "the application does not know": lambda app, gate: gate.middleware(app, identify=lambda _request: None),
}


@pytest.mark.parametrize("garbage", [b"garbage", sealed({"x402Version": 2}), b"A" * 17_000, b"e30="])
@pytest.mark.parametrize("wrap", STRANGERS)
async def test_garbage_of_a_stranger_asks_nothing_of_the_store(
    wrap: str, garbage: bytes, tmp_path: Path
) -> None:
    async with opened_shop(tmp_path, wrap=STRANGERS[wrap]) as shop:
        key = await shop.customer("ada", "team")
        with counted_statements(shop) as asked:
            for headers, status in (((garbage,), 400), ((garbage, garbage), 400), ((), 402)):
                await asyncio.sleep(0)  # what was read for a former round of the event loop counts no more
                assert (await answered(shop, *headers)).status == status
                assert asked == []
            await asyncio.sleep(0)
            known = scope(headers={"X-API-Key": key})
            known["headers"].append((b"payment-signature", garbage))
            served = Wire()
            await shop.app(known, served.receive, served.send)
            assert served.status == 200
            assert asked != []  # a customer is looked up, and its payment is not
        assert await shop.ledger() == [Row("usage", "seat", 1, 0, "ada")]


async def test_garbage_of_whom_the_application_knows_is_not_read(tmp_path: Path) -> None:
    """A customer known by something else than its credentials is served, whatever the payment contains."""

    def wrap(app: Any, gate: Headgate) -> Any:
        return gate.middleware(app, identify=lambda request: request.headers.get("x-user"))

    async with opened_shop(tmp_path, wrap=wrap) as shop, client_of(shop.app, "http") as client:
        await shop.customer("ada", "team")
        known = {"X-User": "ada", "PAYMENT-SIGNATURE": "garbage"}
        assert (await client.get("/v1/doc", headers=known)).status_code == 200
        assert await shop.ledger() == [Row("usage", "seat", 1, 0, "ada")]
        assert (await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": "garbage"})).status_code == 400


# --- anything at all ------------------------------------------------------------------------------

TEXTS = st.text(st.characters(), max_size=30) | st.just(HALF) | st.sampled_from(["0x", "0x" + "f" * 64, "-1"])
NUMBERS = st.integers() | st.sampled_from([2**53, 2**63 - 1, 2**63, 2**64, 2**256 - 1, 2**256, -1])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | NUMBERS.map(str) | TEXTS | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
CHANGES = st.lists(
    st.tuples(st.sampled_from(MEMBERS), st.just(...) | st.just(HALF) | VALUES), min_size=1, max_size=3
)


def tampered(payment: Json, changes: list[tuple[str, Any]]) -> bytes:
    for member, value in changes:
        with contextlib.suppress(KeyError, TypeError):
            payment = changed(payment, member, value)
    return sealed(payment)


@settings(max_examples=25, deadline=None)
@given(st.lists(CHANGES, min_size=10, max_size=40))
def test_no_payment_makes_the_shop_fail(cases: list[list[tuple[str, Any]]]) -> None:
    async def offer_them_all() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with opened_shop(Path(folder)) as shop:
                payment = await good(shop)
                for changes in cases:
                    found = await answered(shop, tampered(payment, changes))
                    assert found.status < 500, changes
                    if found.status == 400:
                        assert json.loads(found.body)["code"]
                assert set(await shop.payments()) <= {"settled"}  # nothing is left half done
                assert len(await shop.ledger()) == len(shop.facilitator.settled) <= 1

    asyncio.run(offer_them_all())


# --- many of them, and ones without an end --------------------------------------------------------


async def test_of_thousands_of_payments_two_are_kept(shop: Shop) -> None:
    header = sealed(await good(shop))
    names = frozenset({b"authorization"})
    read = read_credentials([(b"payment-signature", header), (b"x-payment", b"e30=")] * 5_000, names)
    assert (len(read.payments), len(read.payments_v1)) == (2, 1)
    found = await answered(shop, *[header] * 5_000)
    assert (found.status, json.loads(found.body)["code"]) == (400, "duplicate_payment_header")
    assert await shop.payments() == []


NEVER = {
    "an hour more than that": lambda: int(time.time()) + LONGEST_VALIDITY_S + 3_600,
    "63 bits": lambda: 2**63,
    "64 bits": lambda: 2**64 - 1,
    "256 bits": lambda: 2**256 - 1,
}


@pytest.mark.parametrize("case", NEVER)
async def test_valid_for_too_long(case: str, shop: Shop, client: httpx.AsyncClient) -> None:
    payment, valid_before = await good(shop), NEVER[case]()
    header = again_signed(payment, validBefore=valid_before)
    answer = await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": header})
    assert (answer.status_code, answer.json()["error"]) == (402, "valid_for_too_long")
    assert (await shop.payments(), shop.asked) == ([], [])
    soon = again_signed(payment, validBefore=int(time.time()) + LONGEST_VALIDITY_S - 60)
    assert (await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": soon})).status_code == 200


@pytest.mark.parametrize("case", NEVER)
async def test_a_permit_valid_for_too_long(case: str, shop: Shop, client: httpx.AsyncClient) -> None:
    unpaid, deadline = await client.post("/v1/words"), NEVER[case]()

    def permitted_until(second: int) -> dict[str, str]:
        required = decode_payment_required_header(unpaid.headers["PAYMENT-REQUIRED"])
        (offer,) = required.accepts
        offer.max_timeout_seconds = second - int(time.time()) - 5
        payload = sdk_client().create_payment_payload(required)
        return {"PAYMENT-SIGNATURE": encode_payment_signature_header(payload)}

    answer = await client.post("/v1/words", headers=permitted_until(deadline))
    assert (answer.status_code, answer.json()["error"]) == (402, "valid_for_too_long")
    assert (await shop.payments(), shop.asked) == ([], [])
    soon = permitted_until(int(time.time()) + LONGEST_VALIDITY_S - 60)
    answer = await client.post("/v1/words?h-headgate-units=7", headers=soon)
    assert answer.status_code == 200


# --- what is kept of them -------------------------------------------------------------------------

FIRST = """
[actions."first"]
title = "Paid first"
price = "0.10"
settle = "before"
routes = ["GET /v1/files/x/{name}"]
"""


async def test_a_path_full_of_brackets_is_served_again(tmp_path: Path) -> None:
    """What was kept of a payment is read again, however many brackets the address has."""
    path = "/v1/files/x/" + "{[" * 300
    async with opened_shop(tmp_path, more=FIRST) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.get(path))
        assert (await client.get(path + "?status=500", headers=payment)).status_code == 500
        assert await shop.payments() == ["reopened"]
        assert problem_of(await client.get(path, headers=payment)) == "payment_bound_elsewhere"
        assert (await client.get(path + "?status=500", headers=payment)).status_code == 500
        assert shop.calls.count == 2  # the work was opened again
        assert await shop.ledger() == [Row("usage", "x402", 1, 100_000, None, PAYER.address.lower())]


async def test_a_kept_payload_has_no_bound_of_brackets(shop: Shop) -> None:
    payment = wire.decode(sealed(await good(shop)))
    brackets = {"payment-identifier": {"info": {"id": "a" * 16}, "more": "[" * 100}}
    many = replace(payment, extensions=brackets, identifier="a" * 16)
    offer = shop.gate.payer.storefront.quotes("doc.read").current[0]
    url = "https://x/" + "[" * (wire.MAX_BRACKETS + 1)
    kept = wire.encode_json(wire.facilitator_payload(many, offer, url=url, mime_type="text/plain"))
    assert kept.count(b"[") == wire.MAX_BRACKETS + 1  # of the identifier, only its id travels
    assert wire.parse_kept(kept).signature == payment.signature
    with pytest.raises(PaymentError):
        wire.parse(kept)
