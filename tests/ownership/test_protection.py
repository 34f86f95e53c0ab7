"""Protection is remembered beyond a manifest, and taken back by one."""

import pytest
from core_base import edit
from own_base import Owner, Shop, without

from reconciler.journal import Journal
from reconciler.kind import Observed, Stamp, State
from reconciler.ownbook import OwnBook
from reconciler.protection import Shield, Word
from reconciler.pruning import Policy
from reconciler.resource import Address, Wanted


def wanted(address: str, fingerprint: str = "f", **body: object) -> Wanted:
    return Wanted(Address.parse(address), fingerprint, {}, (), body, {}, "m.yaml", 1)


def why(observed: Observed, *manifests: Wanted, **words: Word) -> str:
    """The first word of why it is protected."""
    shield = Shield(
        {each.address: each for each in manifests}, {f"Eval/{name}": w for name, w in words.items()}
    )
    return shield.over(observed).partition(";")[0]


def standing(address: str = "Eval/a", fingerprint: str = "f", protect: bool = False) -> Observed:
    return Observed("e", Stamp("demo", address, fingerprint, protect), State.READY, {})


@pytest.mark.parametrize(
    "observed, manifests, words, expected",
    [
        (standing(), (), {}, ""),
        (standing(), (wanted("Eval/a", protect=True),), {}, "Eval/a is protected"),
        (standing(fingerprint="old"), (wanted("Eval/a", protect=True),), {}, "Eval/a is protected"),
        (standing(), (), {"a": Word("f", True)}, "Eval/a was protected"),
        (standing(fingerprint="old"), (), {"a": Word("f", True)}, "Eval/a was protected"),
        (standing("Eval/b"), (), {"a": Word("f", True)}, "Eval/b was protected"),  # renamed since
        (standing(protect=True), (), {}, "its stamp protects it"),  # the journal was lost
        (standing(protect=True), (), {"a": Word("f", False)}, ""),  # the manifest took it back
        (standing(protect=True), (wanted("Eval/a"),), {"a": Word("f", True)}, ""),
        (standing(), (wanted("Project/demo", protect=True),), {}, "the whole project is protected"),
    ],
)
def test_a_manifests_word_goes_before_the_journals_and_that_before_the_stamps(
    observed: Observed, manifests: tuple[Wanted, ...], words: dict[str, Word], expected: str
) -> None:
    assert expected == why(observed, *manifests, **words)


def test_removing_a_manifest_does_not_remove_its_protection(demo: Owner, platform: Shop) -> None:
    edit(demo.root / "measure.yaml", "format: items}", "format: items, protect: true}")
    demo.done()
    platform.objects["reconciler/aliases"].clear()
    for file in ("promote.yaml", "measure.yaml"):
        (demo.root / file).unlink()

    demo.prune(Policy(fuse=100))

    assert ["heldout@demo"] == [f["filename"].partition(".")[0] for f in platform.objects["files"]][:1]
    assert [] == platform.objects["evals"]


def test_a_manifest_that_says_so_no_more_takes_it_back(demo: Owner, platform: Shop) -> None:
    edit(demo.root / "measure.yaml", "format: items}", "format: items, protect: true}")
    demo.done()
    edit(demo.root / "measure.yaml", ", protect: true}", "}")
    demo.done()
    platform.objects["reconciler/aliases"].clear()
    (demo.root / "promote.yaml").unlink()
    without(demo.root, "measure.yaml", "Eval", "right")
    without(demo.root, "measure.yaml", "Dataset", "heldout")

    assert {""} == set(demo.look(Policy(fuse=100)).values())


def test_protection_moves_no_fingerprint_and_asks_for_nothing(demo: Owner, platform: Shop) -> None:
    asked = len(platform.asked)
    edit(demo.root / "train.yaml", "format: chat}", "format: chat, protect: true}")
    edit(demo.root / "train.yaml", "  model: Model/base\n", "  model: Model/base\n  protect: true\n")

    demo.done()

    assert asked == len(platform.asked)
    assert {"Dataset/train", "FineTuneJob/tuned"} == OwnBook(demo.journal).words("memory").keys()


def test_a_suspended_rule_suspends_the_runs_that_only_it_wants(demo: Owner, platform: Shop) -> None:
    edit(demo.root / "train.yaml", "n_epochs: 2", "n_epochs: 3")
    edit(demo.root / "promote.yaml", "spec:\n", "spec:\n  suspend: true\n")
    runs = len([c for c, _ in platform.asked if c.endswith("/runs")])

    demo.done()
    assert runs == len([c for c, _ in platform.asked if c.endswith("/runs")])
    second = (demo.root / "promote.yaml").read_text().replace("suspend: true", "suspend: false")
    (demo.root / "second.yaml").write_text(
        second.replace("name: production", "name: second").replace("demo/", "other/")
    )
    demo.done()
    assert runs + 1 == len([c for c, _ in platform.asked if c.endswith("/runs")])


def test_the_book_works_on_postgresql(postgres: str) -> None:
    book = OwnBook(Journal.open(postgres))

    book.speak("p", {"Eval/a": Word("f", True), "Eval/b": Word("g", False)})
    book.speak("p", {"Eval/a": Word("f", False)})
    for _ in range(2):
        book.went("p", "ftjob-1", 1.0)

    assert {"Eval/a": Word("f", False), "Eval/b": Word("g", False)} == book.words("p")
    assert (frozenset({"ftjob-1"}), frozenset()) == (book.gone("p"), book.gone("q"))
    assert {} == book.stood("p")


def test_looking_at_a_journal_makes_no_table(demo: Owner) -> None:
    peeked = Journal.peek(f"sqlite:///{demo.root / '.reconciler' / 'journal.db'}")

    assert frozenset() == OwnBook(peeked).gone("memory")
