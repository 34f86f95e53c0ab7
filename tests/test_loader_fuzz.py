"""Whatever bytes a manifest holds, there is a tree or a ManifestError, and never anything else."""

import json
import math
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler import loader, yamlsafe
from reconciler.errors import ManifestError

MANIFEST = b"""\
apiVersion: reconciler/v1
kind: FineTuneJob
metadata: {name: triage, labels: {team: &team support}}
spec:
  description: |
    text: [with] {marks}
  base: "Model/tiny"
  tags: [*team, 'a', 1.5, true, ~, 0x10]
  method:
    - type: supervised
      n_epochs: 3
---
a: b
"""
MARKS = "[ ] { } -_ ?_ :_ &a_ *a_ !!str_ <<:_ ' | >- # --- ... %YAML_1.2 @ a 0o7 -.inf 1e999 ~ ,"
OTHERS = ['"', "\n", "\n  ", "\t", "\r", "\\u0000", "\x00", "\ufeff", "\u2028", "\u0085"]
PIECES = st.sampled_from([mark.replace("_", " ").encode() for mark in MARKS.split() + OTHERS] + [b"\xff"])
SLOW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"), min_size=1)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def load(folder: Path, data: bytes) -> None:
    (folder / "one.yaml").write_bytes(data)
    try:
        for document in loader.load_tree(folder).documents:
            assert document.line == document.line_of() == document.lines[()]
    except ManifestError as error:
        lines = max(1, len(data.decode("utf-8", "replace").splitlines()))
        for problem in error.problems:
            assert 1 <= int(problem.where.rpartition(":")[2]) <= lines, problem
            assert "\n" not in problem.what


@SLOW
@given(st.binary(max_size=200))
def test_random_bytes_never_crash(tmp_path: Path, data: bytes) -> None:
    load(tmp_path, data)


@SLOW
@given(st.lists(PIECES, max_size=40))
def test_random_marks_never_crash(tmp_path: Path, pieces: list[bytes]) -> None:
    load(tmp_path, b"".join(pieces))


@SLOW
@given(st.lists(st.tuples(st.integers(0, len(MANIFEST)), st.integers(0, 8), PIECES), min_size=1, max_size=6))
def test_mutated_manifests_never_crash(tmp_path: Path, cuts: list[tuple[int, int, bytes]]) -> None:
    data = MANIFEST
    for at, width, piece in cuts:
        data = data[:at] + piece + data[at + width :]

    load(tmp_path, data)


@SLOW
@given(st.dictionaries(TEXT, JSON, min_size=1, max_size=4))
def test_json_is_yaml_and_means_the_same(value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False)

    pages, flaws = yamlsafe.parse(text.encode())

    if not flaws:
        assert _as_json(value) == _as_json(pages[0].value)


def _as_json(value: Any) -> str:
    """One text for equal values; floats without a fraction and integers are the same number in JSON."""

    def plain(part: Any) -> Any:
        if isinstance(part, float) and part.is_integer() and math.fabs(part) < 2**53:
            return int(part)
        if isinstance(part, dict):
            return {key: plain(inner) for key, inner in part.items()}
        return [plain(inner) for inner in part] if isinstance(part, list) else part

    return json.dumps(plain(value), sort_keys=True)
