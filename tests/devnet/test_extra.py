"""What importing py-evm does to a process, and what its absence is told as."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_importing_without_py_evm_names_the_extra() -> None:
    code = """
import sys
sys.modules["eth"] = None  # what an import finds where py-evm is not installed
try:
    import headgate.devnet
except ModuleNotFoundError as error:
    print(error)
"""
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'headgate[demo]'" in outcome.stdout


def test_py_evm_does_not_lift_the_recursion_limit_of_the_process() -> None:
    code = """
import asyncio, sys
limit = sys.getrecursionlimit()
from headgate.devnet import EmbeddedFacilitator
from tests.devnet.paying import offer, pay
with EmbeddedFacilitator() as facilitator:
    for accepted in (offer(), offer(scheme="upto")):
        payment = pay(facilitator.chain.wallets[0], accepted)
        assert asyncio.run(facilitator.verify(payment, accepted))["isValid"]
        assert asyncio.run(facilitator.settle(payment, accepted))["success"]
print(sys.getrecursionlimit() == limit)
"""
    root = Path(__file__).parents[2]
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert outcome.stdout.strip() == "True"
