"""
A base model that exists: adopted, never made.

On the embedded platform it is packaged, or a folder or hub revision that is registered there under a
name that carries the digest of its weights; elsewhere a snapshot name that the platform must know.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from reconciler.errors import ManifestError, Problem
from reconciler.kind import Action, Ask, Decision, Kind, Needs, Observed, Seen, Stamp, State
from reconciler.resource import COSMETIC, ResourceSpec, Wanted
from reconciler.world import Object, Platform

WEIGHTS = ("*.safetensors", "*.json", "*.jinja", "*.model")


class ModelSpec(ResourceSpec):
    id: str = Field(min_length=1, description="the name the platform knows it by")
    folder: Annotated[str | None, COSMETIC] = Field(
        None, description="a folder with safetensors weights, relative to this manifest; its bytes count"
    )
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$", description="a Hugging Face id")
    revision: str | None = Field(None, description="the commit of the hub id; required with hub")
    description: Annotated[str, COSMETIC] = ""

    @model_validator(mode="after")
    def _one_source(self) -> "ModelSpec":
        if self.folder and self.hub:
            raise ValueError("a model comes from a folder or from a hub, not from both")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision go together: a hub id without its commit may change under you")
        return self


class ModelKind(Kind):
    """A base model the platform can tune and serve."""

    name = "Model"
    Spec = ModelSpec
    noun = "model"
    collection = "models"

    def read(
        self, spec: ModelSpec, root: Path, folder: Path, where: Callable[[str], str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if not spec.folder:
            return {}, {"wire_id": spec.id if not spec.hub else f"{spec.id}@{(spec.revision or '')[:12]}"}
        path = (folder / spec.folder).resolve()
        files = sorted({file for pattern in WEIGHTS for file in path.glob(pattern)})
        if not any(file.suffix == ".safetensors" for file in files):
            raise ManifestError(
                [Problem(where("folder"), f"{spec.folder} has no *.safetensors weights; name a model folder")]
            )
        total = hashlib.sha256()
        for file in files:
            with file.open("rb") as opened:
                total.update(f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
        return {"weights": total.hexdigest()}, {
            "path": str(path),
            "inputs": [str(path), *map(str, files)],
            "wire_id": f"{spec.id}@{total.hexdigest()[:12]}",
        }

    def look(self, platform: Platform, project: str, parents: Iterable[Observed] = ()) -> list[Observed]:
        return [self.observe(model) for model in platform.list("models")]

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: Any = None) -> Decision:
        name = wanted.facts["wire_id"]
        if name in seen.unstamped:
            return Decision(Action.KEEP, "", seen.unstamped[name])
        if wanted.body.get("folder") or wanted.body.get("hub"):
            return Decision(Action.CREATE, "registered where it lies")
        known = [id for id in seen.unstamped if not id.startswith("ft:")]
        return Decision(
            Action.BLOCK, f"the platform has no model named {name}; it has {', '.join(known[:8]) or 'none'}"
        )

    def ask(self, wanted: Wanted, needs: Needs, stamp: Stamp, decision: Decision) -> Ask:
        spec: ModelSpec = self.spec(wanted)
        source = (
            {"hub": spec.hub, "revision": spec.revision} if spec.hub else {"folder": wanted.facts["path"]}
        )
        return Ask("reconciler/models", {"id": wanted.facts["wire_id"], "source": source})

    def removal(self, observed: Observed) -> None:
        """A base model is everybody's."""

    def observe(self, made: Object) -> Observed:
        return Observed(made["id"], None, State.READY, made, made.get("created") or 0)


KIND = ModelKind()
