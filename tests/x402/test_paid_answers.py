"""What answers to a payment mean, row by row: is it sent again, and when; what came of it."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from headgate.x402.paid_answers import SETTLED_PERHAPS, judged, pause_ms
from headgate.x402.purchase import Outcome, PayResult
from headgate.x402.transport import Reply
from headgate.x402.wallet import Signed, read_signed
from tests.x402.buyer import PAYER, SEPOLIA

Json = dict[str, Any]
HASH = "0x" + "ab" * 32
RECEIPT = {
    "success": True,
    "transaction": HASH,
    "network": SEPOLIA,
    "payer": PAYER.address,
    "amount": "100000",
}
FAILED = {"success": False, "errorReason": "insufficient_funds", "transaction": "", "network": SEPOLIA}


def reply(status: int, body: Json | None = None, receipt: Any = None, **headers: str) -> Reply:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    if receipt is not None:
        told["PAYMENT-RESPONSE"] = b64encode(json.dumps(receipt).encode()).decode()
    text = b"" if body is None else json.dumps(body).encode()
    return Reply(status, CIMultiDictProxy(CIMultiDict(told)), text)


@pytest.fixture
def signed(exact_header: bytes) -> Signed:
    return read_signed(exact_header)


IN_PROGRESS = {"code": "payment_in_progress"}
USED = {"code": "payment_used"}
ELSEWHERE = {"type": "urn:headgate:problem:payment_bound_elsewhere"}


@pytest.mark.parametrize(
    ("answer", "times_sent", "expected"),
    [
        (None, 1, 1_000),
        (None, 2, 2_000),
        (None, 3, 4_000),
        (None, 5, 10_000),
        (None, 5_000, 10_000),
        *((reply(status), 1, 1_000) for status in (425, 429, 502, 503, 504)),
        *((reply(status), 4, 8_000) for status in (425, 429, 502, 503, 504)),
        (reply(503, Retry_After="2"), 9, 2_000),
        (reply(503, Retry_After="0"), 1, 1_000),  # nobody is asked again at once
        (reply(503, Retry_After="60"), 1, 60_000),
        (reply(503, Retry_After="soon"), 2, 2_000),
        (reply(503, IN_PROGRESS, FAILED), 1, 1_000),
        (reply(409, IN_PROGRESS), 1, 1_000),
        (reply(409, {"type": "urn:headgate:problem:payment_in_progress"}), 1, 1_000),
        (reply(409, Retry_After="3"), 1, 3_000),
        (reply(409), 1, None),
        (reply(409, {"code": "conflict"}), 1, None),
        (reply(409, USED, Retry_After="3"), 1, None),
        (reply(409, ELSEWHERE, Retry_After="3"), 1, None),
        (reply(500), 1, 1_000),
        (reply(500), 2, 2_000),
        (reply(500), 3, None),
        (reply(500, Retry_After="1"), 2, 2_000),
        (reply(500, Retry_After="1"), 3, None),
        (reply(500, receipt=FAILED), 1, None),
        *((reply(status, Retry_After="1"), 1, None) for status in (200, 204, 302, 400, 402, 404, 422, 501)),
        *((reply(status, receipt=RECEIPT), 1, None) for status in (200, 409, 425, 429, 500, 502, 503, 504)),
    ],
)
def test_a_payment_is_sent_again(answer: Reply | None, times_sent: int, expected: int | None) -> None:
    assert pause_ms(answer, times_sent) == expected


@pytest.mark.parametrize(
    ("answer", "outcome", "told"),
    [
        (reply(200, receipt=RECEIPT), Outcome.PAID, ""),
        (reply(204, receipt=RECEIPT | {"payer": PAYER.address.lower()}), Outcome.PAID, ""),
        (
            reply(200, receipt={k: v for k, v in RECEIPT.items() if k not in ("payer", "amount")}),
            Outcome.PAID,
            "",
        ),
        (reply(200, receipt=RECEIPT | {"amount": "0", "transaction": ""}), Outcome.PAID, ""),
        (reply(200), Outcome.UNCONFIRMED, "without a receipt"),
        (reply(200, PAYMENT_RESPONSE="%"), Outcome.UNCONFIRMED, "cannot be read"),
        (reply(200, receipt=FAILED), Outcome.UNCONFIRMED, "insufficient_funds"),
        (reply(200, receipt=FAILED | {"errorReason": 5}), Outcome.UNCONFIRMED, "no reason given"),
        (reply(200, receipt=RECEIPT | {"success": "true"}), Outcome.UNCONFIRMED, "not settled"),
        (
            reply(200, receipt=RECEIPT | {"network": "eip155:1"}),
            Outcome.UNCONFIRMED,
            "'eip155:1', signed was",
        ),
        (reply(200, receipt=RECEIPT | {"network": None}), Outcome.UNCONFIRMED, "network missing"),
        (reply(200, receipt=RECEIPT | {"payer": "0x" + "12" * 20}), Outcome.UNCONFIRMED, "of payer '0x1212"),
        (reply(200, receipt=RECEIPT | {"payer": []}), Outcome.UNCONFIRMED, "of payer nonsense"),
        (
            reply(200, receipt=RECEIPT | {"amount": "100001"}),
            Outcome.UNCONFIRMED,
            "100001 was taken; at most 100000",
        ),
        (reply(200, receipt=RECEIPT | {"amount": 100_001}), Outcome.UNCONFIRMED, "100001 was taken"),
        (reply(200, receipt=RECEIPT | {"amount": "-1"}), Outcome.UNCONFIRMED, "no whole number"),
        (reply(200, receipt=RECEIPT | {"transaction": ""}), Outcome.UNCONFIRMED, "no transaction"),
        (reply(200, receipt=RECEIPT | {"transaction": None}), Outcome.UNCONFIRMED, "no transaction"),
        (
            reply(422, {"error": "bad words"}, RECEIPT),
            Outcome.PAID_UNSERVED,
            "bad words; the same payment opens",
        ),
        (reply(503, receipt=RECEIPT), Outcome.PAID_UNSERVED, "status 503"),
        (reply(302, receipt=RECEIPT, Location="/x"), Outcome.PAID_UNSERVED, "Location /x"),
        (reply(402, receipt=RECEIPT), Outcome.PAID_UNSERVED, "status 402"),
        (reply(500, receipt=RECEIPT | {"amount": "100001"}), Outcome.UNCONFIRMED, "at most 100000"),
        (reply(402, receipt=FAILED), Outcome.REFUSED, "insufficient_funds"),
        (reply(409, USED), Outcome.REFUSED, "payment_used"),
        (reply(409, ELSEWHERE), Outcome.REFUSED, "payment_bound_elsewhere"),
        (reply(404), Outcome.REFUSED, "status 404"),
        (reply(500), Outcome.PENDING, "status 500"),
        (reply(501, {"title": "later"}), Outcome.PENDING, "later"),
    ],
)
def test_an_answer_means(answer: Reply, outcome: Outcome, told: str, signed: Signed) -> None:
    found = judged(answer, signed)
    assert found.outcome is outcome
    assert told in found.reason
    assert bool(told) == bool(found.reason)
    assert SETTLED_PERHAPS not in found.reason


def test_a_receipt_says_how_much_and_where(signed: Signed) -> None:
    found = judged(reply(200, receipt=RECEIPT | {"amount": "7"}), signed)
    assert (found.amount, found.transaction) == (7, HASH)
    wrong = judged(reply(200, receipt=RECEIPT | {"amount": "100001"}), signed)
    assert (wrong.amount, wrong.transaction) == (None, HASH)


def test_a_refusal_after_an_unclear_answer_does_not_say_that_nothing_was_paid(signed: Signed) -> None:
    found = judged(reply(402, {"error": "nonce used"}), signed, sent_unclearly=True)
    assert (found.outcome, found.reason) == (Outcome.REFUSED, f"nonce used; {SETTLED_PERHAPS}")


@pytest.mark.parametrize(
    ("outcome", "status", "paid", "again"),
    [
        (Outcome.PAID, 200, True, False),
        (Outcome.PAID_UNSERVED, 422, True, True),
        (Outcome.PENDING, 503, False, True),
        (Outcome.PENDING, 0, False, True),
        (Outcome.UNCONFIRMED, 200, False, False),
        (Outcome.UNCONFIRMED, 500, False, True),
        (Outcome.REFUSED, 402, False, False),
    ],
)
def test_what_is_kept(outcome: Outcome, status: int, paid: bool, again: bool) -> None:
    result = PayResult(outcome, status, b"", payment=b"secret")
    assert (result.paid, result.worth_resuming) == (paid, again)
    assert "secret" not in repr(result)
