"""Models that are served elsewhere: evals, judges, chats and embeddings through a real upstream on a real port."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from eval_base import EQUAL, FakeEngine, Server, completions, make_eval, words
from openai import APIError, APIStatusError, NotFoundError
from upstream_stub import Reply, Stub, delta, events, first_time, question, refused, said

from reconciler.selfhosted.upstream.upstreamcache import Cache
from reconciler.selfhosted.upstream.upstreamclient import Everywhere, Patience, Upstreams
from reconciler.selfhosted.upstream.upstreampace import START
from reconciler.selfhosted.upstream.upstreams import Upstream, read, route

KEY = "sk-canary-5f1d"
QUICK = Patience(pause=0.001, longest_pause=0.01, reply=0.5, quiet=60)
HELLO: Any = [{"role": "user", "content": "one two three"}]
JUDGE = {
    "type": "score_model",
    "name": "judge",
    "model": "far-judge",
    "input": [{"role": "user", "content": "Rate {{sample.output_text}}"}],
    "range": [0, 1],
    "pass_threshold": 0.5,
}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub().running() as running:
        yield running


def platform(data: Path, stub: Stub, *more: Upstream, patience: Patience = QUICK, **settings: Any) -> Server:
    """A server whose models are elsewhere if their names begin with `far`."""
    far = Upstream("far*", stub.url, "FAR_KEY", KEY, **settings)
    listed, data = (*more, far), data / "data"
    data.mkdir(exist_ok=True)
    elsewhere = Upstreams(listed, Cache(data / "upstreams.db", 1 << 20), patience)
    return Server(data, Everywhere(FakeEngine(), elsewhere), upstreams=listed)


@pytest.fixture
def server(tmp_path: Path, stub: Stub) -> Iterator[Server]:
    with platform(tmp_path, stub).running() as running:
        yield running


def measured(server: Server, count: int, *criteria: dict[str, Any], model: str = "far-model") -> Any:
    source: Any = completions(words(count), model=model)
    made = make_eval(server, *criteria)
    return server.ended(server.client.evals.runs.create(made.id, data_source=source))


def counts(run: Any) -> tuple[int, int, int]:
    return run.result_counts.passed, run.result_counts.failed, run.result_counts.errored


# Names


def test_the_first_pattern_that_fits_is_asked_and_a_tuned_name_fits_only_a_tuned_pattern() -> None:
    mini, any_, tuned = (Upstream(pattern, "http://x/v1") for pattern in ("gpt-*-mini", "*", "ft:gpt*"))

    assert mini is route((mini, any_), "gpt-5-mini")
    assert any_ is route((mini, any_), "gpt-5")
    assert route((mini, any_), "ft:tiny:local::abc") is None
    assert tuned is route((mini, any_, tuned), "ft:gpt-4o:us::abc")
    assert route((mini,), "llama") is None


def test_a_model_of_our_own_comes_before_a_pattern_and_a_name_that_fits_none_is_a_404(
    tmp_path: Path, stub: Stub
) -> None:
    with platform(tmp_path, stub, Upstream("tin*", stub.url)).running() as server:
        server.client.chat.completions.create(model="tiny", messages=HELLO)
        with pytest.raises(NotFoundError):
            server.client.chat.completions.create(model="unknown", messages=HELLO)
        with pytest.raises(NotFoundError):
            server.client.models.retrieve("unknown")
        elsewhere = server.client.models.retrieve("far-model")

    assert [] == stub.bodies
    assert ("far-model", "upstream") == (elsewhere.id, elsewhere.owned_by)


def test_an_alias_may_lead_to_a_model_that_is_elsewhere_but_not_to_another_alias(
    server: Server, stub: Stub
) -> None:
    def lead(name: str, model: str) -> Any:
        wanted = {"name": name, "model": model}
        return server.client.post("/reconciler/aliases", body=wanted, cast_to=object)

    lead("production", "far-model")
    said = server.client.chat.completions.create(model="production", messages=HELLO)
    found = server.client.models.retrieve("production")
    lead("far-alias", "tiny")  # a name that the pattern of the upstream would fit
    for model in ("far-alias", "production", "unknown"):
        with pytest.raises(NotFoundError):
            lead("second", model)

    assert ["far-model"] == [body["model"] for body in stub.bodies]
    assert ("far-model", "far-model", "upstream") == (said.model, found.id, found.owned_by)


def test_a_model_of_our_own_that_was_shut_down_is_answered_by_nobody(tmp_path: Path, stub: Stub) -> None:
    with platform(tmp_path, stub, Upstream("*", stub.url)).running() as server:

        def shut_down(tx: Any) -> None:
            row = tx.get("", "model", "tiny") or next(row for row in tx.all("model") if row.id == "tiny")
            tx.update(row, body=row.wire() | {"shutdown_date": "2020-01-01"})

        server.store.write_now(shut_down)
        with pytest.raises(NotFoundError):
            server.client.chat.completions.create(model="tiny", messages=HELLO)

    assert [] == stub.bodies


def test_the_request_carries_every_parameter_the_key_and_the_name_that_the_model_has_there(
    tmp_path: Path, stub: Stub
) -> None:
    with platform(tmp_path, stub, model="org/there").running() as server:
        server.client.chat.completions.create(
            model="far-model",
            messages=[{"role": "developer", "content": "be brief"}, *HELLO],
            temperature=0.5,
            seed=7,
            max_completion_tokens=11,
            stop="x",
            logprobs=True,
            top_logprobs=2,
            response_format={"type": "json_object"},
        )

    assert [
        {
            "path": "/v1/chat/completions",
            "model": "org/there",
            "messages": [{"role": "system", "content": "be brief"}, *HELLO],
            "temperature": 0.5,
            "top_p": 1.0,
            "seed": 7,
            "max_completion_tokens": 11,
            "stop": ["x"],
            "logprobs": True,
            "top_logprobs": 2,
            "response_format": {"type": "json_object"},
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ] == stub.bodies
    assert f"Bearer {KEY}" == stub.headers[0]["authorization"]


# The file


def test_a_file_lists_upstreams_and_their_keys_come_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "upstreams.yaml"
    file.write_text(
        "- {pattern: 'gpt-*', base_url: 'https://api.example.com/v1/', api_key_env: A_KEY}\n"
        "- {pattern: llama, base_url: 'http://10.0.0.7:8000/v1', model: org/llama, concurrency: 8}\n"
    )

    first, second = read(file, {"A_KEY": KEY})

    assert Upstream("gpt-*", "https://api.example.com/v1", "A_KEY", KEY) == first
    assert Upstream("llama", "http://10.0.0.7:8000/v1", model="org/llama", concurrency=8) == second
    assert KEY not in repr(first)


def test_a_file_with_problems_is_refused_with_all_of_them_and_none_of_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "upstreams.yaml"
    file.write_text(
        "- {pattern: a, base_url: 'https://x/v1', api_key_env: NOT_SET}\n"
        f"- {{pattern: b, base_url: 'https://me:{KEY}@x/v1'}}\n"
        "- {pattern: c, base_url: nowhere}\n"
        f"- {{pattern: d, base_url: 'https://x/v1', api_key: {KEY}}}\n"
        "- {pattern: e, base_url: 'https://x/v1', concurrency: 0}\n"
        "- {pattern: f, base_url: 'https://x/v1', api_key_env: ODD}\n"
    )

    with pytest.raises(ValueError) as refusal:
        read(file, {"ODD": f"{KEY}\x01"})

    lines = str(refusal.value).splitlines()
    assert 6 == len(lines)
    assert "the environment variable NOT_SET is not set; set it, or leave api_key_env out" in lines[0]
    assert "concurrency must be at least 1, got 0" in lines[4]
    assert KEY not in str(refusal.value)


# Evals


def test_an_eval_measures_a_model_that_is_elsewhere_and_counts_its_tokens(server: Server, stub: Stub) -> None:
    run = measured(server, 300)

    assert ("completed", (300, 0, 0)) == (run.status, counts(run))
    [usage] = run.per_model_usage
    assert ("far-model", 300, 1500, 600) == (
        usage.model_name,
        usage.invocation_count,
        usage.prompt_tokens,
        usage.completion_tokens,
    )
    assert 300 == len({body["seed"] for body in stub.bodies})
    assert list(range(300)) == [item.datasource_item_id for item in server.items(run, limit=100)]


def test_a_second_run_of_the_same_eval_sends_nothing(server: Server, stub: Stub) -> None:
    first = measured(server, 100)
    asked = len(stub.bodies)

    second = measured(server, 100)

    assert 100 == asked == len(stub.bodies)
    assert counts(first) == counts(second)
    assert first.per_model_usage == second.per_model_usage


async def _unavailable(request: web.Request, body: dict[str, Any]) -> Reply:
    return refused(503)


async def _too_many(request: web.Request, body: dict[str, Any]) -> Reply:
    return refused(429)


async def _dropped(request: web.Request, body: dict[str, Any]) -> Reply:
    return None


async def _garbage(request: web.Request, body: dict[str, Any]) -> Reply:
    return web.Response(text='{"choices": [', content_type="application/json")


async def _no_completion(request: web.Request, body: dict[str, Any]) -> Reply:
    return web.json_response({"choices": [{"message": {"content": 7}}]})


@pytest.mark.parametrize("trouble", [_unavailable, _too_many, _dropped, _garbage, _no_completion])
def test_what_goes_wrong_on_the_way_is_asked_again_until_it_is_answered(
    server: Server, stub: Stub, trouble: Any
) -> None:
    stub.says = first_time(trouble)

    run = measured(server, 100)

    assert (100, 0, 0) == counts(run)
    assert {2} == set(stub.times_asked().values())


def test_an_upstream_that_does_not_answer_in_time_is_asked_again(server: Server, stub: Stub) -> None:
    stub.says = first_time(stub.stuck)

    run = measured(server, 10)

    assert (10, 0, 0) == counts(run)
    assert 20 == len(stub.bodies)


def test_an_item_that_cannot_be_answered_is_an_error_of_its_own(server: Server, stub: Stub) -> None:
    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        match question(body):
            case "w3":
                return refused(400, f"the key {KEY} may not ask for w3")
            case "w5":
                return refused(500)
            case "w7":
                return refused(403, "not this")
        return said(question(body))

    stub.says = says
    run = measured(server, 10)

    errors = {item.datasource_item_id: item.sample.error for item in server.items(run) if item.sample.error}
    assert ("completed", (7, 0, 3)) == (run.status, counts(run))
    assert ("invalid_request", f"{stub.url} (HTTP 400): the key *** may not ask for w3") == (
        errors[3].code,
        errors[3].message,
    )
    assert f"{stub.url} gave no usable answer: HTTP 500" == errors[5].message
    assert "upstream_forbidden" == errors[7].code
    assert QUICK.tries == sum("w5" == question(body) for body in stub.bodies)
    assert 1 == sum("w3" == question(body) for body in stub.bodies)


@pytest.mark.parametrize("status", [401, 403])
def test_a_run_whose_key_is_refused_fails_and_names_the_environment_variable(
    server: Server, stub: Stub, status: int
) -> None:
    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        return refused(status, f"Incorrect API key provided: {KEY}")

    stub.says = says
    run = measured(server, 1000)

    assert "failed" == run.status
    assert (
        f"{stub.url} refused the key in the environment variable FAR_KEY (HTTP {status}); "
        "set a valid key and start the server again"
    ) == run.error.message
    assert len(stub.bodies) < 1000
    assert KEY not in json.dumps(run.to_dict())


def test_a_run_whose_judge_is_refused_its_key_fails_too(tmp_path: Path, stub: Stub) -> None:
    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        return refused(401)

    stub.says = says
    with platform(tmp_path, stub).running() as server:
        run = measured(server, 10, JUDGE, model="tiny")

    assert "failed" == run.status
    assert "FAR_KEY" in run.error.message


def test_a_burst_of_429_with_retry_after_pauses_all_and_halves_the_concurrency_once(
    server: Server, stub: Stub
) -> None:
    refused_at: list[float] = []
    resumed_at: list[float] = []
    at_once: list[int] = []
    half = asyncio.Event()

    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        if len(refused_at) < START:
            refused_at.append(time.monotonic())
            return refused(429, retry_after="1")
        resumed_at.append(time.monotonic())
        if stub.in_flight == START // 2:
            half.set()
        await half.wait()
        await asyncio.sleep(0.05)  # long enough for one more to come, if one more were sent
        at_once.append(stub.in_flight)
        return said(question(body))

    stub.says = says
    run = measured(server, 64)

    assert (64, 0, 0) == counts(run)
    assert START == len(refused_at)
    assert resumed_at[0] - refused_at[0] >= 1
    assert START // 2 == at_once[0]
    assert max(at_once) < START


def test_no_more_are_in_flight_than_the_file_allows(tmp_path: Path, stub: Stub) -> None:
    with platform(tmp_path, stub, concurrency=3).running() as server:
        run = measured(server, 200)

    assert (200, 0, 0) == counts(run)
    assert stub.most_in_flight <= 3


def test_judges_are_asked_at_their_upstream(server: Server, stub: Stub) -> None:
    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        judged = body["model"] == "far-judge"
        return said('{"steps": [], "result": 0.75}' if judged else question(body))

    stub.says = says
    run = measured(server, 100, EQUAL, JUDGE)

    assert (100, 0, 0) == counts(run)
    assert {"far-model": 100, "far-judge": 100} == {
        usage.model_name: usage.invocation_count for usage in run.per_model_usage
    }


# Chats and embeddings


def test_a_chat_is_answered_elsewhere_under_our_name_and_asked_every_time(server: Server, stub: Stub) -> None:
    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
        return await events(request, delta(content="good "), delta(content="day"), delta("stop"), usage)

    stub.says = says
    answers = [
        server.client.chat.completions.create(model="far-model", messages=HELLO, seed=1) for _ in range(2)
    ]

    assert 2 == len(stub.bodies)
    for answer in answers:
        assert ("far-model", "good day", "stop") == (
            answer.model,
            answer.choices[0].message.content,
            answer.choices[0].finish_reason,
        )
        assert answer.usage is not None
        assert (5, 2) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)


def test_a_chat_streams_through_with_its_tool_calls(server: Server, stub: Stub) -> None:
    def call(**of: Any) -> dict[str, Any]:
        return delta(tool_calls=[{"index": 0, **of}])

    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        return await events(
            request,
            delta(role="assistant", content="let me "),
            delta(content="see"),
            call(id="call_1", type="function", function={"name": "look", "arguments": ""}),
            call(function={"arguments": '{"at":'}),
            call(function={"arguments": ' 1}'}),
            delta("tool_calls"),
        )  # fmt: skip

    stub.says = says
    chunks = list(server.client.chat.completions.create(model="far-model", messages=HELLO, stream=True))

    said_ = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert ["let me ", "see"] == said_
    [calls] = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert ("call_1", "look", '{"at": 1}') == (
        calls[0].id,
        calls[0].function and calls[0].function.name,
        calls[0].function and calls[0].function.arguments,
    )
    assert "tool_calls" == chunks[-1].choices[0].finish_reason


@pytest.mark.parametrize("last", ["not json", '{"error": {"message": "gone"}}', None])
def test_a_stream_that_breaks_off_ends_with_an_error_and_not_with_half_an_answer(
    server: Server, stub: Stub, last: str | None
) -> None:
    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        return await events(request, delta(content="half"), *([last] if last else []), done=False)

    stub.says = says
    stream = server.client.chat.completions.create(model="far-model", messages=HELLO, stream=True)

    with pytest.raises(APIError, match="gave no usable answer"):
        list(stream)
    assert 1 == len(stub.bodies)


@pytest.mark.parametrize(
    ("reply", "status"), [((401,), 502), ((404,), 404), ((400,), 400), ((429,), 503), ((500,), 502)]
)
def test_a_chat_that_is_refused_elsewhere_is_refused_here(
    server: Server, stub: Stub, reply: tuple[int], status: int
) -> None:
    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        return refused(*reply)

    stub.says = says
    with pytest.raises(APIStatusError) as refusal:
        server.client.chat.completions.create(model="far-model", messages=HELLO)

    assert status == refusal.value.status_code


def test_texts_are_embedded_elsewhere_into_vectors_of_unit_length(server: Server, stub: Stub) -> None:
    async def says(request: web.Request, body: dict[str, Any]) -> Reply:
        data = [{"index": at, "embedding": [3.0 * at, 4.0]} for at in reversed(range(len(body["input"])))]
        return web.json_response({"data": data, "usage": {"prompt_tokens": 9, "total_tokens": 9}})

    stub.says = says
    made = server.client.embeddings.create(model="far-embed", input=["a", "b"], encoding_format="float")

    assert [[0.0, 1.0], [0.6, 0.8]] == [one.embedding for one in made.data]
    assert 9 == made.usage.prompt_tokens
    assert "/v1/embeddings" == stub.bodies[0]["path"]
