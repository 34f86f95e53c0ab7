"""
Variables of a tree: what differs from one environment to the next, and is declared in its Project.

`${NAME}` stands for a value where a scalar does: whole, it keeps the type of the value; inside text, it is text.
It is put in after YAML was read, so no value can add a field or a line; and it is put in before anything is
hashed, so the value is identity and the name of an environment never is. What is not declared is left alone,
except where it is the whole scalar: that is a slip. `$${NAME}` is the text `${NAME}`. Pure.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from reconciler import yamlsafe

NAME = r"[A-Za-z][A-Za-z0-9_]*"
USE = re.compile(rf"(\$?)\$\{{({NAME})\}}")
SET, VAR = "RECONCILER_SET_", "RECONCILER_VAR_"  # what was said with --set; what the environment says
Scalar = str | int | float | bool
Place = tuple[str | int, ...]


def given(environment: Mapping[str, str]) -> dict[str, str]:
    """All that an environment says about variables, whoever's they are."""
    return {key: value for key, value in environment.items() if key.startswith((SET, VAR))}


@dataclass
class Variables:
    """What a Project declares, and what is given for it."""

    declared: Mapping[str, Mapping[str, Any]]
    given: Mapping[str, str]
    problems: list[tuple[Place, str]] = field(default_factory=list)

    @classmethod
    def of(cls, project: Mapping[str, Any], environment: Mapping[str, str]) -> "Variables":
        """Those of a Project's document, as it was written."""
        found = (project.get("spec") or {}).get("variables")
        declared = found if isinstance(found, dict) else {}
        return cls({n: e for n, e in declared.items() if isinstance(e, dict)}, given(environment))

    def undeclared(self) -> Iterator[str]:
        """What was said with --set about nothing."""
        for key in sorted(self.given):
            name = key.removeprefix(SET)
            if name != key and name not in self.declared:
                near = self._near(name)
                yield f"--set {name}: the Project declares no variable {name}{near}"

    def within(self, body: dict[str, Any]) -> dict[str, Any]:
        """One document with its values put in; what is wrong goes to `problems`, by place."""
        kept = dict(body)
        metadata = dict(body["metadata"])
        for part in ("labels", "annotations"):
            if isinstance(metadata.get(part), dict):
                metadata[part] = {k: str(v) for k, v in self._in(metadata[part], ("metadata", part)).items()}
        kept["metadata"] = metadata
        if isinstance(body.get("spec"), dict):
            own = {"variables"} if body.get("kind") == "Project" else set()
            spec = {k: v if k in own else self._in(v, ("spec", k)) for k, v in body["spec"].items()}
            kept["spec"] = spec
        return kept

    def taken(self) -> list[tuple[Place, str]]:
        """What was wrong since it was asked for last."""
        found, self.problems = self.problems, []
        return found

    def _in(self, value: Any, at: Place) -> Any:
        if isinstance(value, dict):
            return {key: self._in(part, (*at, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self._in(part, (*at, index)) for index, part in enumerate(value)]
        return self._scalar(value, at) if isinstance(value, str) and "${" in value else value

    def _scalar(self, text: str, at: Place) -> Scalar:
        whole = USE.fullmatch(text)
        if whole and not whole[1]:
            return self._value(whole[2], at)

        def put(match: re.Match[str]) -> str:
            escaped, name = match.groups()
            if escaped:
                return match[0][1:]
            return _text(self._value(name, at)) if name in self.declared else match[0]

        return USE.sub(put, text)

    def _value(self, name: str, at: Place) -> Scalar:
        if name not in self.declared:
            what = f"the Project declares no variable {name}{self._near(name)}"
            self.problems.append((at, f"{what}; write $${{{name}}} for the text itself"))
            return ""
        default = self.declared[name].get("default")
        said = next((self.given[prefix + name] for prefix in (SET, VAR) if prefix + name in self.given), None)
        if said is None:
            if default is None:
                what = f"the variable {name} has no value and no default"
                self.problems.append((at, f"{what}; say --set {name}=VALUE or set {VAR}{name}"))
            return "" if default is None else default
        try:
            return typed(said, default)
        except ValueError as error:
            self.problems.append((at, f"the variable {name} {error}"))
            return ""

    def _near(self, name: str) -> str:
        near = get_close_matches(name, self.declared, n=1)
        names = ", ".join(list(self.declared)[:8])
        return f"; did you mean {near[0]}?" if near else f"; it declares {names}" if names else ""


def typed(text: str, default: Scalar | None) -> Scalar:
    """What somebody typed, as a value of its default's type, or of its own where there is none. Raises ValueError."""
    if isinstance(default, str):
        return text
    value = _plain(text)
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"is true or false, not {yamlsafe.shown(text)}")
    if _is_number(default) and not _is_number(value):
        raise ValueError(f"is a number, not {yamlsafe.shown(text)}")
    return value


def _is_number(value: Scalar | None) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(text: str) -> Scalar:
    """A number or a bool where the text is nothing but one, else the text; quotes make text of anything."""
    pages, flaws = yamlsafe.parse(text.encode("utf-8", "surrogateescape"))
    value = pages[0].value if len(pages) == 1 and not flaws else text
    if isinstance(value, bool | int | float) and not re.search(r"\s", text):
        return value
    quoted = isinstance(value, str) and len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return str(value) if quoted else text


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
