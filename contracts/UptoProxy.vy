#pragma version ~=0.4.3
#pragma evm-version cancun
"""
@title  Upto proxy: the spender of an x402 `upto` payment made through Permit2
@notice Moves any amount up to the signed ceiling, only to the signed recipient,
        not before the signed time, and only for the facilitator the payer named.
"""

interface Permit2:
    def permitWitnessTransferFrom(
        permit: PermitTransferFrom,
        transferDetails: SignatureTransferDetails,
        owner: address,
        witness: bytes32,
        witnessTypeString: String[512],
        signature: Bytes[4096],
    ): nonpayable

struct TokenPermissions:
    token: address
    amount: uint256

struct PermitTransferFrom:
    permitted: TokenPermissions
    nonce: uint256
    deadline: uint256

struct SignatureTransferDetails:
    to: address
    requestedAmount: uint256

struct Witness:
    to: address
    facilitator: address
    validAfter: uint256

struct Permit2612:
    value: uint256
    deadline: uint256
    r: bytes32
    s: bytes32
    v: uint8

event Settled:
    pass

event SettledWithPermit:
    pass

PERMIT2: public(constant(address)) = 0x000000000022D473030F116dDEE9F6B43aC78BA3
WITNESS_TYPEHASH: constant(bytes32) = keccak256("Witness(address to,address facilitator,uint256 validAfter)")
WITNESS_TYPE: constant(String[128]) = "Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,address facilitator,uint256 validAfter)"


@external
def settle(permit: PermitTransferFrom, amount: uint256, owner: address, witness: Witness, signature: Bytes[4096]):
    self._settle(permit, amount, owner, witness, signature)
    log Settled()


@external
def settleWithPermit(
    permit2612: Permit2612,
    permit: PermitTransferFrom,
    amount: uint256,
    owner: address,
    witness: Witness,
    signature: Bytes[4096],
):
    if permit2612.value != permit.permitted.amount:
        raw_revert(method_id("Permit2612AmountMismatch()"))
    # A permit that was submitted already leaves its allowance: the transfer below decides.
    submitted: bool = raw_call(
        permit.permitted.token,
        abi_encode(
            owner,
            PERMIT2,
            permit2612.value,
            permit2612.deadline,
            permit2612.v,
            permit2612.r,
            permit2612.s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    self._settle(permit, amount, owner, witness, signature)
    log SettledWithPermit()


@internal
def _settle(permit: PermitTransferFrom, amount: uint256, owner: address, witness: Witness, signature: Bytes[4096]):
    if msg.sender != witness.facilitator:
        raw_revert(method_id("UnauthorizedFacilitator()"))
    if owner == empty(address):
        raw_revert(method_id("InvalidOwner()"))
    if witness.to == empty(address):
        raw_revert(method_id("InvalidDestination()"))
    if block.timestamp < witness.validAfter:
        raw_revert(method_id("PaymentTooEarly()"))
    if amount == 0:
        raw_revert(method_id("InvalidAmount()"))
    if amount > permit.permitted.amount:
        raw_revert(method_id("AmountExceedsPermitted()"))
    extcall Permit2(PERMIT2).permitWitnessTransferFrom(
        permit,
        SignatureTransferDetails(to=witness.to, requestedAmount=amount),
        owner,
        keccak256(abi_encode(WITNESS_TYPEHASH, witness.to, witness.facilitator, witness.validAfter)),
        WITNESS_TYPE,
        signature,
    )
