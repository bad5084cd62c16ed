#pragma version ~=0.4.3
#pragma evm-version cancun
"""
@title  TestUSDC: play money that behaves like USDC where x402 touches it
@notice EIP-20, EIP-712, EIP-2612 (permit) and EIP-3009 (signed transfers).
        There is no constructor and nobody can mint: the development chain
        writes name, version, balances and supply into its genesis block.
@dev    Revert reasons are those of the real token, because clients and
        facilitators tell failures apart by them. Vyper knows no overloading,
        so the variants that take a signature as `bytes` are dispatched by
        hand in `__default__`.
"""

event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    value: uint256

event Approval:
    owner: indexed(address)
    spender: indexed(address)
    value: uint256

event AuthorizationUsed:
    authorizer: indexed(address)
    nonce: indexed(bytes32)

event AuthorizationCanceled:
    authorizer: indexed(address)
    nonce: indexed(bytes32)

# Longest signature a contract wallet (EIP-1271) may bring.
MAX_SIGNATURE: constant(uint256) = 4096
# What can be read word by word: the list's own encoding (two words) has to fit as well.
MAX_SIGNATURE_WORDS: constant(uint256) = 126

# Half of the curve order: a larger `s` is the same signature written twice.
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

DOMAIN_TYPEHASH: constant(bytes32) = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
PERMIT_TYPEHASH: public(constant(bytes32)) = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")
TRANSFER_WITH_AUTHORIZATION_TYPEHASH: public(constant(bytes32)) = keccak256("TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)")
RECEIVE_WITH_AUTHORIZATION_TYPEHASH: public(constant(bytes32)) = keccak256("ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)")
CANCEL_AUTHORIZATION_TYPEHASH: public(constant(bytes32)) = keccak256("CancelAuthorization(address authorizer,bytes32 nonce)")

decimals: public(constant(uint8)) = 6

# Set by genesis, never by a transaction.
name: public(String[32])
symbol: public(String[16])
version: public(String[8])
totalSupply: public(uint256)

balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
nonces: public(HashMap[address, uint256])
authorizationState: public(HashMap[address, HashMap[bytes32, bool]])


# --- EIP-20 -----------------------------------------------------------------


@external
def transfer(to: address, amount: uint256) -> bool:
    self._transfer(msg.sender, to, amount)
    return True


@external
def transferFrom(sender: address, to: address, amount: uint256) -> bool:
    allowed: uint256 = self.allowance[sender][msg.sender]
    assert amount <= allowed, "ERC20: transfer amount exceeds allowance"
    if allowed != max_value(uint256):
        self.allowance[sender][msg.sender] = allowed - amount
    self._transfer(sender, to, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    self._approve(msg.sender, spender, amount)
    return True


@internal
def _transfer(sender: address, to: address, amount: uint256):
    assert sender != empty(address), "ERC20: transfer from the zero address"
    assert to != empty(address), "ERC20: transfer to the zero address"
    balance: uint256 = self.balanceOf[sender]
    assert amount <= balance, "ERC20: transfer amount exceeds balance"
    self.balanceOf[sender] = balance - amount
    self.balanceOf[to] += amount
    log Transfer(sender=sender, receiver=to, value=amount)


@internal
def _approve(owner: address, spender: address, amount: uint256):
    assert owner != empty(address), "ERC20: approve from the zero address"
    assert spender != empty(address), "ERC20: approve to the zero address"
    self.allowance[owner][spender] = amount
    log Approval(owner=owner, spender=spender, value=amount)


# --- EIP-712 and who signed -------------------------------------------------


@view
@external
def DOMAIN_SEPARATOR() -> bytes32:
    return self._domain_separator()


@view
@internal
def _domain_separator() -> bytes32:
    return keccak256(
        abi_encode(DOMAIN_TYPEHASH, keccak256(self.name), keccak256(self.version), chain.id, self)
    )


@view
@internal
def _digest(struct_hash: bytes32) -> bytes32:
    return keccak256(concat(b"\x19\x01", self._domain_separator(), struct_hash))


@pure
@internal
def _recover(digest: bytes32, v: uint8, r: bytes32, s: bytes32) -> address:
    assert convert(s, uint256) <= HALF_ORDER, "ECRecover: invalid signature 's' value"
    assert v == 27 or v == 28, "ECRecover: invalid signature 'v' value"
    return ecrecover(digest, v, r, s)


@view
@internal
def _accepted_by_wallet(wallet: address, digest: bytes32, signature: Bytes[MAX_SIGNATURE]) -> bool:
    # EIP-1271: a wallet that is a contract answers with the selector of the question.
    answered: bool = False
    answer: Bytes[32] = b""
    answered, answer = raw_call(
        wallet,
        abi_encode(digest, signature, method_id=method_id("isValidSignature(bytes32,bytes)")),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    if not answered or len(answer) != 32:
        return False
    magic: bytes4 = method_id("isValidSignature(bytes32,bytes)", output_type=bytes4)
    return slice(answer, 0, 4) == concat(magic, b"")


@view
@internal
def _is_signed(signer: address, digest: bytes32, signature: Bytes[MAX_SIGNATURE]) -> bool:
    if signer.is_contract:
        return self._accepted_by_wallet(signer, digest, signature)
    assert len(signature) == 65, "ECRecover: invalid signature length"
    v: uint8 = convert(slice(signature, 64, 1), uint8)
    recovered: address = self._recover(digest, v, extract32(signature, 0), extract32(signature, 32))
    return recovered != empty(address) and recovered == signer


@pure
@internal
def _packed(v: uint8, r: bytes32, s: bytes32) -> Bytes[MAX_SIGNATURE]:
    return concat(r, s, convert(v, bytes1))


# --- EIP-2612 ---------------------------------------------------------------


@external
def permit(owner: address, spender: address, amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32):
    self._permit(owner, spender, amount, deadline, self._packed(v, r, s))


@internal
def _permit(owner: address, spender: address, amount: uint256, deadline: uint256, signature: Bytes[MAX_SIGNATURE]):
    assert block.timestamp <= deadline, "FiatTokenV2: permit is expired"
    nonce: uint256 = self.nonces[owner]
    self.nonces[owner] = nonce + 1
    digest: bytes32 = self._digest(
        keccak256(abi_encode(PERMIT_TYPEHASH, owner, spender, amount, nonce, deadline))
    )
    assert self._is_signed(owner, digest, signature), "EIP2612: invalid signature"
    self._approve(owner, spender, amount)


# --- EIP-3009 ---------------------------------------------------------------


@external
def transferWithAuthorization(
    sender: address,
    to: address,
    amount: uint256,
    validAfter: uint256,
    validBefore: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    self._move(
        TRANSFER_WITH_AUTHORIZATION_TYPEHASH, sender, to, amount, validAfter, validBefore, nonce, self._packed(v, r, s)
    )


@external
def receiveWithAuthorization(
    sender: address,
    to: address,
    amount: uint256,
    validAfter: uint256,
    validBefore: uint256,
    nonce: bytes32,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    assert to == msg.sender, "FiatTokenV2: caller must be the payee"
    self._move(
        RECEIVE_WITH_AUTHORIZATION_TYPEHASH, sender, to, amount, validAfter, validBefore, nonce, self._packed(v, r, s)
    )


@external
def cancelAuthorization(authorizer: address, nonce: bytes32, v: uint8, r: bytes32, s: bytes32):
    self._cancel(authorizer, nonce, self._packed(v, r, s))


@internal
def _move(
    typehash: bytes32,
    sender: address,
    to: address,
    amount: uint256,
    valid_after: uint256,
    valid_before: uint256,
    nonce: bytes32,
    signature: Bytes[MAX_SIGNATURE],
):
    # Both ends of the window are exclusive, as in EIP-3009.
    assert block.timestamp > valid_after, "FiatTokenV2: authorization is not yet valid"
    assert block.timestamp < valid_before, "FiatTokenV2: authorization is expired"
    assert not self.authorizationState[sender][nonce], "FiatTokenV2: authorization is used or canceled"
    digest: bytes32 = self._digest(
        keccak256(abi_encode(typehash, sender, to, amount, valid_after, valid_before, nonce))
    )
    assert self._is_signed(sender, digest, signature), "FiatTokenV2: invalid signature"
    self.authorizationState[sender][nonce] = True
    log AuthorizationUsed(authorizer=sender, nonce=nonce)
    self._transfer(sender, to, amount)


@internal
def _cancel(authorizer: address, nonce: bytes32, signature: Bytes[MAX_SIGNATURE]):
    assert not self.authorizationState[authorizer][nonce], "FiatTokenV2: authorization is used or canceled"
    digest: bytes32 = self._digest(keccak256(abi_encode(CANCEL_AUTHORIZATION_TYPEHASH, authorizer, nonce)))
    assert self._is_signed(authorizer, digest, signature), "FiatTokenV2: invalid signature"
    self.authorizationState[authorizer][nonce] = True
    log AuthorizationCanceled(authorizer=authorizer, nonce=nonce)


# --- the variants that take `bytes` -----------------------------------------


@view
@internal
def _word(index: uint256) -> uint256:
    return convert(slice(msg.data, 4 + 32 * index, 32), uint256)


@view
@internal
def _address(index: uint256) -> address:
    word: uint256 = self._word(index)
    assert word <= convert(max_value(uint160), uint256), "TestUSDC: not an address"
    return convert(convert(word, uint160), address)


@view
@internal
def _bytes_argument(index: uint256) -> Bytes[MAX_SIGNATURE]:
    # Calldata can only be cut in pieces of a fixed length: take whole words, then trim.
    offset: uint256 = self._word(index)
    assert offset % 32 == 0 and offset < 1024, "TestUSDC: malformed calldata"
    position: uint256 = offset // 32
    length: uint256 = self._word(position)
    assert length <= 32 * MAX_SIGNATURE_WORDS, "TestUSDC: signature too long"
    words: DynArray[bytes32, MAX_SIGNATURE_WORDS] = []
    for i: uint256 in range((length + 31) // 32, bound=MAX_SIGNATURE_WORDS):
        words.append(convert(self._word(position + 1 + i), bytes32))
    return slice(abi_encode(words), 64, length)


@external
def __default__():
    selector: bytes4 = convert(slice(msg.data, 0, 4), bytes4)
    if selector == method_id(
        "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)", output_type=bytes4
    ):
        self._move(
            TRANSFER_WITH_AUTHORIZATION_TYPEHASH,
            self._address(0),
            self._address(1),
            self._word(2),
            self._word(3),
            self._word(4),
            convert(self._word(5), bytes32),
            self._bytes_argument(6),
        )
    elif selector == method_id(
        "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)", output_type=bytes4
    ):
        assert self._address(1) == msg.sender, "FiatTokenV2: caller must be the payee"
        self._move(
            RECEIVE_WITH_AUTHORIZATION_TYPEHASH,
            self._address(0),
            self._address(1),
            self._word(2),
            self._word(3),
            self._word(4),
            convert(self._word(5), bytes32),
            self._bytes_argument(6),
        )
    elif selector == method_id("cancelAuthorization(address,bytes32,bytes)", output_type=bytes4):
        self._cancel(self._address(0), convert(self._word(1), bytes32), self._bytes_argument(2))
    elif selector == method_id("permit(address,address,uint256,uint256,bytes)", output_type=bytes4):
        self._permit(
            self._address(0), self._address(1), self._word(2), self._word(3), self._bytes_argument(4)
        )
    else:
        raise "TestUSDC: unknown function"
