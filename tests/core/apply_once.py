"""
Applies a tree to a platform from a process of its own, pass by pass, until it is settled.

`python apply_once.py ROOT URL [COLLECTION]`: with a collection, the process is gone the moment a create
there was answered, before anybody could write that down.
"""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from core_base import Applier, Clock

from reconciler.holder import me
from reconciler.platforms.openai import OpenAI
from reconciler.platforms.releases import WithReleases
from reconciler.world import Object


class Dying(OpenAI):
    """Takes this process with it."""

    at: str | None = None

    def create(self, collection: str, body: Mapping[str, Any], *, key: str) -> Object:
        made = super().create(collection, body, key=key)
        if self.at and collection.endswith(self.at):
            os._exit(9)
        return made


def main(root: Path, url: str, at: str | None = None) -> None:
    platform = Dying(url, name="memory")
    platform.at = at
    applier = Applier(root, WithReleases(platform, root / "releases"), Clock(), me())
    print("ready", flush=True)
    sys.stdin.readline()
    while not applier.once().settled:
        applier.clock.at += 1
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
