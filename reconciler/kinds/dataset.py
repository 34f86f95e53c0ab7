"""
Rows in a file: validated whole before anything is sent, uploaded once per content.

A file on the platform has no metadata, so its name carries the stamp.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from reconciler import loader
from reconciler.errors import ManifestError, Problem
from reconciler.kind import Ask, Decision, Kind, Needs, Observed, Seen, Stamp, State
from reconciler.resource import COSMETIC, ResourceSpec, Wanted
from reconciler.world import Object, Platform, Upload

Format = Literal["chat", "vision", "preference", "reinforcement", "items"]
STAMPED = re.compile(
    r"(?P<name>[^@]+)@(?P<project>[^@]+)\.(?P<fingerprint>[0-9a-f]{64})(?P<protect>\.protected)?\.jsonl"
)


class DatasetSpec(ResourceSpec):
    file: Annotated[str, COSMETIC] = Field(
        min_length=1, description="JSON Lines, relative to this manifest; its bytes count, not its name"
    )
    format: Format = Field(description="the row format, as OpenAI's files have it")
    description: Annotated[str, COSMETIC] = ""


class DatasetKind(Kind):
    """A file, uploaded once per content."""

    name = "Dataset"
    Spec = DatasetSpec
    noun = "file"
    collection = "files"

    def read(
        self, spec: DatasetSpec, root: Path, folder: Path, where: Callable[[str], str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        from reconciler import rows

        try:
            path = loader.inside(root, folder, spec.file)
        except ValueError as error:
            raise ManifestError([Problem(where("file"), f"file: {error}")]) from None
        scan = rows.scan(path, spec.format)
        if scan.problems:
            about = f"file: {spec.file}"  # said of the whole file: told where the manifest names it
            raise ManifestError(
                Problem(where("file"), f"{about}: {p.what}") if p.where == str(path) else p
                for p in scan.report()
            )
        stat = path.stat()
        return {"sha256": scan.sha256}, {
            "rows": scan.rows,
            "bytes": scan.bytes,
            "path": str(path),
            "inputs": [str(path)],
            "mtime_ns": stat.st_mtime_ns,
            "row_digests": scan.row_digests,
        }

    def look(self, platform: Platform, project: str, parents: Iterable[Observed] = ()) -> list[Observed]:
        return [self.observe(file) for file in platform.list("files")]

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: Any = None) -> Decision:
        hits = seen.by_fingerprint.get(wanted.fingerprint, [])
        whole = [hit for hit in hits if hit.body.get("bytes") == wanted.facts["bytes"]]
        return super().decide(wanted, Seen({wanted.fingerprint: whole}), needs)

    def ask(self, wanted: Wanted, needs: Needs, stamp: Stamp, decision: Decision) -> Ask:
        protected = ".protected" if stamp.protect else ""
        filename = f"{wanted.address.name}@{stamp.project}.{stamp.fingerprint}{protected}.jsonl"
        purpose = "evals" if wanted.body["format"] == "items" else "fine-tune"
        return Ask("files", {"purpose": purpose, "file": Upload(Path(wanted.facts["path"]), filename)})

    def observe(self, made: Object) -> Observed:
        named = STAMPED.fullmatch(made.get("filename") or "")
        return Observed(
            id=made["id"],
            stamp=Stamp(
                named["project"], f"Dataset/{named['name']}", named["fingerprint"], bool(named["protect"])
            )
            if named
            else None,
            state=State.FAILED if made.get("status") == "error" else State.READY,
            body=made,
            created_at=made.get("created_at") or 0,
            note=made.get("status_details") or "",
        )


KIND = DatasetKind()
