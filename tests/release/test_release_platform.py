"""Releases on the real platform: where a channel leads, who moved it, and what its file says."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from release_base import Channel

from reconciler.cli import commands
from reconciler.errors import ReconcilerError, Refused
from reconciler.platforms.openai import OpenAI
from reconciler.platforms.releases import WithReleases
from reconciler.world import Platform

pytestmark = pytest.mark.slow  # a real model answers, and nothing is trained
FAILED, REFUSED, DRIFT, PENDING, IN_PROGRESS = 4, 6, 3, 2, 7
INCUMBENT = [{"eval": "Eval/moods", "at_least": 0.8}, {"eval": "Eval/talk", "not_worse_than": 0.1}]


def alias(platform: Platform, channel: Channel) -> dict[str, Any]:
    found = platform.get("reconciler/aliases", channel.name)
    assert found is not None
    return dict(found)


def model_of(platform: Platform, channel: Channel) -> str:
    """The short name of the model that the channel leads to."""
    return str(alias(platform, channel)["model"]).partition("@")[0]


def test_a_release_says_what_it_rests_on(channel: Channel, platform: Platform) -> None:
    channel.rule("first")

    assert 0 == channel.apply()

    shown = channel.shown
    assert shown["model"] == alias(platform, channel)["model"]
    assert "Model/first" == shown["candidate"]
    [gate] = shown["evidence"]
    assert ("pass", 96) == (gate["verdict"], gate["n"])
    assert gate["low"] <= gate["estimate"] <= gate["high"]
    [run] = shown["lineage"]["runs"]
    assert "Dataset/moods" == run["dataset"]["address"]
    assert "Eval/moods" == run["eval"]["address"]
    assert [{"role": "user", "content": "{{ item.question }}"}] == shown["prompt"]["messages"]
    assert 0 == channel.plan()


def test_a_poor_candidate_is_refused_with_the_number(
    channel: Channel, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    channel.rule("first")
    channel.apply()
    channel.rule("poor")
    capsys.readouterr()

    assert FAILED == channel.apply()

    printed = json.loads(capsys.readouterr().out)
    [why] = [step["why"] for step in printed["steps"] if step["address"] == "PromotionRule/rule"]
    assert why.startswith("Model/poor fails a gate: pass_rate 0.0% [0.0%,")
    assert "first" == model_of(platform, channel)


def test_the_first_release_has_no_incumbent_and_says_so(channel: Channel, platform: Platform) -> None:
    channel.rule("poor", "first", gates=INCUMBENT, baseline="incumbent")

    assert 0 == channel.apply()

    assert "first" == model_of(platform, channel)
    assert "leads nowhere yet; the other gates decide" in channel.shown["evidence"][1]["sentence"]


def test_a_model_that_forgot_its_manners_is_stopped_by_the_incumbent(
    channel: Channel, platform: Platform
) -> None:
    channel.rule("first", gates=INCUMBENT, baseline="incumbent")
    channel.apply()
    channel.rule("rude", gates=INCUMBENT, baseline="incumbent")

    assert FAILED == channel.apply()

    assert "first" == model_of(platform, channel)
    channel.rule("second", gates=INCUMBENT, baseline="incumbent")
    assert 0 == channel.apply()
    assert "second" == model_of(platform, channel)
    measured = {run["address"] for run in channel.shown["lineage"]["runs"]}
    assert "EvalRun/talk@Model/first" in measured


def test_a_revert_brings_the_release_back_without_judging_anew(channel: Channel, platform: Platform) -> None:
    for name in ("first", "second"):
        channel.rule(name)
        channel.apply()
    runs = [len(platform.list(f"evals/{each['id']}/runs")) for each in platform.list("evals")]

    channel.rule("first")

    assert 0 == channel.apply()
    assert "first" == model_of(platform, channel)
    assert runs == [len(platform.list(f"evals/{each['id']}/runs")) for each in platform.list("evals")]
    assert "restored" == channel.shown["moved"]["how"]
    assert 1 == len(channel.shown["evidence"])


def test_what_wants_approval_waits_for_it(channel: Channel, platform: Platform) -> None:
    channel.rule("first", approval="manual")
    assert 0 == channel.apply()
    assert platform.get("reconciler/aliases", channel.name) is None

    assert 0 == channel.approve()

    assert "first" == model_of(platform, channel)
    assert "grace" == channel.shown["approved"]["by"]
    assert 0 == channel.plan()
    with pytest.raises(Refused, match="waits for no approval"):
        channel.approve()


def test_an_approval_in_the_manifest_is_for_one_model_and_its_measurements(
    channel: Channel, platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    channel.rule("first", approval="manual")
    channel.apply()
    steps = json.loads(capsys.readouterr().out)["steps"]
    [asked] = [step["approval"] for step in steps if step["address"] == "PromotionRule/rule"]

    channel.rule("second", approval="manual", approved_fingerprint=asked)
    channel.apply()
    assert platform.get("reconciler/aliases", channel.name) is None

    channel.rule("first", approval="manual", approved_fingerprint=asked, approved_by="grace")
    channel.apply()
    assert "first" == model_of(platform, channel)
    assert {"by": "grace", "fingerprint": asked} == channel.shown["approved"]


def test_a_rollback_holds_until_it_is_lifted_and_revokes_until_it_is_approved(
    channel: Channel, platform: Platform
) -> None:
    for name in ("first", "second"):
        channel.rule(name)
        channel.apply()

    channel.rollback()

    assert "first" == model_of(platform, channel)
    assert ("ada", "it is rude") == (channel.shown["hold"]["by"], channel.shown["hold"]["reason"])
    assert 1 == len(channel.shown["evidence"])
    assert REFUSED == channel.apply()
    channel.lift()
    assert REFUSED == channel.apply()
    assert "first" == model_of(platform, channel)
    channel.approve()
    assert "second" == model_of(platform, channel)
    assert 0 == channel.apply()


def test_a_hold_keeps_even_what_passes_away(channel: Channel, platform: Platform) -> None:
    channel.rule("first")
    channel.apply()
    channel.hold("the fair is on")
    channel.rule("second")

    assert REFUSED == channel.apply()

    assert "first" == model_of(platform, channel)
    assert "the fair is on" in channel.file.read_text()
    channel.lift()
    assert 0 == channel.apply()
    assert "second" == model_of(platform, channel)


def test_a_channel_can_be_rolled_back_while_manifests_are_broken(
    channel: Channel, platform: Platform
) -> None:
    for name in ("first", "second"):
        channel.rule(name)
        channel.apply()
    channel.rule("nobody")

    channel.rollback("1")

    assert "first" == model_of(platform, channel)


def test_only_what_was_released_can_be_gone_back_to(channel: Channel, platform: Platform) -> None:
    channel.rule("first")
    channel.apply()

    with pytest.raises(Refused, match="has 0 earlier releases"):
        channel.rollback()
    with pytest.raises(Refused, match="was never released"):
        channel.rollback("poor")
    with pytest.raises(ReconcilerError, match="is not held"):
        channel.lift()
    with pytest.raises(ReconcilerError, match="no release is named"):
        Channel(channel.tree, "demo/nothing").hold()


def test_an_edited_release_is_drift_and_put_back_only_when_wanted(
    channel: Channel, platform: Platform
) -> None:
    channel.rule("first")
    channel.apply()
    whole = channel.file.read_text()
    channel.file.write_text(whole.replace("model: first", "model: other"))

    assert DRIFT == channel.apply()

    assert "model: other" in channel.file.read_text()
    channel.rule("first", on_drift="restore")
    assert PENDING == channel.plan()
    assert 0 == channel.apply()
    assert whole == channel.file.read_text()


def test_a_lost_release_file_is_written_again(channel: Channel, platform: Platform) -> None:
    channel.rule("first")
    channel.apply()
    whole = channel.file.read_text()
    channel.file.unlink()

    assert 0 == channel.apply()

    assert whole == channel.file.read_text()


def test_a_move_that_stopped_half_way_is_finished(
    channel: Channel, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel.rule("first")
    channel.apply()
    before = channel.file.read_text()
    channel.rule("second")
    put = WithReleases._put

    def stops(self: WithReleases, path: Any, text: str) -> None:
        if path == channel.file:
            raise KeyboardInterrupt
        put(self, path, text)

    with monkeypatch.context() as patched:
        patched.setattr(WithReleases, "_put", stops)
        with pytest.raises(KeyboardInterrupt):
            channel.apply()
    assert before == channel.file.read_text()
    assert "second" == model_of(platform, channel)

    assert 0 == channel.apply()

    assert channel.shown["model"] == alias(platform, channel)["model"]
    assert [channel.file] == [
        each for each in channel.file.parent.iterdir() if channel.file.name in each.name
    ]


def test_two_who_move_at_once_do_not_undo_each_other(channel: Channel, platform: Platform) -> None:
    channel.rule("first")
    channel.apply()
    seen = alias(platform, channel)
    channel.hold()

    body = {key: seen[key] for key in ("name", "model", "metadata", "release", "state")}
    with pytest.raises(ReconcilerError, match="was written meanwhile"):
        platform.create("reconciler/aliases", body | {"expected_revision": seen["revision"]}, key="late")

    assert alias(platform, channel)["state"]["hold"]["by"] == "ada"


def test_a_rollback_and_its_hold_survive_the_daemon_and_its_restart(
    channel: Channel, platform: Platform
) -> None:
    for name in ("first", "second"):
        channel.rule(name)
        channel.apply()
    with daemon(channel.tree) as passes:
        next(passes)
        channel.rollback()
        seen = [next(passes), next(passes)]
    assert "first" == model_of(platform, channel)

    with daemon(channel.tree) as passes:
        seen += [next(passes), next(passes)]

    assert "first" == model_of(platform, channel)
    assert "held by ada" in seen[-1]["blocked"]["PromotionRule/rule"]
    channel.lift()
    with daemon(channel.tree) as passes:
        assert "ada took second" in next(passes)["blocked"]["PromotionRule/rule"]
    assert "first" == model_of(platform, channel)


def test_latency_and_cost_are_gates_like_others(channel: Channel, platform: Platform) -> None:
    measured = [
        {"eval": "Eval/moods", "at_least": 0.8},
        {"metric": "p95_latency_ms", "at_most": 600_000},
        {"metric": "cost_per_1k_items", "at_most": 1.0},
    ]
    channel.rule("first", gates=measured, prices={"first": {"input": 1.0, "output": 2.0}})

    assert 0 == channel.apply()

    _, latency, cost = channel.shown["evidence"]
    assert latency["estimate"] > 0 and "order statistics" == latency["method"]
    assert 0 < cost["low"] <= cost["estimate"] <= cost["high"] < 1.0


def test_a_canary_goes_on_where_another_process_left_it(channel: Channel, platform: Platform) -> None:
    channel.rule("first")
    channel.apply()
    channel.rule("second", canary={"share": 0.25, "soak": "2s", "rerun": ["Eval/moods"]})

    assert IN_PROGRESS == commands.apply(channel.tree, "json", None, False, None)

    begun = alias(platform, channel)
    assert "first" == model_of(platform, channel)
    assert (0.25, "second") == (begun["canary"]["share"], begun["canary"]["model"].partition("@")[0])
    assert 0.25 == channel.shown["canary"]["share"]
    assert 0 == channel.apply()
    assert "second" == model_of(platform, channel)
    assert ["EvalRun/moods@Model/second+canary"] == [r["address"] for r in channel.shown["lineage"]["runs"]]
    assert alias(platform, channel)["canary"] is None


def test_a_canary_serves_the_same_users_every_time(channel: Channel, platform: OpenAI) -> None:
    for name in ("second", "first"):
        channel.rule(name)
        channel.apply()
    seen = alias(platform, channel)
    body = {key: seen[key] for key in ("name", "model", "metadata", "release", "state")}
    other = {"model": seen["history"][0]["model"], "share": 0.5}
    platform.create("reconciler/aliases", body | {"canary": other}, key="canary")

    def served(user: str | None) -> str:
        asked = {"model": channel.name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        return str(platform.ask("chat/completions", asked | ({"user": user} if user else {}))["model"])

    users = [f"user-{n}" for n in range(12)]
    first = [served(user) for user in users]
    assert {seen["model"], other["model"]} == set(first)
    assert first == [served(user) for user in users]
    assert {seen["model"]} == {served(None) for _ in range(3)}


@contextlib.contextmanager
def daemon(tree: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """A daemon over a tree, as the passes that it logs."""
    command = [sys.executable, "-m", "reconciler", "run", str(tree), "--interval", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    events = (json.loads(line) for line in process.stdout if line.startswith("{"))
    try:
        yield (event for event in events if event["event"] == "pass.done")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert 0 == process.returncode
