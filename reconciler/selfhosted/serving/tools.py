"""
Which tools a chat may call, and whether it must: `tool_choice`, in the words of chats. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.selfhosted.serving.sampling import Problem

Tools = Sequence[Mapping[str, Any]]


class Choice(NamedTuple):
    """The tools that the model is shown, and those of which it must call one."""

    tools: Tools | None
    must_call: tuple[str, ...] = ()


def chosen(asked: Any, tools: Tools | None, problems: list[Problem]) -> Choice:
    """What a `tool_choice` makes of the tools; adds what is wrong with it to the problems."""
    match asked:
        case None | "auto":
            return Choice(tools)
        case "none":
            return Choice(None)
        case "required":
            return _among(tools, None, problems)
        case {"type": "function", "function": {"name": str(name)}}:
            return Choice(tools, _among(tools, [name], problems).must_call)
        case {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(of)},
        }:
            allowed = _among(tools, [_name(tool) for tool in of], problems)
            return allowed if mode == "required" else Choice(allowed.tools)
    forms = "'none', 'auto', 'required', a function by its name, or allowed_tools"
    problems.append(Problem("tool_choice", f"must be {forms}"))
    return Choice(tools)


def _among(tools: Tools | None, names: Sequence[str] | None, problems: list[Problem]) -> Choice:
    """The tools of these names, or all."""
    known = {name: tool for tool in tools or () if (name := _name(tool))}
    if not known:
        problems.append(Problem("tool_choice", "needs tools to choose from"))
    unknown = [name for name in names or () if name not in known]
    if unknown and known:
        problems.append(Problem("tool_choice", f"names {unknown[0]!r}, which is none of the tools"))
    kept = [name for name in known if names is None or name in names]
    return Choice([known[name] for name in kept], tuple(kept))


def _name(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return str(function.get("name", "")) if isinstance(function, Mapping) else ""
