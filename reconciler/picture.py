"""
A release as a document for git: what stands with all it rests on, and in short what stood before. Pure.

A platform without aliases has nothing else, so a channel can be read back from it whole.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from reconciler import release

IN_SHORT = ("candidate", "subject", "approved", "moved")  # what is kept of an earlier release


def drawn(alias: Mapping[str, Any]) -> dict[str, Any]:
    """The document of an alias."""
    channel = release.read(alias)
    previous = next(channel.earlier(), None)
    spec = {
        "channel": channel.name,
        "model": channel.model,
        "since": release.stamp_of_time(channel.since),
        "previous": previous.shown if previous else None,
        "hold": channel.hold._asdict() if channel.hold else None,
        "canary": dict(channel.canary) if channel.canary else None,
        **{key: value for key, value in channel.release.items() if key != "lineage"},
        "lineage": channel.release.get("lineage", {}),
        "stamp": dict(channel.metadata),
        "revoked": [release.told(each) for each in channel.revoked],
        "history": [_short(entry) for entry in channel.history],
    }
    return {
        "apiVersion": "reconciler/v1",
        "kind": "Release",
        "metadata": {"name": channel.name},
        "spec": spec,
    }


def _short(entry: release.Entry) -> dict[str, Any]:
    kept = {key: entry.release[key] for key in IN_SHORT if key in entry.release}
    kept |= {"prompt": entry.release["prompt"]} if release.prompt_in(entry.release) else {}
    return {
        "model": entry.model,
        "at": release.stamp_of_time(entry.at),
        **kept,
        "stamp": dict(entry.metadata),
    }


def read(document: Any) -> dict[str, Any] | None:
    """The alias that a release's file shows, for a platform that has none; None for anything else."""
    try:
        spec = document["spec"]
        history = [
            {
                "model": each["model"],
                "metadata": each["stamp"],
                "release": {k: each[k] for k in (*IN_SHORT, "prompt") if k in each},
                "at": datetime.fromisoformat(each["at"]).timestamp(),
            }
            for each in spec.get("history") or []
        ]
        known = ("channel", "model", "since", "previous", "hold", "canary", "stamp", "revoked", "history")
        found = {
            "name": spec["channel"],
            "model": spec["model"],
            "metadata": spec["stamp"],
            "release": {key: value for key, value in spec.items() if key not in known},
            "state": {
                "hold": spec.get("hold"),
                "revoked": spec.get("revoked") or [],
                "canary": _only(spec.get("canary"), ("since", "fingerprint", "release")),
            },
            "canary": _only(spec.get("canary"), ("model", "share")),
            "history": history,
            "created_at": history[0]["at"] if history else 0,
        }
        release.read(found)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return found


def _only(value: Mapping[str, Any] | None, fields: Iterable[str]) -> dict[str, Any] | None:
    return {field: value[field] for field in fields} if value else None
