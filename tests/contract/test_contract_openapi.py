"""Our own OpenAPI document says what is served, and nobody who follows it can make the server fail."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from contract_server import Exchange, Platform
from contract_tour import tour_sync
from hypothesis import HealthCheck, Phase, given, settings

from reconciler.selfhosted import app, openapi, openapibodies

EXAMPLES = 6  # of every operation
UNEXPECTED = [
    None,
    "",
    "\0",
    "\ud800",
    "{{ item.x }}",
    -1,
    1e300,
    10**30,
    True,
    [],
    [None],
    {},
    {"type": "x"},
]


def test_the_document_has_every_route_and_a_body_for_every_post_that_reads_one() -> None:
    document = openapi.document(app.all_routes(), "1")

    described = {(method, path) for path, item in document["paths"].items() for method in item}
    bodiless = {
        path
        for path, item in document["paths"].items()
        if "post" in item and "requestBody" not in item["post"]
    }

    assert described == {
        (method.lower(), re.sub(r":\w+\}", "}", route.path))
        for route in app.all_routes()
        for method in route.methods - {"HEAD"}
    }
    assert {"cancel", "pause", "resume", "{run}"} == {path.rpartition("/")[2] for path in bodiless}


def test_the_document_names_no_endpoint_that_is_not_there() -> None:
    endpoints = {route.endpoint for route in app.all_routes()}
    named = {*openapibodies.STRUCTS, *openapibodies.WRITTEN, *openapibodies.FORMS}
    named |= {*openapi.PAGED, *openapi.FILTERS, *openapi.MADE, *openapi.STREAMED, *openapi.RAW}

    assert set() == named - endpoints


@pytest.mark.slow
def test_nothing_that_the_document_allows_makes_the_server_fail(tmp_path: Path) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="fuzzing needs the extra `dev`")
    with Platform(tmp_path).running() as platform:
        tour_sync(platform)
        document = openapi.document(app.all_routes(), "1")
        known(document, platform.exchanges)
        platform.exchanges.clear()

        operations = [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]
        for operation in sorted(operations, key=lambda each: each.method == "delete"):  # what is there first
            visit(operation, platform)

    assert 200 < len(platform.exchanges)
    assert {"200", "400", "404"} <= {str(each.status) for each in platform.exchanges}
    assert [] == [f"{each}: {each.body.decode()}" for each in platform.exchanges if each.status >= 500]


@pytest.mark.slow
def test_no_part_of_a_good_request_that_turns_bad_makes_the_server_fail(tmp_path: Path) -> None:
    with Platform(tmp_path).running() as platform:
        tour_sync(platform)
        bodies = [
            (each, json.loads(each.sent))
            for each in platform.exchanges
            if each.status < 300 and each.sent.startswith(b"{")
        ]
        bodies = list({(each.route, *paths(body)): (each, body) for each, body in bodies}.values())
        platform.exchanges.clear()

        with httpx.Client(base_url=platform.url, trust_env=False, verify=False, timeout=30) as http:
            for each, body in bodies:
                for changed in spoilt(body):
                    http.request(each.method, each.path, content=changed)

    assert 2000 < len(platform.exchanges)
    assert [] == [f"{each}: {each.sent.decode()}" for each in platform.exchanges if each.status >= 500]


def spoilt(body: Any) -> Iterator[bytes]:
    """The body over and over, each time with one value in it replaced by one that nobody expects."""
    for path in paths(body):
        for value in UNEXPECTED:
            changed = copy.deepcopy(body)
            place = changed
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = value
            yield json.dumps(changed).encode()


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield (*before, key)
        yield from paths(each, (*before, key))


def visit(operation: Any, platform: Platform) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        case.call(base_url=platform.url, timeout=30)

    ask()


def known(document: dict[str, Any], exchanges: list[Exchange]) -> None:
    """Let every path name objects that exist as well, and every model be one that is served."""
    ids: dict[str, list[str]] = {}
    for each in exchanges:
        if each.status < 300 and each.media == "application/json":
            answer = json.loads(each.body)
            of_one = [answer["id"]] if "id" in answer else []
            listed = [one["id"] for one in answer.get("data") or () if isinstance(one, dict) and "id" in one]
            ids.setdefault(re.sub(r":\w+\}", "}", each.route), []).extend(of_one + listed)
    for path, item in document["paths"].items():
        for operation in item.values():
            for parameter in operation["parameters"]:
                collection = path.partition("/{" + parameter["name"] + "}")[0]
                if parameter["in"] == "path" and (here := ids.get(collection)):
                    parameter["schema"] = {"enum": [*dict.fromkeys(here), "none"]}
    _name_models(document)


def _name_models(schema: Any) -> None:
    for each in (
        schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, list) else ()
    ):
        _name_models(each)
    if (
        isinstance(schema, dict)
        and isinstance(schema.get("properties"), dict)
        and "model" in schema["properties"]
    ):
        schema["properties"] = {**schema["properties"], "model": {"enum": ["tiny", "none"]}}
