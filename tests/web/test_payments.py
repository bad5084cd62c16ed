"""x402 `exact` over real HTTP (contract §4): offer, paid answer, receipt, and the same payment again."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from eth_account import Account
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from headgate.config import Config, parse
from headgate.service.publish import publish_catalog
from tests.web.shop import (
    ORIGIN,
    Calls,
    Clock,
    Row,
    Shop,
    StoppedClock,
    client_of,
    config_text,
    configured,
    opened_shop,
    paid,
    problem_of,
    unpacked,
    until,
)
from tests.x402.buyer import PAY_TO, PAYER, SEPOLIA, changed, sealed

pytestmark = pytest.mark.timeout(60)
PRICE = 100_000
AGENT = PAYER.address.lower()
SOLD = Row("usage", "x402", 1, PRICE, None, AGENT)
SECOND = 1_000_000
MINUTE = 60 * SECOND


async def offered(client: httpx.AsyncClient, path: str = "/v1/doc") -> dict[str, str]:
    return paid(await client.get(path))


# --- the offer ------------------------------------------------------------------------------------


async def test_a_head_leaves_its_get_to_be_served(shop: Shop, client: httpx.AsyncClient) -> None:
    """Its answer has no body, so it is not what the payment is good for (failure case 25)."""
    payment = paid(await client.head("/v1/doc"))
    answer = await client.head("/v1/doc", headers=payment)
    assert (answer.status_code, answer.content) == (200, b"")
    assert unpacked(answer.headers["payment-response"])["success"] is True
    served = await client.get("/v1/doc", headers=payment)
    assert (served.status_code, served.json()) == (200, {"ok": 200, "call": 2})
    again = await client.get("/v1/doc", headers=payment)
    assert (again.json(), (await client.head("/v1/doc", headers=payment)).status_code) == (served.json(), 200)
    assert (await shop.ledger(), shop.asked, shop.calls.count) == ([SOLD], ["verify", "settle"], 2)


async def test_a_head_is_worked_for_once(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.get("/v1/doc"))
    heads = [await client.head("/v1/doc", headers=payment) for _ in range(5)]
    assert {(each.status_code, each.headers["content-length"]) for each in heads} == {(200, "19")}
    assert len({each.headers["headgate-receipt"] for each in heads}) == 1
    assert (await shop.ledger(), shop.calls.count) == ([SOLD], 1)


async def test_the_402(shop: Shop, client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/doc?page=2", headers={"Host": "evil.example", "X-Forwarded-Host": "evil"})
    assert answer.status_code == 402
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {"payment-required", "payment-response", "headgate-receipt"} <= exposed
    header = answer.headers["payment-required"]
    assert base64.b64encode(base64.b64decode(header, validate=True)).decode() == header
    assert len(header) < 8192
    body = answer.json()
    assert unpacked(header) == body
    assert body["x402Version"] == 2
    assert body["error"] == "payment_required"
    assert body["resource"] == {
        "url": f"{ORIGIN}/v1/doc",
        "description": "Document read",
        "mimeType": "application/json",
    }
    (entry,) = body["accepts"]
    assert entry.pop("payTo").lower() == PAY_TO.lower()
    assert entry == {
        "scheme": "exact",
        "network": SEPOLIA,
        "amount": "100000",
        "maxAmountRequired": "100000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "maxTimeoutSeconds": 300,
        "description": "Document read",
        "extra": {"name": "USDC", "version": "2"},
    }


async def test_the_402_comes_before_the_body_is_read(shop: Shop) -> None:
    """An upload that nobody pays for is not waited for."""
    from tests.web.shop import Wire, scope

    wire = Wire({"type": "http.request", "body": b"part", "more_body": True})
    await shop.app(scope("POST"), wire.receive, wire.send)
    assert wire.status == 402
    assert len(wire.incoming) == 1


# --- the paid answer ------------------------------------------------------------------------------


async def test_a_paid_answer(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await offered(client)
    answer = await client.get("/v1/doc", headers=payment)
    assert (answer.status_code, answer.json()) == (200, {"ok": 200, "call": 1})
    assert answer.headers["cache-control"] == "private, no-store"
    settled = unpacked(answer.headers["payment-response"])
    assert settled["success"] is True
    assert settled["network"] == SEPOLIA
    assert settled["payer"].lower() == AGENT
    assert settled["amount"] == "100000"
    transaction = settled["transaction"]
    assert shop.asked == ["verify", "settle"]
    assert [tx["transaction"] for tx in shop.facilitator.settled.values()] == [transaction]
    assert await shop.ledger() == [SOLD]
    assert (await shop.sql("SELECT tx, authorized_micros FROM events"))[0] == (
        bytes.fromhex(transaction[2:]),
        PRICE,
    )
    (caller,) = shop.calls.callers
    assert (caller.channel, caller.customer, caller.payer) == ("x402", None, AGENT)


async def test_what_the_facilitator_is_sent(shop: Shop, client: httpx.AsyncClient) -> None:
    """The protocol's own fields, with the seller's terms and not the buyer's word for them."""
    payment = unpacked((await offered(client))["PAYMENT-SIGNATURE"])
    payment["accepted"]["maxTimeoutSeconds"] = 9
    payment["accepted"]["surprise"] = "x"
    payment["resource"] = {"url": "https://evil.example/"}
    payment["surprise"] = "y"
    answer = await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": sealed(payment).decode()})
    assert answer.status_code == 200
    for step, asked in shop.facilitator.asked:
        if step == "supported":
            continue
        assert asked["x402Version"] == 2
        requirements = asked["paymentRequirements"]
        assert requirements["amount"] == "100000"
        assert requirements["payTo"].lower() == PAY_TO.lower()
        assert requirements["maxTimeoutSeconds"] == 300
        sent = asked["paymentPayload"]
        assert sent["accepted"] == requirements
        assert sent["payload"]["signature"] == payment["payload"]["signature"]
        assert sent["resource"]["url"] == f"{ORIGIN}/v1/doc"
        assert "surprise" not in json.dumps(asked)


async def test_the_receipt(shop: Shop, client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/doc", headers=await offered(client))
    url = answer.headers["headgate-receipt"]
    assert url.startswith(f"{ORIGIN}/.well-known/headgate/receipts/pay_")
    path = url.removeprefix(ORIGIN)
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["cache-control"] == "no-store"
    receipt = page.json()
    settled = unpacked(answer.headers["payment-response"])
    assert receipt["state"] == "settled"
    assert receipt["payer"] == AGENT
    assert receipt["network"] == SEPOLIA
    assert receipt["charged_amount"] == receipt["authorized_amount"] == "0.100000"
    assert receipt["transaction"] == settled["transaction"]
    assert receipt["units"] == 1
    states = [step["state"] for step in receipt["timeline"]]
    assert states == ["claimed", "verified", "served", "settling", "settled"]
    assert (await client.head(path)).content == b""
    token = path.rpartition("/")[2]
    assert receipt["payment"] == token.partition(".")[0]
    for wrong in (
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        token.partition(".")[0],
        "",
        "x",
        "pay_ä.b",
    ):
        missing = await client.get(f"/.well-known/headgate/receipts/{wrong}")
        assert (wrong, missing.status_code) == (wrong, 404)
        assert problem_of(missing) == "no_such_receipt"
    assert (await client.post(path)).status_code in (404, 405)


@pytest.mark.parametrize(
    ("own", "left"),
    [
        (None, "private, no-store"),
        ("public, max-age=600", "private, no-store"),
        ("max-age=600", "private, no-store"),
        ("s-maxage=60, private", "private, no-store"),
        ("no-cache", "private, no-store"),
        ("private, max-age=600", "private, max-age=600"),
        ("Private", "Private"),
        ("no-store", "no-store"),
    ],
)
async def test_no_shared_cache_keeps_a_paid_answer(
    own: str | None, left: str, shop: Shop, client: httpx.AsyncClient
) -> None:
    query = {} if own is None else {"h-cache-control": own}
    answer = await client.get("/v1/doc", params=query, headers=await offered(client))
    assert answer.headers.get_list("cache-control") == [left]
    again = await client.get("/v1/doc", params=query, headers=answer.request.headers)
    assert again.headers.get_list("cache-control") == [left]


async def test_headers_of_a_paid_answer(tmp_path: Path) -> None:
    """Repeated ones stay repeated; what only Headgate may say cannot be said by the application."""

    def app(_calls: Calls) -> Starlette:
        async def handler(_request: Request) -> Response:
            answer = PlainTextResponse("ok", headers={"headgate-receipt": "fake", "payment-response": "fake"})
            answer.set_cookie("a", "1")
            answer.set_cookie("b", "2")
            return answer

        return Starlette(routes=[Route("/v1/doc", handler)])

    async with opened_shop(tmp_path, app=app) as shop, client_of(shop.app, "http") as client:
        payment = await offered(client)
        for _ in range(2):
            answer = await client.get("/v1/doc", headers=payment)
            assert len(answer.headers.get_list("set-cookie")) == 2
            assert answer.headers.get_list("payment-response")[0] != "fake"
            assert len(answer.headers.get_list("payment-response")) == 1
            assert len(answer.headers.get_list("headgate-receipt")) == 1


async def test_large_and_streamed_paid_answers_are_whole(tmp_path: Path) -> None:
    """Kept back until settled, in memory and then on disk; too large to be kept, they are not stored."""
    content = bytes(range(256)) * 12_000  # 3 MB

    def app(calls: Calls) -> Starlette:
        async def streamed(_request: Request) -> Response:
            calls.count += 1

            async def chunks() -> Any:
                for start in range(0, len(content), 100_000):
                    yield content[start : start + 100_000]

            return StreamingResponse(chunks())

        async def file(_request: Request) -> Response:
            return FileResponse(tmp_path / "file.bin")

        return Starlette(
            routes=[Route("/v1/doc", streamed), Route("/v1/files/a", file), Route("/v1/files/b", file)]
        )

    (tmp_path / "file.bin").write_bytes(content)
    async with opened_shop(tmp_path, app=app) as shop, client_of(shop.app, "http") as client:
        payment = await offered(client)
        answer = await client.get("/v1/doc", headers=payment)
        assert answer.content == content
        again = await client.get("/v1/doc", headers=payment)
        assert again.status_code in (200, 409)  # served again uncharged, or told where its receipt is
        assert "headgate-receipt" in again.headers
        assert (
            await client.get("/v1/files/a", headers=await offered(client, "/v1/files/a"))
        ).content == content
        assert len(await shop.ledger()) == 2
        assert len(shop.facilitator.settled) == 2


async def test_nothing_of_a_paid_answer_leaves_before_it_is_settled(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    from tests.x402.scripted import refusing

    shop.facilitator.script.settle.append(refusing("insufficient_funds"))
    answer = await client.get("/v1/doc?h-x-secret=1", headers=await offered(client))
    assert shop.calls.count == 1
    assert answer.status_code == 402
    assert "x-secret" not in answer.headers
    assert "call" not in answer.text
    assert answer.json()["error"] == "insufficient_funds"
    assert await shop.payments() == ["failed"]
    assert await shop.ledger() == []


# --- the same payment again -----------------------------------------------------------------------


async def test_the_same_payment_again_gets_the_kept_answer(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await offered(client)
    first = await client.get("/v1/doc?status=201&h-x-own=yes", headers=payment)
    for _ in range(3):
        again = await client.get("/v1/doc?status=201&h-x-own=yes", headers=payment)
        assert again.status_code == first.status_code == 201
        assert again.content == first.content
        own = {name: value for name, value in first.headers.items() if name not in ("date", "server")}
        assert {name: again.headers.get(name) for name in own} == own
    assert shop.calls.count == 1
    assert shop.asked == ["verify", "settle"]
    assert await shop.ledger() == [SOLD]


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "/v1/doc?a=2", b""),
        ("GET", "/v1/doc", b""),
        ("GET", "/v1/doc?a=1&b=2", b""),
        ("POST", "/v1/doc?a=1", b""),
        ("GET", "/v1/files/x?a=1", b""),
    ],
)
async def test_the_same_payment_for_another_request(
    method: str, path: str, content: bytes, shop: Shop, client: httpx.AsyncClient
) -> None:
    payment = await offered(client)
    assert (await client.get("/v1/doc?a=1", headers=payment)).status_code == 200
    other = await client.request(method, path, headers=payment, content=content)
    assert (other.status_code, problem_of(other)) == (409, "payment_bound_elsewhere")
    assert shop.calls.count == 1
    assert await shop.ledger() == [SOLD]


async def test_the_same_payment_with_another_body(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = paid(await client.post("/v1/doc"))
    assert (await client.post("/v1/doc", headers=payment, content=b"one")).status_code == 200
    for body in (b"two", b"", b"one "):
        other = await client.post("/v1/doc", headers=payment, content=body)
        assert (other.status_code, problem_of(other)) == (409, "payment_bound_elsewhere")
    assert (await client.post("/v1/doc", headers=payment, content=b"one")).status_code == 200
    assert shop.calls.bodies == [b"one"]
    assert await shop.ledger() == [SOLD]


SPELLINGS = {
    "hex in capitals": lambda p: changed(
        p, "payload.authorization.nonce", "0x" + p["payload"]["authorization"]["nonce"][2:].upper()
    ),
    "leading zeros": lambda p: changed(
        p, "payload.authorization.value", "000" + p["payload"]["authorization"]["value"]
    ),
    "payer in lower case": lambda p: changed(
        p, "payload.authorization.from", p["payload"]["authorization"]["from"].lower()
    ),
    "more beside it": lambda p: {**p, "extra": [1, 2, 3]},
    "another resource": lambda p: {**p, "resource": {"url": "https://elsewhere.example"}},
    "a signature's case": lambda p: changed(
        p, "payload.signature", "0x" + p["payload"]["signature"][2:].upper()
    ),
}


@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda name: name)
async def test_another_spelling_is_the_same_payment(
    spelling: str, shop: Shop, client: httpx.AsyncClient
) -> None:
    payment = await offered(client)
    first = await client.get("/v1/doc", headers=payment)
    respelt = sealed(SPELLINGS[spelling](unpacked(payment["PAYMENT-SIGNATURE"]))).decode()
    assert respelt != payment["PAYMENT-SIGNATURE"]
    again = await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": respelt})
    assert (again.status_code, again.content) == (200, first.content)
    assert shop.calls.count == 1
    assert await shop.ledger() == [SOLD]


async def test_a_kept_answer_is_not_given_to_who_only_read_the_chain(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    """Payer and nonce are public once it is settled; without the signature they open nothing (case 17)."""
    payment = await offered(client)
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    known = unpacked(payment["PAYMENT-SIGNATURE"])
    forgeries = [
        changed(known, "payload.signature", "0x" + "22" * 64 + "1b"),
        changed(
            known, "payload.signature", "0x" + "22" * 80
        ),  # as a smart wallet's, which only a chain can judge
        changed(
            changed(known, "payload.signature", "0x" + "22" * 64 + "1b"),
            "payload.authorization.validBefore",
            str(int(time.time()) - 10),
        ),
    ]
    for forged in forgeries:
        answer = await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": sealed(forged).decode()})
        assert answer.status_code == 402
        assert "payment-response" not in answer.headers
    assert shop.calls.count == 1


async def test_copies_at_once_run_the_handler_once(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await offered(client)
    shop.calls.gate = asyncio.Event()
    asking = [asyncio.create_task(client.get("/v1/doc", headers=payment)) for _ in range(20)]
    losers = 0
    for done in asyncio.as_completed(asking):
        answer = await done
        if answer.status_code == 409:
            losers += 1
            assert problem_of(answer) == "payment_in_progress"
            assert answer.headers["retry-after"].isdigit()
            if losers == 19:
                shop.calls.gate.set()
        else:
            assert answer.status_code == 200
    assert losers == 19
    assert shop.calls.count == 1
    assert shop.asked == ["verify", "settle"]
    assert await shop.ledger() == [SOLD]
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    assert shop.calls.count == 1


async def test_copies_while_it_runs_for_another_request(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await offered(client)
    shop.calls.gate = asyncio.Event()
    asking = asyncio.create_task(client.get("/v1/doc", headers=payment))
    await until(lambda: shop.calls.count)
    other = await client.get("/v1/doc?other=1", headers=payment)
    assert problem_of(other) == "payment_bound_elsewhere"
    shop.calls.gate.set()
    assert (await asking).status_code == 200


async def test_kept_answers_are_kept_for_their_time(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await offered(client)
    first = await client.get("/v1/doc", headers=payment)
    shop.clock.ahead_us += 14 * MINUTE  # the authorization has expired since, the answer is still there
    assert (await client.get("/v1/doc", headers=payment)).content == first.content
    shop.clock.ahead_us += 2 * MINUTE
    gone = await client.get("/v1/doc", headers=payment)
    assert (gone.status_code, problem_of(gone)) == (409, "payment_used")
    assert gone.json()["receipt"] == first.headers["headgate-receipt"]
    assert "payment-response" in gone.headers
    assert shop.calls.count == 1
    assert await shop.ledger() == [SOLD]


# --- prices and recipients that change ------------------------------------------------------------


async def reprice(shop: Shop, price_micros: int) -> None:
    catalog = shop.gate.config.catalog
    action = replace(catalog.actions["doc.read"], price_micros=price_micros)
    dearer = replace(catalog, actions={**catalog.actions, "doc.read": action})
    assert shop.gate.store is not None
    await publish_catalog(shop.gate.store.registry, dearer, now_us=shop.clock())
    await shop.gate.desk.directory.refresh()
    shop.gate._sell(shop.gate.desk.directory)


async def test_an_old_price_is_honoured_for_the_quote_s_time(shop: Shop, client: httpx.AsyncClient) -> None:
    early, late = await offered(client), await offered(client)
    await reprice(shop, 250_000)
    asked = await client.get("/v1/doc")
    assert asked.json()["accepts"][0]["amount"] == "250000"
    served = await client.get("/v1/doc", headers=early)
    assert served.status_code == 200
    assert unpacked(served.headers["payment-response"])["amount"] == "100000"
    assert await shop.sql("SELECT catalog_version, unit_micros, charged_micros FROM events") == [
        (1, PRICE, PRICE)
    ]
    shop.clock.ahead_us += 5 * MINUTE + 1
    refused = await client.get("/v1/doc", headers=late)
    assert refused.status_code == 402
    assert refused.json()["error"] == "invalid_payment_requirements"
    again = await client.get("/v1/doc", headers=early)  # who has paid is not asked again
    assert (again.status_code, again.content) == (200, served.content)
    assert len(shop.facilitator.settled) == 1


async def test_the_buyer_s_own_word_for_the_price_is_worth_nothing(
    shop: Shop, client: httpx.AsyncClient
) -> None:
    asked = (await client.get("/v1/doc")).json()
    asked["accepts"][0]["amount"] = asked["accepts"][0]["maxAmountRequired"] = "1"
    header = base64.b64encode(json.dumps(asked).encode()).decode()
    cheap = paid(httpx.Response(402, headers={"PAYMENT-REQUIRED": header}))
    answer = await client.get("/v1/doc", headers=cheap)
    assert (answer.status_code, answer.json()["error"]) == (402, "invalid_payment_requirements")
    assert shop.asked == []


async def test_an_old_recipient_is_honoured_after_a_restart(tmp_path: Path) -> None:
    """`pay_to` was changed: who was quoted the old one may still pay it (contract §4 step 2)."""
    newer = "0x00000000000000000000000000000000000B0b00"
    clock = Clock()
    async with opened_shop(tmp_path, clock=clock) as shop, client_of(shop.app, "http") as client:
        payment, late = await offered(client), await offered(client)
    async with (
        opened_shop(tmp_path, clock=clock, pay_to=newer) as shop,
        client_of(shop.app, "http") as client,
    ):
        assert (await client.get("/v1/doc")).json()["accepts"][0]["payTo"].lower() == newer.lower()
        assert (await client.get("/v1/doc", headers=payment)).status_code == 200
        rows = await shop.sql("SELECT r.pay_to FROM events e JOIN rails r ON r.id = e.rail")
        assert rows == [(PAY_TO.lower(),)]
        settle = [asked for step, asked in shop.facilitator.asked if step == "settle"]
        assert settle[0]["paymentRequirements"]["payTo"].lower() == PAY_TO.lower()
        clock.ahead_us += 5 * MINUTE + SECOND
        refused = await client.get("/v1/doc", headers=late)
        assert refused.json()["error"] == "invalid_payment_requirements"


# --- refused without asking anybody ---------------------------------------------------------------


def again_signed(payment: dict[str, Any], **changes: Any) -> str:
    """The payment with its message changed, and signed anew by the same payer."""
    from eth_account.messages import encode_typed_data

    from tests.devnet.paying import AUTHORIZATION_FIELDS

    message = {**payment["payload"]["authorization"], **changes}
    domain = {
        "name": "USDC",
        "version": "2",
        "chainId": 84532,
        "verifyingContract": payment["accepted"]["asset"],
    }
    typed = {
        name: int(v) if name in ("value", "validAfter", "validBefore") else v for name, v in message.items()
    }
    signable = encode_typed_data(domain, {"TransferWithAuthorization": AUTHORIZATION_FIELDS}, typed)
    signature = "0x" + Account.sign_message(signable, PAYER.key).signature.hex()
    changed_payment = changed(payment, "payload.authorization", {k: str(v) for k, v in message.items()})
    return sealed(changed(changed_payment, "payload.signature", signature)).decode()


LOCAL = {
    "expired": ({"validBefore": 1_000}, "invalid_exact_evm_payload_authorization_valid_before"),
    "hardly any time left": ("soon", "invalid_exact_evm_payload_authorization_valid_before"),
    "not yet valid": ({"validAfter": 9_999_999_999}, "invalid_exact_evm_payload_authorization_valid_after"),
    "too little": ({"value": 99_999}, "invalid_exact_evm_payload_authorization_value_mismatch"),
    "too much": ({"value": 100_001}, "invalid_exact_evm_payload_authorization_value_mismatch"),
    "to somebody else": (
        {"to": "0x" + "22" * 20},
        "invalid_exact_evm_payload_recipient_mismatch",
    ),
    "from somebody else": ({"from": "0x" + "33" * 20}, "invalid_exact_evm_payload_signature"),
}


@pytest.mark.parametrize("case", LOCAL, ids=lambda name: name)
async def test_refused_by_local_checks(case: str, shop: Shop, client: httpx.AsyncClient) -> None:
    changes, reason = LOCAL[case]
    payment = unpacked((await offered(client))["PAYMENT-SIGNATURE"])
    if changes == "soon":
        changes = {"validBefore": int(time.time()) + 20}
    answer = await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": again_signed(payment, **changes)})
    assert (answer.status_code, answer.json()["error"]) == (402, reason)
    assert unpacked(answer.headers["payment-required"])["error"] == reason
    assert shop.asked == []
    assert await shop.payments() == []
    assert shop.calls.count == 0
    good = await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": again_signed(payment)})
    assert good.status_code == 200  # the case changed what it says, and nothing else


def with_skew(skew: str | None) -> Callable[[Config], Config]:
    """The shop's file with this `clock_skew`, or without any."""
    written = "" if skew is None else f'clock_skew = "{skew}"\n'

    def change(config: Config) -> Config:
        assert config.x402 is not None
        store = config.store.url.removeprefix("sqlite:///")
        text = config_text(store=store, facilitator=config.x402.networks[0].facilitator_url)
        return parse(text.replace("[x402]\n", "[x402]\n" + written), file="headgate.toml", environ={})

    return change


@pytest.mark.parametrize(
    ("skew", "from_s", "status"),
    [
        ("0 s", 0, 200),
        ("0 s", 1, 402),
        ("19 s", 20, 402),
        ("20 s", 20, 200),
        ("20 s", 21, 402),
        (None, 20, 200),
        (None, 30, 200),
        (None, 31, 402),
    ],
)
async def test_how_far_ahead_a_buyers_clock_may_be(
    skew: str | None, from_s: int, status: int, tmp_path: Path
) -> None:
    """Case 13: what begins in our future is taken as far as `clock_skew` says, to the second."""
    clock = StoppedClock()
    async with (
        opened_shop(tmp_path, clock=clock, change=with_skew(skew)) as shop,
        client_of(shop.app, "http") as client,
    ):
        payment = unpacked((await offered(client))["PAYMENT-SIGNATURE"])
        header = again_signed(payment, validAfter=clock() // SECOND + from_s)
        answer = await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": header})
        assert answer.status_code == status
        if status == 402:
            assert answer.json()["error"] == "invalid_exact_evm_payload_authorization_valid_after"
            assert (shop.asked, await shop.payments()) == ([], [])
        else:
            assert await shop.ledger() == [SOLD]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("network", "eip155:8453"),
        ("asset", "0x" + "44" * 20),
        ("payTo", "0x" + "55" * 20),
        ("amount", "1"),
        ("scheme", "upto"),
    ],
)
async def test_an_offer_that_was_never_made(
    member: str, value: str, shop: Shop, client: httpx.AsyncClient
) -> None:
    payment = unpacked((await offered(client))["PAYMENT-SIGNATURE"])
    header = sealed(changed(payment, f"accepted.{member}", value)).decode()
    answer = await client.get("/v1/doc", headers={"PAYMENT-SIGNATURE": header})
    assert (answer.status_code, answer.json()["error"]) == (402, "invalid_payment_requirements")
    assert shop.asked == []


async def test_blocked_payers(tmp_path: Path) -> None:
    def change(config: Config) -> Config:
        assert config.x402 is not None
        blocked = frozenset({bytes.fromhex(PAYER.address[2:])})
        return replace(config, x402=replace(config.x402, blocked_payers=blocked))

    async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "http") as client:
        answer = await client.get("/v1/doc", headers=await offered(client))
        assert answer.status_code == 402
        assert "block" in answer.json()["error"]
        assert shop.asked == []


async def test_refused_by_the_facilitator(shop: Shop, client: httpx.AsyncClient) -> None:
    from tests.x402.scripted import refusing

    payment = await offered(client)
    shop.facilitator.script.verify.append(refusing("insufficient_funds", invalidMessage="<b>trace</b>"))
    answer = await client.get("/v1/doc", headers=payment)
    assert (answer.status_code, answer.json()["error"]) == (402, "insufficient_funds")
    assert "trace" not in answer.text
    assert shop.calls.count == 0
    assert await shop.payments() == ["released"]
    shop.clock.ahead_us += 10 * SECOND  # its wallet was funded meanwhile
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    assert await shop.ledger() == [SOLD]


# --- what is not settled --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 400, 404, 422, 500, 503])
async def test_other_answers_than_2xx_settle_nothing(
    status: int, shop: Shop, client: httpx.AsyncClient
) -> None:
    payment = await offered(client)
    failed = await client.get(f"/v1/doc?status={status}", headers=payment)
    assert (failed.status_code, failed.json()["ok"]) == (status, status)
    assert "payment-response" not in failed.headers
    assert shop.asked == ["verify"]
    assert await shop.payments() == ["released"]
    served = await client.get("/v1/doc", headers=payment)  # the same payment, even for another request
    assert served.status_code == 200
    assert await shop.ledger() == [SOLD]


async def test_a_handler_that_raises_leaves_the_payment_usable(shop: Shop, client: httpx.AsyncClient) -> None:
    payment = await offered(client)
    assert (await client.get("/v1/doc?raise=1", headers=payment)).status_code == 500
    assert await shop.payments() == ["released"]
    assert (await client.get("/v1/doc", headers=payment)).status_code == 200
    assert await shop.payments() == ["settled"]
    assert await shop.ledger() == [SOLD]


@pytest.mark.parametrize("sent", ["with its length", "in chunks"])
async def test_a_body_over_the_bound_is_413(sent: str, tmp_path: Path) -> None:
    def change(config: Config) -> Config:
        return replace(config, limits=replace(config.limits, max_body_bytes=1_000))

    async def chunks() -> Any:
        for _ in range(11):
            yield b"x" * 100

    async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "http") as client:
        payment = paid(await client.post("/v1/doc"))
        content: Any = b"x" * 1_001 if sent == "with its length" else chunks()
        answer = await client.post("/v1/doc", headers=payment, content=content)
        assert (answer.status_code, problem_of(answer)) == (413, "body_too_large")
        assert shop.calls.count in (0, 1)
        assert await shop.ledger() == []
        whole = await client.post("/v1/doc", headers=payment, content=b"x" * 1_000)
        assert whole.status_code == 200
        assert await shop.ledger() == [SOLD]


async def test_without_x402_a_stranger_is_401(tmp_path: Path) -> None:
    def change(config: Config) -> Config:
        return replace(config, x402=None)

    async with opened_shop(tmp_path, change=change) as shop, client_of(shop.app, "http") as client:
        answer = await client.get("/v1/doc")
        assert (answer.status_code, problem_of(answer)) == (401, "invalid_credentials")
        assert shop.calls.count == 0


def test_the_sample_configuration_has_no_surprises(tmp_path: Path) -> None:
    found = configured(tmp_path)
    assert found.x402 is not None
    assert [network.caip2 for network in found.x402.networks] == [SEPOLIA]
