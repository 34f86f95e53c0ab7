"""The engine as its callers see it: a real process, and the packaged base model."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.selfhosted import tiny
from reconciler.selfhosted.engine import Answer, Ask, Engine, EngineError

MODEL = str(Path(tiny.__file__).parent)
GREEDY = Ask(MODEL, [{"role": "user", "content": "Repeat: the lamp is blue"}], temperature=0, max_tokens=24)
# so hot that the seed alone decides: a babble in which the end token does not come, whatever the weights are
LONG = replace(GREEDY, temperature=1000, seed=41, max_tokens=300)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner) -> Iterator[Engine]:
    engine = Engine(threads=2)
    yield engine
    runner.run(engine.close())


def many(count: int, **changes: Any) -> list[Ask]:
    """Different prompts of different lengths, sampled by different seeds."""
    words = ["red", "green", "blue", "lamp", "boat", "and", "or", "the", "order", "is", "late"]
    return [
        replace(
            GREEDY,
            messages=[{"role": "user", "content": f"Repeat: {' '.join(words[: 1 + i % len(words)])} {i}"}],
            seed=i,
            **changes,
        )
        for i in range(count)
    ]


async def collected(engine: Engine, ask: Ask) -> tuple[list[str], Answer]:
    parts = [part async for part in engine.stream(ask)]
    assert isinstance(parts[-1], Answer)
    return parts[:-1], parts[-1]


def test_the_same_list_gives_the_same_answers(runner, engine):
    asks = many(150, temperature=1.0, top_p=0.9, max_tokens=32)

    first, again = (runner.run(engine.generate(asks)) for _ in range(2))

    assert first == again
    assert len({answer.text for answer in first}) > 20


def test_a_list_gives_the_same_answers_whatever_else_goes_on(runner, engine):
    asks = many(40, temperature=1.0, max_tokens=24)

    async def beside_streams() -> list[Answer | EngineError]:
        streams = [asyncio.create_task(engine.answer(replace(LONG, seed=i))) for i in range(20)]
        answers = await engine.generate(asks)
        await asyncio.gather(*streams)
        return answers

    assert runner.run(engine.generate(asks)) == runner.run(beside_streams())


@pytest.mark.parametrize("ask", [GREEDY, replace(LONG, max_tokens=60)], ids=["greedy", "sampled"])
def test_a_stream_says_what_generate_says(runner, engine, ask):
    (whole,) = runner.run(engine.generate([ask]))

    pieces, answer = runner.run(collected(engine, ask))

    assert whole == answer
    assert whole.text == "".join(pieces)
    assert len(pieces) > 1


def test_who_joins_a_running_batch_says_the_same_as_alone(runner, engine):
    early, late = LONG, many(3)[2]

    async def joined() -> list[str]:
        first = engine.stream(early)
        begun = await anext(first)
        second = await engine.answer(late)
        rest = [part async for part in first if isinstance(part, str)]
        return [begun + "".join(rest), second.text]

    alone = [runner.run(engine.generate([ask]))[0].text for ask in (early, late)]

    assert alone == runner.run(joined())


def test_many_clients_share_the_engine(runner, engine):
    asks = many(60, max_tokens=16)

    async def all_at_once() -> list[str]:
        return [answer.text for answer in await asyncio.gather(*map(engine.answer, asks))]

    assert [answer.text for answer in runner.run(engine.generate(asks))] == runner.run(all_at_once())


def tool(name: str, **properties: Any) -> dict[str, Any]:
    shape = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "function": {"name": name, "parameters": {**shape, "additionalProperties": False}},
    }


TOOLS = [
    tool("look_up", order={"type": "integer", "minimum": 0, "maximum": 99}),
    tool("say", mood={"enum": ["glad", "sad"]}),
]


@pytest.mark.parametrize("names", [("say",), ("look_up",), ("look_up", "say")])
def test_a_call_that_must_be_is_one_with_arguments_that_fit(runner, engine, names):
    asks = [
        replace(LONG, tools=TOOLS, must_call=names, temperature=temperature, seed=seed, max_tokens=400)
        for temperature, seed in ((0, 1), (2, 2), (2, 3))
    ]

    answers = runner.run(engine.generate(asks))
    streamed, _ = runner.run(collected(engine, asks[0]))

    assert [] == streamed
    for answer in answers:
        [call] = answer.tool_calls
        assert ("tool_calls", "") == (answer.finish_reason, answer.text)
        assert call["function"]["name"] in names
        (name, value), *rest = json.loads(call["function"]["arguments"]).items()
        assert [] == rest
        assert value in (range(100) if name == "order" else ("glad", "sad"))


def test_a_tool_that_is_not_there_cannot_be_called(runner, engine):
    (result,) = runner.run(engine.generate([replace(GREEDY, tools=TOOLS, must_call=["sing"])]))

    assert EngineError("invalid_request", "there is no tool 'sing' to call") == result


def test_a_bias_rules_tokens_out_and_in(runner, engine):
    ask = replace(GREEDY, max_tokens=1, logprobs=2)
    (plain,) = runner.run(engine.generate([ask]))
    tokens = tokens_of(plain)

    first, second = tokens
    biased, chosen, unknown = runner.run(
        engine.generate(
            [
                replace(ask, logit_bias={str(first): -100}),
                replace(ask, logit_bias={"40": 100}, temperature=1, seed=1),
                replace(ask, logit_bias={"99999": 1}),
            ]
        )
    )

    assert second == tokens_of(biased, chosen=True)
    assert 40 == tokens_of(chosen, chosen=True)
    assert "invalid_request" == unknown.code


def tokens_of(answer: Answer, chosen: bool = False) -> Any:
    """The ids of an answer's first token and its alternatives, by their text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    [entry] = answer.logprobs or []
    ids = [tokenizer.encode(each["token"], add_special_tokens=False)[0] for each in entry["top_logprobs"]]
    return tokenizer.encode(entry["token"], add_special_tokens=False)[0] if chosen else ids


def test_seeds_repeat_and_differ(runner, engine):
    one, again, other = (replace(LONG, max_tokens=40, seed=seed) for seed in (1, 1, 2))

    answers = [answer.text for answer in runner.run(engine.generate([one, again, other]))]

    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_without_a_seed_answers_differ(runner, engine):
    answers = runner.run(engine.generate([replace(LONG, seed=None, max_tokens=40)] * 3))

    assert 3 == len({answer.text for answer in answers})


def test_a_stop_string_ends_the_answer_and_is_not_in_it(runner, engine):
    (whole,) = runner.run(engine.generate([GREEDY]))
    stop = whole.text[3:6]

    pieces, answer = runner.run(collected(engine, replace(GREEDY, stop=(stop,))))

    assert (whole.text.split(stop)[0], "stop") == (answer.text, answer.finish_reason)
    assert answer.text == "".join(pieces)
    assert answer.completion_tokens < whole.completion_tokens


def test_an_answer_ends_at_max_tokens(runner, engine):
    (answer,) = runner.run(engine.generate([replace(LONG, max_tokens=7)]))

    assert ("length", 7) == (answer.finish_reason, answer.completion_tokens)


def test_an_answer_ends_where_the_context_does(runner, engine):
    context = json.loads((Path(MODEL) / "config.json").read_text())["max_position_embeddings"]

    (answer,) = runner.run(engine.generate([replace(LONG, max_tokens=5000)]))

    assert "stop" == answer.finish_reason or context == answer.prompt_tokens + answer.completion_tokens


def test_without_max_tokens_an_answer_is_as_long_as_the_model_folder_allows(runner, engine):
    longest = json.loads((Path(MODEL) / "generation_config.json").read_text())["max_new_tokens"]

    (answer,) = runner.run(engine.generate([replace(LONG, max_tokens=None)]))

    assert ("length", longest) == (answer.finish_reason, answer.completion_tokens)


def test_logprobs_spell_the_text(runner, engine):
    (answer,) = runner.run(engine.generate([replace(GREEDY, logprobs=3)]))

    assert answer.text == "".join(entry["token"] for entry in answer.logprobs)
    for entry in answer.logprobs:
        assert 3 == len(entry["top_logprobs"])
        assert entry["token"] == entry["top_logprobs"][0]["token"]
        assert 0 >= entry["logprob"] == max(other["logprob"] for other in entry["top_logprobs"])
        assert entry["token"].encode() == bytes(entry["bytes"])


SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["colour", "count"],
    "additionalProperties": False,
}


def test_a_schema_is_kept_even_by_a_model_that_raves(runner, engine):
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}
    asks = [replace(LONG, temperature=3.0, seed=i, response_format=wanted) for i in range(16)]

    answers = runner.run(engine.generate(asks))

    for answer in answers:
        read = json.loads(answer.text)
        assert "stop" == answer.finish_reason
        assert ["colour", "count"] == list(read)
        assert read["colour"] in ("red", "blue") and 0 <= read["count"] <= 9


def test_a_schema_that_is_none_is_refused(runner, engine):
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": {"type": "objekt"}}}

    (error,) = runner.run(engine.generate([replace(GREEDY, response_format=wanted)]))

    assert "invalid_request" == error.code


def test_bad_asks_are_answered_with_errors_and_good_ones_beside_them_with_text(runner, engine, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not even read")
    asks = {
        "model_not_found": replace(GREEDY, model=str(tmp_path / "nowhere")),
        "model_unloadable": replace(GREEDY, model=str(tmp_path)),
        "context_length_exceeded": replace(GREEDY, messages=[{"role": "user", "content": "x " * 4000}]),
        "invalid_request": replace(GREEDY, messages=[{"role": "wizard", "content": "hello"}]),
    }

    *errors, answer = runner.run(engine.generate([*asks.values(), GREEDY]))

    assert list(asks) == [error.code for error in errors]
    assert isinstance(answer, Answer)


def test_content_that_is_no_text_is_refused(runner, engine):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}

    with pytest.raises(EngineError, match="image_url"):
        runner.run(engine.answer(replace(GREEDY, messages=[{"role": "user", "content": [picture]}])))


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_p": "much"},
        {"seed": 1 << 80},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"top_p": 7.0},
    ],
    ids=["type", "size", "text", "range"],
)
def test_a_malformed_ask_is_refused_and_the_engine_lives_on(runner, engine, wrong):
    runner.run(engine.start())
    before = engine.pid

    with pytest.raises(EngineError) as caught:
        runner.run(engine.answer(replace(GREEDY, **wrong)))

    assert ("invalid_request", before) == (caught.value.code, engine.pid)


def test_weights_that_are_broken_are_unloadable(runner, engine, tmp_path):
    for file in Path(MODEL).iterdir():
        if file.suffix in (".json", ".jinja"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes((Path(MODEL) / "model.safetensors").read_bytes()[:-100])

    with pytest.raises(EngineError) as caught:
        runner.run(engine.load(str(tmp_path)))

    assert "model_unloadable" == caught.value.code


def test_a_stream_that_is_left_does_not_disturb_the_next(runner, engine):
    async def leave() -> None:
        stream = engine.stream(LONG)
        await anext(stream)
        await stream.aclose()

    runner.run(leave())

    assert runner.run(engine.answer(GREEDY)) == runner.run(engine.generate([GREEDY]))[0]


def test_a_killed_engine_is_started_again_and_loses_no_call(runner, engine):
    async def killed_while_streaming() -> tuple[str, str]:
        stream = engine.stream(LONG)
        text = await anext(stream)
        os.kill(engine.pid, signal.SIGKILL)
        async for part in stream:
            text += part if isinstance(part, str) else ""
        return text, part.text

    expected = runner.run(engine.answer(LONG)).text
    before = engine.pid

    text, answered = runner.run(killed_while_streaming())

    assert (expected, expected) == (text, answered)
    assert before != engine.pid


def test_an_engine_dies_with_its_parent():
    code = (
        "import asyncio, os\nfrom reconciler.selfhosted.engine import Engine\n"
        "engine = Engine()\nasyncio.run(engine.start())\nprint(engine.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    try:
        watched = os.pidfd_open(int(parent.stdout.readline()))
    except ProcessLookupError:
        return  # dead already
    parent.wait()

    assert select.select([watched], [], [], 30)[0]
