"""Offers: what a catalog's action becomes on the wire, and which offer a payment takes up."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from x402.extensions.payment_identifier import declare_payment_identifier_extension
from x402.http.utils import decode_payment_required_header

from headgate.model.assets import KNOWN_ASSETS
from headgate.model.errors import InputError
from headgate.model.offer import Accepted, NetworkOffer, Offer, Quotes, Scheme, address_bytes
from headgate.x402.offer import (
    HEADER_LIMIT,
    PAYMENT_IDENTIFIER,
    PAYMENT_IDENTIFIER_EXTENSION,
    build_offers,
    payment_required,
    requirements,
)
from tests.x402.buyer import FIXED, PAY_TO, POLYGON, SEPOLIA, SETTLER, URL, VARIABLE, network, offer

BASE = "eip155:8453"
OTHER = "0x000000000000000000000000000000000000bEEF"


def test_a_fixed_price_is_the_contracts_example() -> None:
    challenge = payment_required(build_offers(FIXED, [network()]), url=URL)
    assert json.loads(challenge.body) == {
        "x402Version": 2,
        "error": "payment_required",
        "resource": {"url": URL, "description": "Document processed", "mimeType": "application/json"},
        "accepts": [
            {
                "scheme": "exact",
                "network": SEPOLIA,
                "amount": "100000",
                "maxAmountRequired": "100000",
                "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
                "payTo": PAY_TO,
                "maxTimeoutSeconds": 300,
                "description": "Document processed",
                "extra": {"name": "USDC", "version": "2"},
            }
        ],
    }


def test_the_official_decoder_reads_header_and_body_alike() -> None:
    extensions = {PAYMENT_IDENTIFIER: PAYMENT_IDENTIFIER_EXTENSION}
    offers = build_offers(VARIABLE, [network()])
    challenge = payment_required(offers, url=URL, error="expired", extensions=extensions)
    read = decode_payment_required_header(challenge.header_value.decode())
    assert read == type(read).model_validate_json(challenge.body)
    assert (read.x402_version, read.error, read.resource and read.resource.url) == (2, "expired", URL)
    assert read.extensions == {PAYMENT_IDENTIFIER: declare_payment_identifier_extension(required=False)}
    (entry,) = read.accepts
    assert (entry.scheme, entry.amount) == ("upto", "50000")
    assert entry.extra == {"name": "USDC", "version": "2", "facilitatorAddress": SETTLER}


def test_polygon_comes_first_then_the_order_of_the_configuration() -> None:
    offers = build_offers(FIXED, [network(SEPOLIA), network(BASE), network(POLYGON)])
    assert [each.network for each in offers] == [POLYGON, SEPOLIA, BASE]


def test_a_variable_cost_is_offered_where_somebody_settles_it() -> None:
    offers = build_offers(VARIABLE, [network(SEPOLIA, settler=None), network(BASE)])
    assert [(each.network, each.scheme, each.amount_micros) for each in offers] == [
        (BASE, Scheme.UPTO, 50_000)
    ]


def test_a_free_action_has_no_offer() -> None:
    assert build_offers(replace(FIXED, price_micros=0), [network()]) == ()


def test_a_token_that_does_not_count_in_millionths_is_refused() -> None:
    asset = replace(KNOWN_ASSETS[SEPOLIA], decimals=18)
    with pytest.raises(InputError, match="18 decimals"):
        build_offers(FIXED, [NetworkOffer(asset, PAY_TO)])


@pytest.mark.parametrize(
    "address", ["", "0x12", "12" * 20, "0X" + "12" * 20, "0x" + "zz" * 20, "0x" + " 1" * 20]
)
def test_an_address_is_checked(address: str) -> None:
    with pytest.raises(InputError, match="is not an EVM address"):
        address_bytes(address)


def test_long_texts_are_shortened_and_a_header_stays_under_its_limit() -> None:
    wordy = replace(FIXED, title="d" * 3000)
    offers = build_offers(wordy, [network(name) for name in KNOWN_ASSETS])
    extensions = {"bazaar": {"info": {"x": "y" * 3000}, "schema": {}}}
    challenge = payment_required(offers, url=URL + "/x" * 5000, extensions=extensions)
    assert len(challenge.header_value) < HEADER_LIMIT
    found = json.loads(challenge.body)
    assert len(found["accepts"]) == len(KNOWN_ASSETS)
    assert len(found["accepts"][0]["description"]) <= 500
    assert found["resource"]["url"].startswith(URL)


def test_more_offers_than_a_header_holds_are_refused() -> None:
    with pytest.raises(InputError, match="offer fewer networks"):
        payment_required([offer()] * 40, url=URL)


def test_what_a_facilitator_is_sent_names_the_amount_to_settle_and_nothing_beside_the_protocol() -> None:
    ceiling = offer(VARIABLE)
    assert requirements(ceiling, 1234)["amount"] == "1234"
    assert set(requirements(ceiling)) == {
        "scheme",
        "network",
        "amount",
        "asset",
        "payTo",
        "maxTimeoutSeconds",
        "extra",
    }


# --- which offer a payment takes up ---

TODAY = offer(FIXED)


def taking_up(made: Offer, **differing: object) -> Accepted:
    accepted = Accepted(
        scheme=made.scheme.value,
        network=made.network,
        asset=made.asset_address,
        pay_to=made.pay_to_address,
        amount=made.amount_micros,
        facilitator=made.facilitator,
    )
    return replace(accepted, **differing)  # type: ignore[arg-type]


def test_a_payment_takes_up_the_offer_it_echoes() -> None:
    quotes = Quotes(build_offers(FIXED, [network(SEPOLIA), network(BASE)]))
    assert quotes.match(taking_up(quotes.current[1]), 0) is quotes.current[1]


@pytest.mark.parametrize(
    "differing",
    [
        {"scheme": "upto"},
        {"network": BASE},
        {"asset": bytes(20)},
        {"pay_to": bytes(20)},
        {"amount": TODAY.amount_micros - 1},
        {"amount": TODAY.amount_micros + 1},
        {"amount": 0},
    ],
)
def test_a_payment_on_other_terms_takes_up_nothing(differing: dict[str, object]) -> None:
    assert Quotes((TODAY,)).match(taking_up(TODAY, **differing), 0) is None


@pytest.mark.parametrize("change", [{"price_micros": 200_000}, {"pay_to": OTHER}])
def test_an_old_price_or_recipient_is_honoured_for_the_quotes_life_and_no_longer(
    change: dict[str, object],
) -> None:
    if "pay_to" in change:
        new = build_offers(FIXED, [network(pay_to=OTHER)], catalog_version=2)
    else:
        new = build_offers(replace(FIXED, **change), [network()], catalog_version=2)  # type: ignore[arg-type]
    quotes = Quotes((TODAY,)).replaced(new, now_us=1_000, quote_ttl_us=300)
    assert quotes.match(taking_up(new[0]), 1_000) is new[0]
    assert quotes.match(taking_up(TODAY), 1_299) is TODAY
    assert quotes.match(taking_up(TODAY), 1_300) is None


def test_an_unchanged_offer_belongs_to_the_new_catalog_at_once() -> None:
    new = build_offers(replace(FIXED, title="Renamed"), [network()], catalog_version=2)
    quotes = Quotes((TODAY,)).replaced(new, now_us=1_000, quote_ttl_us=300)
    assert quotes.match(taking_up(TODAY), 1_000) is new[0]
    assert quotes.retired == ()


def test_a_price_that_goes_and_comes_back_is_the_new_catalogs() -> None:
    dearer = build_offers(replace(FIXED, price_micros=200_000), [network()], catalog_version=2)
    again = build_offers(FIXED, [network()], catalog_version=3)
    quotes = Quotes((TODAY,)).replaced(dearer, 0, 300).replaced(again, 100, 300)
    assert quotes.match(taking_up(TODAY), 100) is again[0]
    assert quotes.match(taking_up(dearer[0]), 399) is dearer[0]
    assert quotes.match(taking_up(dearer[0]), 400) is None


def test_retired_quotes_do_not_pile_up() -> None:
    quotes = Quotes((TODAY,))
    for step in range(1, 50):
        action = replace(FIXED, price_micros=100_000 + step)
        quotes = quotes.replaced(build_offers(action, [network()]), step * 100, 300)
    assert len(quotes.retired) <= 4


def test_where_only_the_settling_account_changed_the_offer_the_buyer_saw_is_taken() -> None:
    old, new = offer(VARIABLE, settler=OTHER), offer(VARIABLE)
    quotes = Quotes((old,)).replaced([new], 0, 300)
    assert quotes.match(taking_up(old), 299) is old
    assert quotes.match(taking_up(new), 299) is new
    assert quotes.match(taking_up(old), 300) is new
    assert quotes.match(taking_up(new, facilitator=None), 299) is new
