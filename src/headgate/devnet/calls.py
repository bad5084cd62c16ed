"""What goes into a contract call and what comes out: selectors, calldata, and why a call reverted."""

from __future__ import annotations

from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

# Errors of the contracts here that are not sentences: clients know them by these selectors.
NAMED_ERRORS = (
    "AmountExceedsPermitted()",
    "InvalidAmount()",
    "InvalidAmount(uint256)",
    "InvalidContractSignature()",
    "InvalidDestination()",
    "InvalidNonce()",
    "InvalidOwner()",
    "InvalidSignature()",
    "InvalidSignatureLength()",
    "InvalidSigner()",
    "PaymentTooEarly()",
    "Permit2612AmountMismatch()",
    "SignatureExpired(uint256)",
    "UnauthorizedFacilitator()",
)


class ContractReverted(Exception):
    """A contract refused. `reason` says why as far as the contract did; `data` is its answer as bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reason = revert_reason(data)
        super().__init__(f"execution reverted: {self.reason}" if self.reason else "execution reverted")


def selector(signature: str) -> bytes:
    """The four bytes that name a function or an error, e.g. of `balanceOf(address)`."""
    return bytes(keccak(text=signature)[:4])


def topic(signature: str) -> str:
    """The first topic of an event, as 0x and 64 hex digits."""
    return "0x" + keccak(text=signature).hex()


def encode_call(signature: str, *arguments: Any) -> bytes:
    """Calldata: `encode_call("approve(address,uint256)", spender, 5)`."""
    return selector(signature) + encode(argument_types(signature), arguments)


def argument_types(signature: str) -> list[str]:
    """The types between the outer parentheses, tuples kept whole."""
    types: list[str] = []
    depth = 0
    current = ""
    for character in signature[signature.index("(") + 1 : -1]:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            types.append(current)
            current = ""
        else:
            current += character
    return [*types, current] if current else types


_ERRORS = {selector(signature): signature.split("(", maxsplit=1)[0] for signature in NAMED_ERRORS}


def revert_reason(data: bytes) -> str:
    """The reason in a revert: its sentence, its error's name, a panic's code, or the bytes as hex."""
    head, body = data[:4], data[4:]
    try:
        if head == selector("Error(string)"):
            return str(decode(["string"], body)[0])
        if head == selector("Panic(uint256)"):
            return f"panic {decode(['uint256'], body)[0]:#x}"
    except DecodingError:
        return "0x" + data.hex()
    if head in _ERRORS:
        return _ERRORS[head]
    return "0x" + data.hex() if data else ""
