"""
What a job's end means on GitHub: the conclusion of its check, remarks beside lines, commands to the runner. Pure.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Level = Literal["notice", "warning", "failure"]
AT_ONCE = 50  # annotations that GitHub takes in one request
MOST = 300  # annotations of one check
SUMMARY = 65_535  # characters
FAILING = (1, 4, 6)  # exit codes: an error, a gate that failed, something forbidden
UNDECIDED = (3, 5, 7)  # drift, a gate that cannot tell, not at its end
WORDS = {
    0: "nothing is left to do",
    1: "it failed",
    2: "there is something to do",
    3: "something drifted",
    4: "a gate failed",
    5: "a gate cannot tell yet",
    6: "it is not allowed",
    7: "it is not at its end; run the job again to go on",
}
_PLACE = re.compile(r"(.+):(\d+)")


class Remark(NamedTuple):
    """Something to be said beside a line; `path` as GitHub names it."""

    path: str
    line: int
    level: Level
    title: str
    message: str


@dataclass(frozen=True)
class Check:
    """A check run that has ended. `key` is what it was about, by which it is found again."""

    name: str
    commit: str
    code: int
    title: str
    summary: str
    url: str
    remarks: Sequence[Remark] = ()
    key: str = ""


def conclusion(code: int) -> str:
    """What an exit code is to GitHub."""
    return "failure" if code in FAILING else "neutral" if code in UNDECIDED else "success"


def step_code(code: int) -> int:
    """The exit code of the workflow's step: what a person has to decide about does not make it red."""
    return 0 if code in (0, 2, 3, 5) else code


def created(check: Check) -> dict[str, Any]:
    """The body that creates a check run, with its first remarks."""
    body = {
        "name": check.name,
        "head_sha": check.commit,
        "status": "completed",
        "conclusion": conclusion(check.code),
        "details_url": check.url,
        "output": _output(check, check.remarks[:AT_ONCE]),
    }
    return body | ({"external_id": check.key} if check.key else {})


def continued(check: Check) -> Iterable[dict[str, Any]]:
    """The bodies that add the other remarks to it."""
    for start in range(AT_ONCE, min(len(check.remarks), MOST), AT_ONCE):
        yield {"output": _output(check, check.remarks[start : start + AT_ONCE])}


def command(remark: Remark) -> str:
    """A remark as a line of output, which the runner shows without any token."""
    level = "error" if remark.level == "failure" else remark.level
    return (
        f"::{level} file={_property(remark.path)},line={remark.line},title={_property(remark.title)}::"
        f"{_data(remark.message)}"
    )


def placed(where: str) -> tuple[str, int] | None:
    """The file and line of a `path:line`."""
    found = _PLACE.fullmatch(where)
    return (found[1], int(found[2])) if found else None


def _output(check: Check, remarks: Sequence[Remark]) -> dict[str, Any]:
    return {
        "title": check.title[:255],
        "summary": check.summary[:SUMMARY],
        "annotations": [
            {
                "path": each.path,
                "start_line": each.line,
                "end_line": each.line,
                "annotation_level": each.level,
                "title": each.title[:255],
                "message": each.message[:4000],
            }
            for each in remarks
        ],
    }


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
