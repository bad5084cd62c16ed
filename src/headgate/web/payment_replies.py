"""What payers are told where their payment opens nothing now: what to do, and whether to sign again."""

from __future__ import annotations

from headgate.service.pay import RETRY_AFTER_S, Why
from headgate.web.problems import Headers, Reply, problem, retry_after

FACILITATOR_DOWN = problem(
    503,
    "facilitator_unavailable",
    "The payment could not be checked just now and was not used. Send the same payment again.",
    headers=(retry_after(RETRY_AFTER_S),),
)
NO_OFFERS = problem(
    503,
    "offers_not_ready",
    "This action cannot be offered yet: the facilitator has not said how it settles. Try again.",
    headers=(retry_after(5),),
)
RUNNING = problem(
    409,
    "payment_in_progress",
    "The first request with this payment is still at work. Ask again with the same payment.",
    headers=(retry_after(RETRY_AFTER_S),),
)
PENDING = problem(
    503,
    "payment_pending",
    "The outcome of this payment is not known yet. Send the same payment again; do not sign another one.",
    headers=(retry_after(RETRY_AFTER_S),),
)
ELSEWHERE = problem(
    409, "payment_bound_elsewhere", "This payment was made for another request; sign a new one for this."
)
UNVERIFIED = problem(
    502,
    "settlement_unverified",
    "The settlement could not be confirmed. Send the same payment again later; do not sign another one.",
    headers=(retry_after(RETRY_AFTER_S),),
)

BUSY = problem(
    429,
    "too_many_payments_in_flight",
    "Other requests of this payer are at work. Send the same payment again when they have ended.",
    headers=(retry_after(RETRY_AFTER_S),),
    title="Too many requests",
)

THROTTLED = problem(
    429,
    "too_many_refused_payments",
    "Too many payments from this address were refused. The payment was not used: send it again later.",
    headers=(retry_after(RETRY_AFTER_S),),
    title="Too many requests",
)

REPLIES = {
    Why.RUNNING: RUNNING,
    Why.ELSEWHERE: ELSEWHERE,
    Why.PENDING: PENDING,
    Why.UNREACHABLE: FACILITATOR_DOWN,
    Why.UNVERIFIED: UNVERIFIED,
    Why.BUSY: BUSY,
    Why.THROTTLED: THROTTLED,
    Why.REOPENED: RUNNING,  # served by whoever sees it first; the others come back
}
"""Where a payment opens nothing now, and its answer is neither an offer nor a kept one."""


def waiting(reply: Reply, seconds: int) -> Reply:
    """The same answer with another `Retry-After`."""
    kept = tuple(pair for pair in reply.headers if pair[0] != b"retry-after")
    return Reply(reply.status, (*kept, retry_after(seconds)), reply.body)


def used_reply(url: str, headers: Headers = ()) -> Reply:
    """The answer to a payment that was settled and whose answer is gone; `url` is its receipt's."""
    return problem(
        409,
        "payment_used",
        "This payment was settled and its answer is no longer kept. The receipt is at `receipt`.",
        headers=headers,
        receipt=url,
    )
