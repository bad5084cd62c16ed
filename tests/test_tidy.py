"""The structure of the project as a test: who imports whom, what `model/` may not know, how long things grow.

Each rule is a function from parsed source to a list of faults, one sentence each. Every rule is run twice:
over the repository, where it must find nothing, and over a snippet that breaks it, where it must speak up; so
a rule that has gone blind fails here too. Change a rule together with CONTRIBUTING.md, which explains them.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "headgate"

# The floors of the house, top to bottom. A module imports from its own package and from lower floors, never
# from a neighbour on the same floor nor from above.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("demo", "testing"),
    ("app",),
    ("web",),
    ("service",),
    ("store", "x402", "overage", "devnet"),
    ("config",),
    ("model",),
)
FLOOR_OF = {part: height for height, parts in enumerate(reversed(FLOORS)) for part in parts}

DRIVERS = ("headgate.store.sqlite", "headgate.store.postgres")
DRIVER_IMPORTERS = ("headgate.app", "headgate.testing")
SDK_IMPORTERS = ("headgate.x402", "headgate.devnet")

# Modules that reach outside the process, or whose answers differ from call to call.
IMPURE_MODULES = frozenset({
    "aiohttp", "anyio", "asyncio", "coincurve", "concurrent", "httpx", "io", "logging", "multiprocessing",
    "os", "pathlib", "psycopg", "random", "requests", "secrets", "select", "shutil", "socket", "sqlite3",
    "ssl", "starlette", "subprocess", "tempfile", "threading", "time", "urllib.request", "uvicorn",
})  # fmt: skip
IMPURE_CALLS = frozenset({"now", "utcnow", "today", "uuid1", "uuid4", "urandom"})
FLOAT_CALLS = frozenset({"timestamp", "total_seconds", "truediv"})
IMPURE_BUILTINS = frozenset({"open", "print", "input", "id"})

MAX_FUNCTION_LINES = 70
MAX_FILE_LINES = 500
VAGUE_WORDS = frozenset({"util", "utils", "manager", "helper", "helpers"})


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed source file under the dotted name it is imported by."""

    name: str
    text: str
    tree: ast.Module
    is_package: bool = False

    @property
    def part(self) -> str:
        """The floor's name: `headgate.store.sqlite` → `store`; the package itself → ``."""
        return self.name.partition(".")[2].partition(".")[0]

    def fault(self, node: ast.AST | None, what: str) -> str:
        line = getattr(node, "lineno", 1)
        return f"{self.name}:{line}: {what}"


def parse(name: str, text: str, *, is_package: bool = False) -> Module:
    return Module(name, text, ast.parse(text), is_package)


def read_modules(source: Path) -> list[Module]:
    modules = []
    for path in sorted(source.rglob("*.py")):
        parts = ("headgate", *path.relative_to(source).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(parse(name, path.read_text(encoding="utf-8"), is_package=is_package))
    return modules


def within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def imports(module: Module, known: frozenset[str] = frozenset()) -> Iterator[tuple[ast.AST, str]]:
    """Every absolute dotted name the module imports, also inside functions and under TYPE_CHECKING.

    `from a import b` gives `a.b` where that is a module in `known` (or `a` is the bare package), else `a`.
    """
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative: resolved here for completeness; ruff's TID252 bans it
                package = module.name if module.is_package else module.name.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = f"{package}.{base}".rstrip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node, full if full in known or base == "headgate" else base


# --- rules: one module at a time -------------------------------------------------------------------


def imports_downward(module: Module) -> list[str]:
    faults = []
    if not module.part:  # headgate/__init__.py re-exports the public names
        return faults
    here = FLOOR_OF.get(module.part)
    if here is None:
        return [
            module.fault(None, f"`{module.part}` is on no floor; name its place in FLOORS or move the module")
        ]
    for node, name in imports(module):
        if not within(name, ["headgate"]) or name == "headgate.__version__":
            continue
        part = name.partition(".")[2].partition(".")[0]
        there = FLOOR_OF.get(part)
        if there is None:
            faults.append(
                module.fault(node, f"imports `{name}` through the top package; import where it is defined")
            )
        elif part != module.part and there >= here:
            side = "beside" if there == here else "above"
            faults.append(module.fault(node, f"imports `{name}`, which is {side} `{module.part}`"))
    return faults


def drivers_stay_in_the_cellar(module: Module) -> list[str]:
    if within(module.name, (*DRIVERS, *DRIVER_IMPORTERS)):
        return []
    return [
        module.fault(node, f"imports the driver `{name}`; only {' and '.join(DRIVER_IMPORTERS)} wire drivers")
        for node, name in imports(module, frozenset(DRIVERS))
        if within(name, DRIVERS)
    ]


def sdk_stays_at_the_edge(module: Module) -> list[str]:
    """The SDK is the top-level package `x402`; `headgate.x402` is ours."""
    if within(module.name, SDK_IMPORTERS):
        return []
    return [
        module.fault(node, f"imports the x402 SDK; only {' and '.join(SDK_IMPORTERS)} do")
        for node, name in imports(module)
        if within(name, ["x402"])
    ]


def model_is_pure(module: Module) -> list[str]:
    """No await, no I/O, no clock, no randomness in headgate.model."""
    if module.part != "model":
        return []
    faults = [
        module.fault(node, f"model/ imports `{name}`, which reaches outside")
        for node, name in imports(module)
        if within(name, IMPURE_MODULES)
    ]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith):
            faults.append(module.fault(node, "model/ waits for nothing: no async, no await"))
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in IMPURE_CALLS:
                faults.append(
                    module.fault(node, f"model/ calls `.{node.func.attr}()`; time and chance are handed in")
                )
            elif isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS:
                faults.append(module.fault(node, f"model/ calls `{node.func.id}()`"))
    return faults


def model_counts_in_integers(module: Module) -> list[str]:
    """No float literal, no `float`, no true division, nothing that answers in fractions of a second."""
    if module.part != "model":
        return []
    faults = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            faults.append(module.fault(node, f"float literal {node.value}"))
        elif isinstance(node, ast.Name) and node.id == "float":
            faults.append(module.fault(node, "`float`"))
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            faults.append(module.fault(node, "true division; use // and say how it rounds"))
        elif isinstance(node, ast.Attribute) and node.attr in FLOAT_CALLS:
            faults.append(module.fault(node, f"`.{node.attr}` answers with a float"))
    return faults


def has_docstring(module: Module) -> list[str]:
    return (
        []
        if ast.get_docstring(module.tree)
        else [module.fault(None, "no docstring saying what the file knows")]
    )


def functions_fit_on_a_screen(module: Module) -> list[str]:
    """Counted from `def` to the last line, less the docstring: explaining makes nothing too long."""
    faults = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            faults.append(
                module.fault(node, f"`{node.name}` has {lines} lines, at most {MAX_FUNCTION_LINES}")
            )
    return faults


def files_have_one_subject(module: Module) -> list[str]:
    lines = module.text.count("\n")
    return [module.fault(None, f"{lines} lines, at most {MAX_FILE_LINES}")] if lines > MAX_FILE_LINES else []


def names_say_what_things_do(module: Module) -> list[str]:
    """No module, class or function is called utils, manager or helper."""
    named: list[tuple[ast.AST | None, str]] = [(None, part) for part in module.name.split(".")]
    definitions = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    named.extend((node, node.name) for node in ast.walk(module.tree) if isinstance(node, definitions))
    faults = []
    for where, name in named:
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_")
        faults.extend(
            module.fault(where, f"`{name}`: say what it does") for word in words if word in VAGUE_WORDS
        )
    return faults


MODULE_RULES: tuple[Callable[[Module], list[str]], ...] = (
    imports_downward,
    drivers_stay_in_the_cellar,
    sdk_stays_at_the_edge,
    model_is_pure,
    model_counts_in_integers,
    has_docstring,
    functions_fit_on_a_screen,
    files_have_one_subject,
    names_say_what_things_do,
)


# --- rules: the whole ------------------------------------------------------------------------------


def dead_modules(modules: list[Module], entry_points: Iterable[str]) -> list[str]:
    """Modules no entry point reaches, by import or by name in a string (`"headgate.demo.api:app"`)."""
    by_name = {module.name: module for module in modules}
    known = frozenset(by_name)
    reached: set[str] = set()
    pending = [name for name in entry_points if name in known]
    while pending:
        name = pending.pop()
        if name in reached:
            continue
        reached.add(name)
        if "." in name:
            pending.append(name.rpartition(".")[0])  # importing a module runs its package
        module = by_name[name]
        pending.extend(target for _, target in imports(module, known) if target in known)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named = node.value.partition(":")[0]
                if named in known and named != "headgate":
                    pending.append(named)
    return [
        module.fault(None, "no entry point reaches this module; wire it up or delete it")
        for module in modules
        if module.name not in reached
    ]


def entry_points() -> list[str]:
    """The console scripts, and what users import: the package and `headgate.testing`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    scripts = [target.partition(":")[0] for target in project["scripts"].values()]
    return [*scripts, "headgate", "headgate.__main__", "headgate.testing"]


def strings_in(modules: Iterable[Module]) -> frozenset[str]:
    """Every string literal, so that a name which is only mentioned in a comment does not count as used."""
    nodes = (node for module in modules for node in ast.walk(module.tree))
    return frozenset(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))


def faults_in_queries(sql: str, used: Iterable[str]) -> list[str]:
    """Each statement is `-- name: x`, then a line or more of description, then SQL; code uses each."""
    faults = []
    head, *blocks = re.split(r"^-- name: *", sql, flags=re.MULTILINE)
    if re.search(r"^(?!--)\s*\S", head, flags=re.MULTILINE):
        faults.append("queries.sql: SQL before the first `-- name:`")
    seen: set[str] = set()
    for block in blocks:
        name, _, rest = block.partition("\n")
        name = name.strip()
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            faults.append(f"queries.sql: `{name}` is no snake_case name")
        if name in seen:
            faults.append(f"queries.sql: `{name}` is defined twice")
        seen.add(name)
        if not re.match(r"-- *\w", rest):
            faults.append(f"queries.sql: `{name}` has no description under its name")
        statement = re.sub(r"^--.*$", "", rest, flags=re.MULTILINE).strip()
        if not statement:
            faults.append(f"queries.sql: `{name}` has no statement")
        if ";" in statement.rstrip(";"):
            faults.append(f"queries.sql: `{name}` holds more than one statement")
        if name not in used:
            faults.append(f"queries.sql: `{name}` is used nowhere")
    return faults


# Written in two halves, so that this file does not break its own rule.
PACKAGE_HOSTS = (
    "pypi" + ".org",
    "files.python" + "hosted.org",
    "registry.npm" + "js.org",
    "registry.yarn" + "pkg.com",
)
PLACES = re.compile(
    r"(?<![\w.}])/(?:root|home/\w+|Users/\w+|work|workspace|tmp|builds)/" + r"|[A-Z]:\\\\?Users\\",
)
LOCKS_NAMING_REGISTRIES = frozenset({"uv.lock", "poetry.lock", "Pipfile.lock", "yarn.lock", "pnpm-lock.yaml"})


def faults_in_text(name: str, text: str) -> list[str]:
    """A committed file names no place on one machine and no package registry."""
    faults = []
    if Path(name).name in LOCKS_NAMING_REGISTRIES:
        faults.append(f"{name}: this kind of lock names registries")
    for number, line in enumerate(text.splitlines(), 1):
        if found := PLACES.search(line):
            faults.append(f"{name}:{number}: `{found.group()}` is a path on one machine")
        faults.extend(f"{name}:{number}: names a package host" for host in PACKAGE_HOSTS if host in line)
    return faults


def committed_files() -> Iterator[tuple[str, str]]:
    """Path and text of everything git tracks or would add; without git, of everything but dot directories."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names = listed.stdout.decode().split("\0")
    else:
        files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
        names = [str(path) for path in files if not any(part.startswith(".") for part in path.parts[:-1])]
    for name in filter(None, names):
        path = ROOT / name
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                yield name, content.decode("utf-8", errors="replace")


# --- the repository keeps the rules ----------------------------------------------------------------

MODULES = read_modules(SOURCE)


def _listed(faults: list[str]) -> str:
    return "\n" + "\n".join(faults)


@pytest.mark.parametrize("rule", MODULE_RULES, ids=lambda rule: rule.__name__)
def test_source_keeps(rule: Callable[[Module], list[str]]) -> None:
    assert len(MODULES) > 1
    faults = [fault for module in MODULES for fault in rule(module)]
    assert not faults, _listed(faults)


def test_no_module_is_dead() -> None:
    faults = dead_modules(MODULES, entry_points())
    assert not faults, _listed(faults)


def test_every_statement_is_named_described_and_used() -> None:
    path = SOURCE / "store" / "queries.sql"
    if not path.exists():
        pytest.skip("src/headgate/store/queries.sql does not exist yet")
    faults = faults_in_queries(path.read_text(encoding="utf-8"), strings_in(MODULES))
    assert not faults, _listed(faults)


def test_committed_files_name_no_machine_and_no_package_host() -> None:
    faults = [fault for name, text in committed_files() for fault in faults_in_text(name, text)]
    assert not faults, _listed(faults)


# --- the rules see what they are for ---------------------------------------------------------------

LONG = "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES
BROKEN: tuple[tuple[Callable[[Module], list[str]], str, str], ...] = (
    (imports_downward, "headgate.model.money", "from headgate.store import store"),
    (imports_downward, "headgate.model.money", "from headgate import store"),
    (imports_downward, "headgate.model.money", "import headgate.config"),
    (
        imports_downward,
        "headgate.service.admit",
        "def f():\n    from headgate.web.middleware import Middleware",
    ),
    (imports_downward, "headgate.store.store", "if TYPE_CHECKING:\n    from headgate.service import admit"),
    (imports_downward, "headgate.x402.offer", "from headgate.store.store import Store"),
    (imports_downward, "headgate.x402.offer", "from ..store import store"),
    (imports_downward, "headgate.web.middleware", "from headgate import Headgate"),
    (imports_downward, "headgate.app", "from headgate.cli import main"),
    (imports_downward, "headgate.misc", "x = 1"),
    (drivers_stay_in_the_cellar, "headgate.service.admit", "from headgate.store.sqlite import SqliteDriver"),
    (drivers_stay_in_the_cellar, "headgate.cli.serve", "from headgate.store import sqlite"),
    (drivers_stay_in_the_cellar, "headgate.store.store", "import headgate.store.postgres"),
    (sdk_stays_at_the_edge, "headgate.cli.pay", "from x402.clients import x402_client"),
    (sdk_stays_at_the_edge, "headgate.service.pay", "import x402"),
    (model_is_pure, "headgate.model.event", "import time"),
    (model_is_pure, "headgate.model.event", "from random import choice"),
    (model_is_pure, "headgate.model.event", "import os.path"),
    (model_is_pure, "headgate.model.event", "async def f(): ..."),
    (model_is_pure, "headgate.model.event", "from datetime import datetime\nx = datetime.now()"),
    (model_is_pure, "headgate.model.event", "x = open('f')"),
    (model_counts_in_integers, "headgate.model.money", "x = 0.5"),
    (model_counts_in_integers, "headgate.model.money", "x = float('1')"),
    (model_counts_in_integers, "headgate.model.money", "def f(x: float): ..."),
    (model_counts_in_integers, "headgate.model.money", "x = 1 / 2"),
    (model_counts_in_integers, "headgate.model.money", "x = 4\nx /= 2"),
    (model_counts_in_integers, "headgate.model.money", "y = instant.timestamp()"),
    (has_docstring, "headgate.model.money", "x = 1"),
    (functions_fit_on_a_screen, "headgate.model.money", LONG),
    (functions_fit_on_a_screen, "headgate.web.gateway", "async " + LONG),
    (files_have_one_subject, "headgate.model.money", "x = 1\n" * (MAX_FILE_LINES + 1)),
    (names_say_what_things_do, "headgate.service.utils", ""),
    (names_say_what_things_do, "headgate.service.admit", "class PaymentManager: ..."),
    (names_say_what_things_do, "headgate.service.admit", "def _date_helper(): ..."),
)


@pytest.mark.parametrize(("rule", "name", "text"), BROKEN)
def test_a_rule_flags(rule: Callable[[Module], list[str]], name: str, text: str) -> None:
    assert len(rule(parse(name, text))) == 1


KEPT: tuple[tuple[Callable[[Module], list[str]], str, str], ...] = (
    (
        imports_downward,
        "headgate.cli.serve",
        "from headgate.app import Headgate\nfrom headgate.model import money",
    ),
    (imports_downward, "headgate.store.store", "from headgate.store.rows import Row"),
    (imports_downward, "headgate.cli", "from headgate import __version__"),
    (imports_downward, "headgate", "from headgate.app import Headgate"),
    (drivers_stay_in_the_cellar, "headgate.app", "from headgate.store.sqlite import SqliteDriver"),
    (sdk_stays_at_the_edge, "headgate.x402.wire", "from x402.schemas import PaymentRequired"),
    (sdk_stays_at_the_edge, "headgate.service.pay", "from headgate.x402 import wire"),
    (
        model_is_pure,
        "headgate.model.periods",
        "from datetime import UTC, datetime, time\nfrom zoneinfo import ZoneInfo",
    ),
    (model_is_pure, "headgate.store.store", "import time"),
    (model_counts_in_integers, "headgate.model.money", "x = 7 // 2"),
    (model_counts_in_integers, "headgate.web.problems", "x = 0.5"),
    (has_docstring, "headgate.model.money", '"""Money."""'),
    (
        functions_fit_on_a_screen,
        "headgate.model.money",
        'def f():\n    """' + "a\n" * 90 + '"""\n    return 1',
    ),
    (
        names_say_what_things_do,
        "headgate.service.admit",
        "from contextlib import contextmanager\ndef gate(): ...",
    ),
)


@pytest.mark.parametrize(("rule", "name", "text"), KEPT)
def test_a_rule_lets_pass(rule: Callable[[Module], list[str]], name: str, text: str) -> None:
    assert rule(parse(name, text)) == []


def test_a_dead_module_is_flagged_and_a_named_one_is_not() -> None:
    modules = [
        parse("headgate", "", is_package=True),
        parse(
            "headgate.cli", "from headgate.cli import serve\nAPP = 'headgate.demo_api:app'", is_package=True
        ),
        parse("headgate.cli.serve", "import headgate.app"),
        parse("headgate.app", ""),
        parse("headgate.demo_api", ""),
        parse("headgate.left", "import headgate.over"),
        parse("headgate.over", "import headgate.left"),
    ]
    faults = dead_modules(modules, ["headgate.cli"])
    assert [fault.partition(":")[0] for fault in faults] == ["headgate.left", "headgate.over"]


GOOD_SQL = """-- What may live here.

-- name: one
-- Gives one.
SELECT 1;

-- name: two
-- Gives two.
SELECT 2
"""


@pytest.mark.parametrize(
    ("sql", "used", "complaint"),
    [
        (GOOD_SQL, "one", "`two` is used nowhere"),
        (GOOD_SQL.replace("-- Gives one.\n", ""), "one two", "`one` has no description"),
        (GOOD_SQL.replace("name: two", "name: one"), "one", "defined twice"),
        (GOOD_SQL.replace("name: two", "name: Two-B"), "one Two-B", "no snake_case"),
        (GOOD_SQL.replace("SELECT 2\n", ""), "one two", "`two` has no statement"),
        (GOOD_SQL.replace("SELECT 1;", "SELECT 1; SELECT 3;"), "one two", "more than one"),
        ("SELECT 0;\n" + GOOD_SQL, "one two", "before the first"),
    ],
)
def test_a_careless_statement_is_flagged(sql: str, used: str, complaint: str) -> None:
    faults = faults_in_queries(sql, used.split())
    assert len(faults) == 1
    assert complaint in faults[0]


def test_careful_statements_pass() -> None:
    code = parse("headgate.store.store", 'rows("one")  # "three"\nrows("two")')
    assert strings_in([code]) == {"one", "two"}
    assert faults_in_queries(GOOD_SQL, strings_in([code])) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("docs/a.md", "see " + "/ro" + "ot/project"),
        ("docs/a.md", "cd " + "/ho" + "me/ann/headgate"),
        ("a.toml", 'url = "sqlite:///' + "/tm" + 'p/x.db"'),
        ("requirements/dev.txt", "--index-url https://" + PACKAGE_HOSTS[0] + "/simple"),
        ("package-lock.json", '"resolved": "https://' + PACKAGE_HOSTS[2] + '/x"'),
        ("uv.lock", ""),
    ],
)
def test_a_text_that_names_a_place_is_flagged(name: str, text: str) -> None:
    assert len(faults_in_text(name, text)) == 1


@pytest.mark.parametrize(
    "text", ["#!/usr/bin/env bash", "https://api.example.com/home/page/", "2>/dev/null", "./tmp/x"]
)
def test_a_text_that_names_none_passes(text: str) -> None:
    assert faults_in_text("a", text) == []
