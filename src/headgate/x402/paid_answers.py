"""What a seller's answer to a signed payment means: ask again and when, or what came of it. Pure.

Only an answer that may change is asked for again. A receipt (`PAYMENT-RESPONSE`) is held against what was
signed: a seller's word for a transfer that was never agreed to is no proof of payment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from headgate.x402.offers_taken import decoded, parsed, payment_required_of, whole
from headgate.x402.purchase import Outcome
from headgate.x402.transport import Reply
from headgate.x402.wallet import Signed

Json = dict[str, Any]

FIRST_PAUSE_MS = 1_000
LONGEST_PAUSE_MS: Final = 10_000
TIMES_SENT_TO_A_FAULT: Final = 3
"""A 500 is mostly a fault that stays: the payment is sent twice more."""
MAY_CHANGE: Final = frozenset({425, 429, 502, 503, 504})
NO_UNTIL_SIGNED_ANEW: Final = frozenset({"payment_bound_elsewhere", "payment_used"})
SETTLED_PERHAPS = "it was sent before without a clear answer: look for its transfer before you sign another"


@dataclass(frozen=True, slots=True)
class Told:
    """What a final answer says. `amount` is what the receipt says was settled, in the token's unit."""

    outcome: Outcome
    reason: str = ""
    amount: int | None = None
    transaction: str = ""


# Ask again?


def pause_ms(reply: Reply | None, times_sent: int) -> int | None:
    """How long to wait before the same payment is sent again; None: the answer is final.

    `reply` is None where there was no answer. Pauses double from one second to ten, unless the seller says
    how long it takes (`Retry-After`); nothing is asked again at once.
    """
    doubled = min(FIRST_PAUSE_MS << min(times_sent - 1, 10), LONGEST_PAUSE_MS)
    if reply is None:
        return doubled
    wait_s = retry_after(reply.headers)
    if not _may_change(reply, times_sent):
        return None
    if wait_s is None or reply.status == 500:
        return max(doubled, (wait_s or 0) * 1000)
    return max(FIRST_PAUSE_MS, wait_s * 1000)


def _may_change(reply: Reply, times_sent: int) -> bool:
    receipt = settlement(reply.headers)
    if receipt is not None and receipt.get("success") is True:
        return False
    if reply.status == 409:
        code = code_of(reply.body)
        told = "Retry-After" in reply.headers
        return code not in NO_UNTIL_SIGNED_ANEW and (told or code == "payment_in_progress")
    if reply.status == 500:
        return receipt is None and times_sent < TIMES_SENT_TO_A_FAULT
    return reply.status in MAY_CHANGE


def is_unclear(reply: Reply | None) -> bool:
    """Whether the payment may have been settled, although this answer does not say so."""
    return reply is None or reply.status >= 500


def retry_after(headers: Mapping[str, str]) -> int | None:
    """The seconds in `Retry-After`; None where there are none."""
    value = headers.get("Retry-After", "").strip()
    return int(value) if value.isascii() and value.isdigit() and len(value) < 7 else None


# What came of it


def judged(reply: Reply, signed: Signed, *, sent_unclearly: bool = False) -> Told:
    """What a final answer to a payment means.

    `sent_unclearly`: the payment was sent before, and it is not known what became of that.
    """
    served = 200 <= reply.status < 300
    receipt = settlement(reply.headers)
    transaction = _text(receipt, "transaction")
    if receipt is not None and receipt.get("success") is True:
        wrong = difference(receipt, signed)
        if wrong is not None:
            return Told(Outcome.UNCONFIRMED, wrong, transaction=transaction)
        amount = _amount(receipt)
        if served:
            return Told(Outcome.PAID, "", amount, transaction)
        why = f"settled, but not served: {error_of(reply)}; the same payment opens the work again"
        return Told(Outcome.PAID_UNSERVED, why, amount, transaction)
    refusal = _text(receipt, "errorReason")
    if served:
        return Told(Outcome.UNCONFIRMED, _why_unconfirmed(reply, receipt, refusal), transaction=transaction)
    if receipt is None and is_unclear(reply):
        return Told(Outcome.PENDING, f"the seller answered {error_of(reply)}")
    reason = refusal or error_of(reply)
    if sent_unclearly:
        reason = f"{reason}; {SETTLED_PERHAPS}"
    return Told(Outcome.REFUSED, reason, transaction=transaction)


def _why_unconfirmed(reply: Reply, receipt: Json | None, refusal: str) -> str:
    if receipt is not None:
        told = refusal or "no reason given"
        return f"served, although the receipt says that it was not settled: {told}"
    if "PAYMENT-RESPONSE" in reply.headers:
        return "served with a receipt that cannot be read"
    return "served without a receipt"


def difference(receipt: Json, signed: Signed) -> str | None:
    """How a receipt of success differs from what was signed; None if it fits.

    x402 v2 section 5.3: network and transaction are always said; payer and amount may be left out.
    """
    network, payer, amount = receipt.get("network"), receipt.get("payer"), receipt.get("amount")
    taken = _amount(receipt)
    if network != signed.network:
        return f"the receipt is of network {_word(network)}, signed was {signed.network}"
    if payer is not None and str(payer).lower() != signed.payer.lower():
        return f"the receipt is of payer {_word(payer)}, signed by {signed.payer}"
    if amount is not None and taken is None:
        return f"the receipt's amount {_word(amount)} is no whole number"
    if taken is not None and taken > signed.amount:
        return f"the receipt says that {taken} was taken; at most {signed.amount} was signed"
    if taken != 0 and not _text(receipt, "transaction"):
        return "the receipt names no transaction"
    return None


def settlement(headers: Mapping[str, str]) -> Json | None:
    """The receipt (`PAYMENT-RESPONSE`) of an answer; None where there is none that can be read."""
    value = headers.get("PAYMENT-RESPONSE")
    return None if value is None else decoded(value)


def error_of(reply: Reply) -> str:
    """The seller's own reason, from a 402's offers or a problem document; of a redirect, where it leads."""
    if 300 <= reply.status < 400:
        place = reply.headers.get("Location", "")[:200]
        return f"status {reply.status}, Location {place or 'missing'}; redirects are not followed"
    told = payment_required_of(reply.headers, reply.body) or parsed(reply.body) or {}
    for name in ("error", "code", "type", "title"):
        if isinstance(told.get(name), str) and told[name]:
            return str(told[name])[:200]
    return f"status {reply.status}"


def code_of(body: bytes) -> str:
    """The code of a problem document (RFC 9457): its `code`, or the last word of its `type`."""
    told = parsed(body) or {}
    named = told.get("code") or told.get("type") or told.get("error")
    return named.replace("/", ":").rpartition(":")[2] if isinstance(named, str) else ""


def _amount(receipt: Json) -> int | None:
    value = receipt.get("amount")
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else whole(value)


def _text(found: Json | None, name: str) -> str:
    value = None if found is None else found.get(name)
    return value[:200] if isinstance(value, str) else ""


def _word(value: Any) -> str:
    return (
        f"{value!r:.80}"
        if isinstance(value, str | int | float)
        else "missing"
        if value is None
        else "nonsense"
    )
