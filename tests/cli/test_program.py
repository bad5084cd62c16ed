"""The program itself: what is offered, what is imported, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headgate import __version__
from headgate.demo import story
from tests.cli.conftest import Run

HEAVY = (
    "headgate.app",
    "x402",
    "aiohttp",
    "eth_account",
    "starlette",
    "uvicorn",
    "eth",
    "asyncio",
    "sqlite3",
)
SHOWN = {
    *(
        "demo",
        "init",
        "check",
        "pay",
        "facilitator",
        "publish",
        "catalog",
        "customers",
        "subscriptions",
        "keys",
    ),
    *("import", "report", "events", "record", "explain", "verify", "payments", "status", "migrate"),
}


def run(*arguments: str, cwd: Path | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headgate", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120, **more)


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    script = (
        "import sys\n"
        "from headgate.cli.program import run\n"
        "try:\n    run(['--help'])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        f"sys.stderr.write(repr([name for name in {HEAVY!r} if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]"
    assert "Sell one API" in done.stdout


def test_help_shows_what_there_is_and_nothing_else(headgate: Run) -> None:
    lines = headgate("--help").stdout.splitlines()
    words = {line[2:].split(" ")[0] for line in lines if line.startswith("│ ")}
    assert {word for word in words if word.isalpha()} == SHOWN


@pytest.mark.parametrize("command", sorted(SHOWN))
def test_every_command_explains_itself(headgate: Run, command: str) -> None:
    assert "Usage: headgate " + command in headgate(command, "--help").stdout


def test_version_and_mistyped_commands() -> None:
    assert run("--version").stdout == f"headgate {__version__}\n"
    wrong = run("kustomers")
    assert wrong.returncode == 2
    assert "No such command 'kustomers'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_reader_that_has_seen_enough_is_no_error(headgate: Run, shop: Path) -> None:
    headgate("customers", "create", "acme")
    for number in range(3):
        headgate("record", "acme", "documents.process", "1", "--id", str(number))
    for arguments in ("events", "customers list", "report", "report --format csv"):
        command = f"{sys.executable} -m headgate {arguments} | true; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], cwd=shop, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), arguments


def test_a_taken_port_is_told_in_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("facilitator", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "cannot listen" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_facilitator_prints_one_ready_line_and_ends_on_request() -> None:
    command = [sys.executable, "-m", "headgate", "facilitator", "--port", "0", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            ready = json.loads(process.stdout.readline())
            assert set(ready) == {"url", "network", "asset", "wallets"}
            assert set(ready["wallets"][0]) == {"address", "private_key"}
        finally:
            process.send_signal(signal.SIGINT)
            rest, said = process.communicate(timeout=60)
    assert rest == ""
    assert "PLAY MONEY" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 1)])
def test_the_demo_ends_as_its_books_do(
    headgate: Run, monkeypatch: pytest.MonkeyPatch, good: bool, code: int
) -> None:
    asked = []

    async def told(*, once: bool, out: object) -> bool:
        asked.append(once)
        return good

    monkeypatch.setattr(story, "run", told)
    headgate("demo", "--once", code=code)
    assert asked == [True]


def test_output_survives_a_terminal_that_knows_no_umlauts(headgate: Run, shop: Path) -> None:
    headgate("customers", "create", "acme", "--name", "Müller €")
    done = run("customers", "list", cwd=shop, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "M\\xfcller" in done.stdout
