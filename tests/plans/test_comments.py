"""What a pull request is told: against the commit it goes to, folded, within what GitHub takes."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from comment_base import commented, commit, git
from core_base import ROWS, Applier, Clock, edit, write
from memory_platform import MemoryPlatform
from plans_base import passes

from reconciler import baseline
from reconciler.cli import comment, terms
from reconciler.cost import Estimate, Range
from reconciler.errors import ReconcilerError
from reconciler.resource import Address

GOLDEN = Path(__file__).parents[1] / "golden" / "comments"
JOB = Address("FineTuneJob", "tuned")


@pytest.fixture
def applier(tmp_path: Path, platform: MemoryPlatform, monkeypatch: pytest.MonkeyPatch) -> Applier:
    """A tree in a repository, seen from the repository's folder, so that files are named the same everywhere."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "manifests")
    commit(tmp_path)
    return Applier(Path("manifests"), platform, Clock())


def nothing(tree: Path) -> None:
    """A branch that changes nothing."""


def an_epoch(tree: Path) -> None:
    edit(tree / "train.yaml", "n_epochs: 2", "n_epochs: 3")


def some_rows(tree: Path) -> None:
    rows = [dict(row) for row in ROWS]
    rows[4] = {
        "messages": [{"role": "user", "content": "say it"}, {"role": "assistant", "content": "well, 4"}]
    }
    (tree / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = [{"item": {"question": f"tell {n}", "expected": str(n)}} for n in range(3)]
    kept = (tree / "heldout.jsonl").read_text().splitlines()[2:]
    (tree / "heldout.jsonl").write_text("\n".join([*kept, *map(json.dumps, more)]) + "\n")


def names(tree: Path) -> None:
    edit(tree / "measure.yaml", "name: right", "name: correct")
    edit(tree / "promote.yaml", "Eval/right", "Eval/correct")
    (tree / "promote.yaml").write_text((tree / "promote.yaml").read_text().partition("  - {eval")[0])
    edit(tree / "promote.yaml", "  gates:\n", "  gates:\n    - {eval: Eval/correct, at_least: 0.5}\n")


CASES = {case.__name__: case for case in (nothing, an_epoch, some_rows)}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stands", ["nothing", "all", "built"])
def test_a_comment_says_what_it_always_said(
    applier: Applier, name: str, stands: str, update_golden: bool
) -> None:
    if stands != "nothing":
        passes(applier, terms.FREE, 5)
    CASES[name](applier.root)
    if stands == "built":
        passes(applier, terms.building(), 5)

    said = commented(applier)

    path = GOLDEN / f"{name}-{stands}.md"
    if update_golden:
        path.write_text(said)
    assert path.read_text() == said


def test_a_removed_resource_is_listed_with_its_place_and_its_new_name(applier: Applier) -> None:
    passes(applier, terms.FREE, 5)
    edit(applier.root / "measure.yaml", "name: heldout", "name: held-out")
    edit(applier.root / "measure.yaml", "Dataset/heldout", "Dataset/held-out")
    (applier.root / "promote.yaml").unlink()

    said = commented(applier)

    assert (
        "<code>Dataset/heldout</code> (<code>manifests/measure.yaml:1</code>): <code>Dataset/held-out</code> now"
        in said
    )
    assert "<code>PromotionRule/production</code> (<code>manifests/promote.yaml:1</code>)</li>" in said
    assert "was Dataset/heldout; the same under a new name" in said


def test_rows_are_shown_only_where_the_project_says_so(applier: Applier) -> None:
    some_rows(applier.root)

    hidden = commented(applier)
    (applier.root / "project.yaml").write_text(
        (applier.root / "project.yaml").read_text() + "spec: {show_rows: true}\n"
    )
    shown = commented(applier)

    assert "well, 4" not in hidden
    assert "tell 1" not in hidden
    assert "user 5 characters, assistant 1 character" in hidden
    assert "well, 4" in shown


def test_no_row_and_no_key_is_in_a_comment(applier: Applier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-123")
    for index, row in enumerate(rows := (applier.root / "train.jsonl").read_text().splitlines()):
        rows[index] = row.replace("say", "canary-row")
    (applier.root / "train.jsonl").write_text("\n".join(rows) + "\n")

    said = commented(applier)

    assert "12 changed" in said or "12 added" in said
    assert "canary" not in said


def test_the_headline_sums_up_money_time_and_what_gates_can_tell(applier: Applier) -> None:
    passes(applier, terms.FREE, 5)
    an_epoch(applier.root)
    made = [JOB, Address("EvalRun", "right@FineTuneJob/tuned"), Address("PromotionRule", "production")]
    estimates = {each: Estimate(Range(1, 1.5), Range(240, 300), "as counted") for each in made}

    said = commented(applier, estimates=estimates)

    head = "1 to move · 0 deleted · about $3.00–4.50, 12–15 min · gates can detect 52.3 points"
    assert re.search(
        r"<b>0 to create · 2 replaced · 1 to move · 0 deleted · about &#36;3.00–4.50, 12–15 min", said
    ), head
    assert re.search(r"gates can detect \d\d\.\d points</b>", said)
    assert "takes &#36;1.00–1.50, 4–5 min (as counted)" in said


def test_a_folder_that_is_new_is_all_new(applier: Applier, tmp_path: Path) -> None:
    git(tmp_path, "rm", "-rq", "--cached", "manifests")
    git(tmp_path, "commit", "-qm", "without")

    said = commented(applier)

    assert "manifests does not exist at main: everything is new" in said
    assert "<code>FineTuneJob/tuned</code>" in said


@pytest.mark.parametrize(
    "harm, said",
    [
        (
            lambda tree: edit(tree / "train.yaml", "kind: Model\n", "kind: Modell\n"),
            "there is no Model/base",
        ),
        (lambda tree: (tree / "train.jsonl").unlink(), "train.jsonl"),
        (lambda tree: (tree / "project.yaml").unlink(), "no manifest of kind Project"),
    ],
)
def test_a_base_that_cannot_be_used_gets_a_sentence_and_a_comment_all_the_same(
    applier: Applier, tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    whole = {path: path.read_text() for path in applier.root.iterdir() if path.is_file()}
    harm(applier.root)
    commit(tmp_path, "broken")
    for path, text in whole.items():
        path.write_text(text)

    told = commented(applier)

    assert said in told
    assert "everything counts as new" in told
    assert "/tmp" not in told


def test_a_commit_that_nobody_knows_gets_a_sentence(
    applier: Applier, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for ref in ("no-such-branch", "--help", "", "main:manifests"):
        with pytest.raises(ReconcilerError, match="git knows no commit"), baseline.at(applier.root, ref):
            pass
    with (
        pytest.raises(ReconcilerError, match="is in no git repository"),
        baseline.at(tmp_path_factory.mktemp("alone"), "main"),
    ):
        pass


def test_reading_the_base_touches_no_checkout(applier: Applier, tmp_path: Path) -> None:
    an_epoch(applier.root)
    before = {path: path.stat().st_mtime_ns for path in applier.root.rglob("*")}
    status = git(tmp_path, "status", "--porcelain")

    with baseline.at(applier.root, "main"):
        pass

    assert status == git(tmp_path, "status", "--porcelain")
    assert before == {path: path.stat().st_mtime_ns for path in applier.root.rglob("*")}
    assert "" == git(tmp_path, "worktree", "list").partition("\n")[2]


def test_a_comment_stays_under_what_github_takes_and_says_what_is_left_out(applier: Applier) -> None:
    for index in range(1500):
        text = (applier.root / "measure.yaml").read_text().replace("name: ask", f"name: ask-{index}")
        prompt = text.split("---")[1]
        with (applier.root / "many.yaml").open("a") as file:
            file.write(f"---{prompt}")

    said = commented(applier)

    assert len(said.encode()) < 65_536
    left = re.search(r"<p>… (\d+) more resources, run <code>reconciler plan</code> for all</p>\n\Z", said)
    assert left
    assert 1500 + 7 == int(left[1]) + said.count("<details>")


def test_the_marker_is_the_same_for_every_plan_of_a_project_and_differs_between_them() -> None:
    assert comment.marker("demo", "local") == comment.marker("demo", "local")
    assert comment.marker("demo", "local") != comment.marker("demo", "other")
    assert re.fullmatch(r"<!-- reconciler:plan:[0-9a-f]{16} -->", comment.marker("a--b", "-->"))


def test_a_tree_in_one_file_has_a_base_too(applier: Applier, tmp_path: Path) -> None:
    whole = "---\n".join((applier.root / name).read_text() for name in ("project.yaml", "train.yaml"))
    (applier.root / "all.yaml").write_text(whole)
    commit(tmp_path)

    with baseline.at(applier.root / "all.yaml", "main") as before:
        assert "manifests/all.yaml:1" == before.desired[Address("Project", "demo")].where
        assert "" == before.note
