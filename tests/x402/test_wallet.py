"""What the buyer's wallet signs, what is read back from it, and where a payment may go."""

from __future__ import annotations

import json
from typing import Any

import pytest
from yarl import URL

from headgate.model.errors import InputError
from headgate.x402 import wire
from headgate.x402.offer import accepts_entry
from headgate.x402.wallet import CannotSign, Wallet, keep_to_origin, payment_in, read_signed
from tests.x402 import buyer
from tests.x402.buyer import FIXED, PAYER, VARIABLE, changed, offer, opened, sealed

KEY = "0x" + "11" * 32
ASKED = URL("http://127.0.0.1:8000/v1/paid?key=secret")
ENTRY = accepts_entry(offer(FIXED))


def required(**more: Any) -> dict[str, Any]:
    return {"x402Version": 2, "accepts": [ENTRY], **more}


@pytest.mark.parametrize("action", [FIXED, VARIABLE])
def test_what_was_signed_is_read_back(action: Any) -> None:
    entry = accepts_entry(offer(action))
    signed = Wallet(KEY).sign(required(), entry, ASKED)
    payment = wire.decode(signed.header)
    assert (signed.payer, signed.amount) == (PAYER.address, payment.amount)
    assert signed.choice.entry == opened(signed.header)["accepted"] == entry
    assert signed.choice.price_micros == int(entry["amount"])
    assert read_signed(signed.header) == signed
    assert signed.header.decode() not in repr(signed)


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        (None, {"url": "http://127.0.0.1:8000/v1/paid"}),
        ("nonsense", {"url": "http://127.0.0.1:8000/v1/paid"}),
        ({"url": 5, "tags": 5}, {"url": "http://127.0.0.1:8000/v1/paid", "tags": 5}),
        ({"url": "https://api.example.com/v1/paid"}, {"url": "http://127.0.0.1:8000/v1/paid"}),
        (
            {"url": "http://127.0.0.1:8000/other", "description": "Paid"},
            {"url": "http://127.0.0.1:8000/other", "description": "Paid"},
        ),
    ],
)
def test_a_payment_says_where_it_may_go(resource: Any, expected: Any) -> None:
    signed = Wallet(KEY).sign(required(resource=resource), ENTRY, ASKED)
    assert opened(signed.header)["resource"] == expected
    assert signed.resource_url == expected["url"]


@pytest.mark.parametrize(
    ("made_for", "asked", "goes"),
    [
        ("https://a.example/x", "https://a.example/y?z", True),
        ("https://a.example/x", "https://A.example:443/", True),
        ("http://a.example:80/x", "http://a.example/", True),
        ("https://a.example/x", "http://a.example/x", False),
        ("https://a.example/x", "https://a.example:8443/x", False),
        ("https://a.example/x", "https://b.example/x", False),
        ("https://a.example/x", "https://a.example.evil/x", False),
        ("//a.example/x", "https://a.example/x", False),
        ("mcp://tool/x", "https://a.example/x", False),
        ("https://[", "https://a.example/x", False),
        ("/x", "https://a.example/x", True),
        ("", "https://a.example/x", True),
        (None, "https://a.example/x", True),
    ],
)
def test_a_payment_goes_to_its_own_origin_only(
    made_for: str | None, asked: str, goes: bool, exact: Any
) -> None:
    resource = {"url": made_for} if made_for is not None else ...
    signed = read_signed(sealed(changed(exact, "resource", resource)))
    if goes:
        keep_to_origin(signed, URL(asked))
    else:
        with pytest.raises(InputError, match="no other origin"):
            keep_to_origin(signed, URL(asked))


def test_echoes_of_any_shape_do_not_hinder_reading(exact: Any) -> None:
    odd = changed(exact, "extensions", {"x": {"schema": {"multipleOf": 0.01}}})
    odd = changed(odd, "accepted.extra", {"name": 0.5})
    assert read_signed(sealed(odd)).amount == 100_000
    dear = changed(exact, "payload.authorization.value", "900000")
    assert read_signed(sealed(dear)).choice.price_micros == 900_000  # what is signed, not what is echoed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("payload", ...),
        ("payload.signature", "no"),
        ("payload.authorization.from", "me"),
        ("payload.authorization.value", "0.1"),
        ("accepted", 5),
        ("accepted.network", 5),
        ("accepted.asset", "0x" + "12" * 20),
        ("x402Version", 1),
    ],
)
def test_what_is_no_payment(path: str, value: Any, exact: Any) -> None:
    with pytest.raises(InputError):
        read_signed(sealed(changed(exact, path, value)))


def test_a_payment_is_found_in_what_was_kept(exact_header: bytes) -> None:
    text = exact_header.decode()
    for kept in (
        text,
        f" {text}\n",
        json.dumps(text),
        json.dumps({"status": 503, "payment": text}, indent=2),
    ):
        assert payment_in(kept.encode()) == exact_header


@pytest.mark.parametrize(
    "kept", [b"", b"{", b"{}", b'{"payment": null}', b"a b", b"abc\r\nX: y", b"\xff", b'"']
)
def test_nothing_to_resume(kept: bytes) -> None:
    with pytest.raises(InputError, match="resume"):
        payment_in(kept)


def test_what_the_official_client_cannot_sign_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("odd\nsecond line")

    wallet = Wallet(KEY)
    monkeypatch.setattr("x402.x402ClientSync.create_payment_payload", fail)
    with pytest.raises(CannotSign, match="RuntimeError: odd") as caught:
        wallet.sign(required(), ENTRY, ASKED)
    assert "second" not in str(caught.value)
    assert buyer.PAYER.address == wallet.address
