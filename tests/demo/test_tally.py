"""The demo's own books: rows from answers, with sums of its own."""

from __future__ import annotations

import base64
import json

from headgate.demo.calls import FORMATS, PROCESS, SUMMARISE, Answer
from headgate.demo.tally import Sold, Sum, Tally, offer, settlement, usd

INCLUDED = {("northwind", "documents.process"): 2}


def answer(status: int = 200, **payment: object) -> Answer:
    header = base64.b64encode(json.dumps(payment).encode()).decode()
    return Answer(status, (("payment-response", header),) if payment else (), b"{}")


def test_a_customer_is_inside_the_plan_until_it_is_used_up() -> None:
    tally = Tally(INCLUDED)
    sold = [tally.customer(PROCESS, answer(), "northwind", "ada", "key_1") for _ in range(3)]
    assert sold == ["seat", "seat", "overage"]
    assert [row.charged_micros for row in tally.rows] == [0, 0, 100_000]
    assert {(row.customer, row.seat, row.key) for row in tally.rows} == {("northwind", "ada", "key_1")}


def test_what_is_not_included_or_not_known_is_overage() -> None:
    tally = Tally(INCLUDED)
    assert tally.customer(SUMMARISE, answer(), "northwind", "", "key_1") == "overage"
    assert tally.customer(PROCESS, answer(), "contoso", "", "key_2") == "overage"


def test_only_success_on_a_priced_route_counts() -> None:
    tally = Tally(INCLUDED)
    for status in (199, 300, 401, 402, 422, 500):
        assert tally.customer(PROCESS, answer(status), "northwind", "", "key_1") == ""
        assert tally.agent(PROCESS, answer(status, transaction="0x1", payer="0xA")) == ""
    assert tally.customer(FORMATS, answer(), "northwind", "", "key_1") == ""
    assert tally.rows == []


def test_a_payment_counts_once_by_its_transaction() -> None:
    tally = Tally(INCLUDED)
    assert tally.agent(PROCESS, answer(transaction="0x1", payer="0xAB")) == "x402"
    assert tally.agent(PROCESS, answer(transaction="0x1", payer="0xAB")) == ""
    assert tally.agent(SUMMARISE, answer(transaction="0x2", payer="0xAB")) == "x402"
    assert tally.agent(PROCESS, answer()) == ""  # a 200 without a receipt is no sale that anybody could prove
    assert tally.rows == [
        Sold("x402", "documents.process", 100_000, 100_000, payer="0xab", transaction="0x1"),
        Sold("x402", "documents.summarise", 250_000, 250_000, payer="0xab", transaction="0x2"),
    ]


def test_sums_by_channel_and_action() -> None:
    tally = Tally(INCLUDED)
    for _ in range(3):
        tally.customer(PROCESS, answer(), "northwind", "", "key_1")
    tally.agent(PROCESS, answer(transaction="0x1", payer="0xA"))
    assert tally.sums() == {
        ("seat", "documents.process"): Sum(2, 2, 200_000, 0, 0),
        ("overage", "documents.process"): Sum(1, 1, 100_000, 100_000, 0),
        ("x402", "documents.process"): Sum(1, 1, 100_000, 100_000, 100_000),
    }
    assert tally.total() == Sum(4, 4, 400_000, 200_000, 100_000)


def test_headers_that_cannot_be_read_say_nothing() -> None:
    for value in ("", "!", "bm8=", base64.b64encode(b"[1]").decode()):
        broken = Answer(402, (("payment-required", value), ("payment-response", value)), b"")
        assert (offer(broken), settlement(broken)) == (None, None)


def test_usd() -> None:
    assert [usd(0), usd(350_000), usd(-1), usd(12_000_000)] == [
        "0.000000",
        "0.350000",
        "-0.000001",
        "12.000000",
    ]
