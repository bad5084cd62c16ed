#pragma version ~=0.4.3
#pragma evm-version cancun
"""
@title  Permit2, the part that x402 uses
@notice Signed one-time transfers with a witness (`permitWitnessTransferFrom`),
        their unordered nonces, and nothing else of the real contract.
@dev    Same types, same hashes, same errors (by selector) as the contract that
        lives at this address on public chains.
"""

interface ERC20:
    def transferFrom(sender: address, to: address, amount: uint256) -> bool: nonpayable

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

event UnorderedNonceInvalidation:
    owner: indexed(address)
    word: uint256
    mask: uint256

MAX_SIGNATURE: constant(uint256) = 4096
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
# s of a compact (EIP-2098) signature, without the parity bit it carries.
COMPACT_S: constant(uint256) = 2**255 - 1

DOMAIN_TYPEHASH: constant(bytes32) = keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)")
NAME_HASH: constant(bytes32) = keccak256("Permit2")
TOKEN_PERMISSIONS_TYPEHASH: constant(bytes32) = keccak256("TokenPermissions(address token,uint256 amount)")
WITNESS_TYPE_STUB: constant(String[128]) = "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,"

nonceBitmap: public(HashMap[address, HashMap[uint256, uint256]])


@view
@external
def DOMAIN_SEPARATOR() -> bytes32:
    return self._domain_separator()


@view
@internal
def _domain_separator() -> bytes32:
    return keccak256(abi_encode(DOMAIN_TYPEHASH, NAME_HASH, chain.id, self))


@external
def invalidateUnorderedNonces(wordPos: uint256, mask: uint256):
    self.nonceBitmap[msg.sender][wordPos] |= mask
    log UnorderedNonceInvalidation(owner=msg.sender, word=wordPos, mask=mask)


@external
def permitWitnessTransferFrom(
    permit: PermitTransferFrom,
    transferDetails: SignatureTransferDetails,
    owner: address,
    witness: bytes32,
    witnessTypeString: String[512],
    signature: Bytes[MAX_SIGNATURE],
):
    if block.timestamp > permit.deadline:
        raw_revert(abi_encode(permit.deadline, method_id=method_id("SignatureExpired(uint256)")))
    if transferDetails.requestedAmount > permit.permitted.amount:
        raw_revert(abi_encode(permit.permitted.amount, method_id=method_id("InvalidAmount(uint256)")))
    self._use_nonce(owner, permit.nonce)
    permitted: bytes32 = keccak256(
        abi_encode(TOKEN_PERMISSIONS_TYPEHASH, permit.permitted.token, permit.permitted.amount)
    )
    typehash: bytes32 = keccak256(concat(WITNESS_TYPE_STUB, witnessTypeString))
    struct_hash: bytes32 = keccak256(
        abi_encode(typehash, permitted, msg.sender, permit.nonce, permit.deadline, witness)
    )
    digest: bytes32 = keccak256(concat(b"\x19\x01", self._domain_separator(), struct_hash))
    self._check_signature(owner, digest, signature)
    moved: bool = extcall ERC20(permit.permitted.token).transferFrom(
        owner, transferDetails.to, transferDetails.requestedAmount, default_return_value=True
    )
    assert moved, "TRANSFER_FROM_FAILED"


@internal
def _use_nonce(owner: address, nonce: uint256):
    word: uint256 = nonce >> 8
    bit: uint256 = 1 << (nonce & 255)
    bitmap: uint256 = self.nonceBitmap[owner][word]
    if bitmap & bit != 0:
        raw_revert(method_id("InvalidNonce()"))
    self.nonceBitmap[owner][word] = bitmap | bit


@view
@internal
def _check_signature(signer: address, digest: bytes32, signature: Bytes[MAX_SIGNATURE]):
    if signer.is_contract:
        self._ask_wallet(signer, digest, signature)
        return
    r: bytes32 = empty(bytes32)
    s: uint256 = 0
    v: uint256 = 0
    if len(signature) == 65:
        r = extract32(signature, 0)
        s = convert(extract32(signature, 32), uint256)
        v = convert(slice(signature, 64, 1), uint256)
    elif len(signature) == 64:
        r = extract32(signature, 0)
        vs: uint256 = convert(extract32(signature, 32), uint256)
        s = vs & COMPACT_S
        v = (vs >> 255) + 27
    else:
        raw_revert(method_id("InvalidSignatureLength()"))
    recovered: address = ecrecover(digest, v, convert(r, uint256), s)
    if recovered == empty(address):
        raw_revert(method_id("InvalidSignature()"))
    if recovered != signer:
        raw_revert(method_id("InvalidSigner()"))


@view
@internal
def _ask_wallet(wallet: address, digest: bytes32, signature: Bytes[MAX_SIGNATURE]):
    # EIP-1271: a wallet that is a contract answers with the selector of the question.
    answer: Bytes[32] = raw_call(
        wallet,
        abi_encode(digest, signature, method_id=method_id("isValidSignature(bytes32,bytes)")),
        max_outsize=32,
        is_static_call=True,
    )
    magic: bytes4 = method_id("isValidSignature(bytes32,bytes)", output_type=bytes4)
    if len(answer) != 32 or slice(answer, 0, 4) != concat(magic, b""):
        raw_revert(method_id("InvalidContractSignature()"))
