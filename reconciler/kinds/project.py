"""The one `Project` of a tree: its name, which every stamp carries, and where its platforms are."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from reconciler.kind import Action, Decision, Kind, Needs, Seen
from reconciler.resource import COSMETIC, ResourceSpec, Spec, Wanted


class Embedded(Spec):
    """The platform that ships with the package, started when needed."""

    type: Literal["embedded"]
    data: str = Field("platform", description="folder for its store, relative to the project's data folder")


class OpenAI(Spec):
    """Anything that speaks OpenAI's contract: OpenAI itself, a shared `reconciler platform serve`, a gateway."""

    type: Literal["openai"]
    base_url: str = Field("https://api.openai.com/v1", description="including /v1")
    api_key_env: str = Field("OPENAI_API_KEY", description="the environment variable that holds the key")


Place = Annotated[Embedded | OpenAI, Field(discriminator="type")]


class ProjectSpec(ResourceSpec):
    platforms: dict[str, Place] = Field(
        default={"local": Embedded(type="embedded")}, description="the worlds, by name"
    )
    platform: str = Field("local", description="the platform to apply to unless --platform names another")
    description: Annotated[str, COSMETIC] = ""

    @model_validator(mode="after")
    def _known(self) -> "ProjectSpec":
        if self.platform not in self.platforms:
            raise ValueError(
                f"platform {self.platform} is not among the platforms: {', '.join(self.platforms)}"
            )
        return self


class ProjectKind(Kind):
    """Nothing stands on a platform for it."""

    name = "Project"
    Spec = ProjectSpec

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: object = None) -> Decision:
        return Decision(Action.KEEP)


KIND = ProjectKind()
