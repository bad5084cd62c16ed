"""A seller's directory with a headgate.toml, and a way to run command lines in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headgate.cli.program import app

CONFIG = """
mode = "test"

[seller]
name       = "Acme"
public_url = "https://api.example.com"

[x402]
pay_to      = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
network     = "base-sepolia"
facilitator = "embedded"

[actions."documents.process"]
title  = "Document processed"
unit   = "document"
price  = "0.10"
routes = ["POST /v1/documents/process"]

[actions."chat.complete"]
title     = "Chat"
unit      = "token"
price     = "0.002"
per       = 1000
max_units = 25000
measure   = "json:/usage/total_tokens"
routes    = ["POST /v1/chat"]

[plans.team]
title             = "Team"
price_per_seat    = "49.00"
included_per_seat = { "documents.process" = 5 }
beyond            = "overage"

[plans.solo]
title    = "Solo"
included = { "documents.process" = 1 }
beyond   = "block"
"""

Result = Any  # typer brings a click of its own
Run = Callable[..., Result]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration, which commands run in."""
    for name in (
        "CONFIG",
        "DATABASE_URL",
        "PAY_TO",
        "FACILITATOR_URL",
        "NETWORK",
        "PUBLIC_URL",
        "WALLET_KEY",
    ):
        monkeypatch.delenv(f"HEADGATE_{name}", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headgate.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def headgate(shop: Path) -> Run:
    """Runs a command line, expecting an exit code; a fault is raised as it is."""

    def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, list(arguments), input=stdin, prog_name="headgate")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


def parsed(result: Result) -> Any:
    """The one JSON document on standard output."""
    return json.loads(result.stdout)
