"""What a repository carries beside its manifests is not believed."""

import os
from pathlib import Path

import msgspec
import pytest
from core_base import write

from reconciler import project
from reconciler.errors import ManifestError


def test_a_cache_that_stands_for_no_file_is_not_believed(tmp_path: Path) -> None:
    """Somebody who forges one could have any file of this machine uploaded."""
    known = write(tmp_path / "known")
    (known / ".reconciler").mkdir()
    for path in known.iterdir():
        os.utime(path, (1, 1))  # old enough to be remembered
    project.load(known)
    cache = msgspec.msgpack.decode((known / ".reconciler" / "resolved.cache").read_bytes())
    forged = tmp_path / "forged"
    (forged / ".reconciler").mkdir(parents=True)
    cache["looked"] = [str(forged), *cache["looked"][1:2], [], []]
    (forged / ".reconciler" / "resolved.cache").write_bytes(msgspec.msgpack.encode(cache))

    with pytest.raises(ManifestError):
        project.load(forged)
