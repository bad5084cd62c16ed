"""The torture run in a small size; `make torture` is the same in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.run import run

pytestmark = pytest.mark.timeout(240)
SERVED = {
    "good": 100,
    "measured": 30,
    "streamed": 20,
    "prepaid": 15,
    "posted": 15,
    "replayed": 50,
    "unmeasured": 3,
    "seat": 20,
    "overage": 20,
    "held": 5,
}
"""By kind, how many answers of 200 a run of this size has at least."""


@pytest.mark.slow
async def test_nothing_is_paid_twice_or_lost(tmp_path: Path) -> None:
    """Payers and customers of every kind, a facilitator that fails, processes that are killed."""
    outcome = await run(tmp_path, seed=20261123, requests=1000, kills=3)
    assert outcome.faults == [], (
        f"again: make torture ARGS='--seed {outcome.seed} --requests 1000 --kills 3 --vanish 0'"
    )
    assert outcome.kills == 3
    assert outcome.transfers > 200
    for kind, least in SERVED.items():
        assert outcome.answers[f"{kind}: 200"] > least, (kind, outcome.answers)
    assert outcome.answers["copies: 409"] > 30
    assert outcome.answers["elsewhere: 409"] > 5
    assert outcome.answers["other body: 409"] > 5
    assert outcome.answers["held: 429"] > 5
    assert outcome.events["seat"] > 30
    assert outcome.events["overage"] > 10
    for kind in ("canceled", "underpaid"):
        assert outcome.answers[f"{kind}: 200"] == 0
