"""
The commit that puts releases into git, in words: what leads where, why, and on what evidence. Pure.

Names and numbers only, each on one line, so that nothing a manifest says can forge a trailer.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

TRAILER = "Reconciler-Release"


def of(files: Mapping[str, bytes | None]) -> str:
    """The message for these release files; None is a file that goes."""
    told = [(name, _spec(content)) for name, content in sorted(files.items())]
    heads = [
        f"{_line(s['channel'])} → {_line(s.get('candidate') or s['model'])}" if s else f"remove {n}"
        for n, s in told
    ]
    title = f"Release {heads[0]}" if len(heads) == 1 else f"Release {len(heads)} channels"
    paragraphs = [] if len(heads) == 1 else ["\n".join(f"- {head}" for head in heads)]
    paragraphs += [
        _line(reason) for _, spec in told if spec and (reason := (spec.get("moved") or {}).get("reason"))
    ]
    trailers = [trailer for name, spec in told for trailer in _trailers(name, spec)]
    return "\n\n".join([title, *paragraphs, "\n".join(trailers)]) + "\n"


def _trailers(name: str, spec: Mapping[str, Any]) -> Iterator[str]:
    yield f"{TRAILER}: {_line(name)}"
    if not spec:
        return
    stamp = spec.get("stamp") or {}
    facts = {
        "Rule": stamp.get("reconciler_address"),
        "Rule-Fingerprint": stamp.get("reconciler_fingerprint"),
        "Model": spec["model"],
        "Commit": (spec.get("lineage") or {}).get("commit"),
    }
    yield from (f"Reconciler-{name}: {_line(value)}" for name, value in facts.items() if value)
    yield from (f"Reconciler-Evidence: {each}" for each in _evidence(spec.get("evidence") or ()))


def _evidence(found: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for each in found:
        numbers = [n for key in ("estimate", "low", "high") if isinstance(n := each.get(key), int | float)]
        shown = " ".join(f"{number:.4g}" for number in numbers)
        told = (each.get("eval") or "answers", each.get("metric"), shown, each.get("verdict"))
        yield _line(" ".join(str(part) for part in told if part))


def _spec(content: bytes | None) -> dict[str, Any]:
    try:
        found = yaml.safe_load(content)["spec"] if content else {}
        return found if isinstance(found, dict) and {"channel", "model"} <= found.keys() else {}
    except (yaml.YAMLError, TypeError, KeyError):
        return {}


def _line(value: object) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())[:200]
