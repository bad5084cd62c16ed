"""Payments that many tests start from; signing costs milliseconds, so each is made once."""

from __future__ import annotations

import pytest

from headgate.x402.wire import decode
from tests.x402 import buyer


@pytest.fixture(scope="session")
def exact_header() -> bytes:
    return buyer.signed(buyer.offer(buyer.FIXED))


@pytest.fixture(scope="session")
def upto_header() -> bytes:
    return buyer.signed(buyer.offer(buyer.VARIABLE))


@pytest.fixture
def exact(exact_header: bytes) -> buyer.Json:
    """An EIP-3009 payment's JSON, to be changed."""
    return buyer.opened(exact_header)


@pytest.fixture
def upto(upto_header: bytes) -> buyer.Json:
    return buyer.opened(upto_header)


@pytest.fixture
def expires_s(exact_header: bytes) -> int:
    return decode(exact_header).valid_before_s
