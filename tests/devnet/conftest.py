from __future__ import annotations

from collections.abc import Iterator

import pytest

from headgate.devnet import DevChain, EmbeddedFacilitator, RunningFacilitator, Wallet, running_facilitator


@pytest.fixture
def chain() -> DevChain:
    return DevChain()


@pytest.fixture
def payer(chain: DevChain) -> Wallet:
    return chain.wallets[0]


@pytest.fixture
def facilitator(chain: DevChain) -> Iterator[EmbeddedFacilitator]:
    with EmbeddedFacilitator(chain) as running:
        yield running


@pytest.fixture(scope="module")
def served() -> Iterator[RunningFacilitator]:
    with running_facilitator() as running:
        yield running
