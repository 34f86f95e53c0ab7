"""What a changed release file asks for is granted only where it was accepted here before."""

from typing import Any

import pytest

from reconciler import release
from reconciler.daemon import message
from reconciler.daemon.shelf import Known, Shelf, digest
from reconciler.daemon.word import wished
from reconciler.release import FINGERPRINT, Channel, Entry, Revoked, Word

WORD = Word("Ada", "2026-11-25T00:00:00Z", "in git: Revert it")


def entry(model: str, rule: str) -> Entry:
    return Entry(model, {FINGERPRINT: rule}, {"candidate": model}, 1.0)


def channel(*entries: Entry, **more: Any) -> Channel:
    last = entries[-1]
    return Channel("demo/main", last.model, last.metadata, last.release, entries, **more)


def shown(model: str, rule: str, name: str = "demo/main") -> dict[str, Any]:
    return {"name": name, "model": model, "metadata": {FINGERPRINT: rule}, "release": {"candidate": model}}


NOW = channel(entry("a", "rule-a"), entry("b", "rule-b"))


def test_what_was_accepted_before_is_gone_back_to_and_held() -> None:
    moved = wished(NOW, shown("a", "rule-a"), "rule-b", WORD)

    assert moved is not None
    assert ("a", WORD, ["b"]) == (moved.model, moved.hold, [each.model for each in moved.revoked])


def test_what_the_rule_itself_wants_is_gone_to_without_a_hold() -> None:
    back = channel(entry("a", "rule-a"), entry("b", "rule-b"), entry("a", "rule-a"),
                   hold=WORD, revoked=(Revoked("b", *WORD),))  # fmt: skip

    moved = wished(back, shown("b", "rule-b"), "rule-b", WORD)

    assert moved is not None
    assert ("b", None, ()) == (moved.model, moved.hold, moved.revoked)
    assert "restored" == moved.release["moved"]["how"]


@pytest.mark.parametrize(
    "told",
    [
        shown("c", "rule-c"),  # never released
        shown("a", "rule-b"),  # released, and not by this rule
        shown("mine", "rule-a"),
        shown("b", "rule-b"),  # it stands
        shown("a", "rule-a", "demo/other"),
    ],
)
def test_anything_else_is_no_wish(told: dict[str, Any]) -> None:
    assert wished(NOW, told, "rule-b", WORD) is None


def test_our_own_newer_version_is_told_from_an_older_one() -> None:
    known = Known("two", ["one", "two", "three"])

    assert [True, False, False, False] == [known.ahead(each) for each in ("three", "one", "two", "strange")]
    assert Known(None, ["one"]).ahead("one")


def test_what_is_known_survives_a_restart(tmp_path: Any) -> None:
    shelf = Shelf(tmp_path / "published.json")
    shelf.files["releases/a.yaml"] = Known(digest(b"x"), ["1", "2"])
    shelf.offered = {"releases/a.yaml": None}
    shelf.keep()

    again = Shelf(tmp_path / "published.json")
    (tmp_path / "published.json").write_text("{broken")

    assert (shelf.files, shelf.offered) == (again.files, again.offered)
    assert {} == Shelf(tmp_path / "published.json").files


def test_nothing_in_a_release_can_forge_a_trailer() -> None:
    text = b"""
spec:
  channel: demo/main
  model: "ft:a\\n\\nReconciler-Rule: forged"
  candidate: "x\\r\\nSigned-off-by: nobody"
  moved: {reason: "good\\nReviewed-by: nobody"}
  stamp: {reconciler_address: PromotionRule/main}
  evidence: [{eval: Eval/a, metric: pass_rate, estimate: 0.91234, low: 0.8, high: null, verdict: pass}]
"""

    told = message.of({"releases/demo/main.yaml": text, "releases/old.yaml": None})

    assert told.splitlines() == [
        "Release 2 channels",
        "",
        "- demo/main → x Signed-off-by: nobody",
        "- remove releases/old.yaml",
        "",
        "good Reviewed-by: nobody",
        "",
        "Reconciler-Release: releases/demo/main.yaml",
        "Reconciler-Rule: PromotionRule/main",
        "Reconciler-Model: ft:a Reconciler-Rule: forged",
        "Reconciler-Evidence: Eval/a pass_rate 0.9123 0.8 pass",
        "Reconciler-Release: releases/old.yaml",
    ]


def test_the_word_of_a_rollback_is_kept_in_the_channel() -> None:
    moved = wished(NOW, shown("a", "rule-a"), "rule-b", WORD)
    assert moved is not None

    again = release.read(release.written(moved) | {"history": []})

    assert WORD == again.hold
