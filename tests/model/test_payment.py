"""The payment's table of states, and what a repeated payment leads to: every row, every column."""

from __future__ import annotations

from itertools import product

import pytest

from headgate.model.payment import (
    BOOKED,
    NEXT,
    OPEN,
    RESUMED,
    Claim,
    PaymentRow,
    State,
    binding_digest,
    claim_outcome,
    payment_id,
    payment_text,
)

S, C = State, Claim
SAME, OTHER = binding_digest("POST", b"/a"), binding_digest("POST", b"/b")


def payment(state: State, binding: bytes = SAME) -> PaymentRow:
    blank = PaymentRow._make([None] * len(PaymentRow._fields))
    return blank._replace(state=state.value, binding=binding)


# state: (same request, owner alive), (same, dead), (other request, alive), (other, dead)
OUTCOMES = {
    S.CLAIMED: (C.RUNNING, C.FRESH, C.ELSEWHERE, C.FRESH),
    S.VERIFIED: (C.RUNNING, C.FRESH, C.ELSEWHERE, C.FRESH),
    S.SERVED: (C.RUNNING, C.PENDING, C.ELSEWHERE, C.ELSEWHERE),
    S.SETTLING: (C.RUNNING, C.PENDING, C.ELSEWHERE, C.ELSEWHERE),
    S.SETTLED: (C.ANSWERED, C.ANSWERED, C.ELSEWHERE, C.ELSEWHERE),
    S.FAILED: (C.SPENT, C.SPENT, C.ELSEWHERE, C.ELSEWHERE),
    S.UNKNOWN: (C.PENDING, C.PENDING, C.ELSEWHERE, C.ELSEWHERE),
    S.RELEASED: (C.FRESH, C.FRESH, C.FRESH, C.FRESH),
    S.REOPENED: (C.REOPENED, C.REOPENED, C.ELSEWHERE, C.ELSEWHERE),
    S.REPEATING: (C.RUNNING, C.REOPENED, C.ELSEWHERE, C.ELSEWHERE),
}


@pytest.mark.parametrize(("state", "same", "alive"), list(product(State, (True, False), (True, False))))
def test_claiming_a_payment_that_has_a_row(state: State, same: bool, alive: bool) -> None:
    outcome = claim_outcome(payment(state), SAME if same else OTHER, owner_alive=alive)
    assert outcome is OUTCOMES[state][2 * (not same) + (not alive)]


EDGES = {
    S.CLAIMED: {S.VERIFIED, S.SERVED, S.RELEASED},
    S.VERIFIED: {S.SERVED, S.RELEASED},
    S.SERVED: {S.SETTLING, S.SETTLED, S.FAILED, S.UNKNOWN, S.RELEASED},
    S.SETTLING: {S.SETTLED, S.FAILED, S.UNKNOWN},
    S.SETTLED: {S.REOPENED, S.REPEATING, S.UNKNOWN},
    S.FAILED: {S.SETTLED},
    S.UNKNOWN: {S.SETTLED, S.FAILED},
    S.RELEASED: {S.CLAIMED},
    S.REOPENED: {S.REPEATING, S.UNKNOWN},
    S.REPEATING: {S.SETTLED, S.REOPENED, S.UNKNOWN},
}


@pytest.mark.parametrize(("since", "to"), list(product(State, State)))
def test_a_payment_moves_along_the_table_only(since: State, to: State) -> None:
    assert (to in NEXT[since]) == (to in EDGES[since])


def test_what_may_have_been_broadcast_is_never_claimed_anew() -> None:
    """From `settling` on the transfer may be under way: no path leads back to a claim."""
    reached, edge = {S.SETTLING}, [S.SETTLING]
    while edge:
        for to in NEXT[edge.pop()]:
            if to not in reached:
                reached.add(to)
                edge.append(to)
    assert reached == {S.SETTLING, S.SETTLED, S.FAILED, S.UNKNOWN, S.REOPENED, S.REPEATING}
    assert not any(S.SETTLED in NEXT[state] for state in BOOKED - {S.REPEATING})


def test_open_states_are_those_something_still_happens_in() -> None:
    assert set(State) - {S.FAILED, S.RELEASED} - BOOKED == OPEN
    assert {S.SETTLED, S.REOPENED, S.REPEATING} == BOOKED
    assert {S.SERVED, S.SETTLING, S.UNKNOWN} == RESUMED
    assert RESUMED < OPEN


def test_a_payments_id_is_of_what_was_signed() -> None:
    """The spelling of the token's address changes nothing; anything signed does (failure case 4)."""
    base = payment_id("eip155:1", "0xAB", b"p" * 20, b"n" * 32)
    assert base == payment_id("eip155:1", "0xab", b"p" * 20, b"n" * 32)
    others = {
        payment_id("eip155:2", "0xab", b"p" * 20, b"n" * 32),
        payment_id("eip155:1", "0xac", b"p" * 20, b"n" * 32),
        payment_id("eip155:1", "0xab", b"q" * 20, b"n" * 32),
        payment_id("eip155:1", "0xab", b"p" * 20, b"m" * 32),
    }
    assert len(others | {base}) == 5
    assert len(base) == 16
    assert payment_text(base) == "pay_" + base.hex()


def test_a_binding_is_of_method_and_url() -> None:
    bindings = [
        binding_digest(method, target)
        for method in ("GET", "POST")
        for target in (b"/a", b"/a?b=1", b"/a?b=2", b"/b")
    ]
    assert len(set(bindings)) == 8
