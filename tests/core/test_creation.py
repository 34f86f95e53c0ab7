"""What is paid for is paid for once, whatever a platform does with a request."""

import threading
from pathlib import Path

import pytest
from core_base import Applier, Clock, action, edit, why
from memory_platform import (
    EVERYTHING,
    PLAIN,
    MemoryPlatform,
    hides,
    loses_reply,
    loses_request,
    raises,
)

from reconciler import engine
from reconciler.creation import WINDOW, Deferred
from reconciler.errors import Busy, Rejected, Unclear, Unreachable
from reconciler.intent import Claim
from reconciler.kind import Ask
from reconciler.resource import Address

JOBS = "fine_tuning/jobs"
COLLECTIONS = ("files", JOBS, "reconciler/aliases")
TUNED = "FineTuneJob/tuned"


def finish(platform: MemoryPlatform) -> None:
    platform.finish_jobs()
    platform.finish_runs(lambda model, index: model.startswith("ft:"))


def to_the_end(applier: Applier) -> engine.Pass:
    """Passes, with everything that works finishing between them, until nothing can change."""
    for _ in range(60):
        done = applier.passes(1)
        if done.settled:
            return done
        applier.clock.sleep(10)
        finish(applier.platform)  # type: ignore[arg-type]
    raise AssertionError("it never settled")


def numbers(platform: MemoryPlatform) -> dict[str, int]:
    """How many objects there are of each kind."""
    runs = sum(len(found) for name, found in platform.objects.items() if name.endswith("/runs"))
    return {"files": len(platform.objects["files"]), "jobs": len(platform.objects[JOBS]),
            "evals": len(platform.objects["evals"]), "runs": runs,
            "releases": len(platform.objects["reconciler/aliases"])}  # fmt: skip


ONE_OF_EACH = {"files": 2, "jobs": 1, "evals": 1, "runs": 2, "releases": 1}


def test_an_apply_from_nothing_asks_once_for_everything(applier: Applier, platform: MemoryPlatform) -> None:
    done = to_the_end(applier)

    assert "=" == action(done, "PromotionRule/production")
    assert ONE_OF_EACH == numbers(platform)
    assert 7 == len(platform.asked)


@pytest.mark.parametrize("capabilities", [EVERYTHING, PLAIN], ids=["idempotent", "plain"])
@pytest.mark.parametrize("fault", [loses_reply, loses_request])
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_an_unclear_end_leaves_one_object(
    tree: Path, clock: Clock, capabilities: frozenset[str], fault: object, collection: str
) -> None:
    platform = MemoryPlatform(capabilities=capabilities)
    platform.faults = {collection: [fault]}  # type: ignore[list-item]
    applier = Applier(tree, platform, clock)

    to_the_end(applier)

    assert ONE_OF_EACH == numbers(platform)
    assert {} == applier.journal.open_intents("memory")


def test_an_unclear_end_is_not_asked_for_again_while_it_may_still_appear(tree: Path, clock: Clock) -> None:
    platform = MemoryPlatform(capabilities=PLAIN)
    platform.faults = {JOBS: [hides]}
    applier = Applier(tree, platform, clock)

    applier.passes(1)
    clock.at += WINDOW - 30
    waiting = applier.once()
    platform.hidden.clear()
    adopted = applier.once()

    assert why(waiting, TUNED).startswith("may exist already: asked for, no answer")
    assert "…" == action(adopted, TUNED)
    assert 1 == platform.count(JOBS)


def test_what_does_not_appear_within_the_window_is_asked_for_again(tree: Path, clock: Clock) -> None:
    platform = MemoryPlatform(capabilities=PLAIN)
    platform.faults = {JOBS: [loses_request]}
    applier = Applier(tree, platform, clock)

    applier.passes(1)
    clock.at += WINDOW + 1
    done = applier.once()

    assert "…" == action(done, TUNED)
    assert [2, 1] == [platform.count(JOBS), len(platform.objects[JOBS])]


def test_a_second_unclear_end_opens_a_window_of_its_own(tree: Path, clock: Clock) -> None:
    platform = MemoryPlatform(capabilities=PLAIN)
    platform.faults = {JOBS: [loses_request, hides]}
    applier = Applier(tree, platform, clock)

    applier.passes(1)
    clock.at += WINDOW + 1
    applier.once()
    clock.at += 10
    applier.once()
    platform.hidden.clear()
    applier.once()

    assert [2, 1] == [platform.count(JOBS), len(platform.objects[JOBS])]


def test_the_window_starts_when_the_answer_was_given_up(tree: Path, clock: Clock) -> None:
    platform = MemoryPlatform(capabilities=PLAIN)

    def slow(platform: MemoryPlatform, effect: object) -> object:
        clock.at += WINDOW + 1
        return hides(platform, effect)  # type: ignore[arg-type]

    platform.faults = {JOBS: [slow]}  # type: ignore[list-item]
    applier = Applier(tree, platform, clock)

    applier.once()
    applier.once()

    assert 1 == platform.count(JOBS)


def test_a_platform_that_knows_repeats_is_asked_again_soon(tree: Path, clock: Clock) -> None:
    platform = MemoryPlatform()
    platform.faults = {JOBS: [hides]}
    applier = Applier(tree, platform, clock)

    done = applier.passes(4)

    assert "…" == action(done, TUNED)
    assert [2, 1] == [platform.count(JOBS), len(platform.objects[JOBS])]


def test_a_platform_that_only_fails_is_asked_less_and_less_often(
    applier: Applier, platform: MemoryPlatform, clock: Clock
) -> None:
    platform.faults = {JOBS: [loses_request] * 1000}
    start = clock.at

    while clock.at < start + 600:
        applier.once()
        clock.at += 5

    assert 20 < platform.count(JOBS) < 30


def test_a_definite_refusal_ends_the_intent_and_says_why(applier: Applier, platform: MemoryPlatform) -> None:
    platform.faults = {JOBS: [raises(Rejected("memory refused it: the suffix is taken"))]}

    done = applier.once()

    assert {TUNED: "memory refused it: the suffix is taken"} == {str(a): w for a, w in done.failed.items()}
    assert "!" == action(done, TUNED)
    assert {} == applier.journal.open_intents("memory")


def test_a_busy_platform_is_left_alone_for_as_long_as_it_asks(
    applier: Applier, platform: MemoryPlatform, clock: Clock
) -> None:
    platform.faults = {JOBS: [raises(Busy("memory is busy", retry_after=20))]}
    start = clock.at

    while not platform.objects.get(JOBS):
        applier.passes(1)

    assert 2 == platform.count(JOBS)
    assert 20 <= clock.at - start < 30


def test_what_was_never_sent_is_sent_later(applier: Applier, platform: MemoryPlatform) -> None:
    platform.faults = {JOBS: [raises(Unreachable("connection refused"))]}

    to_the_end(applier)

    assert ONE_OF_EACH == numbers(platform)


@pytest.mark.parametrize("error", [Unreachable("down"), Busy("429"), Rejected("wrong key", status=401)])
def test_a_list_that_failed_never_becomes_a_create(
    applier: Applier, platform: MemoryPlatform, error: Exception
) -> None:
    to_the_end(applier)
    asked = len(platform.asked)
    platform.unseen = dict.fromkeys(["files", JOBS, "evals", "reconciler/aliases"], error)  # type: ignore[arg-type]

    done = applier.once()

    assert asked == len(platform.asked)
    assert not done.settled
    assert f"cannot be seen now: {error}" == why(done, TUNED)


def test_an_empty_list_does_not_make_anew_what_still_stands(
    applier: Applier, platform: MemoryPlatform
) -> None:
    to_the_end(applier)
    asked = len(platform.asked)
    platform.unseen = dict.fromkeys(["files", JOBS, "evals"], None)

    applier.once()

    assert asked == len(platform.asked)


def test_what_was_made_but_is_not_listed_yet_is_not_made_again(
    applier: Applier, platform: MemoryPlatform
) -> None:
    platform.hidden = {"ftjob-4"}

    applier.passes(3)

    assert [1, ["ftjob-4"]] == [platform.count(JOBS), [job["id"] for job in platform.objects[JOBS]]]


def test_what_is_gone_for_good_is_made_anew(applier: Applier, platform: MemoryPlatform) -> None:
    to_the_end(applier)
    platform.objects["files"].clear()

    applier.passes(2)

    assert 2 == len(platform.objects["files"])


def test_of_duplicates_the_oldest_is_kept_and_the_rest_is_cancelled(
    applier: Applier, platform: MemoryPlatform
) -> None:
    applier.once()
    [job] = platform.objects[JOBS]
    platform.objects[JOBS].append({**job, "id": "ftjob-twin", "created_at": job["created_at"] + 1})

    done = to_the_end(applier)

    assert "=" == action(done, "PromotionRule/production")
    assert [("ftjob-4", "succeeded"), ("ftjob-twin", "cancelled")] == [
        (job["id"], job["status"]) for job in platform.objects[JOBS]
    ]


@pytest.mark.parametrize("error", [Rejected("it has ended already"), Busy("429"), Unclear("reset")])
def test_a_duplicate_that_cannot_be_cancelled_stops_nothing(
    applier: Applier, platform: MemoryPlatform, error: Exception
) -> None:
    applier.once()
    [job] = platform.objects[JOBS]
    platform.objects[JOBS].append({**job, "id": "ftjob-twin", "created_at": job["created_at"] + 1})
    platform.faults = {f"{JOBS}/ftjob-twin/cancel": [raises(error)]}

    done = to_the_end(applier)

    assert "=" == action(done, "PromotionRule/production")


def test_one_who_looked_too_early_does_not_ask_for_what_another_made_meanwhile(
    tree: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = MemoryPlatform(capabilities=PLAIN)
    early, late = Applier(tree, platform, clock, "a:1:1"), Applier(tree, platform, clock, "b:1:1")
    looked = engine.look

    def look_then_be_overtaken(*args: object) -> engine.Sight:
        sight = looked(*args)  # type: ignore[arg-type]
        monkeypatch.undo()
        late.once()
        return sight

    monkeypatch.setattr(engine, "look", look_then_be_overtaken)
    early.once()

    assert [2, 1, 1] == [platform.count(each) for each in ("files", JOBS, "evals")]


def test_one_who_looked_while_another_was_about_to_ask_does_not_ask_too(tree: Path, clock: Clock) -> None:
    platform = MemoryPlatform(capabilities=PLAIN)
    early, other = Applier(tree, platform, clock, "a:1:1"), "b:1:1"
    job = early.desired[Address.parse("FineTuneJob/tuned")]
    journal = early.journal
    claim = journal.claim("memory", job.fingerprint, other, clock.now())
    assert isinstance(claim, Claim)
    tokens = journal.tokens("memory")  # and now it looks, and sees nothing
    intent = journal.open_intent(claim, job.address, clock.now())
    assert intent
    journal.close_intent(intent, "made", clock.now(), "ftjob-1")
    journal.release(claim)

    end = early.creator.make(job, Ask(JOBS, {}), None, tokens.get(job.fingerprint, 0))

    assert isinstance(end, Deferred)
    assert 0 == platform.count(JOBS)


def test_two_who_apply_at_once_make_one_of_each(tree: Path) -> None:
    platform = MemoryPlatform(capabilities=PLAIN)
    appliers = [Applier(tree, platform, Clock(), f"host-{n}:1:1") for n in range(2)]
    start = threading.Barrier(2)
    failures: list[BaseException] = []

    def apply(applier: Applier) -> None:
        start.wait()
        try:
            for _ in range(6):
                applier.passes(1)
                finish(platform)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=apply, args=(each,)) for each in appliers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == failures
    assert ONE_OF_EACH == numbers(platform)


def test_an_upload_of_a_file_that_changed_meanwhile_fails_alone(applier: Applier, tree: Path) -> None:
    desired = applier.desired
    (tree / "train.jsonl").unlink()

    done = engine.once(desired, applier.world, applier.creator, _Watcher())

    assert ["Dataset/train"] == [str(address) for address in done.failed]
    assert "=" == action(done, "Dataset/heldout")


def test_a_failed_job_is_not_asked_for_again_until_its_manifest_says_so(
    applier: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    applier.once()
    platform.objects[JOBS][0].update(status="failed", error={"message": "the loss diverged"})

    failed = applier.passes(3)
    edit(tree / "train.yaml", "  training_file:", "  attempt: 2\n  training_file:")
    again = applier.once()

    assert ["!", "job ftjob-4 failed: the loss diverged"] == [action(failed, TUNED), why(failed, TUNED)]
    assert ["…", 2] == [action(again, TUNED), platform.count(JOBS)]


class _Watcher:
    def uploading(self, *_: object) -> None: ...

    def made(self, *_: object) -> None: ...

    def waiting(self, *_: object) -> None: ...
