"""docs/platform.md says what there is: no endpoint more, none less, and the limits that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reconciler.selfhosted import app, limits, wire
from reconciler.selfhosted.evaluation import graderapi
from reconciler.selfhosted.grading import Limits, checking, similarity
from reconciler.selfhosted.serving import batchfile, chatbody, embeddings
from reconciler.selfhosted.storage import files, uploads

PAGE = (Path(__file__).parents[2] / "docs/platform.md").read_text()
MIB = 1024 * 1024
CHOICES = ("MAX_CHOICES", "MAX_STOPS", "MAX_TOP_LOGPROBS")


def test_the_table_of_endpoints_is_the_routes() -> None:
    rows = re.findall(r"^\| `(GET|POST|DELETE) (\S+)` \| (\w+) \|", PAGE, re.MULTILINE)

    served = [
        (method, re.sub(r":\w+\}", "}", route.path))
        for route in app.all_routes()
        for method in route.methods - {"HEAD"}
    ]

    assert sorted(served) == sorted((method, path) for method, path, _ in rows)
    assert {"served"} == {status for *_, status in rows}


def test_every_grader_and_metric_has_a_row() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    metrics = " ".join(re.findall(r"^\| · (.+?) \|", PAGE, re.MULTILINE))

    assert {*graderapi.TYPES, "label_model"} <= rows
    named = [m for m in (*similarity.METRICS, similarity.COSINE) if not re.match(r"rouge_[2-4]$", m)]
    assert [] == [metric for metric in named if f"`{metric}`" not in metrics]


@pytest.mark.parametrize(
    ("said", "expected", "actual"),
    [
        ("512 MB; for batches 200 MB", (512 * MIB, 200 * MIB), (files.LARGEST, files.LARGEST_BATCH)),
        ("and 50,000 requests", 50_000, batchfile.MOST_ROWS),
        ("8 GB in parts of 64 MB", (8192 * MIB, 64 * MIB), (uploads.LARGEST, uploads.LARGEST_PART)),
        ("within one hour", 3600, uploads.LIFE),
        ("JSON body | 64 MiB", 64 * MIB, wire.JSON_LIMIT),
        ("64 KiB, within 30 s", (64 * 1024, 30), (limits.HEAD_LIMIT, limits.Protocol.head_seconds)),
        ("may pause for 60 s", 60, limits.Protocol.lull_seconds),
        ("| 2,048 |", 2048, embeddings.MOST_TEXTS),
        ("256 kB of source", 256_000, checking.MAX_SOURCE_BYTES),
        ("2 minutes, 2 GB of memory", Limits(120.0, 2 << 30), Limits()),
        ("| 128, 4, 20 |", (128, 4, 20), tuple(getattr(chatbody, name) for name in CHOICES)),
    ],
)
def test_the_limits_are_those_of_the_code(said: str, expected: object, actual: object) -> None:
    assert said in PAGE
    assert expected == actual
