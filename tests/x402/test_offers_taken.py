"""Which of a stranger's offers this buyer takes up, what they cost, and what is said of the others."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from headgate.model.errors import InputError
from headgate.x402.offer import accepts_entry
from headgate.x402.offers_taken import (
    LONGEST_VALIDITY_S,
    acceptable,
    network_named,
    payment_required_of,
    signable,
    told_faults,
    why_unreadable,
)
from tests.x402.buyer import FIXED, POLYGON, SEPOLIA, SETTLER, VARIABLE, offer

Json = dict[str, Any]
GOOD = accepts_entry(offer(FIXED))
UPTO = accepts_entry(offer(VARIABLE))


def entries(*accepts: Any, **more: Any) -> Json:
    return {"x402Version": 2, "accepts": list(accepts), **more}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scheme": "deferred"}, "only the schemes exact and upto"),
        ({"scheme": ["exact"]}, "only the schemes exact and upto"),
        ({"network": "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"}, "exact on solana:5eykt4"),
        ({"network": "base-sepolia"}, "exact on base-sepolia"),
        ({"network": None}, "exact on nothing"),
        ({"network": "eip155:x"}, "EVM networks"),
        ({"asset": "0x" + "12" * 20}, "no dollar that is known"),
        ({"asset": None}, "asset is missing"),
        ({"amount": "0.1"}, "amount is missing"),
        ({"amount": 100_000}, "amount is missing"),
        ({"amount": "-5"}, "amount is missing"),
        ({"amount": "٣"}, "amount is missing"),
        ({"amount": "9" * 41}, "amount is missing"),
        ({"payTo": ...}, "payTo is missing"),
        ({"payTo": None}, "payTo is missing"),
        ({"payTo": "acme.eth"}, "payTo is missing"),
        ({"payTo": "0x" + "00" * 20}, "payTo is missing"),
        ({"payTo": "0x" + "zz" * 20}, "payTo is missing"),
        ({"maxTimeoutSeconds": ...}, "maxTimeoutSeconds is missing"),
        ({"maxTimeoutSeconds": None}, "maxTimeoutSeconds is missing"),
        ({"maxTimeoutSeconds": "soon"}, "maxTimeoutSeconds is missing"),
        ({"maxTimeoutSeconds": "300"}, "maxTimeoutSeconds is missing"),
        ({"maxTimeoutSeconds": True}, "maxTimeoutSeconds is missing"),
        ({"maxTimeoutSeconds": 0}, "maxTimeoutSeconds is missing"),  # the SDK would make an hour of it
        ({"maxTimeoutSeconds": -1}, "maxTimeoutSeconds is missing"),
        ({"maxTimeoutSeconds": 1.5}, "maxTimeoutSeconds is missing"),
        ({"maxTimeoutSeconds": LONGEST_VALIDITY_S + 1}, "nothing is signed for more than a day"),
        ({"maxTimeoutSeconds": 10**30}, "nothing is signed for more than a day"),
        ({"extra": []}, "extra is no object"),
        ({"extra": {"name": 5}}, "extra.name is no text"),
        ({"extra": {"version": {}}}, "extra.version is no text"),
        ({"extra": {"assetTransferMethod": "erc7710"}}, "the transfer method erc7710 is not known"),
    ],
)
def test_an_offer_that_makes_no_sense_is_passed_over_and_said(change: Json, told: str) -> None:
    entry = {name: value for name, value in (GOOD | change).items() if value is not ...}
    choices, faults = acceptable(entries(entry, 5, None, UPTO), None)
    assert [choice.entry for choice in choices] == [UPTO]
    assert told in faults[0]
    assert len(faults) == 3


@pytest.mark.parametrize(
    "extra", [..., None, {}, [], {"facilitatorAddress": "me"}, {"facilitatorAddress": None}]
)
def test_a_ceiling_needs_to_say_who_settles(extra: Any) -> None:
    entry = {name: value for name, value in (UPTO | {"extra": extra}).items() if value is not ...}
    choices, faults = acceptable(entries(entry), None)
    assert choices == []
    assert "extra" in faults[0]
    assert acceptable(entries(UPTO | {"extra": {"facilitatorAddress": SETTLER}}), None)[1] == []


@pytest.mark.parametrize("extra", [..., None, {}, {"name": None, "version": None}, {"name": "USDC"}])
def test_a_known_tokens_domain_is_known(extra: Any) -> None:
    entry = {name: value for name, value in (GOOD | {"extra": extra}).items() if value is not ...}
    assert [choice.entry for choice in acceptable(entries(entry), None)[0]] == [entry]
    assert signable(entry)["extra"] == {"name": "USDC", "version": "2"}


def test_what_is_signed_is_what_is_understood() -> None:
    entry = GOOD | {"payToo": "0x", "extra": {"name": "Other", "version": "7", "more": 1}}
    assert signable(entry)["extra"] == {"name": "Other", "version": "7", "more": 1}
    assert "payToo" not in signable(entry)


def test_a_days_validity_is_the_longest() -> None:
    assert acceptable(entries(GOOD | {"maxTimeoutSeconds": LONGEST_VALIDITY_S}), None)[1] == []
    assert LONGEST_VALIDITY_S == 24 * 60 * 60


@pytest.mark.parametrize("extensions", [[], "bazaar", 5, True])
def test_extensions_that_are_no_object_spoil_the_offer(extensions: Any) -> None:
    assert acceptable(entries(GOOD, extensions=extensions), None) == (
        [],
        ["the offer's extensions are no object"],
    )
    assert len(acceptable(entries(GOOD, extensions=None), None)[0]) == 1


def test_another_network_than_the_one_wanted() -> None:
    choices, faults = acceptable(entries(GOOD), POLYGON)
    assert (choices, faults) == ([], [f"exact on {SEPOLIA}: only {POLYGON} was to be paid on"])


@pytest.mark.parametrize(
    ("decimals", "amount", "micros"),
    [(6, "7", 7), (18, str(10**17), 100_000), (18, "1", 1), (2, "10", 100_000)],
)
def test_a_price_is_in_micro_dollars_whatever_the_tokens_decimals(
    decimals: int, amount: str, micros: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.x402.offers_taken.find_default_asset", lambda *_: {"decimals": decimals})
    entry = GOOD | {"asset": "0x" + "12" * 20, "amount": amount}
    assert [choice.price_micros for choice in acceptable(entries(entry), None)[0]] == [micros]


def test_faults_are_told_once_and_not_all_of_many() -> None:
    assert told_faults([]) == "the seller offers no way to pay"
    assert told_faults(["a", "b", "a"]) == "a; b"
    assert told_faults(list("abcdefg")) == "a; b; c; d; and 3 more"


def test_a_strangers_words_are_short_and_printable() -> None:
    _, (fault,) = acceptable(entries(GOOD | {"scheme": "\x1b[2J" + "x" * 1000, "network": {"a": 1}}), None)
    assert fault.isprintable()
    assert len(fault) < 200


# --- the whole 402 ---


def header(value: Any) -> dict[str, str]:
    return {"PAYMENT-REQUIRED": b64encode(json.dumps(value).encode()).decode()}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"PAYMENT-REQUIRED": "%%%"},
        {"PAYMENT-REQUIRED": "e30"},
        header([]),
        header({"x402Version": 1, "accepts": []}),
        header({"x402Version": 2, "accepts": None}),
    ],
)
def test_a_header_that_is_no_offer_leaves_the_body(headers: dict[str, str]) -> None:
    body = json.dumps(entries(GOOD)).encode()
    assert payment_required_of(headers, body) == entries(GOOD)
    assert payment_required_of(headers, b"") is None


def test_a_good_header_comes_first() -> None:
    assert payment_required_of(header(entries(GOOD)), json.dumps(entries(UPTO)).encode()) == entries(GOOD)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"x402Version": 1, "accepts": []}, "x402 version 1"),
        ({"x402Version": 3, "accepts": []}, "x402 version 3"),
        ({"x402Version": 2, "accepts": {}}, "no list"),
        ({}, "no x402 version 2 offer"),
        ([], "no x402 version 2 offer"),
    ],
)
def test_what_was_seen_is_said(body: Any, told: str) -> None:
    assert told in why_unreadable({}, json.dumps(body).encode())
    assert told in why_unreadable(header(body), b"")


@pytest.mark.parametrize("text", ["moon", "solana:5eykt", "eip155:", "eip155:x", "eip155:1 ", "", "eip155:٣"])
def test_no_network(text: str) -> None:
    with pytest.raises(InputError, match="no network"):
        network_named(text)


def test_networks() -> None:
    assert [network_named(text) for text in ("base", "eip155:99999", None)] == [
        "eip155:8453",
        "eip155:99999",
        None,
    ]
