"""Payments through Permit2: `upto` up to its ceiling, `exact` by permit, each nonce once."""

from __future__ import annotations

import time
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from x402.client import x402ClientSync
from x402.extensions.eip2612_gas_sponsoring import declare_eip2612_gas_sponsoring_extension
from x402.mechanisms.evm.constants import UPTO_PERMIT2_WITNESS_TYPES
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.signers import EthAccountSigner
from x402.mechanisms.evm.upto import UptoEvmScheme
from x402.schemas import PaymentRequired

from headgate.devnet import (
    CHAIN_ID,
    NETWORK,
    USDC_ADDRESS,
    ChainSigner,
    DevChain,
    EmbeddedFacilitator,
    Wallet,
)
from headgate.devnet.calls import ContractReverted, encode_call
from headgate.devnet.contracts import EXACT_PROXY_ADDRESS, PERMIT2_ADDRESS, UPTO_PROXY_ADDRESS
from tests.devnet.paying import SELLER, Json, offer, pay, poor

UPTO = offer(50_000, scheme="upto")
PERMIT2_OFFER = offer(extra={"name": "USDC", "version": "2", "assetTransferMethod": "permit2"})
SETTLE = "settle(((address,uint256),uint256,uint256),uint256,address,(address,address,uint256),bytes)"


def nonce_of(payment: Json) -> str:
    return str(payment["payload"]["permit2Authorization"]["nonce"])


async def test_upto_settles_what_was_used(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    payment = pay(payer, UPTO)
    nonce = nonce_of(payment)
    assert await facilitator.verify(payment, UPTO) == {"isValid": True, "payer": payer.address}
    assert chain.authorization(USDC_ADDRESS, payer.address, nonce).state == "unused"
    answer = await facilitator.settle(payment, UPTO | {"amount": "12345"})
    found = chain.find_transfer(USDC_ADDRESS, payer.address, nonce)
    assert found is not None
    assert (found.method, found.to, found.value, found.nonce) == ("permit2", SELLER, 12_345, nonce)
    assert answer == {
        "success": True,
        "payer": payer.address,
        "transaction": found.transaction,
        "network": NETWORK,
        "amount": "12345",
    }
    assert chain.balance_of(SELLER) == 12_345
    assert chain.permit2_nonce_used(payer.address, nonce)
    assert chain.nonce_bitmap(payer.address, int(nonce) >> 8) == 1 << (int(nonce) & 255)


async def test_upto_settles_the_whole_ceiling(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    answer = await facilitator.settle(pay(payer, UPTO), UPTO)
    assert (answer["success"], answer["amount"]) == (True, "50000")
    assert chain.balance_of(SELLER) == 50_000


async def test_upto_settles_zero_without_a_transaction(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    payment = pay(payer, UPTO)
    answer = await facilitator.settle(payment, UPTO | {"amount": "0"})
    assert (answer["success"], answer["transaction"], answer["amount"]) == (True, "", "0")
    assert chain.block_number() == 0
    assert not chain.permit2_nonce_used(payer.address, nonce_of(payment))


async def test_upto_never_settles_more_than_was_signed(
    chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet
) -> None:
    answer = await facilitator.settle(pay(payer, UPTO), UPTO | {"amount": "50001"})
    assert answer["success"] is False
    assert answer["errorReason"] == "invalid_upto_evm_payload_settlement_exceeds_amount"
    assert chain.balance_of(SELLER) == 0


async def test_upto_settles_once(chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet) -> None:
    payment = pay(payer, UPTO)
    first = await facilitator.settle(payment, UPTO | {"amount": "100"})
    assert await facilitator.settle(payment, UPTO | {"amount": "100"}) == first
    other = await facilitator.settle(payment, UPTO | {"amount": "200"})
    assert (other["success"], other["errorReason"]) == (False, "permit2_invalid_nonce")
    assert (await facilitator.verify(payment, UPTO))["isValid"] is False
    assert chain.balance_of(SELLER) == 100


async def test_upto_without_the_money_or_the_approval(
    chain: DevChain, facilitator: EmbeddedFacilitator
) -> None:
    wallet = poor(chain, 49_999)
    answer = await facilitator.verify(pay(wallet, UPTO), UPTO)
    assert (answer["isValid"], answer["invalidReason"]) == (False, "permit2_allowance_required")
    chain_signer = ChainSigner(chain, wallet)
    assert chain_signer.get_balance(wallet.address, USDC_ADDRESS) == 49_999
    rich_but_unapproved = poor(chain, 10_000_000, "unapproved")
    answer = await facilitator.verify(pay(rich_but_unapproved, UPTO), UPTO)
    assert (answer["isValid"], answer["invalidReason"]) == (False, "permit2_allowance_required")


async def test_upto_for_another_facilitator(facilitator: EmbeddedFacilitator, payer: Wallet) -> None:
    extra = {"name": "USDC", "version": "2", "facilitatorAddress": payer.address}
    accepted = UPTO | {"extra": extra}
    answer = await facilitator.verify(pay(payer, accepted), accepted)
    assert (answer["isValid"], answer["invalidReason"]) == (False, "upto_facilitator_mismatch")


async def test_exact_by_permit2(chain: DevChain, facilitator: EmbeddedFacilitator, payer: Wallet) -> None:
    payment = pay(payer, PERMIT2_OFFER)
    assert (await facilitator.verify(payment, PERMIT2_OFFER))["isValid"] is True
    answer = await facilitator.settle(payment, PERMIT2_OFFER)
    found = chain.find_transfer(USDC_ADDRESS, payer.address, nonce_of(payment))
    assert found is not None
    assert answer["transaction"] == found.transaction
    assert (found.method, found.to, found.value) == ("permit2", SELLER, 100_000)
    assert chain.balance_of(SELLER) == 100_000


class SignerWithReads(EthAccountSigner):
    """The official local signer with a chain to ask, as EthAccountSignerWithRPC has over JSON-RPC."""

    def __init__(self, chain: DevChain, wallet: Wallet) -> None:
        super().__init__(wallet.account)
        self._reads = ChainSigner(chain, wallet)

    def read_contract(self, address: str, abi: list[Json], function_name: str, *args: Any) -> Any:
        return self._reads.read_contract(address, abi, function_name, *args)


@pytest.mark.parametrize("accepted", [UPTO, PERMIT2_OFFER], ids=["upto", "exact"])
async def test_a_newcomer_approves_by_signature_and_pays_in_one_transaction(
    chain: DevChain, facilitator: EmbeddedFacilitator, accepted: Json
) -> None:
    wallet = poor(chain, 1_000_000)
    signer = SignerWithReads(chain, wallet)
    client = x402ClientSync()
    client.register(NETWORK, ExactEvmScheme(signer)).register(NETWORK, UptoEvmScheme(signer))
    asked = {
        "x402Version": 2,
        "accepts": [accepted],
        "extensions": declare_eip2612_gas_sponsoring_extension(),
    }
    payment = client.create_payment_payload(PaymentRequired.model_validate(asked))
    raw = payment.model_dump(by_alias=True, exclude_none=True)
    assert "signature" in raw["extensions"]["eip2612GasSponsoring"]["info"]
    assert (await facilitator.verify(raw, accepted))["isValid"] is True
    answer = await facilitator.settle(raw, accepted)
    assert answer["success"] is True
    assert chain.balance_of(SELLER) == int(accepted["amount"])
    found = chain.find_transfer(USDC_ADDRESS, wallet.address, nonce_of(raw))
    assert found is not None
    assert found.transaction == answer["transaction"]


def permit(chain: DevChain, payer: Wallet, **changes: Any) -> tuple[list[Any], Json]:
    """Arguments of the upto proxy's settle with a signature by hand, and the message signed."""
    message = {
        "permitted": {"token": USDC_ADDRESS, "amount": 50_000},
        "spender": UPTO_PROXY_ADDRESS,
        "nonce": 77,
        "deadline": int(time.time()) + 300,
        "witness": {"to": SELLER, "facilitator": chain.facilitator.address, "validAfter": 0},
    } | changes
    domain = {"name": "Permit2", "chainId": CHAIN_ID, "verifyingContract": PERMIT2_ADDRESS}
    signable = encode_typed_data(domain, UPTO_PERMIT2_WITNESS_TYPES, message)
    signature = bytes(Account.sign_message(signable, payer.private_key).signature)
    return arguments(payer, message, signature), message


def arguments(payer: Wallet, message: Json, signature: bytes, amount: int = 100) -> list[Any]:
    permitted, witness = message["permitted"], message["witness"]
    return [
        ((permitted["token"], permitted["amount"]), message["nonce"], message["deadline"]),
        amount,
        payer.address,
        (witness["to"], witness["facilitator"], witness["validAfter"]),
        signature,
    ]


def settle(chain: DevChain, call: list[Any], by: Wallet | None = None) -> None:
    chain.send(by or chain.facilitator, UPTO_PROXY_ADDRESS, encode_call(SETTLE, *call))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deadline": 1_000_000}, "SignatureExpired"),
        ({"spender": PERMIT2_ADDRESS}, "InvalidSigner"),
        ({"permitted": {"token": USDC_ADDRESS, "amount": 99}}, "AmountExceedsPermitted"),
        ({"permitted": {"token": USDC_ADDRESS, "amount": 2**255}}, None),
    ],
)
def test_the_contracts_own_refusals(
    chain: DevChain, payer: Wallet, changes: Json, reason: str | None
) -> None:
    call, _ = permit(chain, payer, **changes)
    if reason is None:
        settle(chain, call)
        return
    with pytest.raises(ContractReverted) as refusal:
        settle(chain, call)
    assert refusal.value.reason == reason
    assert chain.transfers() == []


def test_only_the_named_facilitator_settles_and_only_after_its_time(chain: DevChain, payer: Wallet) -> None:
    call, message = permit(chain, payer)
    with pytest.raises(ContractReverted, match="UnauthorizedFacilitator"):
        settle(chain, call, by=chain.wallets[1])
    early = {**message["witness"], "validAfter": int(time.time()) + 86_400}
    with pytest.raises(ContractReverted, match="PaymentTooEarly"):
        settle(chain, permit(chain, payer, witness=early)[0])
    settle(chain, call)
    with pytest.raises(ContractReverted, match="InvalidNonce"):
        settle(chain, call)


def test_a_witness_or_recipient_changed_after_signing(chain: DevChain, payer: Wallet) -> None:
    call, message = permit(chain, payer)
    stolen = {**message["witness"], "to": chain.wallets[1].address}
    with pytest.raises(ContractReverted, match="InvalidSigner"):
        settle(chain, arguments(payer, message | {"witness": stolen}, call[-1]))
    with pytest.raises(ContractReverted, match="InvalidSignatureLength"):
        settle(chain, arguments(payer, message, call[-1] + b"\0"))
    with pytest.raises(ContractReverted, match="InvalidAmount"):
        settle(chain, arguments(payer, message, call[-1], amount=0))
    assert not chain.permit2_nonce_used(payer.address, 77)


def test_an_invalidated_nonce_never_pays(chain: DevChain, payer: Wallet) -> None:
    call, _ = permit(chain, payer)
    invalidate = encode_call("invalidateUnorderedNonces(uint256,uint256)", 0, 1 << 77)
    chain.send(payer, PERMIT2_ADDRESS, invalidate)
    assert chain.authorization(USDC_ADDRESS, payer.address, 77).state == "canceled"
    assert chain.authorization(USDC_ADDRESS, payer.address, 78).state == "unused"
    with pytest.raises(ContractReverted, match="InvalidNonce"):
        settle(chain, call)


def test_a_nonce_does_not_free_its_neighbours(chain: DevChain, payer: Wallet) -> None:
    calls = {nonce: permit(chain, payer, nonce=nonce)[0] for nonce in (76, 77, 333)}
    for call in calls.values():
        settle(chain, call)
    assert chain.nonce_bitmap(payer.address, 0) == (1 << 76) | (1 << 77)
    assert chain.nonce_bitmap(payer.address, 1) == 1 << 77
    for call in calls.values():
        with pytest.raises(ContractReverted, match="InvalidNonce"):
            settle(chain, call)
    assert chain.balance_of(SELLER) == 300


def test_permit2_itself_holds_a_spender_to_the_signed_amount(chain: DevChain, payer: Wallet) -> None:
    spender = chain.wallets[1]
    terms_types = "((address,uint256),uint256,uint256),(address,uint256)"
    permit2 = f"permitWitnessTransferFrom({terms_types},address,bytes32,string,bytes)"
    ((token, ceiling), nonce, deadline), *_ = permit(chain, payer)[0]
    message = {"token": token, "amount": ceiling}, spender.address, nonce, deadline
    types = {
        "PermitWitnessTransferFrom": [
            {"name": "permitted", "type": "TokenPermissions"},
            {"name": "spender", "type": "address"},
            {"name": "nonce", "type": "uint256"},
            {"name": "deadline", "type": "uint256"},
            {"name": "witness", "type": "bytes32"},
        ],
        "TokenPermissions": UPTO_PERMIT2_WITNESS_TYPES["TokenPermissions"],
    }
    fields = [field["name"] for field in types["PermitWitnessTransferFrom"]]
    witness = b"\x07" * 32
    domain = {"name": "Permit2", "chainId": CHAIN_ID, "verifyingContract": PERMIT2_ADDRESS}
    signable = encode_typed_data(domain, types, dict(zip(fields, (*message, witness), strict=True)))
    signature = bytes(Account.sign_message(signable, payer.private_key).signature)
    rest = "bytes32 witness)TokenPermissions(address token,uint256 amount)"

    def take(amount: int) -> None:
        terms = ((token, ceiling), nonce, deadline), (SELLER, amount)
        call = encode_call(permit2, *terms, payer.address, witness, rest, signature)
        chain.send(spender, PERMIT2_ADDRESS, call)

    with pytest.raises(ContractReverted, match="InvalidAmount"):
        take(ceiling + 1)
    take(ceiling)
    assert chain.balance_of(SELLER) == ceiling


EXACT_SETTLE = "settle(((address,uint256),uint256,uint256),address,(address,uint256),bytes)"
BY_PERMIT = "settleWithPermit((uint256,uint256,bytes32,bytes32,uint8),((address,uint256),uint256,uint256),"
EXACT_BY_PERMIT = BY_PERMIT + "address,(address,uint256),bytes)"
UPTO_BY_PERMIT = BY_PERMIT + "uint256,address,(address,address,uint256),bytes)"


def test_an_approval_is_for_exactly_what_is_paid(chain: DevChain, payer: Wallet) -> None:
    upto, _ = permit(chain, payer)
    exact = [upto[0], payer.address, (SELLER, 0), upto[-1]]
    approval = (50_001, int(time.time()) + 300, b"\1" * 32, b"\1" * 32, 27)
    for proxy, function, call in (
        (UPTO_PROXY_ADDRESS, UPTO_BY_PERMIT, upto),
        (EXACT_PROXY_ADDRESS, EXACT_BY_PERMIT, exact),
    ):
        with pytest.raises(ContractReverted, match="Permit2612AmountMismatch"):
            chain.send(chain.facilitator, proxy, encode_call(function, approval, *call))


@pytest.mark.parametrize(
    ("owner", "to", "valid_after", "amount", "reason"),
    [
        (SELLER, SELLER, 4_000_000_000, 1, "PaymentTooEarly"),
        ("0x" + "00" * 20, SELLER, 0, 1, "InvalidOwner"),
        (SELLER, "0x" + "00" * 20, 0, 1, "InvalidDestination"),
        (SELLER, SELLER, 0, 0, "InvalidAmount"),
        (SELLER, SELLER, 0, 1, "InvalidSignature"),
    ],
)
def test_what_the_exact_proxy_refuses(
    chain: DevChain, owner: str, to: str, valid_after: int, amount: int, reason: str
) -> None:
    terms = ((USDC_ADDRESS, amount), 1, int(time.time()) + 300)
    call = encode_call(EXACT_SETTLE, terms, owner, (to, valid_after), bytes(65))
    with pytest.raises(ContractReverted) as refusal:
        chain.send(chain.facilitator, EXACT_PROXY_ADDRESS, call)
    assert refusal.value.reason == reason
