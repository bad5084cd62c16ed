"""Double entry: every event's postings sum to zero, and a reversal undoes them account by account."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.bookings import Posting, balances, postings
from headgate.model.event import GENESIS, Channel, Event, Kind

MICROS = st.integers(-(10**15), 10**15)


def event(kind: Kind, channel: Channel, listed: int, charged: int) -> Event:
    blank = Event._make(None for _ in Event._fields)  # type: ignore[arg-type]
    return blank._replace(
        slot=1,
        seq=1,
        kind=kind.value,
        channel=channel.value,
        list_micros=listed,
        charged_micros=charged,
        row_hash=GENESIS,
    )


EVENTS = st.builds(event, st.sampled_from(Kind), st.sampled_from(Channel), MICROS, MICROS)


@given(EVENTS)
def test_postings_sum_to_zero(found: Event) -> None:
    entry = postings(found)
    assert sum(line.debit_micros for line in entry) == sum(line.credit_micros for line in entry)
    assert all(line.debit_micros >= 0 and line.credit_micros >= 0 for line in entry)
    assert all((line.debit_micros == 0) != (line.credit_micros == 0) for line in entry)


@given(st.lists(EVENTS))
def test_a_journal_balances(found: list[Event]) -> None:
    assert sum(balances(chain.from_iterable(map(postings, found))).values()) == 0


@given(st.sampled_from(Channel), MICROS, MICROS)
def test_a_reversal_leaves_every_account_at_zero(channel: Channel, listed: int, charged: int) -> None:
    both = (
        event(Kind.USAGE, channel, listed, charged),
        event(Kind.REVERSAL, channel, -listed, -charged),
    )
    assert set(balances(chain.from_iterable(map(postings, both))).values()) <= {0}


@given(EVENTS)
def test_what_was_charged_is_what_someone_owes_or_paid(found: Event) -> None:
    money = ("receivable:", "wallet:", "payable:")
    owed = sum(net for account, net in balances(postings(found)).items() if account.startswith(money))
    assert owed == found.charged_micros


@pytest.mark.parametrize(
    ("row", "entry"),
    [
        (
            event(Kind.USAGE, Channel.SEAT, 500, 0),
            (Posting("memo:included_use", 500, 0), Posting("memo:allowances", 0, 500)),
        ),
        (
            event(Kind.USAGE, Channel.OVERAGE, 500, 300),
            (
                Posting("receivable:overage", 300, 0),
                Posting("discount:overage", 200, 0),
                Posting("revenue:overage", 0, 500),
            ),
        ),
        (
            event(Kind.USAGE, Channel.OVERAGE, 500, 600),  # negotiated above the list price
            (
                Posting("receivable:overage", 600, 0),
                Posting("discount:overage", 0, 100),
                Posting("revenue:overage", 0, 500),
            ),
        ),
        (
            event(Kind.USAGE, Channel.X402, 500, 500),
            (Posting("wallet:x402", 500, 0), Posting("revenue:x402", 0, 500)),
        ),
        (
            event(Kind.REFUND, Channel.X402, 0, -500),
            (Posting("refunds:x402", 500, 0), Posting("payable:refunds", 0, 500)),
        ),
        (event(Kind.USAGE, Channel.SEAT, 0, 0), ()),
    ],
)
def test_the_table(row: Event, entry: tuple[Posting, ...]) -> None:
    assert postings(row) == entry
