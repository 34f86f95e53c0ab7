"""Imports point down, and nothing heavy is loaded before it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "reconciler"
MODULES = sorted(PACKAGE.rglob("*.py"))

PURE = (
        "savedplan", "compare", "policy", "rowshapes", "cli/comment", "cli/markup", "cli/terms",
        "ci/checks", "cli/citext",
        "cost", "money/budgets", "money/expense", "money/pace", "money/statement",
        "backoff", "resource", "fingerprint", "complaints", "kind", "plan", "supersede", "drift", "gates", "evidence",
        "foresight", "intent", "errors", "world", "cli/render", "cli/schemas", "cli/summary",
        *(f"{part}/{path.stem}" for part in ("stats", "report") for path in (PACKAGE / part).glob("*.py")))  # fmt: skip
WORLDLY = {"httpx", "os", "time", "sqlite3", "sqlalchemy", "subprocess", "threading", "random", "socket"}
VALUES = (
    "errors",
    "resource",
    "fingerprint",
    "intent",
    "world",
    "kind",
    "evidence",
    "foresight",
    "gates",
    "plan",
)
TORCH = {"torch", "transformers", "trl", "peft", "accelerate", "datasets"}
TORCH_HOMES = ("selfhosted/engine", "selfhosted/training", "selfhosted/tiny")
HEAVY = TORCH | {"starlette", "fastapi", "uvicorn", "sqlalchemy", "httpx", "scipy", "numpy", "jsonschema"}
MOST_LINES = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE).with_suffix(""))


def imports(path: Path) -> Iterator[str]:
    """Every module a file imports at run time, at once or late."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


def ours(path: Path) -> set[str]:
    """The parts of the package that a file imports, as paths without suffix."""
    found = {module.replace(".", "/") for module in imports(path)}
    return {each.removeprefix("reconciler/") for each in found if each.startswith("reconciler/")}


def roots(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in imports(path)}


@pytest.mark.parametrize("module", PURE)
def test_what_decides_touches_no_world(module: str) -> None:
    used = roots(PACKAGE / f"{module}.py") & WORLDLY

    assert set() == used


@pytest.mark.parametrize("module", VALUES)
def test_values_and_decisions_know_nothing_of_action(module: str) -> None:
    above = {"engine", "creation", "journal", "daemon", "project", "cli", "kinds", "platforms", "selfhosted"}

    used = {each.partition("/")[0] for each in ours(PACKAGE / f"{module}.py")}

    assert set() == used & above


@pytest.mark.parametrize("here, there", [("kinds", "platforms"), ("platforms", "kinds")])
def test_kinds_and_platforms_do_not_know_each_other(here: str, there: str) -> None:
    knowing = [str(path) for path in (PACKAGE / here).glob("*.py")
               if any(each.partition("/")[0] == there for each in ours(path))]  # fmt: skip

    assert [] == knowing


def test_nothing_below_the_cli_imports_it() -> None:
    knowing = [name_of(path) for path in MODULES if not name_of(path).startswith("cli/")
               and any(each.partition("/")[0] == "cli" for each in ours(path))]  # fmt: skip

    assert ["__main__"] == knowing


def test_the_island_imports_nothing_of_the_rest() -> None:
    bridges = {name_of(path): away for path in MODULES if name_of(path).startswith("selfhosted/")
               if (away := {each for each in ours(path) if each.partition("/")[0] != "selfhosted"})}  # fmt: skip

    assert {} == bridges


def test_nobody_imports_the_island() -> None:
    bridges = [name_of(path) for path in MODULES if not name_of(path).startswith("selfhosted/")
               and any(each.partition("/")[0] == "selfhosted" for each in ours(path))]  # fmt: skip

    assert [] == bridges


def test_only_the_islands_engines_import_torch() -> None:
    homes = {name_of(path) for path in MODULES if roots(path) & TORCH}

    assert {home for home in homes if home.startswith(TORCH_HOMES)} == homes


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_small_enough_to_be_read_at_once(path: Path) -> None:
    lines = len(path.read_text().splitlines())

    assert lines <= MOST_LINES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_opens_with_its_idea(path: Path) -> None:
    tree = ast.parse(path.read_text())

    assert not tree.body or ast.get_docstring(tree)


@pytest.mark.parametrize(
    "statement, heavy",
    [
        ("import sys; sys.argv = ['reconciler', '--version']; from reconciler.__main__ import main; main()",
         HEAVY | {"pydantic", "yaml", "rich", "typer"}),
        ("import reconciler.cli.main", HEAVY | {"yaml", "rich"}),
        ("import reconciler.plan, reconciler.gates", TORCH | {"httpx", "sqlalchemy", "scipy", "starlette"}),
        ("import reconciler.selfhosted.app, reconciler.selfhosted.engine.client", TORCH),
    ],
    ids=["--version", "cli", "decision", "server"],
)  # fmt: skip
def test_heavy_libraries_are_loaded_by_those_who_need_them(statement: str, heavy: set[str]) -> None:
    told = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "

    run = subprocess.run([sys.executable, "-c", told + statement], capture_output=True, text=True)

    assert 0 == run.returncode, run.stderr
    assert set() == heavy & set(run.stdout.split())
