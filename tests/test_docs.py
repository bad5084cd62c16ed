"""The documents say what is so: links lead somewhere, commands exist, samples run, the demo prints that."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer.main

from headgate.cli.program import app
from headgate.config import parse
from headgate.config.reader import Section
from headgate.demo import story
from headgate.model.errors import ConfigError
from headgate.model.money import cumulative_micros, format_usd
from headgate.model.offer import Reason
from headgate.overage.signature import read_secrets, sign

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
GUIDES = [ROOT / "README.md", *DOCS, ROOT / "examples" / "README.md"]
ENVIRON = {
    "JWT_SECRET": "x" * 32,
    "FACILITATOR_KEY": "key",
    "HEADGATE_OVERAGE_SECRET": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
}

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return [code for word, code in _FENCE.findall(text_of(path)) if word == language]


# --- links ----------------------------------------------------------------------------------------


def links(path: Path) -> Iterator[tuple[str, str, str]]:
    """(text, target, fragment) of every link to something in this repository."""
    for text, target in _LINK.findall(_FENCE.sub("", text_of(path))):
        if not re.match(r"[a-z]+:", target):
            place, _, fragment = target.partition("#")
            yield text, unquote(place), fragment


def anchors(path: Path) -> set[str]:
    """The fragments a page's headings have, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text_of(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for text, place, fragment in links(page):
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{named(page)}: [{text}]({place})"
        if fragment:
            assert fragment in anchors(target), f"{named(page)}: [{text}]({place}#{fragment})"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_tests_that_are_named_exist(page: Path) -> None:
    """A link whose text is a test's name leads to the file that has it; so does `path::name`."""
    claimed = [
        (page.parent / place, text.strip("`"))
        for text, place, _ in links(page)
        if text.strip("`").startswith("test_") and not text.strip("`").endswith(".py")
    ]
    claimed += [
        (ROOT / path, name) for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of(page))
    ]
    for path, name in claimed:
        functions = {
            node.name
            for node in ast.walk(ast.parse(text_of(path)))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, f"{named(page)} names {name}, which {named(path.resolve())} does not have"


def test_every_promise_names_a_test() -> None:
    section = text_of(ROOT / "README.md").partition("## Promises")[2].partition("\n## ")[0]
    promises = re.split(r"^\d+\. ", section, flags=re.MULTILINE)[1:]
    assert len(promises) >= 7
    for promise in promises:
        assert re.search(r"\[`test_\w+`\]\(tests/", promise), promise


# --- commands -------------------------------------------------------------------------------------


def command_lines(path: Path) -> Iterator[str]:
    """Every `headgate …` in code, whole lines and within text."""
    text = text_of(path)
    for _, code in _FENCE.findall(text):
        for line in re.sub(r"\\\n\s*", " ", code).splitlines():
            line = line.removeprefix("$ ")
            if line.startswith("headgate "):
                yield line.partition("#")[0].partition(" > ")[0]
    for span in re.findall(r"`(headgate [^`]+)`", _FENCE.sub("", text)):
        yield " ".join(span.split())


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_commands_exist_with_their_options(page: Path) -> None:
    for line in command_lines(page):
        command: Any = typer.main.get_command(app)
        words = shlex.split(line)[1:]
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, f"{named(page)}: {line}"
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            if word.startswith("-") and word != "-":
                assert word.partition("=")[0] in known, f"{named(page)}: {line}: {word}"


# --- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", GUIDES, ids=named)
def test_toml_samples_load(page: Path) -> None:
    """A whole file loads; a part of one has no key that the loader does not know."""
    for sample in blocks(page, "toml"):
        tomllib.loads(sample)
        problems = problems_of(sample)
        if sample.startswith("mode"):
            assert problems == [], named(page)
        assert [each for each in problems if "not a key" in each] == [], named(page)


def problems_of(sample: str) -> list[str]:
    try:
        parse(sample, environ=ENVIRON)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_every_key_of_the_file_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str] = set()
    raw = Section.raw

    def noting(self: Section, key: str) -> object:
        asked.add(key)
        return raw(self, key)

    monkeypatch.setattr(Section, "raw", noting)
    page = ROOT / "docs" / "configuration.md"
    for sample in (*blocks(page, "toml"), _EVERYTHING_ELSE):
        problems_of(sample)
    words = set(re.findall(r"[\w-]+", text_of(page)))
    names = {"documents.process", "chat.complete", "team", "eip155:84532", "a", "p", "X"}
    assert "quote_ttl" in asked
    assert "mode" in asked
    assert sorted(key for key in asked - names if key not in words) == []


_EVERYTHING_ELSE = """
[x402]
pay_to = "0x53e5C17623Dd4FC6D3fC51C915d1529323A60939"
network = ["eip155:84532"]
facilitator_headers = { X = "y" }
[x402.networks."eip155:84532".asset]
address = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
name = "USDC"
version = "2"
[actions.a]
price = "1.00"
accepts = [{ scheme = "exact", network = "eip155:84532", maxAmountRequired = "1000000" }]
[plans.p]
included = { a = 1 }
"""


def test_every_environment_variable_is_explained() -> None:
    used = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"HEADGATE_[A-Z_]+[A-Z]", text_of(path))
    }
    assert used
    assert used <= set(re.findall(r"HEADGATE_[A-Z_]+[A-Z]", text_of(ROOT / "docs" / "configuration.md")))


# --- answers --------------------------------------------------------------------------------------


def answers_in_source() -> set[tuple[str, str]]:
    """(status, code) of every problem that the web layer makes with a code of its own."""
    found = set()
    for path in (ROOT / "src" / "headgate" / "web").glob("*.py"):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "problem":
                values = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
                if len(values) == 2:
                    found.add((str(values[0]), str(values[1])))
    return found


def test_every_answer_is_listed_and_no_other() -> None:
    page = text_of(ROOT / "docs" / "errors.md")
    listed = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", page, re.MULTILINE))
    wire = text_of(ROOT / "src" / "headgate" / "x402" / "wire.py")
    unreadable = {("400", code) for code in re.findall(r'PaymentError\(\s*"(\w+)"', wire)}
    made = answers_in_source()
    assert len(made) > 10
    assert listed == made | unreadable


def test_every_reason_of_a_402_is_listed() -> None:
    page = text_of(ROOT / "docs" / "errors.md")
    assert [reason.value for reason in Reason if f"`{reason.value}`" not in page] == []


# --- samples --------------------------------------------------------------------------------------


def test_the_readme_shows_the_example_that_is_tested() -> None:
    readme, example = ROOT / "README.md", ROOT / "examples" / "fastapi_app"
    assert blocks(readme, "toml") == [text_of(example / "headgate.toml")]
    (sample,) = blocks(readme, "python")
    lines = iter(text_of(example / "main.py").splitlines())
    assert [line for line in sample.splitlines() if line not in lines] == []  # all of them, in this order
    assert len(re.findall(r"  # \d", sample)) == 5
    assert len(blocks(readme, "toml")[0].splitlines()) == 8


def test_the_webhook_receiver_checks_signatures() -> None:
    (sample,) = [code for code in blocks(ROOT / "docs" / "integration.md", "python") if "def receive" in code]
    counted: list[str] = []
    names: dict[str, Any] = {"count_once": lambda event, _data: counted.append(event)}
    exec(compile(sample, "integration.md", "exec"), names)
    body = json.dumps([{"id": "one", "data": {}}]).encode()
    now_s = names["time"].time_ns() // 10**9
    headers = sign(read_secrets(ENVIRON["HEADGATE_OVERAGE_SECRET"]), "msg_1", now_s, body)
    assert names["receive"](headers, body + b" ") == 401
    assert counted == []
    assert names["receive"](headers, body) == 204
    assert counted == ["one"]


def test_the_rounding_example_is_worked_out_right() -> None:
    page = text_of(ROOT / "docs" / "finance.md")
    rows = re.findall(r"^\| (\d) \| (\d) \| ([\d.]+) .*\| ([\d.]+) \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for prior, units, after, charged in rows:
        assert format_usd(cumulative_micros(0, int(prior) + int(units), 400, 1_000)) == after
        assert format_usd(cumulative_micros(int(prior), int(units), 400, 1_000)) == charged
    assert format_usd(cumulative_micros(0, 5, 400, 1_000)) == "0.000002"


async def test_the_first_screen_is_what_the_demo_prints() -> None:
    shown = next(code for language, code in _FENCE.findall(text_of(ROOT / "README.md")) if not language)
    out = io.StringIO()
    assert await story.run(once=True, out=out), out.getvalue()
    report = out.getvalue().partition("The report for ")[2].partition("\n")[2]
    report = re.sub(r" \(18 rows, head [^)]*\)", "", report)
    assert [line.split() for line in report.splitlines() if line.strip()] == [
        line.split() for line in shown.splitlines() if line.strip()
    ]
