"""Which commit a folder is at. Where there is no git, or no repository, nobody knows, and nothing fails."""

import subprocess
from pathlib import Path

PATIENCE = 10.0  # seconds


def commit(folder: Path) -> str | None:
    """The commit's hash, with `+changes` behind it when the folder differs from it; None outside of git."""
    head = _said(folder, "rev-parse", "HEAD")
    if head is None:
        return None
    changed = _said(folder, "status", "--porcelain", "--", ".", ":(exclude)releases")
    return f"{head}+changes" if changed else head


def _said(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
