"""What is offered at an instant, out of the history of catalogs and networks; and what is kept of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headgate.model.catalog import Catalog
from headgate.model.offer import Accepted, NetworkOffer, Offer, Scheme, address_bytes
from headgate.service.storefront import KEPT, KEPT_PATH, Storefront
from tests.x402 import buyer

TTL = 300_000_000
OLD, NEW = "0x" + "aa" * 20, "0x" + "bb" * 20
CATALOG = Catalog({"documents.process": buyer.FIXED}, {}, (), version=1, effective_us=1_000)


def catalog(version: int, effective_us: int, price_micros: int) -> Catalog:
    action = replace(buyer.FIXED, price_micros=price_micros)
    return replace(CATALOG, actions={action.name: action}, version=version, effective_us=effective_us)


def network(pay_to: str = OLD) -> NetworkOffer:
    return buyer.network(pay_to=pay_to)


def taking(offer: Offer) -> Accepted:
    """What a buyer echoes of an offer."""
    return Accepted(
        scheme=Scheme.EXACT,
        network=offer.network,
        asset=address_bytes(offer.asset.address),
        pay_to=address_bytes(offer.pay_to),
        amount=offer.amount_micros,
        facilitator=None,
    )


def stocked(
    catalogs: list[Catalog], networks: list[tuple[int, list[NetworkOffer]]], now_us: int
) -> Storefront:
    front = Storefront("https://api.example.com/", TTL)
    front.stock(catalogs, networks, now_us)
    return front


def current(front: Storefront) -> tuple[int, str]:
    (offer,) = front.quotes("documents.process").current
    return offer.amount_micros, offer.pay_to.lower()


def honoured(front: Storefront, amount: int, pay_to: str, now_us: int) -> bool:
    """Whether a payment for an amount to a recipient is still taken."""
    offer = replace(buyer.offer(pay_to=pay_to), amount_micros=amount)
    return front.quotes("documents.process").match(taking(offer), now_us) is not None


CHEAP, DEAR = catalog(1, 1_000, 100_000), catalog(2, 9_000, 250_000)


@pytest.mark.parametrize(
    ("now_us", "amount"), [(1_000, 100_000), (8_999, 100_000), (9_000, 250_000), (TTL * 9, 250_000)]
)
def test_the_catalog_in_force_is_offered(now_us: int, amount: int) -> None:
    assert current(stocked([CHEAP, DEAR], [(0, [network()])], now_us)) == (amount, OLD)


def test_an_old_price_is_honoured_exactly_for_the_quote_s_time() -> None:
    front = stocked([CHEAP, DEAR], [(0, [network()])], 10_000)
    assert honoured(front, 250_000, OLD, 10_000)
    assert honoured(front, 100_000, OLD, 9_000 + TTL - 1)
    assert not honoured(front, 100_000, OLD, 9_000 + TTL + 1)
    assert not honoured(front, 99_999, OLD, 10_000)


def test_an_old_recipient_is_honoured_exactly_for_the_quote_s_time() -> None:
    front = stocked([CHEAP], [(0, [network(OLD)]), (5_000, [network(NEW)])], 6_000)
    assert current(front) == (100_000, NEW)
    assert honoured(front, 100_000, OLD, 5_000 + TTL - 1)
    assert not honoured(front, 100_000, OLD, 5_000 + TTL + 1)


def test_price_and_recipient_change_after_each_other() -> None:
    """Each pair that was ever offered together is honoured, and none that never was."""
    front = stocked([CHEAP, DEAR], [(0, [network(OLD)]), (5_000, [network(NEW)])], 10_000)
    assert current(front) == (250_000, NEW)
    assert honoured(front, 100_000, OLD, 10_000)
    assert honoured(front, 100_000, NEW, 10_000)
    assert not honoured(front, 250_000, OLD, 10_000)


def test_an_offer_names_its_own_catalog() -> None:
    front = stocked([CHEAP, DEAR], [(0, [network()])], 10_000)
    old = replace(buyer.offer(), amount_micros=100_000, pay_to=OLD)
    found = front.quotes("documents.process").match(taking(old), 10_000)
    assert found is not None
    assert front.priced(found).price_micros == 100_000


def test_what_is_not_sold_has_no_offer() -> None:
    gone = replace(CATALOG, actions={}, version=2, effective_us=9_000)
    front = stocked([CHEAP, gone], [(0, [network()])], 10_000)
    assert not front.sells("documents.process")
    assert not front.sells("never.sold")
    assert honoured(front, 100_000, OLD, 10_000)  # who was quoted it may still pay
    assert not stocked([CHEAP], [], 10_000).sells("documents.process")


def test_challenges_are_made_once_until_something_changes() -> None:
    front = stocked([CHEAP], [(0, [network()])], 2_000)
    first = front.challenge("documents.process", "POST", "/v1/a", "payment_required")
    assert front.challenge("documents.process", "POST", "/v1/a", "payment_required") is first
    assert b"https://api.example.com/v1/a" in first.body
    edition = front.edition
    front.stock([CHEAP, DEAR], [(0, [network()])], 9_000)
    assert front.edition > edition
    assert b'"250000"' in front.challenge("documents.process", "POST", "/v1/a", "payment_required").body


def test_strangers_cannot_fill_the_memory() -> None:
    """They choose the paths below a pattern: few are kept, and no long ones."""
    front = stocked([CHEAP], [(0, [network()])], 2_000)
    for number in range(KEPT + 10):
        front.challenge("documents.process", "GET", f"/v1/{number}", "payment_required")
    assert len(front._made) <= KEPT
    before = len(front._made)
    long = "/v1/" + "x" * KEPT_PATH
    challenge = front.challenge("documents.process", "GET", long, "payment_required")
    assert len(front._made) == before
    assert len(challenge.header_value) < 8192
    huge = front.challenge("documents.process", "GET", "/" + "ä" * 60_000, "payment_required")
    assert len(huge.header_value) < 8192
