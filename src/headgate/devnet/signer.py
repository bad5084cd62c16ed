"""The facilitator's hands on the embedded chain: the SDK's FacilitatorEvmSigner, without any RPC between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eth_abi.abi import decode
from x402.mechanisms.evm.multicall import encode_contract_call
from x402.mechanisms.evm.types import TransactionReceipt, TypedDataDomain, TypedDataField
from x402.mechanisms.evm.verify import verify_typed_data_strict

from headgate.devnet.chain import CHAIN_ID, DevChain
from headgate.devnet.wallets import Wallet

ETHER = "0x" + "00" * 20


class ChainSigner:
    """Implements `x402.mechanisms.evm.FacilitatorEvmSigner` on a DevChain, as one account of it.

    A call or transaction that a contract refuses raises ContractReverted, whose text carries the contract's
    reason: the SDK's schemes read it to name what was wrong with a payment.
    """

    def __init__(self, chain: DevChain, wallet: Wallet | None = None) -> None:
        self._chain = chain
        self._wallet = wallet or chain.facilitator

    def get_addresses(self) -> list[str]:
        """The one account that submits settlements."""
        return [self._wallet.address]

    def get_chain_id(self) -> int:
        """84532."""
        return CHAIN_ID

    def read_contract(self, address: str, abi: list[dict[str, Any]], function_name: str, *args: Any) -> Any:
        """Call a contract and decode what it answers: one value, a tuple of several, or None."""
        data = encode_contract_call(abi, function_name, *args)
        answer = self._chain.call(address, data, sender=self._wallet.address)
        entry = next(e for e in abi if e.get("type") == "function" and e.get("name") == function_name)
        types = [_type(output) for output in entry.get("outputs", [])]
        if not types:
            return None
        values = decode(types, answer)
        return values[0] if len(values) == 1 else values

    def verify_typed_data(
        self,
        address: str,
        domain: TypedDataDomain,
        types: dict[str, list[TypedDataField]],
        primary_type: str,
        message: dict[str, Any],
        signature: bytes,
    ) -> bool:
        """Whether `address` signed this EIP-712 message: by its key, or as a contract (EIP-1271)."""
        fields: dict[str, list[TypedDataField | dict[Any, Any]]] = {k: list(v) for k, v in types.items()}
        return verify_typed_data_strict(self, address, domain, fields, primary_type, message, signature)

    def write_contract(
        self,
        address: str,
        abi: list[dict[str, Any]],
        function_name: str,
        *args: Any,
        data_suffix: str | None = None,
    ) -> str:
        """Send a contract a transaction; answers its hash, mined."""
        data = encode_contract_call(abi, function_name, *args)
        if data_suffix:
            data += bytes.fromhex(data_suffix.removeprefix("0x"))
        return self.send_transaction(address, data)

    def send_transaction(self, to: str, data: bytes) -> str:
        """Send a transaction; answers its hash, mined."""
        return self._chain.send(self._wallet, to, data).hash

    def wait_for_transaction_receipt(self, tx_hash: str) -> TransactionReceipt:
        """The receipt; nothing to wait for. Raises LookupError where the chain lost the transaction."""
        transaction = self._chain.transaction(tx_hash)
        if transaction is None:
            raise LookupError(f"transaction {tx_hash} is not on this chain (any more)")
        return TransactionReceipt(
            status=1,
            block_number=transaction.block_number,
            tx_hash=transaction.hash,
            logs=[
                {"address": log.address, "topics": list(log.topics), "data": log.data}
                for log in transaction.logs
            ],
        )

    def get_balance(self, address: str, token_address: str) -> int:
        """Tokens of an address in their smallest unit, or its wei where no token is named."""
        if not token_address or token_address == ETHER:
            return self._chain.wei(address)
        return self._chain.balance_of(address, token_address)

    def get_code(self, address: str) -> bytes:
        """The code at an address, empty where there is no contract."""
        return self._chain.code(address)


def _type(output: dict[str, Any]) -> str:
    """An ABI type in the short form: tuples written out."""
    name: str = output["type"]
    if not name.startswith("tuple"):
        return name
    parts: Sequence[dict[str, Any]] = output["components"]
    return f"({','.join(_type(part) for part in parts)}){name.removeprefix('tuple')}"
