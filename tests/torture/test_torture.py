"""The torture run in a small size; `make torture` is the same in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.run import run

pytestmark = pytest.mark.timeout(240)


@pytest.mark.slow
async def test_nothing_is_paid_twice_or_lost(tmp_path: Path) -> None:
    """Good, repeated, concurrent, malformed requests, a facilitator that fails, a process that is killed."""
    outcome = await run(tmp_path, seed=20261123, requests=800, kills=3)
    assert outcome.faults == [], (
        f"again: make torture ARGS='--seed {outcome.seed} --requests 800 --kills 3 --vanish 0'"
    )
    assert outcome.kills == 3
    assert outcome.transfers > 200
    for kind, least in {"good": 100, "measured": 30, "streamed": 20, "prepaid": 15, "replayed": 50}.items():
        assert outcome.answers[f"{kind}: 200"] > least, (kind, outcome.answers)
    assert outcome.answers["copies: 409"] > 30
    for kind in ("canceled", "underpaid"):
        assert outcome.answers[f"{kind}: 200"] == 0
