"""The facilitator over HTTP, as official clients and a reconciler meet it."""

from __future__ import annotations

import httpx
import pytest
from eth_abi.abi import encode
from web3 import HTTPProvider, Web3
from web3.exceptions import ContractLogicError
from x402.http import FacilitatorConfig, HTTPFacilitatorClientSync
from x402.mechanisms.evm.constants import BALANCE_OF_ABI, MULTICALL3_TRY_AGGREGATE_ABI
from x402.schemas import PaymentPayload, PaymentRequirements

from headgate.devnet import NETWORK, PLAY_MONEY, USDC_ADDRESS, RunningFacilitator
from headgate.devnet.calls import encode_call
from headgate.devnet.contracts import MULTICALL3_ADDRESS
from headgate.devnet.web import MAX_BODY_BYTES
from tests.devnet.paying import SELLER, Json, offer, pay


def body(payment: Json, accepted: Json) -> Json:
    return {"x402Version": 2, "paymentPayload": payment, "paymentRequirements": accepted}


def test_the_official_client_of_facilitators_verifies_and_settles(served: RunningFacilitator) -> None:
    accepted = offer(321)
    payer = served.wallets[3]
    payment = PaymentPayload.model_validate(pay(payer, accepted))
    terms = PaymentRequirements.model_validate(accepted)
    before = served.chain.balance_of(SELLER)
    with HTTPFacilitatorClientSync(FacilitatorConfig(url=served.url)) as client:
        assert [kind.scheme for kind in client.get_supported().kinds] == ["exact", "upto"]
        assert client.verify(payment, terms).is_valid is True
        settled = client.settle(payment, terms)
        assert (settled.success, settled.payer, settled.network) == (True, payer.address, NETWORK)
        assert client.verify(payment, terms).invalid_reason == "invalid_exact_evm_nonce_already_used"
    assert served.chain.balance_of(SELLER) - before == 321


def test_what_became_of_an_authorization(served: RunningFacilitator) -> None:
    payer = served.wallets[4]
    payment = pay(payer, offer(5))
    url = f"{served.url}/authorizations/{USDC_ADDRESS}/{payer.address}"
    nonce = payment["payload"]["authorization"]["nonce"]
    unused = httpx.get(f"{url}/{nonce}").json()
    assert (unused["method"], unused["state"], unused["transfer"]) == ("eip3009", "unused", None)
    settled = httpx.post(f"{served.url}/settle", json=body(payment, offer(5))).json()
    used = httpx.get(f"{url}/{nonce}").json()
    assert used["state"] == "used"
    assert used["transfer"]["transaction"] == settled["transaction"]
    assert (used["transfer"]["to"], used["transfer"]["value"]) == (SELLER, "5")
    assert used["block_number"] >= used["transfer"]["block_number"]
    assert used["transfer"] in httpx.get(f"{served.url}/transfers").json()["transfers"]
    assert httpx.get(f"{url}/7").json()["method"] == "permit2"
    for wrong in (f"{url}/0x12", f"{served.url}/authorizations/x/{payer.address}/{nonce}"):
        answer = httpx.get(wrong)
        assert answer.status_code == 400
        assert answer.json()["error"]


def test_every_answer_says_that_it_is_play_money(served: RunningFacilitator) -> None:
    for path in ("/healthz", "/wallets", "/supported", "/transfers"):
        answer = httpx.get(served.url + path)
        assert answer.status_code == 200
        assert "x-play-money" in answer.headers
    assert httpx.get(f"{served.url}/healthz").json()["play_money"] == PLAY_MONEY
    wallets = httpx.get(f"{served.url}/wallets").json()
    assert wallets["asset"] == USDC_ADDRESS
    assert [(row["address"], row["private_key"]) for row in wallets["wallets"]] == [
        (wallet.address, wallet.private_key) for wallet in served.wallets
    ]


@pytest.mark.parametrize("path", ["/verify", "/settle"])
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"paymentPayload": [], "paymentRequirements": {}}', 400),
        (b" " * (MAX_BODY_BYTES + 1), 413),
    ],
)
def test_a_body_that_holds_no_payment(
    served: RunningFacilitator, path: str, content: bytes, status: int
) -> None:
    answer = httpx.post(served.url + path, content=content)
    assert answer.status_code == status
    verdict = answer.json()
    assert verdict.get("isValid", verdict.get("success")) is False
    assert verdict.get("invalidReason", verdict.get("errorReason")) == "invalid_payload"


def test_a_payment_that_fails_is_an_answer(served: RunningFacilitator) -> None:
    payment = pay(served.wallets[0], offer())
    answer = httpx.post(f"{served.url}/verify", json=body(payment, offer(99)))
    assert (answer.status_code, answer.json()["isValid"]) == (200, False)
    answer = httpx.post(f"{served.url}/verify", json=body(payment, {}))
    assert (answer.status_code, answer.json()["invalidReason"]) == (200, "invalid_payment_requirements")


def test_wrong_paths_and_methods(served: RunningFacilitator) -> None:
    assert httpx.get(f"{served.url}/nothing").status_code == 404
    assert httpx.get(f"{served.url}/settle").status_code == 405


@pytest.fixture(scope="module")
def web3(served: RunningFacilitator) -> Web3:
    return Web3(HTTPProvider(served.rpc_url))


def test_web3_reads_the_chain(served: RunningFacilitator, web3: Web3) -> None:
    chain = served.chain
    chain.fund(SELLER, 9)
    head = web3.eth.get_block("latest", full_transactions=True)
    assert web3.eth.chain_id == 84532
    assert head["number"] == web3.eth.block_number
    assert web3.eth.get_block(head["number"])["hash"] == head["hash"]
    assert web3.eth.get_block(head["hash"])["number"] == head["number"]
    assert web3.eth.get_code(USDC_ADDRESS) == chain.code(USDC_ADDRESS)
    assert web3.eth.get_code(SELLER) == b""
    assert web3.eth.get_balance(chain.facilitator.address) == chain.wei(chain.facilitator.address)
    assert web3.eth.get_transaction_count(served.wallets[0].address) == 0
    token = web3.eth.contract(USDC_ADDRESS, abi=BALANCE_OF_ABI)
    assert token.functions.balanceOf(SELLER).call() == chain.balance_of(SELLER)


def test_a_reconciler_finds_a_payment_by_its_nonce(served: RunningFacilitator, web3: Web3) -> None:
    payer = served.wallets[5]
    payment = pay(payer, offer(77))
    settled = httpx.post(f"{served.url}/settle", json=body(payment, offer(77))).json()
    nonce = payment["payload"]["authorization"]["nonce"]
    used = web3.keccak(text="AuthorizationUsed(address,bytes32)").to_0x_hex()
    authorizer = "0x" + payer.address[2:].lower().rjust(64, "0")
    wanted = {"fromBlock": 0, "address": USDC_ADDRESS, "topics": [used, authorizer, nonce]}
    (log,) = web3.eth.get_logs(wanted)
    assert log["transactionHash"].to_0x_hex() == settled["transaction"]
    receipt = web3.eth.get_transaction_receipt(log["transactionHash"])
    assert receipt["status"] == 1
    assert [int(each["data"].to_0x_hex(), 16) for each in receipt["logs"][1:]] == [77]
    transaction = web3.eth.get_transaction(log["transactionHash"])
    assert (transaction["from"], transaction["to"]) == (served.chain.facilitator.address, USDC_ADDRESS)
    assert web3.eth.get_logs(wanted | {"topics": [used, authorizer, "0x" + "00" * 32]}) == []
    assert web3.eth.get_logs(wanted | {"topics": [[used], None, nonce]}) == [log]
    assert web3.eth.get_logs({"blockHash": log["blockHash"], "topics": [used]}) == [log]


def test_multicall_answers_each_call_for_itself(served: RunningFacilitator, web3: Web3) -> None:
    multicall = web3.eth.contract(MULTICALL3_ADDRESS, abi=MULTICALL3_TRY_AGGREGATE_ABI)
    balance = encode_call("balanceOf(address)", served.wallets[9].address)
    calls = [(USDC_ADDRESS, balance), (USDC_ADDRESS, b"\x12\x34\x56\x78"), (USDC_ADDRESS, balance)]
    first, second, third = multicall.functions.tryAggregate(False, calls).call()
    assert first == third == (True, encode(["uint256"], [1_000_000_000_000]))
    assert second[0] is False
    with pytest.raises(ContractLogicError):
        multicall.functions.tryAggregate(True, calls).call()


def rpc(served: RunningFacilitator, asked: object) -> Json:
    answer = httpx.post(served.rpc_url, json=asked)
    assert answer.status_code == 200
    parsed: Json = answer.json()
    return parsed


def test_a_refused_call_carries_the_reason_and_the_data(served: RunningFacilitator) -> None:
    data = "0x" + encode_call("transfer(address,uint256)", SELLER, 1).hex()
    asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": [{"to": USDC_ADDRESS, "data": data}]}
    error = rpc(served, asked)["error"]
    assert error["code"] == 3
    assert error["message"].startswith("execution reverted: ERC20: transfer from the zero address")
    assert error["data"].startswith("0x08c379a0")


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"id": 1, "method": "eth_sendRawTransaction", "params": ["0x"]}, -32601),
        ({"id": 1, "method": "eth_getBalance", "params": []}, -32602),
        ({"id": 1, "method": "eth_getBalance", "params": ["x"]}, -32602),
        ({"id": 1, "method": "eth_getBalance", "params": {"address": SELLER}}, -32602),
        ({"id": 1, "method": "eth_getCode", "params": [SELLER, "0xffffff"]}, -32000),
        ({"id": 1, "method": "eth_call", "params": [{"to": SELLER, "data": "zz"}]}, -32602),
        ({"id": 1, "method": "eth_call", "params": [None]}, -32602),
        ({"id": 1, "method": "eth_call", "params": [{"to": USDC_ADDRESS}, "0xffffff"]}, -32000),
        ({"id": 1, "method": "eth_getLogs", "params": [{"topics": "zz"}]}, -32602),
        ({"id": 1, "method": "eth_getLogs", "params": [{"fromBlock": "-0x5"}]}, -32602),
        ({"id": 1, "method": ["eth_call"]}, -32600),
        ({"id": 1}, -32600),
        ("x", -32600),
        ([], -32600),
        ([{"id": 1, "method": "eth_chainId"}] * 51, -32600),
    ],
)
def test_a_request_it_cannot_answer(served: RunningFacilitator, asked: object, code: int) -> None:
    assert rpc(served, asked)["error"]["code"] == code


def test_a_batch_and_what_is_not_there(served: RunningFacilitator) -> None:
    nothing = "0x" + "00" * 32
    asked = [
        {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": 2, "method": "eth_getTransactionReceipt", "params": [nothing]},
        {"jsonrpc": "2.0", "id": 3, "method": "eth_getBlockByNumber", "params": ["0xffffff", False]},
        {"jsonrpc": "2.0", "id": 4, "method": "eth_nonsense"},
    ]
    answers = httpx.post(served.rpc_url, json=asked).json()
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4]
    assert [answer.get("result") for answer in answers] == ["0x14a34", None, None, None]
    assert "error" in answers[3]
    broken = httpx.post(served.rpc_url, content=b"{").json()
    assert broken["error"]["code"] == -32700
