"""The torture run in a small size; `make torture` is the same in full."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.run import run

pytestmark = pytest.mark.timeout(240)


@pytest.mark.slow
async def test_nothing_is_paid_twice_or_lost(tmp_path: Path) -> None:
    """Good, repeated, concurrent, malformed requests, a facilitator that fails, a process that is killed."""
    outcome = await run(tmp_path, seed=20261123, requests=600, kills=2)
    assert outcome.faults == [], f"again: make torture ARGS='--seed {outcome.seed} --requests 600 --kills 2'"
    assert outcome.kills == 2
    assert outcome.transfers > 200
    assert outcome.answers["good: 200"] > 130
    assert outcome.answers["replayed: 200"] > 50
    assert outcome.answers["copies: 409"] > 30
