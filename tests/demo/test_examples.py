"""The four examples, run as their README says: `uvicorn main:app`, a customer, a paying agent, real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from headgate.demo.calls import Answer
from headgate.demo.tally import offer, settlement
from headgate.devnet.wallets import payers
from headgate.x402.buyer import Buyer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RUN = (
    ("fastapi_app", "main"),
    ("fastapi_app", "main_depends"),
    ("starlette_app", "main"),
    ("litestar_app", "main"),
)
HEADGATE = Path(sys.executable).with_name("headgate")
SUMMARIES = "/v1/summaries"
ADA = {"Authorization": "Bearer token-of-ada"}
AGENT = payers(1)[0]
TEXT = {"text": "Long story. Short."}


def environment() -> dict[str, str]:
    """Without settings of whoever runs the tests."""
    return {key: value for key, value in os.environ.items() if not key.startswith("HEADGATE_")}


@dataclass(frozen=True, slots=True)
class Example:
    """A running example, in a directory of its own."""

    directory: Path
    module: str
    url: str

    def headgate(self, *arguments: str) -> str:
        command = (HEADGATE, *arguments, "-c", "headgate.toml")
        done = subprocess.run(
            command,
            check=False,
            cwd=self.directory,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=RUN, ids=[f"{directory}/{module}" for directory, module in RUN])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    name, module = request.param
    directory = tmp_path_factory.mktemp("example") / name
    shutil.copytree(EXAMPLES / name, directory, ignore=shutil.ignore_patterns("*.db*", "__pycache__"))
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Example(directory, module, f"http://127.0.0.1:{port}")
    found.headgate("customers", "create", "northwind")
    found.headgate("subscriptions", "create", "northwind", "--plan", "team", "--seats", "1")
    with running(found, port):
        yield found


@contextmanager
def running(example: Example, port: int) -> Iterator[None]:
    log = example.directory / "uvicorn.log"
    command = (sys.executable, "-m", "uvicorn", f"{example.module}:app", "--port", str(port))
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            cwd=example.directory,
            env=environment() | {"HEADGATE_PUBLIC_URL": example.url},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                httpx.get(example.url + "/nothing")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
    said = log.read_text()
    assert "Traceback" not in said, said
    assert "Application shutdown complete" in said or "Finished server process" in said, said


def heard(response: httpx.Response) -> Answer:
    return Answer(response.status_code, tuple(response.headers.items()), response.content)


def test_a_customer_of_the_existing_auth_notices_nothing(example: Example) -> None:
    answer = httpx.post(example.url + SUMMARIES, json=TEXT, headers=ADA)
    assert answer.status_code == 200, answer.text
    assert answer.json()["summary"] == "Long story."
    assert not [name for name in answer.headers if "payment" in name or "headgate" in name]


def test_a_wrong_token_is_refused_also_with_a_payment(example: Example) -> None:
    wrong = {"Authorization": "Bearer token-of-nobody"}
    assert httpx.post(example.url + SUMMARIES, json=TEXT, headers=wrong).status_code == 401
    both = wrong | {"PAYMENT-SIGNATURE": "e30="}
    refused = httpx.post(example.url + SUMMARIES, json=TEXT, headers=both)
    assert refused.status_code == 401
    assert "www-authenticate" in refused.headers


def test_what_is_not_sold_stays_closed(example: Example) -> None:
    closed = "/v1/me" if example.module == "main_depends" else "/v1/anything"
    assert httpx.get(example.url + closed).status_code == 401
    if example.module == "main_depends":
        assert httpx.get(example.url + closed, headers=ADA).json() == {"customer": "northwind"}
    elif example.directory.name == "fastapi_app":
        assert httpx.get(example.url + "/healthz").json() == {"status": "ok"}


def test_an_agent_gets_an_offer_pays_and_can_read_its_receipt(example: Example) -> None:
    asked = httpx.post(example.url + SUMMARIES, json=TEXT)
    assert asked.status_code == 402
    offered = offer(heard(asked))
    assert offered is not None
    assert offered["resource"]["url"] == example.url + SUMMARIES  # type: ignore[index]
    assert offered["accepts"][0]["amount"] == "100000"  # type: ignore[index]
    paid = buy(example)
    assert paid.status_code == 200, paid.text
    assert paid.json()["summary"] == "Long story."
    if example.module == "main_depends":
        assert paid.json()["for"].lower() == AGENT.address.lower()
    receipt = settlement(heard(paid))
    assert receipt is not None
    assert receipt["success"] is True
    page = httpx.get(paid.headers["headgate-receipt"])
    assert page.status_code == 200, page.text
    assert (page.json()["state"], page.json()["transaction"]) == ("settled", receipt["transaction"])


def test_the_ledger_holds_one_row_for_each_that_was_served(example: Example) -> None:
    before = len(example.headgate("events").splitlines())
    assert httpx.post(example.url + SUMMARIES, json=TEXT, headers=ADA).status_code == 200
    assert httpx.post(example.url + SUMMARIES, json=TEXT).status_code == 402
    assert buy(example).status_code == 200
    rows = [json.loads(line) for line in example.headgate("events").splitlines()[before:]]
    found = Counter((row["channel"], row["customer"], row["route"], row["charged_amount"]) for row in rows)
    route = f"POST {SUMMARIES}"
    assert found == {("seat", "northwind", route, "0.000000"): 1, ("x402", None, route, "0.100000"): 1}


def buy(example: Example) -> httpx.Response:
    """Ask, let the official client sign what is offered, ask again."""
    required = httpx.post(example.url + SUMMARIES, json=TEXT).headers["payment-required"]
    payment = asyncio.run(Buyer(AGENT.private_key).sign(required))
    return httpx.post(example.url + SUMMARIES, json=TEXT, headers={"PAYMENT-SIGNATURE": payment})
