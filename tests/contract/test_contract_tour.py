"""Every endpoint is visited with the official SDK, and answers as OpenAI's specification says."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import pytest
from contract_server import Exchange
from contract_spec import Spec
from jsonschema import ValidationError
from openai.types import webhooks

from reconciler.selfhosted import app


class Deviation(NamedTuple):
    """A place where our answer is right and the specification is not."""

    number: int | None  # in section 9 of the contract; None: found here, and no inconsistency of ours
    where: str  # a pattern of `METHOD /route keys.of.the.answer`
    reason: str


DEVIATIONS = [
    Deviation(1, r"/fine_tuning/jobs\S* (data\.\d+\.)?status", "`paused` is not in the enum"),
    Deviation(2, r"/files\S* (data\.\d+\.)?purpose", "`evals` may be asked for and not be answered"),
    Deviation(3, r"POST /v1/fine_tuning/alpha/graders/validate grader", "a multi's graders are a map"),
    Deviation(10, r"/evals/\S*/runs\S* (data\.\d+\.)?error", "a run without an error says null"),
    Deviation(10, r"/output_items\S* (data\.\d+\.)?sample\.error", "a sample without an error says null"),
    Deviation(
        11,
        r"/evals/\S*/runs\S* (data\.\d+\.)?(per_model_usage|per_testing_criteria_results)",
        "a run that is queued has no aggregates",
    ),
    Deviation(16, r"graders/run metadata\.token_usage", "the schema says a number, its example an object"),
    Deviation(
        None,
        r"GET /v1/chat/completions/\{id\}/messages data\.\d+\.role",
        "the specification knows assistants only, and shows a user in its own example",
    ),
    Deviation(
        None,
        r"POST /v1/embeddings data\.\d+\.embedding",
        "the specification lets base64 be asked for and not be answered; the SDK asks for it",
    ),
]

# The specification does not have these yet; the SDK has, and says what they answer.
HOOK, HOOKS = webhooks.WebhookEndpoint, "/v1/webhook_endpoints"
SDK_TYPES: dict[str, Any] = {
    f"POST {HOOKS}": webhooks.WebhookEndpointWithSecret,
    f"GET {HOOKS}/{{id}}": HOOK,
    f"POST {HOOKS}/{{id}}": HOOK,
    f"DELETE {HOOKS}/{{id}}": webhooks.DeletedWebhookEndpoint,
    f"POST {HOOKS}/{{id}}/rotate_secret": webhooks.WebhookEndpointWithSecret,
    f"POST {HOOKS}/{{id}}/test": webhooks.WebhookEndpointTestResult,
    "GET /v1/webhook_event_types": webhooks.WebhookEventTypeList,
}
SAME_AS = {"/v1/evals/{eval}/runs/{run}/cancel": "/v1/evals/{eval}/runs/{run}"}  # number 7: two paths
UNSAID = {"DELETE /v1/responses/{id}"}  # a 200 without a word about its body


@pytest.mark.parametrize("asynchronous", ["false", "async:asyncio"])
def test_the_sdk_is_answered_at_every_endpoint(toured: list[Exchange], asynchronous: str) -> None:
    served = {f"{method} {route.path}" for route in app.all_routes() for method in route.methods - {"HEAD"}}

    visited = {
        f"{each.method} {each.route}"
        for each in toured
        if each.asynchronous == asynchronous and each.status < 300
    }

    assert set() == served - visited


def test_every_answer_is_what_the_specification_says(toured: list[Exchange], spec: Spec) -> None:
    problems = {problem for each in toured for problem in unlisted(each, spec)}

    assert [] == sorted(problems)


def test_every_listed_deviation_is_met(toured: list[Exchange], spec: Spec) -> None:
    found = [place(each, error) for each in toured for error in errors(each, spec)]

    assert [] == [d for d in DEVIATIONS if not any(re.search(f"{d.where}$", where) for where in found)]


def test_every_refusal_is_an_envelope_of_four(toured: list[Exchange]) -> None:
    refusals = [json.loads(each.body) for each in toured if each.status >= 400]

    assert 30 < len(refusals)
    assert {("code", "message", "param", "type")} == {tuple(sorted(each["error"])) for each in refusals}


def test_nothing_fails_on_the_way(toured: list[Exchange]) -> None:
    assert [] == [str(each) for each in toured if each.status >= 500]


def unlisted(each: Exchange, spec: Spec) -> list[str]:
    return [
        f"{where}: {error.message[:200]}"
        for error in errors(each, spec)
        if not any(re.search(f"{d.where}$", where := place(each, error)) for d in DEVIATIONS)
    ]


def place(each: Exchange, error: ValidationError) -> str:
    return f"{each.method} {each.route} {'.'.join(map(str, error.absolute_path))}"


def errors(each: Exchange, spec: Spec) -> list[ValidationError]:
    """What the specification, or the SDK where there is none, has against an answer of ours."""
    route = SAME_AS.get(each.route, each.route)
    name = f"{each.method} {route}"
    if each.status < 400 and (route.startswith("/v1/reconciler") or name in UNSAID):
        return []
    if each.status < 400 and name in SDK_TYPES:
        SDK_TYPES[name].model_validate_json(each.body, strict=True)
        return []
    if each.status < 400 and not spec.describes(each.method, route):
        return page_errors(each, spec)
    pointer = spec.pointer(each.method, route, each.status, each.media)
    if pointer is None:
        assert each.media in ("application/octet-stream", "text/csv"), f"nothing says what {each} looks like"
        return []
    return [error for value in values(each) for error in spec.problems(pointer, value)]


def page_errors(each: Exchange, spec: Spec) -> list[ValidationError]:
    """The list of webhook endpoints, which is a page of the SDK's."""
    page = json.loads(each.body)
    assert f"GET {HOOKS}" == f"{each.method} {each.route}", f"nothing says what {each} looks like"
    assert {"object", "data", "first_id", "last_id", "has_more"} == page.keys()
    for one in page["data"]:
        HOOK.model_validate_json(json.dumps(one), strict=True)
    return []


def values(each: Exchange) -> list[Any]:
    """The JSON of an answer: itself, or every event of a stream."""
    if each.media != "text/event-stream":
        return [json.loads(each.body)]
    lines = [line for line in each.body.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]
