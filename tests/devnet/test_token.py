"""TestUSDC: signed transfers move money once, in time, for the signer only; every refusal says why."""

from __future__ import annotations

import time

import pytest
import vyper
from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from headgate.devnet import USDC_ADDRESS, DevChain, Wallet
from headgate.devnet.calls import ContractReverted, encode_call
from tests.devnet.paying import (
    CANCEL_FIELDS,
    SELLER,
    arguments,
    authorization,
    poor,
    sign,
    vrs,
)

FIELDS = "address,address,uint256,uint256,uint256,bytes32"
TRANSFER_VRS = f"transferWithAuthorization({FIELDS},uint8,bytes32,bytes32)"
TRANSFER_BYTES = f"transferWithAuthorization({FIELDS},bytes)"
RECEIVE_VRS = f"receiveWithAuthorization({FIELDS},uint8,bytes32,bytes32)"
RECEIVE_BYTES = f"receiveWithAuthorization({FIELDS},bytes)"
CANCEL_VRS = "cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)"
CANCEL_BYTES = "cancelAuthorization(address,bytes32,bytes)"
PERMIT_VRS = "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"
PERMIT_BYTES = "permit(address,address,uint256,uint256,bytes)"
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def tail(function: str, signature: bytes) -> list[object]:
    return [signature] if function.endswith(",bytes)") else list(vrs(signature))


def submit(chain: DevChain, function: str, message: dict[str, object], signature: bytes) -> None:
    call = encode_call(function, *arguments(message), *tail(function, signature))
    chain.send(chain.facilitator, USDC_ADDRESS, call)


def refused(chain: DevChain, function: str, message: dict[str, object], signature: bytes) -> str:
    """Why the token refuses; that nothing moved and the nonce stays free is checked on the way."""
    before = chain.balance_of(str(message["from"])), chain.block_number()
    spent = chain.authorization_state(USDC_ADDRESS, str(message["from"]), str(message["nonce"]))
    with pytest.raises(ContractReverted) as refusal:
        submit(chain, function, message, signature)
    assert (chain.balance_of(str(message["from"])), chain.block_number()) == before
    assert chain.authorization_state(USDC_ADDRESS, str(message["from"]), str(message["nonce"])) is spent
    return refusal.value.reason


both_ways = pytest.mark.parametrize("function", [TRANSFER_VRS, TRANSFER_BYTES], ids=["vrs", "bytes"])


def test_its_domain_is_usdc_on_base_sepolia(chain: DevChain) -> None:
    kinds = ["bytes32", "bytes32", "bytes32", "uint256", "address"]
    separator = keccak(
        encode(
            kinds,
            [
                keccak(
                    text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
                ),
                keccak(text="USDC"),
                keccak(text="2"),
                84532,
                USDC_ADDRESS,
            ],
        )
    )
    assert chain.call(USDC_ADDRESS, encode_call("DOMAIN_SEPARATOR()")) == separator
    assert decode(["string"], chain.call(USDC_ADDRESS, encode_call("name()"))) == ("USDC",)
    assert decode(["string"], chain.call(USDC_ADDRESS, encode_call("version()"))) == ("2",)
    assert decode(["string"], chain.call(USDC_ADDRESS, encode_call("symbol()"))) == ("USDC",)
    assert decode(["uint8"], chain.call(USDC_ADDRESS, encode_call("decimals()"))) == (6,)


def test_its_domain_can_be_that_of_another_network() -> None:
    chain = DevChain(usdc_name="USD Coin")
    payer = chain.wallets[0]
    message = authorization(payer)
    assert "invalid signature" in refused(chain, TRANSFER_VRS, message, sign(payer, message))
    submit(chain, TRANSFER_VRS, message, sign(payer, message, name="USD Coin"))
    assert chain.balance_of(SELLER) == 100_000


@both_ways
def test_a_signed_transfer_moves_the_money_once(chain: DevChain, payer: Wallet, function: str) -> None:
    message = authorization(payer, 250_000)
    signature = sign(payer, message)
    submit(chain, function, message, signature)
    assert chain.balance_of(SELLER) == 250_000
    assert chain.balance_of(payer.address) == 1_000_000_000_000 - 250_000
    assert chain.authorization_state(USDC_ADDRESS, payer.address, message["nonce"])
    for again in (TRANSFER_VRS, TRANSFER_BYTES):
        assert refused(chain, again, message, signature) == "FiatTokenV2: authorization is used or canceled"


@both_ways
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"validBefore": int(time.time()) - 60}, "authorization is expired"),
        ({"validAfter": int(time.time()) + 86_400}, "authorization is not yet valid"),
        ({"value": 1_000_000_000_001}, "transfer amount exceeds balance"),
        ({"to": "0x" + "00" * 20}, "transfer to the zero address"),
    ],
)
def test_what_it_refuses_although_it_is_signed(
    chain: DevChain, payer: Wallet, function: str, changes: dict[str, object], reason: str
) -> None:
    message = authorization(payer, **changes)
    assert reason in refused(chain, function, message, sign(payer, message))


@both_ways
@pytest.mark.parametrize("field", ["to", "value", "validAfter", "validBefore", "nonce"])
def test_no_field_can_be_changed_after_signing(
    chain: DevChain, payer: Wallet, function: str, field: str
) -> None:
    message = authorization(payer)
    signature = sign(payer, message)
    other = {
        "to": chain.wallets[1].address,
        "value": 1,
        "validAfter": 1,
        "validBefore": message["validBefore"] + 1,
        "nonce": "0x" + "11" * 32,
    }
    changed = message | {field: other[field]}
    assert "invalid signature" in refused(chain, function, changed, signature)


@both_ways
def test_only_the_payer_can_sign(chain: DevChain, payer: Wallet, function: str) -> None:
    message = authorization(payer)
    assert "invalid signature" in refused(chain, function, message, sign(chain.wallets[1], message))


@both_ways
@pytest.mark.parametrize(
    "changes",
    [
        {"name": "USD Coin"},
        {"version": "1"},
        {"chainId": 8453},
        {"verifyingContract": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"},
    ],
)
def test_a_signature_for_another_domain_is_worth_nothing(
    chain: DevChain, payer: Wallet, function: str, changes: dict[str, object]
) -> None:
    message = authorization(payer)
    assert "invalid signature" in refused(chain, function, message, sign(payer, message, **changes))


@both_ways
def test_the_same_signature_in_its_other_form_is_refused(
    chain: DevChain, payer: Wallet, function: str
) -> None:
    message = authorization(payer)
    v, r, s = vrs(sign(payer, message))
    twin = r + (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big") + bytes([55 - v])
    assert "'s' value" in refused(chain, function, message, twin)


def test_bytes_of_the_wrong_length_are_refused(chain: DevChain, payer: Wallet) -> None:
    message = authorization(payer)
    signature = sign(payer, message)
    for wrong in (b"", signature[:64], signature + b"\0", signature * 70):
        assert refused(chain, TRANSFER_BYTES, message, wrong) != ""


@pytest.mark.parametrize("function", [RECEIVE_VRS, RECEIVE_BYTES], ids=["vrs", "bytes"])
def test_only_the_payee_receives_with_authorization(chain: DevChain, payer: Wallet, function: str) -> None:
    payee = chain.wallets[1]
    message = authorization(payer, to=payee.address)
    signature = sign(payer, message, kind="ReceiveWithAuthorization")
    assert "caller must be the payee" in refused(chain, function, message, signature)
    assert "invalid signature" in refused(chain, TRANSFER_VRS, message, signature)
    call = encode_call(function, *arguments(message), *tail(function, signature))
    chain.send(payee, USDC_ADDRESS, call)
    assert chain.balance_of(payee.address) == 1_000_000_100_000


@pytest.mark.parametrize("function", [CANCEL_VRS, CANCEL_BYTES], ids=["vrs", "bytes"])
def test_a_canceled_authorization_never_pays(chain: DevChain, payer: Wallet, function: str) -> None:
    message = authorization(payer)
    cancel = {"authorizer": payer.address, "nonce": message["nonce"]}
    nonce = bytes.fromhex(message["nonce"][2:])

    def call(by: Wallet) -> bytes:
        signature = sign(by, cancel, kind="CancelAuthorization", fields=CANCEL_FIELDS)
        return encode_call(function, payer.address, nonce, *tail(function, signature))

    with pytest.raises(ContractReverted, match="invalid signature"):
        chain.send(chain.facilitator, USDC_ADDRESS, call(chain.wallets[1]))
    assert chain.authorization(USDC_ADDRESS, payer.address, message["nonce"]).state == "unused"
    chain.send(chain.facilitator, USDC_ADDRESS, call(payer))
    assert chain.authorization(USDC_ADDRESS, payer.address, message["nonce"]).state == "canceled"
    assert chain.find_transfer(USDC_ADDRESS, payer.address, message["nonce"]) is None
    assert "used or canceled" in refused(chain, TRANSFER_VRS, message, sign(payer, message))
    with pytest.raises(ContractReverted, match="used or canceled"):
        chain.send(chain.facilitator, USDC_ADDRESS, call(payer))


@pytest.mark.parametrize("function", [PERMIT_VRS, PERMIT_BYTES], ids=["vrs", "bytes"])
def test_a_permit_approves_once(chain: DevChain, function: str) -> None:
    owner, spender = poor(chain, 1_000_000), chain.wallets[1]
    fields = [
        {"name": "owner", "type": "address"},
        {"name": "spender", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "nonce", "type": "uint256"},
        {"name": "deadline", "type": "uint256"},
    ]
    deadline = int(time.time()) + 300
    message = {
        "owner": owner.address,
        "spender": spender.address,
        "value": 400_000,
        "nonce": 0,
        "deadline": deadline,
    }

    def call(deadline: int) -> bytes:
        signature = sign(owner, message | {"deadline": deadline}, kind="Permit", fields=fields)
        return encode_call(
            function, owner.address, spender.address, 400_000, deadline, *tail(function, signature)
        )

    with pytest.raises(ContractReverted, match="permit is expired"):
        chain.send(spender, USDC_ADDRESS, call(int(time.time()) - 60))
    chain.send(spender, USDC_ADDRESS, call(deadline))
    with pytest.raises(ContractReverted, match="invalid signature"):
        chain.send(spender, USDC_ADDRESS, call(deadline))
    move = "transferFrom(address,address,uint256)"
    chain.send(spender, USDC_ADDRESS, encode_call(move, owner.address, SELLER, 300_000))
    with pytest.raises(ContractReverted, match="exceeds allowance"):
        chain.send(spender, USDC_ADDRESS, encode_call(move, owner.address, SELLER, 100_001))
    assert chain.balance_of(SELLER) == 300_000


def test_money_is_neither_made_nor_lost(chain: DevChain, payer: Wallet) -> None:
    message = authorization(payer, to=payer.address)
    submit(chain, TRANSFER_VRS, message, sign(payer, message))  # to itself
    assert chain.balance_of(payer.address) == 1_000_000_000_000
    supply = decode(["uint256"], chain.call(USDC_ADDRESS, encode_call("totalSupply()")))[0]
    assert supply == 10 * 1_000_000_000_000 + 1_000 * 1_000_000_000_000


def test_an_unknown_function_is_an_error(chain: DevChain) -> None:
    with pytest.raises(ContractReverted, match="unknown function"):
        chain.call(USDC_ADDRESS, encode_call("mint(address,uint256)", SELLER, 1))


WALLET = """
#pragma version ~=0.4.3
#pragma evm-version cancun
owner: immutable(address)

@deploy
def __init__(_owner: address):
    owner = _owner

@view
@external
def isValidSignature(digest: bytes32, signature: Bytes[4096]) -> bytes4:
    # Longer than a key's signature, so that nothing can take it for one: 35 bytes in front.
    assert len(signature) == 100
    r: uint256 = convert(extract32(signature, 35), uint256)
    s: uint256 = convert(extract32(signature, 67), uint256)
    if ecrecover(digest, convert(slice(signature, 99, 1), uint256), r, s) == owner:
        return 0x1626ba7e
    return 0xffffffff
"""


def test_a_wallet_that_is_a_contract_signs_in_its_own_way(chain: DevChain, payer: Wallet) -> None:
    code = bytes.fromhex(vyper.compile_code(WALLET, output_formats=("bytecode",))["bytecode"][2:])
    owner = bytes.fromhex(payer.address[2:]).rjust(32, b"\0")
    address = chain.send(payer, None, code + owner).created
    assert address is not None
    chain.fund(address, 500_000)
    message = authorization(payer, **{"from": address})
    signature = sign(payer, message)
    assert refused(chain, TRANSFER_VRS, message, signature) == "FiatTokenV2: invalid signature"
    assert refused(chain, TRANSFER_BYTES, message, bytes(35) + sign(chain.wallets[1], message)) == (
        "FiatTokenV2: invalid signature"
    )
    submit(chain, TRANSFER_BYTES, message, bytes(35) + signature)
    assert chain.balance_of(address) == 400_000
    found = chain.find_transfer(USDC_ADDRESS, address, message["nonce"])
    assert found is not None
    assert (found.payer, found.to, found.value) == (address, SELLER, 100_000)
