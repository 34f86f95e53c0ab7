"""
How a request for text becomes a question to a model, for evals, judges and chat alike.

Everything that samples goes through `Sampler.sample`: one list of asks is one batch,
so the same list gives the same answers on every run. Models of other servers are behind
this one function too. What is asked is worked out by pure functions beside it.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.selfhosted.context import Engine
from reconciler.selfhosted.engine.values import Answer, Ask, Embedding, EngineError, Text
from reconciler.selfhosted.registry import models
from reconciler.selfhosted.serving import canary
from reconciler.selfhosted.storage.store import Tx
from reconciler.selfhosted.upstream import upstreams, upstreamwire
from reconciler.selfhosted.upstream.upstreams import Upstream
from reconciler.selfhosted.wire import WireError

DEFAULT_MAX_TOKENS = 2048  # what OpenAI's eval items show when nothing was asked for
RESPONSE_FORMATS = ("text", "json_object", "json_schema")
MAX_TOOLS = 128


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a request: the parameter's path, and a sentence."""

    param: str
    message: str

    def __str__(self) -> str:
        return f"{self.param}: {self.message}"


@dataclass(frozen=True)
class Sampling:
    """How to sample. The defaults are those of OpenAI's eval runs."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = 42
    max_completion_tokens: int | None = None
    response_format: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Served:
    """A model by its concrete name, and the folder that holds it or the address of one elsewhere."""

    id: str
    path: str
    concurrency: int | None = None  # asks that may be in flight elsewhere; None: our own engine, in batches


def served(
    tx: Tx, project: str, name: str, listed: Sequence[Upstream] = (), user: str | None = None
) -> Served:
    """
    The model that a name or an alias means now, here or at an upstream. Raises a 404 when it means none.

    An alias may mean another one for this `user`: its canary.
    """
    name = canary.resolve(tx, project, name, user)
    try:
        found = models.resolve(tx, project, name)
    except WireError:
        elsewhere = models.elsewhere(tx, project, name, listed)
        if elsewhere is None:
            raise
        model, upstream = elsewhere
        return Served(model, upstreams.ADDRESS + model, upstream.concurrency)
    return Served(found.id, str(found.path))


class Sampler:
    """Asks models. Raises EngineError when the engine as a whole cannot answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def load(self, model: Served) -> None:
        """Make sure the model can be served."""
        await self._engine.load(model.path)

    async def sample(self, model: Served, asks: Sequence[Ask]) -> list[Answer | EngineError]:
        """Answers in the order of the asks; one list is one deterministic batch."""
        await self._engine.load(model.path)
        return await self._engine.generate(asks)

    async def embed(self, model: Served, texts: Sequence[Text]) -> list[Embedding]:
        """One vector of unit length per text."""
        return await self._engine.embed(model.path, texts)

    def stream(self, ask: Ask) -> AsyncIterator[str | Answer]:
        """Text as it comes, then the whole answer; shares batches with other streams."""
        return self._engine.stream(ask)


def ask_of(model: Served, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Ask:
    """Pure."""
    return Ask(
        model=model.path,
        messages=plain(messages),
        tools=sampling.tools,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        max_tokens=sampling.max_completion_tokens,
        response_format=sampling.response_format,
    )


def seed_of_item(seed: int, index: int) -> int:
    """A seed of its own for every item, the same on every run: 31 bits of SHA-256. Pure."""
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as chats know them: `developer` is `system`, parts are a chat's, nulls are left out. Pure."""
    return [
        {key: value for key, value in message.items() if value is not None and key != "type"}
        | ({"role": "system"} if message["role"] == "developer" else {})
        for message in map(upstreamwire.chat_message, messages)
    ]


def read_sampling(
    params: Mapping[str, Any], where: str = "sampling_params"
) -> tuple[Sampling, list[Problem]]:
    """Sampling params in either spelling of the token limit, and every problem with them. Pure."""
    problems: list[Problem] = []
    prefix = f"{where}." if where else ""

    def number(name: str, low: float, high: float, default: float) -> float:
        value = params.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            problems.append(
                Problem(prefix + name, f"must be a number from {low:g} to {high:g}, got {value!r}")
            )
            return default
        return float(value)

    def integer(name: str, low: int, default: int | None) -> int | None:
        value = params.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            problems.append(Problem(prefix + name, f"must be an integer of at least {low}, got {value!r}"))
            return default
        return value

    limit = None
    for spelling in ("max_tokens", "max_completions_tokens", "max_completion_tokens"):
        limit = integer(spelling, 1, limit)
    sampling = Sampling(
        temperature=number("temperature", 0, 2, 1.0),
        top_p=number("top_p", 0, 1, 1.0),
        seed=integer("seed", -(2**63), 42),
        max_completion_tokens=limit,
        response_format=_response_format(params.get("response_format"), prefix, problems),
        tools=_tools(params.get("tools"), prefix, problems),
    )
    return sampling, problems


def _response_format(asked: Any, prefix: str, problems: list[Problem]) -> Mapping[str, Any] | None:
    if asked is None:
        return None
    param = f"{prefix}response_format"
    if not isinstance(asked, Mapping) or asked.get("type") not in RESPONSE_FORMATS:
        problems.append(Problem(param, f"must be an object with a type of {', '.join(RESPONSE_FORMATS)}"))
        return None
    if asked["type"] == "json_schema":
        wrapper = asked.get("json_schema")
        if not isinstance(wrapper, Mapping) or not isinstance(wrapper.get("schema", {}), Mapping):
            problems.append(Problem(f"{param}.json_schema", "must be an object with a name and a schema"))
            return None
    return None if asked["type"] == "text" else asked


def _tools(asked: Any, prefix: str, problems: list[Problem]) -> Sequence[Mapping[str, Any]] | None:
    if not asked:
        return None
    param = f"{prefix}tools"
    if not isinstance(asked, list) or len(asked) > MAX_TOOLS:
        problems.append(Problem(param, f"must be a list of at most {MAX_TOOLS} functions"))
        return None
    for position, tool in enumerate(asked):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            problems.append(Problem(f"{param}[{position}]", "must be a function with a name"))
    return asked
