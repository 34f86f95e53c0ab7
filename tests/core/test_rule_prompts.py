"""A candidate may be a model with a prompt of its own: that pair is what is measured, released, held and taken back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from core_base import Applier, Clock, edit, why, write
from memory_platform import MemoryPlatform

from reconciler import project, release
from reconciler.engine import Pass
from reconciler.errors import ManifestError, Refused
from reconciler.platforms.releases import WithReleases
from reconciler.release import Channel, Word

WORD = Word("ada", "2026-11-24T00:00:00Z", "it is too kind")
RULE, ALIASES = "PromotionRule/production", "reconciler/aliases"
PROMPTS = """
---
apiVersion: reconciler/v1
kind: Prompt
metadata: {name: terse}
spec: {messages: [{role: user, content: "Terse: {{ question }}"}]}
---
apiVersion: reconciler/v1
kind: Prompt
metadata: {name: kind}
spec:
  messages: [{role: system, content: Be kind.}, {role: user, content: "Kind: {{ question }}"}]
  examples: [{user: hi, assistant: hello}]
  sampling_params: {temperature: 0.5}
"""
RULES = """\
apiVersion: reconciler/v1
kind: PromotionRule
metadata: {name: production}
spec:
  channel: demo/production
  candidates: [CANDIDATES]
  MORE
  gates:
    - {eval: Eval/right, at_least: 0.5}
"""
COMPARED = "baseline: incumbent"
TERSE, KIND_ = "{model: Model/base, prompt: Prompt/terse}", "{model: Model/base, prompt: kind}"


@pytest.fixture
def prompts(tree: Path) -> Path:
    write(tree, {"measure.yaml": (tree / "measure.yaml").read_text() + PROMPTS})
    return tree


def rule(tree: Path, candidates: str, more: str = "", gate: str = "") -> None:
    text = RULES.replace("CANDIDATES", candidates).replace("  MORE\n", f"  {more}\n" if more else "")
    write(tree, {"promote.yaml": text + gate})


def asked(run: dict[str, Any]) -> str:
    """How a run asks: the first word of its question, or nothing where it is the plain one."""
    return str(run["data_source"]["input_messages"]["template"][-1]["content"].partition(" ")[0])


def runs(platform: MemoryPlatform) -> list[dict[str, Any]]:
    return [
        each
        for collection, found in platform.objects.items()
        if collection.endswith("/runs")
        for each in found
    ]


def finished(
    applier: Applier, platform: MemoryPlatform, passed: Callable[[str], int] = lambda _: 200
) -> Pass:
    """Passes until nothing can change; `passed` says how many of 200 items pass when asked so."""
    for _ in range(20):
        done = applier.passes(1)
        if done.settled:
            return done
        platform.finish_jobs()
        for run in [each for each in runs(platform) if each["status"] == "in_progress"]:
            right = passed(asked(run))
            platform._complete(
                f"evals/{run['eval_id']}/runs", run, lambda _, at, right=right: at < right, 200
            )
    raise AssertionError("it never settled")


def alias(platform: MemoryPlatform) -> dict[str, Any]:
    [found] = platform.objects[ALIASES]
    return found


@pytest.fixture
def kept(platform: MemoryPlatform, prompts: Path, clock: Clock) -> WithReleases:
    """A platform without aliases: the file is the release, and remembers all earlier ones."""
    platform.capabilities = frozenset({"idempotency"})
    return WithReleases(platform, prompts / "releases", now=clock.now)


@pytest.fixture
def keeper(kept: WithReleases, prompts: Path, clock: Clock) -> Applier:
    return Applier(prompts, kept, clock)


def channel(kept: WithReleases) -> Channel:
    [found] = kept.list(ALIASES)
    return release.read(found)


def moved(kept: WithReleases, change: Callable[[Channel], Channel]) -> None:
    """Somebody moves the channel by hand."""
    kept.create(ALIASES, release.written(change(channel(kept))), key="by hand")


def test_candidates_that_differ_only_in_their_prompt_are_told_apart(
    applier: Applier, platform: MemoryPlatform, prompts: Path
) -> None:
    rule(prompts, f"{TERSE}, {KIND_}")

    finished(applier, platform, lambda word: 180 if word == "Kind:" else 20)

    assert {"right@Model/base+Prompt/terse", "right@Model/base+Prompt/kind"} == {
        run["name"] for run in runs(platform)
    }
    found = alias(platform)
    assert ("tiny-chat", "Model/base+Prompt/kind") == (found["model"], found["release"]["candidate"])
    prompt = found["release"]["prompt"]
    fingerprints = {str(a): w.fingerprint for a, w in project.load(prompts).desired.items()}
    assert ("Prompt/kind", fingerprints["Prompt/kind"]) == (prompt["address"], prompt["fingerprint"])
    assert fingerprints["Model/base"] == found["release"]["subject"]
    assert ["system", "user", "assistant", "user"] == [m["role"] for m in prompt["messages"]]
    assert {"temperature": 0.5} == prompt["sampling_params"]
    done = applier.once()
    assert f"demo/production → tiny-chat with Prompt/kind ({prompt['fingerprint'][:8]})" == why(done, RULE)


def test_a_changed_prompt_is_judged_anew(applier: Applier, platform: MemoryPlatform, prompts: Path) -> None:
    rule(prompts, TERSE)
    finished(applier, platform)
    first = alias(platform)["release"]["prompt"]["fingerprint"]
    edit(prompts / "measure.yaml", "Terse: {{", "Tersely: {{")

    finished(applier, platform, lambda word: 0 if word == "Tersely:" else 200)

    assert ["Terse:", "Tersely:"] == [asked(run) for run in runs(platform)]
    assert first == alias(platform)["release"]["prompt"]["fingerprint"]
    finished(applier, platform)


@pytest.mark.parametrize("gone", [False, True], ids=["declared", "only-in-the-release"])
def test_the_incumbent_is_measured_with_the_prompt_it_was_released_with(
    applier: Applier, platform: MemoryPlatform, prompts: Path, gone: bool
) -> None:
    rule(prompts, KIND_)
    finished(applier, platform)
    if gone:
        text = (prompts / "measure.yaml").read_text()
        write(
            prompts,
            {
                "measure.yaml": text[
                    : text.index("---\napiVersion: reconciler/v1\nkind: Prompt\nmetadata: {name: kind}")
                ]
            },
        )
    edit(prompts / "measure.yaml", "operation: eq", "operation: like")  # nothing measured holds any more
    rule(prompts, TERSE, COMPARED, "    - {eval: Eval/right, improves_by: 0.1}\n")

    finished(applier, platform, lambda word: 20 if word == "Kind:" else 180)

    of = {run["name"]: asked(run) for run in runs(platform)[1:]}
    incumbent = next(name for name in of if "terse" not in name)
    assert ("Terse:", "Kind:") == (of["right@Model/base+Prompt/terse"], of[incumbent])
    assert incumbent.startswith(
        "right@Model/base+Prompt/incumbent:" if gone else "right@Model/base+Prompt/kind"
    )
    [again] = [run for run in runs(platform) if run["name"] == incumbent][-1:]
    assert 0.5 == again["data_source"]["sampling_params"]["temperature"]
    assert "Model/base+Prompt/terse" == alias(platform)["release"]["candidate"]


def test_an_incumbents_measurement_is_found_though_nobody_declares_its_prompt(
    applier: Applier, platform: MemoryPlatform, prompts: Path
) -> None:
    rule(prompts, KIND_)
    finished(applier, platform)
    text = (prompts / "measure.yaml").read_text()
    write(
        prompts,
        {
            "measure.yaml": text[
                : text.index("---\napiVersion: reconciler/v1\nkind: Prompt\nmetadata: {name: kind}")
            ]
        },
    )
    rule(prompts, TERSE, COMPARED, "    - {eval: Eval/right, improves_by: 0.1}\n")

    finished(applier, platform)

    assert ["Kind:", "Terse:"] == [asked(run) for run in runs(platform)]


def test_an_incumbent_without_a_prompt_of_its_own_is_asked_as_the_eval_asks(
    applier: Applier, platform: MemoryPlatform, prompts: Path
) -> None:
    rule(prompts, "Model/base")
    finished(applier, platform, lambda _: 130)
    rule(prompts, TERSE, COMPARED, "    - {eval: Eval/right, improves_by: 0.1}\n")

    finished(applier, platform, lambda word: 200 if word == "Terse:" else 20)

    assert ["right@Model/base", "right@Model/base+Prompt/terse"] == [run["name"] for run in runs(platform)]
    edit(prompts / "measure.yaml", "operation: eq", "operation: like")
    rule(prompts, KIND_, COMPARED, "    - {eval: Eval/right, improves_by: 0.1}\n")
    finished(applier, platform)
    assert ["Terse:", "Kind:"] == sorted((asked(run) for run in runs(platform)[2:]), reverse=True)


def test_a_prompt_that_was_taken_back_does_not_take_its_model_along(
    keeper: Applier, platform: MemoryPlatform, kept: WithReleases, prompts: Path
) -> None:
    for candidate in (TERSE, KIND_):
        rule(prompts, candidate)
        finished(keeper, platform)
    terse, kind = (entry.what for entry in channel(kept).history)
    assert terse.model == kind.model and terse != kind

    moved(kept, lambda found: release.rolled_back(found, release.target(found, None), WORD))
    moved(kept, release.lifted)
    done = finished(keeper, platform)

    assert terse == channel(kept).what
    assert [kind] == [gone.what for gone in channel(kept).revoked]
    assert "Model/base+Prompt/kind passes 1 gates, but ada took tiny-chat with Prompt/kind" in why(done, RULE)
    rule(prompts, "Model/base")
    finished(keeper, platform)
    assert ("tiny-chat", None) == channel(kept).what
    assert [terse] == [entry.what for entry in channel(kept).earlier()]


def test_a_rollback_names_what_it_goes_back_to_by_model_and_prompt(
    keeper: Applier, platform: MemoryPlatform, kept: WithReleases, prompts: Path
) -> None:
    for candidate in (TERSE, KIND_):
        rule(prompts, candidate)
        finished(keeper, platform)
    terse = channel(kept).history[0].what

    assert terse == release.target(channel(kept), "Model/base+Prompt/terse").what
    assert terse == release.target(channel(kept), "tiny-chat").what
    with pytest.raises(Refused, match="is on Model/base\\+Prompt/kind already"):
        release.target(channel(kept), "Model/base+Prompt/kind")


def test_a_release_file_holds_every_prompt_that_was_released(
    keeper: Applier, platform: MemoryPlatform, kept: WithReleases, prompts: Path
) -> None:
    for candidate in (TERSE, KIND_, "Model/base"):
        rule(prompts, candidate)
        finished(keeper, platform)

    shown = yaml.safe_load((prompts / "releases" / "demo" / "production.yaml").read_text())["spec"]

    assert ["Prompt/terse", "Prompt/kind", None] == [
        e.get("prompt", {}).get("address") for e in shown["history"]
    ]
    assert "Terse: {{ item.question }}" == shown["history"][0]["prompt"]["messages"][0]["content"]


def test_the_same_model_with_another_prompt_needs_an_approval_of_its_own(
    keeper: Applier, platform: MemoryPlatform, kept: WithReleases, prompts: Path
) -> None:
    rule(prompts, TERSE)
    finished(keeper, platform)
    rule(prompts, KIND_, "approval: manual")

    done = finished(keeper, platform)

    assert "Model/base+Prompt/kind passes 1 gates, waits for approval" in why(done, RULE)
    assert "Model/base+Prompt/terse" == channel(kept).release["candidate"]


def test_a_new_prompt_for_the_same_model_has_no_canary_for_nothing_would_be_split(
    keeper: Applier, platform: MemoryPlatform, kept: WithReleases, prompts: Path
) -> None:
    rule(prompts, TERSE)
    finished(keeper, platform)
    rule(prompts, KIND_, "canary: {share: 0.5, soak: 1h}")

    finished(keeper, platform)

    assert "Model/base+Prompt/kind" == channel(kept).release["candidate"]
    assert "only its prompt is new" in channel(kept).release["moved"]["reason"]


def test_a_canary_with_a_prompt_of_its_own_is_measured_again_with_it(
    keeper: Applier, platform: MemoryPlatform, kept: WithReleases, prompts: Path
) -> None:
    rule(prompts, TERSE)
    finished(keeper, platform)
    rule(prompts, "{model: FineTuneJob/tuned, prompt: Prompt/kind}", "canary: {share: 0.5, soak: 1s}")

    finished(keeper, platform)

    again = [run for run in runs(platform) if run["name"].endswith("+canary")]
    assert ["Kind:"] == [asked(run) for run in again]
    assert channel(kept).what.model.startswith("ft:") and channel(kept).what.prompt


def test_what_a_candidate_is_asked_with_has_to_exist(prompts: Path) -> None:
    rule(prompts, "{model: Model/base, prompt: Prompt/tarse}")

    with pytest.raises(ManifestError) as refused:
        project.load(prompts)

    assert ["there is no Prompt/tarse; did you mean Prompt/terse?"] == [
        p.what for p in refused.value.problems
    ]


def test_a_pair_needs_both(prompts: Path) -> None:
    rule(prompts, "{model: Model/base}")

    with pytest.raises(ManifestError) as refused:
        project.load(prompts)

    assert ["candidates[0].prompt: is required"] == [p.what for p in refused.value.problems]


def test_a_prompt_whose_fields_an_eval_does_not_have_is_told(prompts: Path) -> None:
    edit(prompts / "measure.yaml", "Terse: {{ question }}", "Terse: {{ ticket }}")
    rule(prompts, TERSE)

    with pytest.raises(ManifestError) as refused:
        project.load(prompts)

    [told] = refused.value.problems
    assert "Prompt/terse uses {{ ticket }}, which the items of Eval/right do not have" in told.what
