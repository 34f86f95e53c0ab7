"""
A team's week: two pull requests, one applied by CI and one by the daemon, a revert, a hold and its end.

Once with the real trainer and once with stand-ins; the commands, the daemon, the platform's API and git are real
in both. What is counted is read from the platform, from git and from the daemon's own journal.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from daemon_base import git
from story_base import edit
from team_base import CHANNEL, FILE, RULE, SECRETS, Said, Team, World, plain, real, stub

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden" / "comments"
FIGURE = re.compile(r"[+-]?\d[\d.]*(e-\d+)?")


class Request(NamedTuple):
    """A pull request, from its first comment to what its build left."""

    checked: Said
    planned: Said
    built: Said
    after: World
    measured: Said
    approved: Path  # the plan that somebody said yes to
    merged: str  # the commit on main


class Story(NamedTuple):
    real: bool
    first: Said
    released: World
    polite: Request
    before: dict[str, Any]  # the alias, before and after the build
    between: dict[str, Any]
    applied: Said
    moved: World
    heard: World
    thanks: Request
    refused: Said
    unmoved: World
    promoted: World
    reverted: World
    held: dict[str, Any]  # the daemon's status, and the world
    stood: World
    lifted: World
    releases: list[dict[str, Any]]  # as git had them, one after each push of the daemon
    passes: list[dict[str, Any]]
    made: list[str]  # by the daemon, oldest first
    log: str
    subjects: list[str]  # of main's commits along its first parents, oldest first
    files: list[list[str]]  # that the daemon's commits touch


def requested(team: Team, name: str, line: int, *gate: str) -> Request:
    """Somebody edits on a branch; CI plans it, builds it once the plan is approved, and it is merged."""
    team.branch(name)
    team.edit_row(line)
    if gate:
        edit(team.tree / "improve.yaml", *gate)
    checked = team.says(team.clone, "validate", "manifests")
    team.push(name, f"{name} customers")

    comment = ("plan", "manifests", "--base", "origin/main", "--output", "markdown")
    place = team.runner(name)
    planned = team.says(place, *comment, "--out", "plan.json")
    approved = Path(shutil.copy(place / "plan.json", team.folder / f"{name}.json"))

    built = team.says(team.runner(name), "apply", "manifests", "--build")
    after = team.platform.world
    measured = team.says(team.runner(name), *comment)
    return Request(checked, planned, built, after, measured, approved, team.merge(name))


def told(team: Team, real: bool) -> Story:
    releases = []
    team.begin()
    first = team.says(team.runner("main"), "apply", "manifests")
    released = team.platform.world
    with team.daemon() as daemon:

        def published(world: World) -> World:
            releases.append(team.published)
            return world

        published(daemon.publishes(1))

        # CI applies the first one; the daemon hears of it afterwards
        before = team.platform.alias
        polite = requested(team, "polite", 7, "at_least: 0.05", "at_least: 0.10")
        between = team.platform.alias
        applied = team.says(team.runner("main"), "apply", "manifests", "--approved", polite.approved)
        assert 0 == applied.code, applied.out + applied.error
        moved = team.platform.world
        heard = published(daemon.hears(polite.merged, 2))

        # the daemon applies the second one; the yes to the first is no yes to it
        thanks = requested(team, "thanks", 8)
        refused = team.says(team.runner("main"), "apply", "manifests", "--approved", polite.approved)
        unmoved = team.platform.world
        promoted = published(daemon.hears(thanks.merged, 3))

        # back, and forth again while somebody holds the channel
        reverted = published(daemon.hears(reversal := team.revert(thanks.merged, "no thanks", "-m", "1"), 4))
        hold = ("--by", "ada", "--reason", "an incident")
        assert 0 == team.says(team.runner("main"), "hold", CHANNEL, "manifests", *hold).code
        daemon.reconciles()
        published(daemon.publishes(5))
        daemon.sees(team.revert(reversal, "thanks after all"))
        held, stood = daemon.reconciles(), team.platform.world
        assert 0 == team.says(team.runner("main"), "lift", CHANNEL, "manifests", "--by", "ada").code
        daemon.reconciles()
        lifted = published(daemon.publishes(6))
    log = git(
        team.origin.bare, "log", "--reverse", "--first-parent", "--format=%H %an %s", "main"
    ).splitlines()
    ours = [line.split(" ")[0] for line in log if " Release " in line]
    assert before and between
    return Story(
        real, first, released, polite, before, between, applied, moved, heard, thanks, refused, unmoved, promoted,
        reverted, held, stood, lifted, releases, daemon.process.named("pass.done"),
        [e["address"] for e in reversed(team.events()) if e["event"] == "made"],
        daemon.process.log.read_text(), [line.partition(" ")[2] for line in log],
        [git(team.origin.bare, "show", "--format=", "--name-only", each).splitlines() for each in ours],
    )  # fmt: skip


@pytest.fixture(scope="module", params=["stub", pytest.param("real", marks=pytest.mark.train)])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("team")
    open_ = {"stub": stub, "real": real}[request.param]
    with open_(folder / "platform") as platform:
        yield told(Team(folder, platform), request.param == "real")


def test_main_is_released_and_the_daemon_puts_that_into_git(story: Story) -> None:
    assert 0 == story.first.code, story.first.error
    assert (1, 4, 1) == (story.released.jobs, story.released.runs, story.released.revision)
    assert story.released.model == story.releases[0]["model"]


def test_a_pull_request_is_checked_and_its_comment_says_what_it_would_take(
    story: Story, update_golden: bool
) -> None:
    path, said = GOLDEN / "team-planned.md", plain(story.polite.planned.out)
    if update_golden and not story.real:
        path.write_text(said)

    assert (0, "14 resources and 420 rows are valid\n") == story.polite.checked[:2]
    assert 2 == story.polite.planned.code
    assert path.read_text() == said


def test_what_is_approved_names_every_action_and_where_the_channel_led(story: Story) -> None:
    plan = json.loads(story.polite.approved.read_text())

    assert [
        ("Dataset/triage-train", "create"),
        ("FineTuneJob/support", "create"),
        ("EvalRun/triage@FineTuneJob/support", "create"),
        ("EvalRun/smalltalk@FineTuneJob/support", "create"),
        (RULE, "update"),
    ] == [(each["address"], each["action"]) for each in plan["actions"]]
    leads = {"what": "leads", "channel": CHANNEL, "model": story.released.model, "revision": 1}
    assert leads in plan["actions"][-1]["facts"]


def test_the_pull_request_trains_and_measures_and_touches_no_channel(story: Story) -> None:
    assert 0 == story.polite.built.code, story.polite.built.error
    assert (story.released.jobs + 1, story.released.runs + 2) == (
        story.polite.after.jobs,
        story.polite.after.runs,
    )
    assert story.before == story.between


def test_the_second_comment_shows_what_was_measured(story: Story, update_golden: bool) -> None:
    path, said = GOLDEN / "team-measured.md", plain(story.polite.measured.out)
    if update_golden and not story.real:
        path.write_text(said)
    figures = figured if story.real else str

    assert 2 == story.polite.measured.code
    assert figures(path.read_text()) == figures(said)
    assert 3 == said.count("<b>PASS</b>")


def figured(comment: str) -> str:
    """A comment with the figures of its verdicts left out: what was learned is another matter."""
    verdict = re.compile(r"^(<li><b>PASS</b>.*?)(; p=.*)?(</li>)$", re.MULTILINE)
    return verdict.sub(lambda found: FIGURE.sub("N", found[1] + found[3]), comment)


def test_a_merge_moves_the_pointer_and_makes_nothing(story: Story) -> None:
    assert story.polite.after._replace(model=story.moved.model, revision=2) == story.moved
    assert story.released.model != story.moved.model
    assert story.moved == story.heard
    assert (story.moved.model, story.released.model) == (
        story.releases[1]["model"],
        story.releases[1]["previous"],
    )


def test_what_was_not_approved_is_not_done(story: Story) -> None:
    assert 6 == story.refused.code
    assert f"nobody approved to update {RULE} (" in story.refused.error
    assert story.thanks.after == story.unmoved


def test_the_daemon_hears_of_a_merge_promotes_and_pushes(story: Story) -> None:
    assert 0 == story.thanks.built.code, story.thanks.built.error
    assert story.thanks.after._replace(model=story.promoted.model, revision=3) == story.promoted
    assert story.promoted.model not in (story.moved.model, story.released.model)
    assert (story.promoted.model, "promoted") == moved(story.releases[2])
    assert story.thanks.merged == story.releases[2]["lineage"]["commit"]


def test_a_reverted_merge_leads_back_and_trains_nothing(story: Story) -> None:
    assert story.promoted._replace(model=story.moved.model, revision=4) == story.reverted
    assert (story.moved.model, "restored") == moved(story.releases[3])
    assert story.releases[3]["hold"] is None


def test_a_hold_stops_the_daemon_until_it_is_lifted(story: Story) -> None:
    [rule] = [each for each in story.held["resources"] if each["address"] == RULE]

    assert ("ada", "an incident") == (story.releases[4]["hold"]["by"], story.releases[4]["hold"]["reason"])
    assert ("blocked", "refused", False) == (rule["action"], rule["halt"], rule["ready"])
    assert rule["why"].startswith("held by ada since ")
    assert story.moved.model == story.stood.model
    assert story.reverted._replace(revision=5) == story.stood
    assert story.reverted._replace(model=story.promoted.model, revision=7) == story.lifted
    assert (story.promoted.model, "restored") == moved(story.releases[5])
    assert story.releases[5]["hold"] is None


def moved(release: dict[str, Any]) -> tuple[str, str]:
    return release["model"], release["moved"]["how"]


def test_the_daemon_made_nothing_that_costs_anything(story: Story) -> None:
    assert {RULE} == set(story.made)
    assert 3 == story.lifted.jobs
    assert 8 == story.lifted.runs


def test_git_tells_who_did_what(story: Story) -> None:
    release = f"reconciler Release {CHANNEL} → FineTuneJob/support"

    assert [
        "Ada the example",
        release,
        "Ada merge polite",
        release,
        "Ada merge thanks",
        release,
        "Ada no thanks",
        release,
        release,  # held
        "Ada thanks after all",
        release,  # lifted
    ] == story.subjects
    assert [[FILE]] * 6 == story.files


def test_nobody_prints_a_secret(story: Story) -> None:
    said = [
        story.log,
        *(each for part in (story.polite, story.thanks) for each in (*part.planned, *part.built)),
    ]

    assert [] == [secret for secret in SECRETS.values() for each in said if secret in str(each)]


def test_a_comment_shows_no_row(story: Story) -> None:
    assert "Dear support" not in story.polite.planned.out + story.polite.measured.out
