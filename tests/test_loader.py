"""A folder of manifests becomes documents that know their lines, or a list of everything wrong with it."""

import os
from pathlib import Path

import pytest

from reconciler import loader
from reconciler.errors import ManifestError

GOOD = """\
apiVersion: reconciler/v1
kind: Dataset
metadata:
  name: tickets
spec:
  file: tickets.jsonl
  checks:
    - {fields: [subject,
       body]}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifests").mkdir()
    return Path("manifests")


def problems_of(root: Path) -> list[str]:
    with pytest.raises(ManifestError) as raised:
        loader.load_tree(root)
    return [str(problem) for problem in raised.value.problems]


def test_a_document_knows_its_kind_its_name_and_its_place(root: Path) -> None:
    (root / "all.yaml").write_text(f"# ours\n---\n{GOOD}---\n{GOOD.replace('tickets', 'others')}")

    first, second = loader.load_tree(root).documents

    assert ("Dataset", "tickets", "manifests/all.yaml", 3) == (first.kind, first.name, first.file, first.line)
    assert ("others", 13) == (second.name, second.line)
    assert {"file": "tickets.jsonl", "checks": [{"fields": ["subject", "body"]}]} == first.body["spec"]


def test_every_field_knows_its_line(root: Path) -> None:
    (root / "all.yaml").write_text(f"{GOOD}---\n{GOOD}")

    first, second = loader.load_tree(root).documents

    assert "manifests/all.yaml:9" == first.where("spec", "checks", 0, "fields", 1)
    assert "manifests/all.yaml:16" == second.where("spec", "file")


def test_a_field_that_is_not_there_has_the_line_of_what_is_around_it(root: Path) -> None:
    (root / "one.yaml").write_text(GOOD)

    (document,) = loader.load_tree(root).documents

    assert 7 == document.line_of("spec", "checks", 7, "nothing")
    assert 1 == document.line_of("nothing")


def test_a_file_that_changed_since_still_has_a_place(root: Path) -> None:
    (root / "one.yaml").write_text(f"# a comment\n{GOOD}")
    (document,) = loader.load_tree(root).documents

    (root / "one.yaml").write_text("a: [")

    assert "manifests/one.yaml:2" == document.where("spec", "file")


def test_hidden_files_releases_and_kustomize_are_passed_over(root: Path) -> None:
    for name in (
        ".hidden.yaml",
        ".git/config.yaml",
        "releases/support.yaml",
        "kustomization.yaml",
        "notes.md",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("not: ours")

    assert [] == loader.load_tree(root).documents


def test_every_folder_and_both_suffixes_are_read_in_the_order_of_their_names(root: Path) -> None:
    for name in ("b/two.yml", "a/deep/one.yaml", "c.yaml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(GOOD)

    tree = loader.load_tree(root)

    expected = ["manifests/a/deep/one.yaml", "manifests/b/two.yml", "manifests/c.yaml"]
    assert expected == [document.file for document in tree.documents]
    assert expected == [stamp.path for stamp in tree.files]


def test_a_file_that_changes_has_another_stamp(root: Path) -> None:
    file = root / "one.yaml"
    file.write_text(GOOD)
    before = loader.load_tree(root).files

    file.write_text(GOOD.replace("tickets", "letters"))
    os.utime(file, ns=(0, before[0].mtime_ns + 1))

    assert before != loader.load_tree(root).files


def test_empty_documents_are_skipped(root: Path) -> None:
    (root / "one.yaml").write_text(f"---\n---\n# nothing\n---\n{GOOD}---\n")

    assert ["tickets"] == [document.name for document in loader.load_tree(root).documents]


def test_the_problems_of_all_files_come_at_once(root: Path) -> None:
    (root / "a.yaml").write_text("kind: [\n")
    (root / "b.yaml").write_text(f"{GOOD}---\na: 1\na: 2\n")
    (root / "c.yaml").write_text("- a list\n")

    found = problems_of(root)

    assert ["manifests/a.yaml:1", "manifests/b.yaml:12", "manifests/c.yaml:1"] == [
        p.split(": ")[0] for p in found
    ]


def test_what_can_be_used_is_there_beside_the_problems(root: Path) -> None:
    (root / "a.yaml").write_text("kind: [\n")
    (root / "b.yaml").write_text(GOOD)

    tree, problems = loader.read_tree(root)

    assert ["tickets"] == [document.name for document in tree.documents]
    assert ["manifests/a.yaml:1"] == [problem.where for problem in problems]


@pytest.mark.parametrize(
    ("was", "written", "line", "what"),
    [
        ("apiVersion: reconciler/v1\n", "", 1, "apiVersion is missing"),
        ("reconciler/v1", "apps/v1", 1, "apiVersion is apps/v1, this version reads reconciler/v1"),
        ("kind: Dataset\n", "", 1, "kind is missing"),
        ("kind: Dataset", "kind: 7", 2, "kind must be text"),
        ("  name: tickets", "  name: 7", 4, "the name 7 is not usable"),
        ("  name: tickets", "  name: Support Tickets", 4, "the name Support Tickets is not usable"),
        ("  name: tickets", "  labels: {}", 3, "metadata.name is missing"),
        ("  name: tickets", "  nmae: tickets", 4, "unknown field metadata.nmae; did you mean name"),
        ("  name: tickets", "  name: a\n  labels: {tier: 1}", 5, "metadata.labels.tier must be text"),
        ("  name: tickets", "  name: a\n  labels: [a]", 5, "metadata.labels must be a mapping"),
        ("metadata:\n  name: tickets", "metadata: tickets", 3, "metadata must be a mapping"),
        ("metadata:\n  name: tickets\n", "", 1, "metadata is missing"),
        ("spec:", "sepc:", 5, "unknown field sepc; did you mean spec"),
        (
            "spec:",
            "status: {}\nspec:",
            5,
            "unknown field status; it may hold apiVersion, kind, metadata, spec",
        ),
    ],
)
def test_the_frame_of_a_manifest_is_checked(root: Path, was: str, written: str, line: int, what: str) -> None:
    assert was in GOOD
    (root / "one.yaml").write_text(GOOD.replace(was, written))

    found = problems_of(root)

    assert any(problem.startswith(f"manifests/one.yaml:{line}: {what}") for problem in found), found


def test_a_spec_that_is_no_mapping_has_its_line(root: Path) -> None:
    (root / "one.yaml").write_text(GOOD[: GOOD.index("spec:")] + "spec: 7\n")

    assert ["manifests/one.yaml:5: spec must be a mapping"] == problems_of(root)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "7\n", "true\n"])
def test_a_document_that_is_no_mapping_is_a_problem(root: Path, text: str) -> None:
    (root / "one.yaml").write_text(text)

    expected = "manifests/one.yaml:1: a document is a mapping of apiVersion, kind, metadata, spec"
    assert [expected] == problems_of(root)


def test_a_folder_that_is_not_there_is_a_problem(root: Path) -> None:
    assert ["nowhere: no such folder"] == problems_of(Path("nowhere"))


def test_a_file_in_place_of_the_folder_is_a_problem(root: Path) -> None:
    (root / "one.txt").write_text(GOOD)

    expected = "manifests/one.txt: this is a file; name the folder that holds it"
    assert [expected] == problems_of(root / "one.txt")


def test_a_file_of_manifests_is_a_tree_of_its_own(root: Path) -> None:
    (root / "one.yaml").write_text(GOOD)
    (root / "two.yaml").write_text("not read")

    assert ["manifests/one.yaml"] == [each.path for each in loader.load_tree(root / "one.yaml").files]


def test_a_link_that_leads_out_of_the_tree_is_not_read(root: Path) -> None:
    Path("secret.yaml").write_text(GOOD)
    (root / "one.yaml").symlink_to(Path("secret.yaml").resolve())

    expected = "manifests/one.yaml: the link leads out of the manifest folder; put the file here"
    assert [expected] == problems_of(root)


def test_a_link_to_nothing_is_a_problem(root: Path) -> None:
    (root / "one.yaml").symlink_to("nothing.yaml")

    assert ["manifests/one.yaml: the link leads nowhere; remove it"] == problems_of(root)


def test_a_link_to_a_folder_is_a_problem(root: Path) -> None:
    (root / "more").symlink_to(".")

    expected = "manifests/more: links to folders are not followed; put the files here"
    assert [expected] == problems_of(root)


def test_a_link_into_a_hidden_folder_is_read_once(root: Path) -> None:
    """As Kubernetes mounts a ConfigMap."""
    (root / ".data").mkdir()
    (root / ".data" / "one.yaml").write_text(GOOD)
    (root / "one.yaml").symlink_to(".data/one.yaml")
    (root / "same.yaml").symlink_to("one.yaml")

    assert ["manifests/one.yaml"] == [document.file for document in loader.load_tree(root).documents]


def test_a_pipe_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "one.yaml")

    assert ["manifests/one.yaml: this is not a plain file"] == problems_of(root)


def test_a_file_that_is_too_big_is_not_read(root: Path) -> None:
    with (root / "one.yaml").open("wb") as file:
        file.truncate(6_000_000)

    assert ["manifests/one.yaml:1: the file has more than 5,000,000 bytes; split it"] == problems_of(root)


@pytest.mark.parametrize(
    "text", ["../secret.jsonl", "/etc/passwd", "out/secret.jsonl", "a/../../secret.jsonl"]
)
def test_a_path_that_leaves_the_tree_is_refused(root: Path, text: str) -> None:
    (root / "out").symlink_to(Path.cwd())

    with pytest.raises(ValueError, match=r"absolute|leads out of the manifest folder"):
        loader.inside(root, root, text)


def test_a_path_inside_the_tree_is_the_file_beside_the_manifest(root: Path) -> None:
    folder = root / "datasets"

    assert folder / "../shared/rows.jsonl" == loader.inside(root, folder, "../shared/rows.jsonl")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("n_epoch", "n_epochs"),
        ("batchsize", "batch_size"),
        ("N_EPOCHS", "n_epochs"),
        ("colour", None),
        ("", None),
    ],
)
def test_a_slip_finds_the_word_that_was_meant(word: str, expected: str | None) -> None:
    assert expected == loader.did_you_mean(word, ["n_epochs", "batch_size", "learning_rate_multiplier"])


PROJECT = GOOD.replace("kind: Dataset", "kind: Project").split("spec:")[0]


def test_a_folder_with_its_own_project_is_a_tree_of_its_own(root: Path) -> None:
    other = root / "methods" / "dpo"
    other.mkdir(parents=True)
    for folder, name in ((root, "mine"), (other, "theirs")):
        (folder / "project.yaml").write_text(PROJECT.replace("tickets", name))
        (folder / "data.yaml").write_text(GOOD.replace("tickets", f"{name}-rows"))

    outer, inner = loader.load_tree(root), loader.load_tree(other)

    assert ["mine-rows", "mine"] == [document.name for document in outer.documents]
    assert ["theirs-rows", "theirs"] == [document.name for document in inner.documents]


def test_a_project_may_stand_in_a_folder_when_the_root_has_none(root: Path) -> None:
    (root / "base").mkdir()
    (root / "base" / "project.yaml").write_text(PROJECT)
    (root / "data.yaml").write_text(GOOD)

    assert ["Project", "Dataset"] == [document.kind for document in loader.load_tree(root).documents]


def test_a_name_alone_hides_no_folder(root: Path) -> None:
    (root / "team").mkdir()
    (root / "project.yaml").write_text(PROJECT)
    (root / "team" / "project.yaml").write_text(GOOD)

    assert ["Project", "Dataset"] == [document.kind for document in loader.load_tree(root).documents]
