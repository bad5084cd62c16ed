"""A Headgate store for a benchmark, made as a user makes one: a configuration file and the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.ready import BrokenError, NotAvailableError
from benchmarks.sellers.thing import PATH, PAY_TO, PRICE

ACTION = "thing.read"
_PROGRAM = (sys.executable, "-c", "import sys; from headgate.cli import main; sys.exit(main())")

_CONFIG = """\
mode = "test"

[seller]
name       = "Benchmark"
public_url = "https://bench.example.com"
time_zone  = "UTC"

[store]
url = "sqlite:///{database}"

[x402]
pay_to      = "{pay_to}"
network     = "base-sepolia"
facilitator = "{facilitator}"

[actions."{action}"]
title  = "Thing read"
unit   = "thing"
price  = "{price}"
routes = ["GET {path}"]
"""

_PLAN = """
[plans.{beyond}]
title          = "Benchmark, then {beyond}"
term           = "1 year"
billing_period = "month"
included       = {{ "{action}" = {included} }}
beyond         = "{beyond}"
"""


def require_installed() -> None:
    """Raises `NotAvailableError` where the application interface of contract section 9 is not there yet."""
    if importlib.util.find_spec("headgate") is None:
        raise NotAvailableError("the package `headgate` is not installed")
    import headgate

    if not hasattr(headgate, "Headgate"):
        raise NotAvailableError("`headgate.Headgate` does not exist yet")


class HeadgateStore:
    """A directory with `headgate.toml` and its SQLite file, one plan for each of `beyond`."""

    def __init__(
        self, directory: Path, facilitator_url: str, *, included: int, beyond: Iterable[str]
    ) -> None:
        directory.mkdir(parents=True)
        self.config = directory / "headgate.toml"
        self.database = directory / "headgate.db"
        text = _CONFIG.format(
            database=self.database,
            pay_to=PAY_TO,
            facilitator=facilitator_url,
            action=ACTION,
            price=PRICE,
            path=PATH,
        )
        plans = (_PLAN.format(beyond=name, action=ACTION, included=included) for name in beyond)
        self.config.write_text(text + "".join(plans))

    @property
    def environment(self) -> dict[str, str]:
        """What a seller process needs to find the configuration."""
        return {"HEADGATE_CONFIG": str(self.config)}

    def add_customers(self, plans: dict[str, str]) -> dict[str, str]:
        """Creates a customer with a subscription and a key for each `{customer: plan}`; returns the keys."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            keys = pool.map(lambda item: self._add_customer(*item), plans.items())
            return dict(zip(plans, keys, strict=True))

    def _add_customer(self, customer: str, plan: str) -> str:
        self.command("customers", "create", customer, "--name", f"Benchmark {customer}")
        self.command("subscriptions", "create", customer, "--plan", plan, "--seats", "1")
        created = json.loads(self.command("keys", "create", customer, "--format", "json"))
        return str(created["key"])

    def events(self, *filters: str) -> list[dict[str, Any]]:
        """The ledger's rows, oldest first, as `headgate events` prints them."""
        return [json.loads(line) for line in self.command("events", *filters).splitlines() if line.strip()]

    def event_count(self) -> int:
        """How many events the report counts, all channels together."""
        report = json.loads(self.command("report", "--format", "json"))
        return sum(int(row["events"]) for row in report["rows"])

    def command(self, *arguments: str) -> str:
        """Runs `headgate …` on this store and returns its standard output."""
        done = subprocess.run(
            [*_PROGRAM, *arguments, "-c", str(self.config)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BrokenError(f"`headgate {' '.join(arguments)}` failed: {done.stderr.strip()[-800:]}")
        return done.stdout
