"""Who is calling, and what to do: section 3 of the contract as two tables.

`admit` decides from the caller and its standing alone; where the answer could be no, units are held and
`after_hold` decides from what was granted. `LADDER` says which channel follows which. Nothing is asked or
awaited here: the rules of the caller table are these few lines, and its tests walk every row.
"""

from __future__ import annotations

from enum import Enum

from headgate.model.catalog import Beyond
from headgate.model.subscription import Standing, StandingKind


class Who(Enum):
    """What the request's credentials say."""

    CUSTOMER = "customer"
    ANONYMOUS = "anonymous"  # no credentials at all
    REJECTED = "rejected"  # credentials, but unknown, revoked, expired or malformed


class Decision(Enum):
    """What to do with a request for a priced action."""

    COUNT = "count"  # serve; the channel is decided when the use is booked
    HOLD = "hold"  # set units aside first: the answer could be no
    HELD = "held"  # serve within what was set aside
    FREE = "free"  # serve; nobody owes anything and nobody is known
    PAY = "pay"  # 402 with the offer, or serve after a valid payment
    UNAUTHORIZED = "unauthorized"  # 401; never falls through to a payment
    EXHAUSTED = "exhausted"  # 429 allowance_exhausted with resets_at
    NO_CONTRACT = "no_contract"  # 403: never had a subscription, and the seller says block


_NEVER = {"pass": Decision.COUNT, "x402": Decision.PAY, "block": Decision.NO_CONTRACT}
_NEXT = {Beyond.X402: Decision.PAY, Beyond.BLOCK: Decision.EXHAUSTED}


def admit(who: Who, standing: Standing | None, *, free: bool, no_subscription: str) -> Decision:
    """The first decision. `standing` belongs to a customer; `free` is the action's price being zero.

    | caller | standing | decision |
    |---|---|---|
    | rejected | – | UNAUTHORIZED |
    | anonymous | – | PAY (FREE for a free action) |
    | customer | never had a contract | as `no_subscription` says |
    | customer | contract and grace over | PAY |
    | customer | covered, `overage` without a cap | COUNT: the answer is always yes |
    | customer | covered, free action that the plan does not ration | COUNT |
    | customer | covered, anything else | HOLD: the answer could be no |
    """
    if who is Who.REJECTED:
        return Decision.UNAUTHORIZED
    if who is Who.ANONYMOUS or standing is None:
        return Decision.FREE if free else Decision.PAY
    if standing.kind is StandingKind.NEVER:
        return Decision.COUNT if free else _NEVER[no_subscription]
    if standing.kind is StandingKind.ENDED:
        return Decision.FREE if free else Decision.PAY
    if always_yes(standing) or (free and standing.granted == 0):
        return Decision.COUNT
    return Decision.HOLD


def after_hold(standing: Standing, granted: int, *, free: bool = False) -> Decision:
    """The second decision, once units were asked for: HELD, or the channel that comes next.

    A plan with `overage` beyond arrives here only with its cap reached, so `beyond_cap` rules.
    Nobody can be asked to pay for a free action: where x402 comes next it is counted.
    """
    if granted:
        return Decision.HELD
    following = standing.beyond_cap if standing.beyond is Beyond.OVERAGE else standing.beyond
    return Decision.COUNT if free and following is Beyond.X402 else _NEXT[following]


def always_yes(standing: Standing) -> bool:
    """Whether nothing can be refused: overage without a cap, or served without a contract."""
    if standing.subscription == 0:
        return True
    return standing.beyond is Beyond.OVERAGE and standing.cap_micros is None
