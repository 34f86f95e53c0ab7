"""A release's file shows its channel: an older picture is drawn anew, an edited one is drift."""

from pathlib import Path

import pytest
from core_base import Applier, Clock, action, why
from memory_platform import MemoryPlatform

from reconciler import release
from reconciler.platforms.releases import WithReleases
from reconciler.release import Channel, Word

RULE, CHANNEL = "PromotionRule/production", "demo/production"
WORD = Word("ann", "2026-11-20T10:00:00Z", "a holiday")


@pytest.fixture
def releasing(tree: Path, platform: MemoryPlatform, clock: Clock) -> Applier:
    """Somebody who applied all, so that the channel leads to the tuned model."""
    applier = Applier(tree, WithReleases(platform, tree / "releases", now=clock.now), clock)
    for _ in range(8):
        applier.passes(1)
        platform.finish_jobs()
        platform.finish_runs(lambda model, index: model.startswith("ft:"))
    return applier


def file_of(tree: Path) -> Path:
    return tree / "releases" / f"{CHANNEL}.yaml"


def moved(platform: MemoryPlatform, channel: Channel) -> None:
    """Somebody with another checkout changed the channel."""
    platform.create(release.COLLECTION, release.written(channel), key="x")


def test_a_checkout_that_shows_the_release_before_is_brought_up_to_date(
    releasing: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    standing = release.read(platform.list(release.COLLECTION)[0])
    moved(platform, release.held(standing, WORD))

    first = releasing.once()
    after = releasing.once()

    assert ("=", "=") == (action(first, RULE), action(after, RULE))
    assert "a holiday" in file_of(tree).read_text()


def test_an_edited_file_is_left_alone_and_reported(
    releasing: Applier, platform: MemoryPlatform, tree: Path
) -> None:
    path = file_of(tree)
    path.write_text(path.read_text().replace("model: ft:", "model: tf:"))
    before = path.read_text()

    done = releasing.once()

    assert "!" == action(done, RULE)
    assert "drift" in why(done, RULE)
    assert before == path.read_text()
