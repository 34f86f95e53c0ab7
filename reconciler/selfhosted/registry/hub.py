"""
Base models from the Hugging Face hub: one repository at one commit, safetensors only, never its code.
"""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.selfhosted import wire

PATIENCE = 10.0  # seconds to wait for the hub to answer at all
WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def fetch(repository: str, revision: str, folder: Path) -> Path:
    """The folder with the repository's files, downloaded if need be; 400 when it cannot be had."""
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise wire.bad(
            "revision must be a full commit hash of 40 hex digits; a branch moves", "source.revision"
        )
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise wire.bad(f"{repository[:100]!r} is no hub repository; write it as org/name", "source.hub")
    # Imported late: the hub's client and its transport are only needed here and would slow the server's start.
    import httpx2
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    target = folder / repository.replace("/", "--") / revision
    try:
        HfApi().model_info(repository, revision=revision, timeout=PATIENCE)  # a download would retry for long
        snapshot_download(repository, revision=revision, local_dir=target, allow_patterns=WANTED)
    except HfHubHTTPError as error:
        code = error.response.status_code
        raise wire.bad(
            f"the hub answered {code} for {repository} at {revision[:12]}", "source.hub"
        ) from error
    except (httpx2.HTTPError, LocalEntryNotFoundError) as error:
        raise wire.bad(
            f"the hub cannot be reached for {repository}; check the network", "source.hub"
        ) from error
    return target
