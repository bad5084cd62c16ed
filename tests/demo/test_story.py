"""The whole demo, run for real: it must succeed on a right ledger, and say so of every wrong one."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from headgate.demo import stage, story
from headgate.demo.scenes import MINUTES, Story
from headgate.demo.stage import zone_for
from headgate.demo.tally import PRICE_MICROS
from headgate.devnet.calls import encode_call
from headgate.devnet.contracts import USDC_ADDRESS

HEADGATE = Path(sys.executable).with_name("headgate")


async def told() -> tuple[bool, str]:
    out = io.StringIO()
    good = await story.run(once=True, out=out)
    return good, out.getvalue()


async def test_the_story_adds_up_and_is_told_in_plain_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    good, text = await told()
    assert good, text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert [int(number) for number in re.findall(r"^ ?(\d+)  [A-Za-z]", text, re.MULTILINE)] == list(
        range(1, 15)
    )
    assert re.search(r"^✓ open payments 0, ledger verified \(18 rows", text, re.MULTILINE)
    lines = [
        line.split() for line in text.splitlines() if line.startswith(("seat", "overage", "x402", "total"))
    ]
    assert lines == [
        ["seat", "documents.process", "11", "11", "1.100000", "0.000000", "0.000000"],
        ["seat", "documents.summarise", "2", "2", "0.500000", "0.000000", "0.000000"],
        ["overage", "documents.process", "2", "2", "0.200000", "0.200000", "0.000000"],
        ["overage", "documents.summarise", "1", "1", "0.250000", "0.250000", "0.000000"],
        ["x402", "documents.process", "1", "1", "0.100000", "0.100000", "0.100000"],
        ["x402", "documents.summarise", "1", "1", "0.250000", "0.250000", "0.250000"],
        ["total", "18", "2.400000", "0.800000", "0.350000"],
    ]
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - nothing is left behind


async def test_every_kind_of_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One story in which much goes wrong behind the tally's back."""
    original = Story.revoked

    async def meddle(self: Story) -> None:
        await original(self)
        play = self.play
        # A use nobody was served for; a transfer that no payment explains; a use the biller gets twice.
        await play.stage.gate.record("contoso", "documents.process", 1, id="rogue")
        cheat = play.stage.cheat
        data = encode_call("transfer(address,uint256)", play.stage.seller.address, 7)
        play.stage.chain.send(cheat, USDC_ADDRESS, data)
        while len(play.stage.delivered) < 4:  # noqa: ASYNC110 - a plain list, as a biller's
            await asyncio.sleep(0.05)
        play.stage.delivered.append(play.stage.delivered[0])
        # An answer that was foretold otherwise, and one that the application did not give.
        await play.nobody(MINUTES, 200)
        forged = play.exchanges[0]
        play.exchanges[0] = type(forged)(
            forged.who, forged.asked, type(forged.answer)(200, forged.answer.headers, b"{}"), forged.paid
        )

    monkeypatch.setattr(Story, "revoked", meddle)
    good, text = await told()
    assert not good
    failed = re.findall(r"^✗ (\w+)", text, re.MULTILINE)
    assert failed == ["answers", "bodies", "ledger", "report", "chain", "overage"]
    for pattern in (
        r"nobody: POST /v1/documents/process minutes.docx: status\n +expected 200\n +found +402",
        r"nobody: GET /v1/documents/formats : the bare application's answer",
        r"the ledger: too much\n +expected nothing\n +found +Sold\(channel='overage'.*customer='contoso'",
        r"the report on overage documents.process",
        r"the balance of 0x\w+\n +expected 0.350000 more\n +found +0.350007 more",
        r"overage handed to the biller: too much",
    ):
        assert re.search(pattern, text), (pattern, text)


async def test_a_price_other_than_the_published_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tally's prices are its own: where Headgate charges others, the books differ."""
    monkeypatch.setitem(PRICE_MICROS, "documents.summarise", 260_000)
    good, text = await told()
    assert not good
    assert re.search(
        r"the ledger: missing\n +expected Sold\(channel='x402', action='documents.summarise'", text
    )
    assert re.search(r"transfers on chain: too much", text)


async def test_open_payments_and_a_broken_ledger_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payment left open, and a row changed behind Headgate's back."""
    original = Story.revoked

    async def meddle(self: Story) -> None:
        await original(self)
        store = self.play.stage.gate.store
        assert store is not None
        store.driver._writer.execute("UPDATE events SET charged_micros = 0 WHERE channel = 2")  # type: ignore[attr-defined]
        store.driver._writer.execute("UPDATE payments SET state = 7 WHERE state = 8")  # type: ignore[attr-defined]

    monkeypatch.setattr(Story, "revoked", meddle)
    good, text = await told()
    assert not good
    assert "ledger verified (" not in text
    assert re.search(r"open payments\n +expected 0\n +found +[1-9]", text)
    assert re.search(r"verification of the ledger\n +expected no difference", text)


def test_on_a_terminal_it_stays_up_for_a_visitor(tmp_path: Path) -> None:
    """In a pseudo-terminal: what it prints works as it stands, new rows are told, Ctrl-C ends it well."""
    leader, follower = os.openpty()
    program = "from headgate.cli import main; from headgate.demo import story; story._PACE_S = 0; main()"
    demo = subprocess.Popen(
        (sys.executable, "-c", program, "demo"),
        stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, cwd=tmp_path,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "80", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    os.close(follower)
    screen = Screen(leader)
    try:
        text = screen.until(r"headgate verify -c \S+\s")
        assert "\x1b[" in screen.raw
        found = dict(re.findall(r"^(URL|ADA|CONTOSO)=(\S+)$", text, re.MULTILINE))
        document = {"content": b"Well. Done.", "headers": {"content-type": "text/plain"}}
        for name in ("ADA", "CONTOSO"):
            assert visit(found["URL"], document, found[name]).status_code == 200
        assert visit(found["URL"], document).status_code == 402
        screen.until(r"seat +documents.process +northwind +0.000000")
        screen.until(r"overage +documents.process +contoso +0.100000")
        config = re.search(r"^CONFIG=(\S+)$", text, re.MULTILINE)
        assert config is not None
        report = subprocess.run(
            (HEADGATE, "report", "-c", config[1], "--format", "csv"),
            check=True, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ",overage,documents.process,3,3,0.300000,0.300000," in report.stdout
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=30) == 0
        screen.until("its store and its chain are gone")
        assert not Path(config[1]).parent.exists()
    finally:
        demo.kill()
        demo.wait()
        os.close(leader)


class Screen:
    """What a program wrote to a terminal."""

    def __init__(self, leader: int) -> None:
        self.raw = ""
        self._leader = leader

    def until(self, pattern: str) -> str:
        """Wait for a pattern; the text so far, without colours."""
        deadline = time.monotonic() + 90
        while True:
            text = re.sub(r"\x1b\[[0-9;]*m", "", self.raw).replace("\r\n", "\n")
            if re.search(pattern, text):
                return text
            assert time.monotonic() < deadline, text
            if select.select([self._leader], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):  # Linux: the other end is closed
                    self.raw += os.read(self._leader, 65536).decode()


def visit(url: str, document: dict[str, Any], key: str = "") -> httpx.Response:
    headers = document["headers"] | ({"X-API-Key": key} if key else {})
    return httpx.post(url, content=document["content"], headers=headers)


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "eth" else there(name))
    with pytest.raises(ModuleNotFoundError, match=r"needs py-evm.*pip install 'headgate\[demo\]'"):
        await story.run(once=True, out=io.StringIO())


async def test_a_machine_without_a_free_port_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(self: Any, address: Any) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(stage.socket.socket, "bind", taken)
    with pytest.raises(stage.InputError, match=r"cannot listen on 127\.0\.0\.1"):
        await story.run(once=True, out=io.StringIO())


@pytest.mark.parametrize(
    ("now", "zone"),
    [
        (datetime(2026, 11, 22, 12, tzinfo=UTC), "UTC"),
        (datetime(2026, 11, 30, 21, 59, tzinfo=UTC), "UTC"),
        (datetime(2026, 11, 30, 22, 0, tzinfo=UTC), "Etc/GMT+12"),
        (datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), "Etc/GMT+12"),
        (datetime(2027, 1, 1, 0, 0, tzinfo=UTC), "UTC"),
    ],
)
def test_no_run_straddles_two_accounting_months(now: datetime, zone: str) -> None:
    assert zone_for(now) == zone
