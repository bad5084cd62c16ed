"""What the package ships is what the sources compile to, and answers what the SDK calls."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from x402.mechanisms.evm import constants

from headgate.devnet import contracts

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_contracts", ROOT / "scripts" / "build_contracts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_rebuild_gives_the_same_bytes(build: ModuleType) -> None:
    built = build.build()
    shipped = {path.name: path.read_text("utf-8") for path in build.COMPILED.glob("*.json")}
    assert sorted(built) == [
        "ExactProxy.json",
        "Multicall3.json",
        "Permit2.json",
        "TestUSDC.json",
        "UptoProxy.json",
    ]
    assert built == shipped


def test_the_addresses_are_those_the_sdk_pays_at() -> None:
    assert contracts.PERMIT2_ADDRESS == constants.PERMIT2_ADDRESS
    assert contracts.EXACT_PROXY_ADDRESS == constants.X402_EXACT_PERMIT2_PROXY_ADDRESS
    assert contracts.UPTO_PROXY_ADDRESS == constants.X402_UPTO_PERMIT2_PROXY_ADDRESS
    assert contracts.MULTICALL3_ADDRESS == constants.MULTICALL3_ADDRESS


@pytest.mark.parametrize(
    ("contract", "abi"),
    [
        ("TestUSDC", constants.TRANSFER_WITH_AUTHORIZATION_VRS_ABI),
        ("TestUSDC", constants.AUTHORIZATION_STATE_ABI),
        ("TestUSDC", constants.BALANCE_OF_ABI),
        ("TestUSDC", constants.NAME_ABI),
        ("TestUSDC", constants.VERSION_ABI),
        ("TestUSDC", constants.EIP2612_NONCES_ABI),
        ("TestUSDC", constants.ERC20_ALLOWANCE_ABI),
        ("TestUSDC", constants.ERC20_APPROVE_ABI),
        ("ExactProxy", constants.X402_EXACT_PERMIT2_PROXY_ABI),
        ("ExactProxy", constants.X402_EXACT_PERMIT2_PROXY_SETTLE_WITH_PERMIT_ABI),
        ("UptoProxy", constants.X402_UPTO_PERMIT2_PROXY_ABI),
        ("UptoProxy", constants.X402_UPTO_PERMIT2_PROXY_SETTLE_WITH_PERMIT_ABI),
        ("Multicall3", constants.MULTICALL3_TRY_AGGREGATE_ABI),
    ],
)
def test_every_function_the_sdk_calls_is_there(contract: str, abi: list[dict[str, object]]) -> None:
    ours = {_signature(entry) for entry in contracts.load(contract).abi if entry["type"] == "function"}
    assert {_signature(entry) for entry in abi} <= ours


def _signature(entry: dict[str, object]) -> str:
    return f"{entry['name']}({','.join(_type(each) for each in entry['inputs'])})"


def _type(field: dict[str, object]) -> str:
    name = str(field["type"])
    if not name.startswith("tuple"):
        return name
    return f"({','.join(_type(part) for part in field['components'])}){name.removeprefix('tuple')}"
