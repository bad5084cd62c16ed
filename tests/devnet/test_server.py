"""Starting and stopping: one ready line, a clear error on a taken port, nothing left behind."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from headgate.devnet import USDC_ADDRESS, DevChain, running_facilitator, serve
from headgate.devnet.server import PortTaken
from headgate.devnet.wallets import payers


@pytest.mark.parametrize("json_format", [True, False])
def test_it_prints_one_line_when_it_answers(json_format: bool) -> None:
    code = f"from headgate.devnet import serve; serve(0, {json_format})"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if json_format:
            ready = json.loads(line)
            assert sorted(ready) == ["asset", "network", "url", "wallets"]
            assert (ready["network"], ready["asset"]) == ("eip155:84532", USDC_ADDRESS)
            assert ready["wallets"][0] == {
                "address": payers(1)[0].address,
                "private_key": payers(1)[0].private_key,
            }
            url = ready["url"]
        else:
            assert "PLAY MONEY" in line
            url = next(word for word in line.split() if word.startswith("http"))
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert rest == ""
    assert errors.startswith("PLAY MONEY")
    assert "Traceback" not in errors


def test_a_taken_port_is_named() -> None:
    with running_facilitator() as running:
        port = int(running.url.rsplit(":", 1)[1])
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}"):
            serve(port)
        with pytest.raises(PortTaken), running_facilitator(port=port):
            pass


def test_nothing_is_left_behind() -> None:
    chain = DevChain()
    with running_facilitator(chain=chain) as running:
        assert running.chain is chain
        assert running.wallets == chain.wallets
        port = int(running.url.rsplit(":", 1)[1])
        httpx.get(f"{running.url}/healthz").raise_for_status()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("headgate")]
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


def test_two_running_facilitators_do_not_share_a_chain() -> None:
    with running_facilitator() as one, running_facilitator() as other:
        one.chain.fund(one.wallets[0].address, 5)
        assert one.chain.balance_of(one.wallets[0].address) == 1_000_000_000_005
        assert other.chain.balance_of(one.wallets[0].address) == 1_000_000_000_000
