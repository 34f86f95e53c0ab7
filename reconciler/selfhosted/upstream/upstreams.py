"""
Models that are served elsewhere: the names they have here, where they are, and by whose key they are asked.

An upstream is any OpenAI-compatible base URL; the operator lists them in a file, and the first whose pattern
fits a name is asked. A model of our own always comes before a pattern. A name that begins with `ft:` fits
only a pattern that begins so too, for nobody may answer in place of a tuned model that was deleted here.
Keys come from the environment and are in no message, log or representation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

ADDRESS = "upstream:"  # begins the model of an Ask where our own have the path of a folder
TUNED = "ft:"


@dataclass(frozen=True)
class Upstream:
    """Where the models are whose names fit a pattern (`*`, `?` and `[...]`, case matters)."""

    pattern: str
    base_url: str  # up to and without `/chat/completions`
    api_key_env: str | None = None
    key: str | None = field(default=None, repr=False)
    model: str | None = None  # what the model is called there; None: the same as here
    concurrency: int = 256  # requests in flight at most

    def fits(self, name: str) -> bool:
        tuned = name.startswith(TUNED) and not self.pattern.startswith(TUNED)
        return not tuned and fnmatchcase(name, self.pattern)


class Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One upstream as it is written in the file."""

    pattern: str
    base_url: str
    api_key_env: str | None = None
    model: str | None = None
    concurrency: int = 256


def route(upstreams: Sequence[Upstream], name: str) -> Upstream | None:
    """The first upstream whose pattern fits. Pure."""
    return next((upstream for upstream in upstreams if upstream.fits(name)), None)


def read(path: Path, environ: Mapping[str, str]) -> tuple[Upstream, ...]:
    """The upstreams that a YAML or JSON file lists. Raises ValueError with every problem, a line each."""
    import yaml  # only for servers that have upstreams

    try:
        written = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise ValueError(f"{path}:{line}: is no valid YAML") from error
    if not isinstance(written, list):
        raise ValueError(f"{path}: must be a list of upstreams, each with a pattern and a base_url")
    made: list[Upstream] = []
    problems: list[str] = []
    for number, each in enumerate(written, 1):
        try:
            upstream = _upstream(msgspec.convert(each, Entry), environ)
        except ValueError as wrong:  # msgspec's errors are ValueErrors too, and show types, never values
            problems.append(f"{path}: upstream {number}: {wrong}")
        else:
            made.append(upstream)
    if problems:
        raise ValueError("\n".join(problems))
    return tuple(made)


def _upstream(entry: Entry, environ: Mapping[str, str]) -> Upstream:
    url = urlsplit(entry.base_url)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError("base_url must be like https://api.example.com/v1")
    if url.username is not None:
        raise ValueError("base_url must hold no key; put it into the environment and name it in api_key_env")
    if not entry.pattern or entry.model == "":
        raise ValueError("pattern and model must not be empty")
    if entry.concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {entry.concurrency}")
    written: dict[str, Any] = msgspec.structs.asdict(entry) | {"base_url": entry.base_url.rstrip("/")}
    return Upstream(**written, key=key(entry.api_key_env, environ))


def key(variable: str | None, environ: Mapping[str, str]) -> str | None:
    """The key that an environment variable holds, None without one. Raises ValueError for no usable key."""
    if variable is None:
        return None
    held = environ.get(variable, "").strip()
    if not held:
        raise ValueError(f"the environment variable {variable} is not set; set it, or leave api_key_env out")
    if not (held.isascii() and held.isprintable()):
        raise ValueError(
            f"the environment variable {variable} holds no usable key: it is not printable ASCII"
        )
    return held
