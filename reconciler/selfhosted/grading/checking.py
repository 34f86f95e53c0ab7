"""
Reads a grader's definition and lists everything wrong with it, one sentence each. Pure.

Python source is only measured here, not parsed: parsing what strangers wrote can crash an interpreter,
so its syntax is judged in the sandbox (`Sandbox.check`).
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import formula
from .grader import members
from .similarity import COSINE, METRICS
from .template import UnknownVariable, variables

MAX_SOURCE_BYTES = 256_000
OPERATIONS = ("eq", "ne", "neq", "like", "ilike")
ROLES = ("user", "assistant", "system", "developer")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
PARTS = ("input_text", "output_text", "input_image", "input_audio")

_COMMON = ("type", "name", "id", "pass_threshold")
_NEEDS: dict[str, tuple[str, ...]] = {
    "string_check": ("input", "reference", "operation"),
    "text_similarity": ("input", "reference", "evaluation_metric"),
    "score_model": ("model", "input"),
    "label_model": ("model", "input", "labels", "passing_labels"),
    "python": ("source",),
    "multi": ("graders", "calculate_output"),
}
_MAY: dict[str, tuple[str, ...]] = {
    "score_model": ("range", "sampling_params"),
    "label_model": ("sampling_params",),
    "python": ("image_tag",),
}


def check(
    grader: Mapping[str, Any], *, allow_multi: bool, require_threshold: bool, embeddings: bool = False
) -> list[str]:
    """
    Every problem of a grader; [] when it can be used.

    Evals require a threshold of text_similarity; its metric cosine is there where `embeddings` are.
    """
    return list(_problems(grader, allow_multi, require_threshold, embeddings))


def _problems(grader: Any, allow_multi: bool, require_threshold: bool, embeddings: bool) -> Iterator[str]:
    if not isinstance(grader, Mapping):
        yield f"a grader is an object with a type, not {_a(grader)}"
        return
    kind = grader.get("type")
    if not isinstance(kind, str) or kind not in _NEEDS or (kind == "multi" and not allow_multi):
        known = [name for name in _NEEDS if allow_multi or name != "multi"]
        yield f"type is {kind!r}; a grader here is one of {', '.join(known)}"
        return
    yield from _fields(grader, kind)
    yield from _threshold(grader, kind, require_threshold)
    if kind == "multi":
        yield from _multi(grader, embeddings)
    elif kind == "text_similarity":
        yield from _text_similarity(grader, embeddings)
    else:
        yield from _CHECKS[kind](grader)


def _fields(grader: Mapping[str, Any], kind: str) -> Iterator[str]:
    for name in ("name", *_NEEDS[kind]):
        if grader.get(name) is None:
            yield f"{kind} needs {name}"
    if grader.get("name") is not None and (not isinstance(grader["name"], str) or not grader["name"]):
        yield f"name is {_a(grader['name'])}; it must be a string that is not empty"
    known = (*_COMMON, *_NEEDS[kind], *_MAY.get(kind, ()))
    for name in grader:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            yield f"{kind} has no field {name}" + (f"; did you mean {close[0]}" if close else "")


def _threshold(grader: Mapping[str, Any], kind: str, required: bool) -> Iterator[str]:
    threshold = grader.get("pass_threshold")
    if threshold is None:
        if required and kind == "text_similarity":
            yield "text_similarity needs pass_threshold in an eval: the least score that passes, e.g. 0.8"
    elif not _number(threshold):
        yield f"pass_threshold is {_a(threshold)}; it must be a finite number"


def _texts(grader: Mapping[str, Any]) -> Iterator[str]:
    for name in ("input", "reference"):
        if grader.get(name) is not None:
            yield from _template(grader[name], name)


def _template(text: Any, where: str) -> Iterator[str]:
    if not isinstance(text, str):
        yield f"{where} is {_a(text)}; it must be a string"
        return
    try:
        variables(text)
    except UnknownVariable as unknown:
        yield f"{where}: {unknown}"


def _string_check(grader: Mapping[str, Any]) -> Iterator[str]:
    yield from _texts(grader)
    yield from _one_of(grader, "operation", OPERATIONS)


def _text_similarity(grader: Mapping[str, Any], embeddings: bool) -> Iterator[str]:
    yield from _texts(grader)
    if grader.get("evaluation_metric") == COSINE and not embeddings:
        known = ", ".join(METRICS)
        yield f"evaluation_metric cosine needs embeddings, which only evals have; use one of {known}"
    else:
        yield from _one_of(grader, "evaluation_metric", (*METRICS, COSINE) if embeddings else METRICS)


def _score_model(grader: Mapping[str, Any]) -> Iterator[str]:
    yield from _judge(grader)
    bounds = grader.get("range")
    if bounds is None:
        return
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(_number(b) for b in bounds):
        yield "range must be two finite numbers, the lowest score and the highest, e.g. [0, 1]"
    elif bounds[0] >= bounds[1]:
        yield f"range is [{bounds[0]}, {bounds[1]}]; the first number must be the smaller one"


def _label_model(grader: Mapping[str, Any]) -> Iterator[str]:
    yield from _judge(grader)
    labels, passing = grader.get("labels"), grader.get("passing_labels")
    for name, value in (("labels", labels), ("passing_labels", passing)):
        if value is not None and (
            not isinstance(value, list) or not value or not all(isinstance(label, str) for label in value)
        ):
            yield f"{name} must be a list of strings that is not empty"
            return
    for label in passing or ():
        if label not in (labels or ()):
            yield f"passing_labels has {label!r}, which is not one of labels"


def _judge(grader: Mapping[str, Any]) -> Iterator[str]:
    if grader.get("model") is not None and (not isinstance(grader["model"], str) or not grader["model"]):
        yield f"model is {_a(grader['model'])}; it must be the name of a model"
    if grader.get("input") is not None:
        yield from check_messages(grader["input"], "input")
    params = grader.get("sampling_params")
    if params is None:
        return
    if not isinstance(params, Mapping):
        yield f"sampling_params is {_a(params)}; it must be an object"
        return
    yield from _sampling(params)


def _sampling(params: Mapping[str, Any]) -> Iterator[str]:
    limits: dict[str, Callable[[Any], bool]] = {
        "seed": lambda value: _whole(value),
        "top_p": lambda value: _number(value) and 0 <= value <= 1,
        "temperature": lambda value: _number(value) and 0 <= value <= 2,
        "max_completion_tokens": lambda value: _whole(value) and value >= 1,
        "max_completions_tokens": lambda value: _whole(value) and value >= 1,
        "reasoning_effort": lambda value: value in EFFORTS,
    }
    for name, value in params.items():
        if name not in limits:
            yield f"sampling_params has no {name}; it may have {', '.join(limits)}"
        elif value is not None and not limits[name](value):
            yield f"sampling_params.{name} is {value!r}, which is out of its bounds"


def check_messages(messages: Any, where: str) -> Iterator[str]:
    """Problems of a list of eval input messages, with templates. Pure."""
    if not isinstance(messages, list) or not messages:
        yield f"{where} must be a list of messages that is not empty"
        return
    for number, message in enumerate(messages):
        at = f"{where}[{number}]"
        if not isinstance(message, Mapping):
            yield f"{at} is {_a(message)}; a message is an object with role and content"
            continue
        if message.get("role") not in ROLES:
            yield f"{at}.role is {message.get('role')!r}; it is one of {', '.join(ROLES)}"
        content = message.get("content")
        for part in content if isinstance(content, list) and content else [content]:
            yield from _part(part, f"{at}.content")


def _part(part: Any, at: str) -> Iterator[str]:
    if isinstance(part, str):
        yield from _template(part, at)
        return
    if not isinstance(part, Mapping) or part.get("type") not in PARTS:
        yield f"{at} must be a string or parts of type {', '.join(PARTS)}"
    elif part["type"] in ("input_text", "output_text"):
        yield from _template(part.get("text"), f"{at}.text")
    elif part["type"] == "input_image":
        yield from _template(part.get("image_url"), f"{at}.image_url")
    else:
        audio = part.get("input_audio")
        if not isinstance(audio, Mapping) or audio.get("format") not in ("mp3", "wav"):
            yield f"{at}.input_audio must be an object with data and a format of mp3 or wav"
        else:
            yield from _template(audio.get("data"), f"{at}.input_audio.data")


def _python(grader: Mapping[str, Any]) -> Iterator[str]:
    source = grader.get("source")
    if source is None:
        return
    if not isinstance(source, str):
        yield f"source is {_a(source)}; it must be Python text"
        return
    size = len(source.encode("utf-8", "surrogatepass"))
    if size >= MAX_SOURCE_BYTES:
        yield f"source has {size} bytes; it must have less than {MAX_SOURCE_BYTES}"
    if not re.search(r"\bgrade\b", source):
        yield "source must define grade(sample, item), which returns a number"


def _multi(grader: Mapping[str, Any], embeddings: bool) -> Iterator[str]:
    graders, text = grader.get("graders"), grader.get("calculate_output")
    if graders is None:
        return
    if not isinstance(graders, Mapping | list) or not graders:
        yield "graders must be a map of names to graders that is not empty"
        return
    parts = members(graders) if all(isinstance(g, Mapping) for g in _values(graders)) else None
    if parts is None:
        yield "graders must be a map of names to graders; one of them is not an object"
        return
    for name, part in parts.items():
        for problem in _problems({"name": name, **part}, False, False, embeddings):
            yield f"graders.{name}: {problem}"
    if text is not None:
        yield from _formula(text, set(parts))


def _values(graders: Any) -> list[Any]:
    if isinstance(graders, list):
        return graders
    return [graders] if isinstance(graders.get("type"), str) else list(graders.values())


def _formula(text: Any, known: set[str]) -> Iterator[str]:
    if not isinstance(text, str):
        yield f"calculate_output is {_a(text)}; it must be a formula"
        return
    try:
        used = formula.names(formula.parse(text))
    except formula.FormulaError as wrong:
        yield f"calculate_output: {wrong}"
        return
    for name in sorted(used - known):
        yield f"calculate_output names {name}; the graders are {', '.join(sorted(known))}"


def _one_of(grader: Mapping[str, Any], name: str, known: tuple[str, ...]) -> Iterator[str]:
    if grader.get(name) is not None and grader[name] not in known:
        yield f"{name} is {grader[name]!r}; it is one of {', '.join(known)}"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _a(value: Any) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return "nothing" if value is None else names.get(type(value), "an object")


_CHECKS: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "string_check": _string_check,
    "score_model": _score_model,
    "label_model": _label_model,
    "python": _python,
}
