"""The commands, as a person or a program meets them: exit codes, words, JSON."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from core_base import Say, edit, write
from faulty_server import FaultyServer, full, no_key, says
from server_base import Server, until

from reconciler.selfhosted.engine import Ask

PACKAGE = Path(__file__).parents[2]
PROJECT = """\
apiVersion: reconciler/v1
kind: Project
metadata: {{name: demo}}
spec:
  platforms:
    local: {{type: openai, base_url: "{url}", api_key_env: DEMO_KEY}}
"""


def tree_of(root: Path, url: str) -> Path:
    tree = write(root / "manifests")
    (tree / "project.yaml").write_text(PROJECT.format(url=url))
    return tree


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    with FaultyServer(tmp_path_factory.mktemp("platform")).running() as running:
        yield running


@pytest.fixture(scope="module")
def promoted(server: FaultyServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tree that was applied from nothing, and what that printed."""
    tree = tree_of(tmp_path_factory.mktemp("promoted"), server.url)
    applied = reconciler("apply", tree)
    assert 0 == applied.returncode, applied.stderr
    return tree, applied.stdout


@pytest.fixture
def settled(promoted: tuple[Path, str], server: FaultyServer, tmp_path: Path) -> Path:
    """A copy of the tree that was applied; nothing is to be done for it."""
    server.always.clear()
    return Path(shutil.copytree(promoted[0], tmp_path / "manifests"))


def reconciler(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "reconciler", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def posts(server: FaultyServer) -> int:
    return sum(count for what, count in server.asked.items() if what.startswith("POST"))


def test_apply_tells_a_person_how_it_ended(promoted: tuple[Path, str]) -> None:
    _, printed = promoted

    assert re.search(r"base model Model/base +pass rate 0\.0% .* n=20", printed)
    assert re.search(r"candidate FineTuneJob/tuned +pass rate 100\.0% .* n=20", printed)
    assert re.search(r"release: demo/production → ft:\S+", printed)
    assert (promoted[0] / "releases" / "demo" / "production.yaml").exists()


def test_again_there_is_nothing_to_do_and_nothing_is_asked_for(
    settled: Path, server: FaultyServer, say: Say
) -> None:
    before = posts(server)

    code, printed, _ = say("apply", settled)

    assert 0 == code
    assert "nothing to do" in printed
    assert before == posts(server)


def test_an_edited_row_is_planned_with_its_line_and_undone_without_a_trace(settled: Path, say: Say) -> None:
    path = settled / "train.jsonl"
    before = path.read_text()
    path.write_text(before.replace("say 4", "please say 4"))

    edited, printed, _ = say("plan", settled)
    path.write_text(before)
    undone, _, _ = say("plan", settled)

    assert (2, 0) == (edited, undone)
    assert f"rows: 1 changed  {path}:5" in printed
    for name in ("Dataset/train", "FineTuneJob/tuned", "EvalRun/right@FineTuneJob/tuned"):
        assert re.search(rf"\+ {name} +made anew, because", printed)


@pytest.mark.parametrize(
    "file, before, after",
    [
        ("train.yaml", "{id: tiny-chat}", "{id: tiny-chat, description: The base.}"),
        ("train.yaml", "metadata: {name: tuned}", "metadata: {name: tuned, labels: {team: support}}"),
    ],
)
def test_what_is_cosmetic_changes_nothing(
    settled: Path, say: Say, file: str, before: str, after: str
) -> None:
    edit(settled / file, before, after)

    code, printed, _ = say("plan", settled)

    assert 0 == code
    assert "nothing to do" in printed


def test_a_rename_changes_nothing(settled: Path, say: Say) -> None:
    edit(settled / "train.yaml", "name: tuned", "name: polished")
    edit(settled / "promote.yaml", "FineTuneJob/tuned", "FineTuneJob/polished")
    edit(settled / "measure.yaml", "name: right", "name: correct")
    edit(settled / "promote.yaml", "Eval/right", "Eval/correct")

    code, printed, _ = say("plan", settled)

    assert 0 == code
    assert "nothing to do" in printed


def test_from_nothing_a_plan_is_pending_and_writes_nothing(
    server: FaultyServer, tmp_path: Path, say: Say
) -> None:
    tree = tree_of(tmp_path, server.url)
    edit(tree / "project.yaml", "name: demo", "name: another")
    before = posts(server)

    code, printed, _ = say("plan", tree)

    assert 2 == code
    assert "+ FineTuneJob/tuned" in printed
    assert before == posts(server)
    assert not (tree / ".reconciler").exists()


@pytest.mark.parametrize(
    "command", [("plan",), ("status",), ("validate",), ("apply",), ("explain", "FineTuneJob/tuned")]
)
def test_json_is_json_and_says_its_version(settled: Path, say: Say, command: tuple[str, ...]) -> None:
    code, printed, _ = say(*command, settled, "--output", "json")

    document = json.loads(printed, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))

    assert 0 == code
    assert 1 == document["version"]


@pytest.mark.parametrize("command", ["plan", "status", "apply"])
def test_markdown_opens_with_a_heading(settled: Path, say: Say, command: str) -> None:
    code, printed, _ = say(command, settled, "--output", "markdown")

    assert 0 == code
    assert printed.startswith("### demo on local\n")


def test_status_shows_every_resource(settled: Path, say: Say) -> None:
    code, printed, _ = say("status", settled)

    shown = re.findall(r"^  =  (\S+)", printed, re.MULTILINE)

    assert 0 == code
    assert 11 == len(shown)
    assert "EvalRun/right@Model/base" in shown


def test_explain_says_why_and_what_is_next(settled: Path, say: Say) -> None:
    code, printed, _ = say("explain", "FineTuneJob/tuned", settled)

    assert 0 == code
    expected = (
        "= FineTuneJob/tuned  ready ft:",
        "written in ",
        "needs        = Dataset/train",
        "needed by    = PromotionRule/production",
        "made ftjob-",
        "next         nothing; it is as wanted",
    )
    assert [] == [said for said in expected if said not in printed]


def test_explain_of_what_is_not_there_names_what_is_near(settled: Path, say: Say) -> None:
    code, _, told = say("explain", "FineTuneJob/tunned", settled)

    assert 1 == code
    assert told.startswith("error: there is no FineTuneJob/tunned; did you mean FineTuneJob/tuned?")


@pytest.mark.parametrize("drawing, starts, edge", [
    ("mermaid", "graph LR", " --> "), ("dot", "digraph reconciler {", '"Dataset/train" -> "FineTuneJob/tuned"'),
])  # fmt: skip
def test_the_graph_is_drawn(settled: Path, say: Say, drawing: str, starts: str, edge: str) -> None:
    code, printed, _ = say("graph", settled, "--format", drawing)

    assert 0 == code
    assert printed.startswith(starts)
    assert edge in printed


@pytest.mark.parametrize("right, code, verdict", [(2, 4, "FAIL"), (17, 5, "INCONCLUSIVE")])
def test_a_gate_that_is_not_passed_has_its_own_exit_code(
    tmp_path: Path, say: Say, right: int, code: int, verdict: str
) -> None:
    def sometimes(ask: Ask) -> str:
        answer = says(ask)
        return answer if answer.isdigit() and int(answer) < right else "no idea"

    with FaultyServer(tmp_path / "platform", says=sometimes).running() as server:
        tree = tree_of(tmp_path, server.url)
        applied, printed, _ = say("apply", tree)
        again, _, _ = say("apply", tree)
        planned, _, _ = say("plan", tree)

    assert [code, code, code] == [applied, again, planned]
    assert f"{verdict}  FineTuneJob/tuned: pass_rate" in printed
    assert "release: not moved" in printed


def test_without_waiting_what_is_in_progress_has_its_own_exit_code(tmp_path: Path, say: Say) -> None:
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        one_pass, _, _ = say("apply", tree, "--no-wait")
        too_short, _, _ = say("apply", tree, "--timeout", "0")
        to_the_end, _, _ = say("apply", tree)

    assert [7, 7, 0] == [one_pass, too_short, to_the_end]


def test_a_platform_that_is_down_gets_a_sentence(tmp_path: Path, say: Say) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    tree = tree_of(tmp_path, f"http://127.0.0.1:{port}/v1")

    code, printed, told = say("plan", tree)

    assert (1, "") == (code, printed)
    assert f"error: local (127.0.0.1:{port}) " in told
    assert 1 == len(told.splitlines())


def test_a_wrong_key_gets_a_sentence_without_the_key(
    settled: Path, server: FaultyServer, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEMO_KEY", "sk-very-secret")
    server.always = {f"GET {each}": no_key for each in ("reconciler", "models", "files", "evals")}

    code, _, told = say("apply", settled)

    assert 1 == code
    assert "does not accept the key in DEMO_KEY; set DEMO_KEY to a key of this platform" in told
    assert "sk-very-secret" not in told


def test_a_full_disk_of_the_platform_gets_a_sentence(settled: Path, server: FaultyServer, say: Say) -> None:
    (settled / "train.jsonl").write_text((settled / "train.jsonl").read_text().replace("say 3", "do say 3"))
    server.always = {"POST files": full}

    code, printed, _ = say("apply", settled)

    assert 1 == code
    assert "the platform's disk is full and nothing was stored" in printed


def test_a_full_disk_of_the_journal_gets_a_sentence(tmp_path: Path, server: FaultyServer) -> None:
    server.always.clear()
    tree = tree_of(tmp_path, server.url)
    command = f"ulimit -f 4; exec {sys.executable} -m reconciler apply {tree}"
    before = posts(server)

    applied = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)

    assert 1 == applied.returncode
    assert re.fullmatch(r"error: the journal at \S+ cannot be .*\n", applied.stderr)
    assert before == posts(server)


def test_an_interrupted_apply_loses_nothing(tmp_path: Path, say: Say) -> None:
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        command = [sys.executable, "-m", "reconciler", "apply", str(tree)]
        applying = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # a shell's background job ignores it
        )
        until(lambda: server.asked["POST fine_tuning/jobs"])
        applying.send_signal(signal.SIGINT)
        _, told = applying.communicate(timeout=30)
        code, _, _ = say("apply", tree)

    assert 130 == applying.returncode
    assert "interrupted; nothing is lost, the same command goes on from here" in told
    assert 0 == code
    assert 1 == server.asked["POST fine_tuning/jobs"]


def test_words_that_are_no_command_get_a_sentence(say: Say) -> None:
    code, _, told = say("aply", "manifests")

    assert 1 == code
    assert told.startswith("error: No such command")
    assert "Traceback" not in told


def test_a_folder_that_is_not_there_gets_a_sentence(say: Say, tmp_path: Path) -> None:
    code, _, told = say("apply", tmp_path / "nowhere")

    assert 1 == code
    assert f"{tmp_path / 'nowhere'}: no such folder" in told


def test_the_schema_that_is_shipped_is_the_one_that_is_printed(say: Say) -> None:
    code, printed, _ = say("schema")

    assert 0 == code
    assert (PACKAGE / "reconciler" / "schema.json").read_text() == printed


EXAMPLES = [
    *sorted((PACKAGE / "manifests").glob("*.yaml")),
    *sorted((PACKAGE / "tests/golden/tree").glob("*.yaml")),
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid_by_the_schema(path: Path, say: Say) -> None:
    schema = json.loads(say("schema")[1])
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)

    wrong = [
        error.message
        for document in yaml.safe_load_all(path.read_text())
        for error in validator.iter_errors(document)
    ]

    assert [] == wrong


@pytest.mark.parametrize("path", sorted((PACKAGE / "manifests").glob("*.yaml")), ids=lambda path: path.name)
def test_the_example_tells_editors_its_schema(path: Path) -> None:
    assert path.read_text().startswith("# yaml-language-server: $schema=../reconciler/schema.json\n")


@pytest.mark.parametrize("spec", [
    {"id": "x", "fodler": "y"}, {"id": 7}, {}, {"id": "x", "hub": "no slash", "revision": "1"},
])  # fmt: skip
def test_the_schema_refuses_what_we_refuse(spec: dict[str, Any], say: Say) -> None:
    document = {"apiVersion": "reconciler/v1", "kind": "Model", "metadata": {"name": "m"}, "spec": spec}

    for printed in (say("schema")[1], say("schema", "Model")[1]):
        assert not jsonschema.Draft202012Validator(json.loads(printed)).is_valid(document)


def test_the_daemon_picks_up_an_edit_survives_a_broken_one_and_stops(tmp_path: Path) -> None:
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = tree_of(tmp_path, server.url)
        log = tmp_path / "daemon.log"
        command = [sys.executable, "-m", "reconciler", "run", str(tree), "--interval", "3600"]
        with log.open("w") as out:
            daemon = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            until(lambda: '"settled": true' in log.read_text())
            edit(tree / "train.yaml", "n_epochs: 2", "n_epoch: 3")
            until(lambda: "manifests.refused" in log.read_text())
            edit(tree / "train.yaml", "n_epoch: 3", "n_epochs: 3")
            until(lambda: 2 == server.asked["POST fine_tuning/jobs"])
            until(lambda: 2 == server.asked["POST reconciler/aliases"])
            daemon.send_signal(signal.SIGTERM)
            code = daemon.wait(30)
        finally:
            daemon.kill()
            daemon.wait()

    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert 0 == code
    assert "daemon.stopped" == events[-1]["event"]
    [told] = next(each["problems"] for each in events if each["event"] == "manifests.refused")
    assert told.endswith(
        "train.yaml:17: method.supervised.hyperparameters.n_epoch: is no field here; did you mean n_epochs?"
    )


def test_a_platform_that_runs_in_the_data_folder_is_shared_and_left_running(tree: Path, say: Say) -> None:
    (tree / "promote.yaml").unlink()
    running = Server(tree / ".reconciler" / "platform")
    running.data.mkdir(parents=True)
    running.start()
    try:
        applied, printed, _ = say("apply", tree)
        again, _, _ = say("plan", tree)

        assert [0, 0] == [applied, again]
        assert "+ FineTuneJob/tuned  ftjob-" in printed
        assert running.process is not None
        assert running.process.poll() is None
    finally:
        running.kill(signal.SIGTERM)
