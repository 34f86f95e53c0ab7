"""The one `Project` of a tree: its name, which every stamp carries, and where its platforms are."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reconciler.errors import ManifestError, Problem
from reconciler.kind import Action, Decision, Kind, Needs, Seen
from reconciler.prices import Book, Price
from reconciler.resource import COSMETIC, ResourceSpec, Spec, Wanted, seconds
from reconciler.variables import NAME


class Embedded(Spec):
    """The platform that ships with the package, started when needed."""

    type: Literal["embedded"]
    data: str = Field("platform", description="folder for its store, relative to the project's data folder")


class OpenAI(Spec):
    """Anything that speaks OpenAI's contract: OpenAI itself, a shared `reconciler platform serve`, a gateway."""

    type: Literal["openai"]
    base_url: str = Field("https://api.openai.com/v1", description="including /v1")
    api_key_env: str = Field("OPENAI_API_KEY", description="the environment variable that holds the key")
    requests_per_minute: Annotated[float | None, COSMETIC] = Field(
        None, gt=0, description="what a daemon asks of it at most; as fast as it answers if unset"
    )


class ModelPrice(Spec):
    """USD per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(None, ge=0, description="of input that was read before; as input if unset")
    training: float | None = Field(None, ge=0, description="of trained tokens")
    training_hour: float | None = Field(
        None, ge=0, description="USD per hour of training, where it is sold so"
    )


class Prices(Spec):
    """What things cost here; what is not said is as in the package's table, `prices.yaml`."""

    gpu_hour: float | None = Field(
        None, ge=0, description="USD per hour of your own hardware; 0 says that it costs nothing"
    )
    models: dict[str, ModelPrice] = Field(
        default_factory=dict, description="by the beginning of a model's name; the longest that fits counts"
    )

    def book(self) -> Book:
        return Book({name: Price(**each.model_dump()) for name, each in self.models.items()}, self.gpu_hour)


class JournalSpec(Spec):
    """A journal that a team shares, so that laptops, CI and daemons never do the same work twice."""

    url_env: str = Field(
        description="the environment variable that holds the database's URL: postgresql://user:password@host/name"
    )


class BudgetSpec(Spec):
    """What may be spent: nothing is made that could cost more than is left."""

    usd: float | None = Field(None, ge=0)
    hours: float | None = Field(None, ge=0, description="of training and measuring, on any platform")
    per: Literal["month", "total"] = Field("month", description="a month is a calendar month in UTC")
    labels: dict[str, str] = Field(
        default_factory=dict, description="only for resources with all of these labels"
    )
    unknown: Literal["refuse", "allow"] = Field(
        "refuse", description="what to do with something whose cost nobody knows beforehand"
    )

    @model_validator(mode="after")
    def _limits_something(self) -> "BudgetSpec":
        if self.usd is None and self.hours is None:
            raise ValueError("a budget limits usd or hours, or both")
        return self


class VariableSpec(Spec):
    """What differs from one environment to the next: `${NAME}` in a manifest stands for its value."""

    default: str | int | float | bool | None = Field(
        None, description="its value where nobody gives one, and so its type; without it one has to be given"
    )
    description: str = ""


VariableName = Annotated[str, Field(pattern=f"^{NAME}$")]


class PolicySpec(Spec):
    """A rule that has to hold for everything that is done."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")
    rule: str = Field(
        min_length=1,
        max_length=1000,
        description="CEL that yields true or false; it knows resource, action, estimate, plan and now",
    )
    message: str = Field(min_length=1, max_length=300, description="what to say where it does not hold")


Place = Annotated[Embedded | OpenAI, Field(discriminator="type")]


class ProjectSpec(ResourceSpec):
    platforms: dict[str, Place] = Field(
        default={"local": Embedded(type="embedded")}, description="the worlds, by name"
    )
    platform: str = Field("local", description="the platform to apply to unless --platform names another")
    prices: Annotated[Prices, COSMETIC] = Field(Prices(), description="what things cost here")
    budgets: Annotated[list[BudgetSpec], COSMETIC] = Field(
        default_factory=list, description="what may be spent; all of them hold"
    )
    journal: JournalSpec | None = Field(
        None,
        description="where intents, claims and history are kept; a SQLite file in the data folder if unset",
    )
    policies: Annotated[list[PolicySpec], COSMETIC] = Field(
        default_factory=list, max_length=50, description="what has to hold for everything that is done"
    )
    show_rows: Annotated[bool, COSMETIC] = Field(
        False,
        description="whether the comment of a pull request may show rows of datasets, not only their shape",
    )
    publish: Annotated[Literal["none", "push", "pull_request"], COSMETIC] = Field(
        "none",
        description="how a daemon puts releases into git: it pushes to the branch, or keeps a pull request",
    )
    prune: Annotated[bool, COSMETIC] = Field(
        False, description="delete what no manifest wants any more and nothing needs"
    )
    prune_after: Annotated[str, COSMETIC] = Field(
        "7d", pattern=r"^[0-9]{1,6}(s|m|h|d)$", description="how long what nobody wants stays before that; "
        "long enough for a pull request that built it to be merged",
    )  # fmt: skip
    variables: Annotated[dict[VariableName, VariableSpec], COSMETIC] = Field(
        default_factory=dict, description="by name; given by --set NAME=VALUE or RECONCILER_VAR_NAME"
    )
    description: Annotated[str, COSMETIC] = ""

    @model_validator(mode="after")
    def _told_apart(self) -> "ProjectSpec":
        names = [policy.name for policy in self.policies]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two policies are named {twice}; rename one")
        return self

    @property
    def prune_seconds(self) -> int:
        return seconds(self.prune_after)

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

    def read(
        self, spec: ProjectSpec, root: Path, folder: Path, where: Callable[..., str]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Every policy has to be a rule that can be judged."""
        if not spec.policies:
            return {}, {}
        from reconciler import celprocess

        places = [where("policies", index, "rule") for index in range(len(spec.policies))]
        wrong = celprocess.shared().check([policy.rule for policy in spec.policies])
        told = zip(places, spec.policies, wrong, strict=True)
        if problems := [Problem(at, f"policy {policy.name}: {what}") for at, policy, what in told if what]:
            raise ManifestError(problems)
        return {}, {"policies": places}

    def decide(self, wanted: Wanted, seen: Seen, needs: Needs, evidence: object = None) -> Decision:
        return Decision(Action.KEEP)


KIND = ProjectKind()
