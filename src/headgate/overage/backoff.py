"""When a failed delivery is tried again. Pure: the time and the jitter are handed in.

The pause doubles from one second up to five minutes. A batch that failed is halved with every failure, down
to a single row, so that a row the receiver cannot take ends up alone at the head: everything before it has
been delivered, it is named in the error, and nothing overtakes it.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime

from headgate.model.duration import HOUR_US, MINUTE_US, SECOND_US

FIRST_US = SECOND_US
MOST_US = 5 * MINUTE_US
MOST_ASKED_US = HOUR_US
PAUSED_US = 1 << 62
_DOUBLINGS = 32


def backoff_us(failures: int, below: Callable[[int], int], asked_us: int | None = None) -> int:
    """How long to wait after that many failures in a row (at least 1).

    Half of it is fixed, half is jitter: `below(n)` gives an integer in [0, n). What the receiver asked for
    (`Retry-After`) is waited for at least, up to an hour.
    """
    full = min(MOST_US, FIRST_US << min(failures - 1, _DOUBLINGS))
    wait_us = full // 2 + below(full // 2 + 1)
    return max(wait_us, min(asked_us or 0, MOST_ASKED_US))


def batch_limit(failures: int, full: int) -> int:
    """How many rows to try at once after that many failures in a row."""
    return max(1, full >> min(failures, _DOUBLINGS))


def is_due(retry_us: int, now_us: int) -> bool:
    """Whether a retry set for `retry_us` may start. A retry further off than any ever set comes from a clock
    that has since been set back: it is due. A pause is never due by itself."""
    return retry_us != PAUSED_US and not now_us < retry_us <= now_us + MOST_ASKED_US


def read_retry_after(value: str | None, now_us: int) -> int | None:
    """`Retry-After` (RFC 9110 §10.2.3) in microseconds from now; None if absent or unreadable."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:12]) * SECOND_US, MOST_ASKED_US)
    try:
        moment = parsedate_to_datetime(text)
        return min(max(0, int(moment.timestamp()) * SECOND_US - now_us), MOST_ASKED_US)
    except (ValueError, OverflowError):
        return None
