"""Contract §3's caller table, as decisions: every caller, every standing, every plan."""

from __future__ import annotations

import pytest

from headgate.model.admission import Decision, Who, admit, after_hold, always_yes
from headgate.model.catalog import Beyond
from headgate.model.subscription import Standing, StandingKind
from headgate.testing import make_standing

D = Decision
OVERAGE = make_standing()
CAPPED = make_standing(cap_micros=5_000_000)
CAPPED_X402 = make_standing(cap_micros=0, beyond_cap=Beyond.X402)
X402 = make_standing(beyond=Beyond.X402)
BLOCK = make_standing(beyond=Beyond.BLOCK)
UNRATIONED = make_standing(beyond=Beyond.BLOCK, granted=0)
NEVER = make_standing(kind=StandingKind.NEVER, subscription=0, granted=0, beyond=Beyond.X402)
ENDED = make_standing(kind=StandingKind.ENDED, subscription=0, granted=0, beyond=Beyond.X402)

TABLE = [
    # who, standing, no_subscription, decision, decision for a free action
    (Who.REJECTED, None, "pass", D.UNAUTHORIZED, D.UNAUTHORIZED),
    (Who.REJECTED, OVERAGE, "pass", D.UNAUTHORIZED, D.UNAUTHORIZED),
    (Who.ANONYMOUS, None, "pass", D.PAY, D.FREE),
    (Who.ANONYMOUS, None, "block", D.PAY, D.FREE),
    (Who.CUSTOMER, NEVER, "pass", D.COUNT, D.COUNT),
    (Who.CUSTOMER, NEVER, "x402", D.PAY, D.COUNT),
    (Who.CUSTOMER, NEVER, "block", D.NO_CONTRACT, D.COUNT),
    (Who.CUSTOMER, ENDED, "pass", D.PAY, D.FREE),
    (Who.CUSTOMER, ENDED, "block", D.PAY, D.FREE),
    (Who.CUSTOMER, OVERAGE, "block", D.COUNT, D.COUNT),
    (Who.CUSTOMER, CAPPED, "pass", D.HOLD, D.HOLD),
    (Who.CUSTOMER, CAPPED_X402, "pass", D.HOLD, D.HOLD),
    (Who.CUSTOMER, X402, "pass", D.HOLD, D.HOLD),
    (Who.CUSTOMER, BLOCK, "pass", D.HOLD, D.HOLD),
    (Who.CUSTOMER, UNRATIONED, "pass", D.HOLD, D.COUNT),
]


@pytest.mark.parametrize(("who", "standing", "no_subscription", "priced", "free"), TABLE)
def test_the_first_decision(
    who: Who, standing: Standing | None, no_subscription: str, priced: Decision, free: Decision
) -> None:
    assert admit(who, standing, free=False, no_subscription=no_subscription) is priced
    assert admit(who, standing, free=True, no_subscription=no_subscription) is free


@pytest.mark.parametrize(
    ("standing", "priced", "free"),
    [
        (X402, D.PAY, D.COUNT),
        (BLOCK, D.EXHAUSTED, D.EXHAUSTED),
        (CAPPED, D.EXHAUSTED, D.EXHAUSTED),
        (CAPPED_X402, D.PAY, D.COUNT),
        (make_standing(beyond=Beyond.X402, beyond_cap=Beyond.BLOCK, cap_micros=1), D.PAY, D.COUNT),
        (make_standing(beyond=Beyond.BLOCK, beyond_cap=Beyond.X402, cap_micros=1), D.EXHAUSTED, D.EXHAUSTED),
    ],
)
def test_what_follows_when_nothing_could_be_held(
    standing: Standing, priced: Decision, free: Decision
) -> None:
    assert after_hold(standing, 0) is priced
    assert after_hold(standing, 0, free=True) is free
    assert after_hold(standing, 1) is D.HELD


@pytest.mark.parametrize(
    ("standing", "always"),
    [
        (OVERAGE, True),
        (CAPPED, False),
        (CAPPED_X402, False),
        (X402, False),
        (BLOCK, False),
        (NEVER, True),
        (ENDED, True),
    ],
)
def test_only_what_can_never_be_refused_is_not_held(standing: Standing, always: bool) -> None:
    assert always_yes(standing) is always
