"""
One channel over real HTTP with the real trainer: what learned too little is refused, what learned enough is
approved and promoted, what forgot how to talk is stopped, and a rollback outlives the daemon.
"""

import json
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from story_base import TUNED, World, copied, daemon, edit, reconciler, world

pytestmark = [pytest.mark.train, pytest.mark.slow]

RULE = "PromotionRule/support-production"
CHANNEL = "support/production"
BASE = "tiny-chat"
TICKETS, TALK, HELD_OUT = 260, 100, 120  # rows
WHOLE = "n_epochs: 3, batch_size: 12, learning_rate_multiplier: 1}"  # the example
TOO_LITTLE = "n_epochs: 1, batch_size: 16, learning_rate_multiplier: 0.1}"
ENOUGH = "n_epochs: 4, batch_size: 8, learning_rate_multiplier: 1}"


class Chapter(NamedTuple):
    """What a command said, and how things stand after it."""

    code: int
    printed: str
    after: World


class Story(NamedTuple):
    poor: Chapter
    waiting: Chapter
    approved: Chapter
    forgetful: Chapter
    rolled_back: Chapter
    passes: list[dict[str, Any]]  # of a daemon that was killed and started again
    survived: World
    lifted: Chapter
    again: Chapter  # approved once more
    releases: dict[str, Any]
    listed: str
    explained: str
    file: dict[str, Any]


def told(tree: Path, *arguments: str) -> Chapter:
    done = reconciler(*arguments)
    return Chapter(done.returncode, done.stdout + done.stderr, world(tree))


def little(folder: Path) -> tuple[Path, list[str], list[str]]:
    """The example with fewer rows, and its tickets and small talk to train on."""
    tree = copied(folder)
    path = tree / "data" / "triage-train.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:TICKETS] + rows[-TALK:]))
    path = tree / "data" / "triage-heldout.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:HELD_OUT]))
    edit(tree / "improve.yaml", "at_least: 0.80", "at_least: 0.40")
    edit(tree / "improve.yaml", WHOLE, TOO_LITTLE)
    return tree, rows[:TICKETS], rows[-TALK:]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    tree, tickets, talk = little(tmp_path_factory.mktemp("promotion"))
    improve, training = tree / "improve.yaml", tree / "data" / "triage-train.jsonl"

    # the channel starts on the base model, which can talk
    whole = improve.read_text()
    talks = "  gates:\n    - {eval: Eval/smalltalk, at_least: 0.80}\n"
    started = re.sub(r"  gates:\n(    .*\n)+", talks, whole)
    improve.write_text(started.replace("candidates: [FineTuneJob/support]", "candidates: [Model/tiny-chat]"))
    assert 0 == reconciler("apply", tree).returncode

    # a job that learned too little asks for it
    improve.write_text(whole)
    poor = told(tree, "apply", str(tree))

    # a better one, which a person has to approve
    edit(improve, TOO_LITTLE, ENOUGH)
    edit(improve, "  confidence: 0.95", "  approval: manual")
    waiting = told(tree, "apply", str(tree))
    approved = told(tree, "approve", RULE, str(tree), "--by", "grace")

    # one that learned the same tickets and rehearsed nothing
    training.write_text("".join(tickets))
    forgetful = told(tree, "apply", str(tree))

    # back to the base, by hand, while automation wants what was accepted before
    training.write_text("".join(tickets + talk))
    rolled_back = told(tree, "rollback", CHANNEL, str(tree), "--by", "ada", "--reason", "too terse")
    with daemon(tree, signal.SIGKILL) as running:
        passes = [next(running), next(running)]
    with daemon(tree) as running:
        passes += [next(running), next(running)]
    survived = world(tree)

    # the hold ends, and the model comes back only by a person's word
    assert 0 == reconciler("lift", CHANNEL, tree, "--by", "ada").returncode
    lifted = told(tree, "apply", str(tree))
    again = told(tree, "approve", RULE, str(tree), "--by", "linus")
    return Story(
        poor, waiting, approved, forgetful, rolled_back, passes, survived, lifted, again,
        json.loads(reconciler("releases", tree, "--output", "json").stdout)["releases"][0],
        reconciler("releases", tree).stdout,
        reconciler("explain", RULE, tree).stdout,
        yaml.safe_load((tree / "releases" / f"{CHANNEL}.yaml").read_text())["spec"],
    )  # fmt: skip


def test_what_learned_too_little_is_refused_with_its_number_and_the_release_stands(story: Story) -> None:
    said = rf"{TUNED} fails a gate: triage pass_rate \d\.\d% \[0\.0%, .*%\], n={HELD_OUT}; wanted at least 40\.0%"

    assert 4 == story.poor.code
    assert re.search(f"{said}.*; {CHANNEL} stays on {BASE}", story.poor.printed)
    assert BASE == story.poor.after.release


def test_what_learned_enough_is_promoted_once_a_person_said_yes(story: Story) -> None:
    assert (0, BASE) == (story.waiting.code, story.waiting.after.release)
    assert f"{TUNED} passes 3 gates, waits for approval: reconciler approve {RULE}" in story.waiting.printed
    assert 0 == story.approved.code
    assert story.approved.after.release.startswith("ft:tiny-chat:local:triage:")
    assert f"{CHANNEL} → {story.approved.after.release}" in story.approved.printed
    assert "approved by grace" in story.approved.printed


def test_what_forgot_how_to_talk_is_stopped_with_its_number(story: Story) -> None:
    lost = re.search(
        rf"{TUNED} fails a gate: smalltalk pass_rate -(\d+\.\d) points \[.*\], n=120; "
        r"wanted not worse by more than 10 points",
        story.forgetful.printed,
    )

    assert 4 == story.forgetful.code
    assert lost and float(lost[1]) > 50
    assert 2 == story.forgetful.printed.count(f"  PASS  {TUNED}: ")  # it knows its tickets
    assert story.approved.after.release == story.forgetful.after.release


def test_a_rollback_and_its_hold_outlive_a_daemon_that_is_killed_and_started_again(story: Story) -> None:
    assert (0, BASE) == (story.rolled_back.code, story.rolled_back.after.release)
    assert story.rolled_back.after == story.survived
    assert 4 == len(story.passes)
    for each in story.passes:
        assert re.fullmatch(r"held by ada since \S+ \(too terse\); .*", each["blocked"][RULE])


def test_after_the_hold_only_a_person_brings_it_back(story: Story) -> None:
    gone = story.approved.after.release

    assert (6, BASE) == (story.lifted.code, story.lifted.after.release)
    assert f"ada took {gone} back on " in story.lifted.printed
    assert "(too terse); to release it: reconciler approve" in story.lifted.printed
    assert (0, gone) == (story.again.code, story.again.after.release)
    assert story.forgetful.after.jobs == story.again.after.jobs


def test_history_tells_who_approved_what(story: Story) -> None:
    def moves(history: list[dict[str, Any]], inside: str | None) -> list[tuple[str, str, str | None]]:
        records = [(each["model"], each[inside] if inside else each) for each in history]
        return [
            (model, record["moved"]["how"], (record.get("approved") or {}).get("by"))
            for model, record in records
        ]

    gone = story.approved.after.release
    expected = [
        (BASE, "promoted", None),
        (gone, "promoted", "grace"),
        (BASE, "rolled back", None),
        (gone, "promoted", "linus"),
    ]

    assert expected == moves(story.releases["history"], "release")
    assert expected == moves(story.file["history"], None)
    assert ("linus", gone) == (story.file["approved"]["by"], story.file["model"])
    assert gone in story.listed
    for said in (
        rf"approved \w+ {gone} by grace",
        rf"rolled back {BASE} by ada: too terse",
        rf"lifted {BASE} by ada",
        rf"approved \w+ {gone} by linus",
    ):
        assert re.search(said, story.explained)
