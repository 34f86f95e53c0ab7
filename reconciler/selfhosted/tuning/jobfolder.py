"""
A job's folder: what we write for the trainer, and what it writes for us.

`job.json` goes in; `events.jsonl` and `checkpoints.jsonl` grow; `result.json` appears last. A line that a
killed trainer left half-written is skipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec

from reconciler.selfhosted.storage.blobs import Blobs, sync_folder
from reconciler.selfhosted.storage.store import Row
from reconciler.selfhosted.upstream import upstreams
from reconciler.selfhosted.upstream.upstreams import Upstream

PAUSING = "pausing"  # there while a trainer that is told to stop should leave a usable model
AT_ONCE = 4 << 20  # bytes of a growing file that are read in one look


@dataclass(frozen=True)
class News:
    """Whole lines that came since the last look, and where the next look begins."""

    events: list[dict[str, Any]]
    checkpoints: list[dict[str, Any]]
    events_end: int
    checkpoints_end: int

    def __bool__(self) -> bool:
        return bool(self.events or self.checkpoints)

    def job_changes(self, status: str, now: float) -> dict[str, Any]:
        """What the news changes in the job object. Pure."""
        changes: dict[str, Any] = {}
        if status == "paused":  # the last steps of a trainer that was told to stop
            return changes
        if any(event.get("type") == "metrics" or event["key"] == "started" for event in self.events):
            changes["status"] = "running"
        elif status == "validating_files" and any(event["key"] == "validated" for event in self.events):
            changes["status"] = "queued"
        left = [
            event.get("at", now) + data["eta_s"]
            for event in self.events
            if (data := event.get("data")) and data.get("eta_s") is not None
        ]
        if left:
            changes["estimated_finish"] = round(left[-1])
        return changes


class JobFolder:
    """The folder of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(
        self,
        row: Row,
        blobs: Blobs,
        *,
        unsafe_graders: bool = False,
        listed: Sequence[Upstream] = (),
        processes: int | None = None,
    ) -> None:
        """Write down what is to be trained; the same for the same job, however often."""
        job = row.wire()
        validation = job["validation_file"]
        wanted = {
            "id": row.id,
            "model": {"path": row.hidden()["path"]},
            "training_file": str(blobs.path(job["training_file"])),
            "validation_file": str(blobs.path(validation)) if validation else None,
            "method": job["method"],
            "seed": job["seed"],
            "tuning": job["reconciler"]["tuning"],
            "threads": None,
            "processes": processes or "auto",
            "judges": {
                name: self._judge(place, listed) for name, place in row.hidden().get("judges", {}).items()
            },
            "unsafe_graders": unsafe_graders,
        }
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / PAUSING).unlink(missing_ok=True)
        temporary = self.path / "job.json.new"
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(wanted))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path / "job.json")
        sync_folder(self.path)

    def _judge(self, place: str, listed: Sequence[Upstream]) -> Any:
        """A judge's folder, or how it is asked elsewhere; never the key to it."""
        name = place.removeprefix(upstreams.ADDRESS)
        upstream = upstreams.route(listed, name) if name != place else None
        if upstream is None:
            return place
        return {
            "base_url": upstream.base_url,
            "model": upstream.model or name,
            "api_key_env": upstream.api_key_env,
            "concurrency": upstream.concurrency,
            "cache": str(self.path / "judged.db"),
        }

    def pause(self) -> None:
        """Have the trainer leave a usable model when it stops."""
        (self.path / PAUSING).touch()

    def result(self) -> dict[str, Any] | None:
        """How the training ended, or None while it has not."""
        try:
            return cast(dict[str, Any], msgspec.json.decode((self.path / "result.json").read_bytes()))
        except FileNotFoundError:
            return None

    def news(self, events_from: int, checkpoints_from: int) -> News:
        """The lines after these byte offsets."""
        events, events_end = _lines(self.path / "events.jsonl", events_from)
        checkpoints, checkpoints_end = _lines(self.path / "checkpoints.jsonl", checkpoints_from)
        events = [line for line in events if isinstance(line.get("key"), str) and "message" in line]
        checkpoints = [line for line in checkpoints if "step_number" in line and "path" in line]
        return News(events, checkpoints, events_end, checkpoints_end)

    def missing_models(self) -> frozenset[str]:
        """Folders of checkpoints that were reported once and are gone now."""
        lines, _ = _lines(self.path / "checkpoints.jsonl", 0)
        folders = [self.path / line["path"] for line in lines if "path" in line]
        return frozenset(str(folder) for folder in folders if not folder.is_dir())

    def progress(self) -> str:
        """Changes when the trainer got further: the keys it reported and the checkpoints it keeps."""
        events, _ = _lines(self.path / "events.jsonl", 0, whole=True)
        keys = {line.get("key") for line in events}
        kept = sorted(entry.name for entry in _listed(self.path / "checkpoints"))
        return f"{len(keys)} {kept}"

    def last_exception(self) -> str | None:
        """The type of the exception that ended the trainer, never its text: that may hold a training row."""
        try:
            with (self.path / "trainer.log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 65_536))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return None
        for line in reversed(lines):
            named = re.match(r"(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt|Exit))(?::|$)", line)
            if named:
                return named[1]
        return None


def _lines(path: Path, start: int, *, whole: bool = False) -> tuple[list[dict[str, Any]], int]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read() if whole else file.read(AT_ONCE)
    except FileNotFoundError:
        return [], start
    complete = content[: content.rfind(b"\n") + 1]
    found = []
    for line in complete.splitlines():
        try:
            value = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found, start + len(complete)


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
