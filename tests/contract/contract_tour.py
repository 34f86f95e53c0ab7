"""
A visit to every endpoint with the official SDK, written once and made twice: in turn and asynchronously.

It asserts little; what was answered is remembered by the server and judged elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
from contract_server import Platform, listener
from eval_base import EQUAL, SCHEMA, completions, words

CHAT = [{"role": "user", "content": "one two"}]
TOOL = {"name": "look_up", "parameters": {"type": "object", "properties": {}}}
ROWS = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 10
LONGEST = 30.0  # seconds until a job, a run or a batch must have come to where we wait for it


class InTurn:
    """The synchronous SDK behind the asynchronous one's manners: a call is done when it is awaited."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        return InTurn(getattr(self._of, name))

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._of(*arguments, **named)


def tour_sync(platform: Platform) -> None:
    with openai.OpenAI(base_url=f"{platform.url}/v1", api_key="none", max_retries=0) as client:
        asyncio.run(_tour(platform, InTurn(client), "sync"))


def tour_async(platform: Platform) -> None:
    async def tour() -> None:
        url = f"{platform.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            await _tour(platform, client, "async")

    asyncio.run(tour())


async def _tour(platform: Platform, client: Any, name: str) -> None:
    await _files(client)
    await _uploads(client)
    model = await _jobs(platform, client, name)
    await _permissions(client, model)
    await _models(platform, client, name, model)
    await _evals(client)
    await _graders(client)
    await _chat(client)
    await _responses(client)
    await client.embeddings.create(model="tiny", input=["a", "b"])
    await client.embeddings.create(model="tiny", input="a", encoding_format="float", dimensions=8)
    await _batches(client)
    await _webhooks(client)
    await _refusals(client)


async def _all(stream: Any) -> list[Any]:
    """Everything in a stream of either SDK."""
    return [event async for event in stream] if hasattr(stream, "__aiter__") else list(stream)


async def _until(look: Callable[[], Awaitable[Any]], *statuses: str) -> Any:
    end = time.monotonic() + LONGEST
    while (seen := await look()).status not in statuses:
        assert time.monotonic() < end, f"{seen.id} stays {seen.status}"
        await asyncio.sleep(0.02)
    return seen


async def _refused(call: Awaitable[Any], status: int) -> None:
    try:
        await call
    except openai.APIStatusError as refusal:
        assert status == refusal.status_code, refusal.message
    else:
        raise AssertionError(f"answered where {status} was due")


async def _upload(client: Any, content: bytes = ROWS, purpose: str = "fine-tune", **more: Any) -> str:
    file = await client.files.create(file=("rows.jsonl", content), purpose=purpose, **more)
    return str(file.id)


async def _files(client: Any) -> None:
    life = {"anchor": "created_at", "seconds": 3600}
    id = await _upload(client, expires_after=life)
    await client.files.wait_for_processing(id)
    for purpose in ("evals", "user_data", "batch"):
        await _upload(client, purpose=purpose)
    page = await client.files.list(limit=1)
    assert [1, True] == [len(page.data), page.has_next_page()]
    assert ROWS == (await client.files.content(id)).content
    await client.files.delete(id)


async def _uploads(client: Any) -> None:
    wanted = {"filename": "a.jsonl", "purpose": "fine-tune", "mime_type": "application/jsonl"}
    whole = await client.uploads.upload_file_chunked(file=ROWS, bytes=len(ROWS), part_size=300, **wanted)
    assert ("completed", len(ROWS)) == (whole.status, whole.file.bytes)
    left = await client.uploads.create(bytes=len(ROWS), **wanted)
    await client.uploads.parts.create(left.id, data=ROWS)
    await client.uploads.cancel(left.id)


async def _jobs(platform: Platform, client: Any, name: str) -> str:
    """Visit the jobs; the name of a tuned model."""
    jobs = client.fine_tuning.jobs
    file = await _upload(client)
    common = {"model": "tiny", "training_file": file}
    done = await jobs.create(
        **common,
        validation_file=file,
        suffix="tour",
        seed=1,
        metadata={"tour": name},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
        extra_body={"reconciler": {"tuning": {"type": "full"}}},
    )
    done = await _until(lambda: jobs.retrieve(done.id), "succeeded")
    plan, go = platform.hold(name)
    held_file = await _upload(client, ROWS + json.dumps(plan).encode() + b"\n")
    preference = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}
    held = await jobs.create(model="tiny", training_file=held_file, method=preference)
    await _until(lambda: jobs.retrieve(held.id), "running")
    await jobs.pause(held.id)
    await jobs.retrieve(held.id)
    await jobs.resume(held.id)
    go.touch()
    await _until(lambda: jobs.retrieve(held.id), "succeeded")
    grader = {key: EQUAL[key] for key in ("type", "name", "input", "operation")} | {"reference": "b"}
    reinforcement = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    lost = await jobs.create(**common, validation_file=file, method=reinforcement)
    await jobs.cancel(lost.id)
    assert [done.id] == [job.id for job in (await jobs.list(metadata={"tour": name})).data]
    await jobs.list(limit=2)
    events = await jobs.list_events(done.id)
    assert "metrics" in {event.type for event in events.data}
    await jobs.checkpoints.list(done.id)
    await client.files.content(done.result_files[0])
    return str(done.fine_tuned_model)


async def _permissions(client: Any, model: str) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    granted = await permissions.create(model, project_ids=["a", "b"])
    await permissions.list(model, order="ascending")
    await permissions.delete(granted.data[0].id, fine_tuned_model_checkpoint=model)


async def _models(platform: Platform, client: Any, name: str, model: str) -> None:
    await client.get("/reconciler", cast_to=object)
    await client.get("/reconciler/openapi.json", cast_to=object)
    folder = _model_folder(platform.here.data / f"base-{name}")
    base = {"id": folder.name, "source": {"folder": str(folder)}, "shutdown_date": "2999-01-01"}
    await client.post("/reconciler/models", cast_to=object, body=base)
    await client.models.list()
    await client.models.retrieve(model)
    alias = {"name": f"support/{name}", "model": model, "metadata": {"a": "b"}}
    await client.post("/reconciler/aliases", cast_to=object, body=alias)
    await client.get("/reconciler/aliases", cast_to=object)
    await client.get(f"/reconciler/aliases/support/{name}", cast_to=object)
    await client.chat.completions.create(model=f"support/{name}", messages=CHAT)
    await client.delete(f"/reconciler/aliases/support/{name}", cast_to=object)
    await client.models.delete(model)


def _model_folder(folder: Path) -> Path:
    folder.mkdir()
    for name, content in (("config.json", "{}"), ("model.safetensors", ""), ("tokenizer.json", "{}")):
        (folder / name).write_text(content)
    return folder


async def _evals(client: Any) -> None:
    config = {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
    same = {"type": "text_similarity", "name": "near", "evaluation_metric": "fuzzy_match"}
    same |= {"input": "{{sample.output_text}}", "reference": "{{item.expected}}", "pass_threshold": 0.9}
    made = await client.evals.create(
        name="words", data_source_config=config, testing_criteria=[EQUAL, same], metadata={"a": "b"}
    )
    await client.evals.retrieve(made.id)
    await client.evals.update(made.id, name="more words", metadata={"a": "c"})
    await client.evals.list(order_by="updated_at", limit=1)
    runs = client.evals.runs
    source = completions(words(3, lambda index: index != 1), sampling_params={"max_completion_tokens": 5})
    run = await runs.create(made.id, name="first", data_source=source, metadata={"a": "b"})
    await _until(lambda: runs.retrieve(run.id, eval_id=made.id), "completed")
    items = await runs.output_items.list(run.id, eval_id=made.id)
    await runs.output_items.list(run.id, eval_id=made.id, status="fail")
    await runs.output_items.retrieve(items.data[0].id, eval_id=made.id, run_id=run.id)
    await _given_outputs(client, made.id)
    await _logged_outputs(client)
    stuck = completions([{"item": {"word": "stuck", "expected": "x"}}])
    for path in ("/cancel", ""):
        held = await runs.create(made.id, data_source=stuck)
        await client.post(f"/evals/{made.id}/runs/{held.id}{path}", cast_to=object)
    held = await runs.create(made.id, data_source=stuck)
    await runs.cancel(held.id, eval_id=made.id)
    await runs.list(made.id, status="canceled")
    await runs.list(made.id)
    await runs.delete(held.id, eval_id=made.id)
    await client.evals.delete(made.id)


async def _given_outputs(client: Any, eval_id: str) -> None:
    row = {"item": {"word": "a", "expected": "a"}, "sample": {"output_text": "a"}}
    file = await _upload(client, json.dumps(row).encode(), purpose="evals")
    source = {"type": "jsonl", "source": {"type": "file_id", "id": file}}
    run = await client.evals.runs.create(eval_id, data_source=source)
    await _until(lambda: client.evals.runs.retrieve(run.id, eval_id=eval_id), "completed")
    await client.evals.runs.output_items.list(run.id, eval_id=eval_id)


async def _logged_outputs(client: Any) -> None:
    check = {"type": "string_check", "name": "said", "operation": "eq", "reference": "one two"}
    await client.chat.completions.create(model="tiny", messages=CHAT, store=True, metadata={"for": "evals"})
    made = await client.evals.create(
        data_source_config={"type": "stored_completions", "metadata": {"for": "evals"}},
        testing_criteria=[check | {"input": "{{sample.output_text}}"}],
    )
    source = {
        "type": "completions",
        "source": {"type": "stored_completions", "metadata": {"for": "evals"}},
    }
    run = await client.evals.runs.create(made.id, data_source=source)
    await _until(lambda: client.evals.runs.retrieve(run.id, eval_id=made.id), "completed")
    await client.evals.runs.output_items.list(run.id, eval_id=made.id)


async def _graders(client: Any) -> None:
    graders = client.fine_tuning.alpha.graders
    check = {"type": "string_check", "name": "same", "operation": "eq", "reference": "{{item.word}}"}
    check |= {"input": "{{sample.output_text}}"}
    judge = {"type": "score_model", "name": "judge", "model": "tiny"}
    judge |= {"input": [{"role": "user", "content": '{"result": 0.5, "steps": []}'}]}
    multi = {"type": "multi", "name": "both", "graders": {"same": check, "judge": judge}}
    multi |= {"calculate_output": "(same + judge) / 2"}
    for grader in (check, judge, multi):
        await graders.validate(grader=grader)
        await graders.run(grader=grader, item={"word": "a"}, model_sample="a")


async def _chat(client: Any) -> None:
    chat = client.chat.completions
    common = {"model": "tiny", "messages": CHAT}
    kept = await chat.create(**common, store=True, metadata={"a": "b"}, n=2, logprobs=True, seed=1)
    options = {"include_usage": True}
    await _all(await chat.create(**common, stream=True, stream_options=options, store=True, logprobs=True))
    tools = [{"type": "function", "function": TOOL}]
    await chat.create(**common, tools=tools)
    forced = {"type": "function", "function": {"name": TOOL["name"]}}
    for choice in (forced, "required", "none"):
        await chat.create(**common, tools=tools, tool_choice=choice)
    await chat.create(**common, presence_penalty=1, frequency_penalty=-1, logit_bias={"7": -100})
    seen = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    await chat.create(model="tiny", messages=[{"role": "user", "content": [seen]}])
    await _all(await chat.create(**common, tools=tools, stream=True))
    await chat.list(metadata={"a": "b"}, limit=1, order="desc")
    await chat.retrieve(kept.id)
    await chat.update(kept.id, metadata={"a": "c"})
    await chat.messages.list(kept.id)
    await chat.delete(kept.id)


async def _responses(client: Any) -> None:
    responses = client.responses
    kept = await responses.create(model="tiny", input="one two", metadata={"a": "b"}, instructions="be brief")
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "three"}]}]
    await responses.create(model="tiny", input=parts, previous_response_id=kept.id, temperature=0.5)
    tools = [{"type": "function", "strict": True, **TOOL}]
    called = await responses.create(model="tiny", input="x", tools=tools)
    result = {"type": "function_call_output", "call_id": called.output[0].call_id, "output": "y"}
    after = await responses.create(model="tiny", input=[result], previous_response_id=called.id)
    for more in ({}, {"tools": tools}, {"include": ["message.output_text.logprobs"], "store": False}):
        await _all(await responses.create(model="tiny", input="one two", stream=True, **more))
    await responses.create(
        model="tiny", input="x", tools=tools, tool_choice={"type": "function", "name": TOOL["name"]}
    )
    picture = await _upload(client, b"\x89PNG\r\n\x1a\n", purpose="vision")
    shown = [{"type": "input_image", "file_id": picture, "detail": "auto"}]
    await responses.create(model="tiny", input=[{"role": "user", "content": shown}])
    later = await responses.create(model="tiny", input="one two", background=True)
    await _until(lambda: responses.retrieve(later.id), "completed")
    await responses.cancel(later.id)  # too late
    unwanted = await responses.create(model="tiny", input="one two", background=True)
    await responses.cancel(unwanted.id)
    await responses.retrieve(kept.id)
    for id in (kept.id, after.id):
        await responses.input_items.list(id)
    await responses.delete(kept.id)


def _batch_rows(*texts: str) -> bytes:
    rows = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "tiny", "messages": [{"role": "user", "content": text}]},
        }
        for number, text in enumerate(texts)
    ]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


async def _batches(client: Any) -> None:
    async def create(content: bytes) -> Any:
        file = await _upload(client, content, purpose="batch")
        return await client.batches.create(
            input_file_id=file,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"a": "b"},
        )

    done = await create(_batch_rows("a", "b"))
    done = await _until(lambda: client.batches.retrieve(done.id), "completed")
    await client.files.content(done.output_file_id)
    wrong = await create(b"no row\n")
    await _until(lambda: client.batches.retrieve(wrong.id), "failed")
    stuck = await create(_batch_rows("stuck"))
    await client.batches.cancel(stuck.id)
    await _until(lambda: client.batches.retrieve(stuck.id), "cancelled")
    await client.batches.list(limit=2)


async def _webhooks(client: Any) -> None:
    with listener() as url:
        wanted = {"name": "mine", "url": url, "event_types": ["batch.completed"]}
        made = await client.webhooks.create(**wanted)
        await client.webhooks.test(made.id, event_type="batch.completed")
        await client.webhooks.rotate_secret(made.id)
        await client.webhooks.update(made.id, name="ours")
        await client.webhooks.retrieve(made.id)
        await client.webhooks.list()
        await client.webhooks.event_types.list()
        await client.webhooks.delete(made.id)


async def _refusals(client: Any) -> None:
    """An answer in error of every kind of object."""
    await _refused(client.files.retrieve("file-none"), 404)
    await _refused(client.files.create(file=("a.txt", b"x"), purpose="fine-tune"), 400)
    await _refused(client.uploads.cancel("upload_none"), 404)
    await _refused(client.fine_tuning.jobs.create(model="none", training_file="none"), 404)
    await _refused(client.fine_tuning.jobs.retrieve("ftjob-none"), 404)
    await _refused(client.models.retrieve("none"), 404)
    await _refused(client.models.delete("tiny"), 403)
    await _refused(client.evals.retrieve("eval_none"), 404)
    await _refused(client.evals.runs.create("eval_none", data_source={"type": "none"}), 400)
    await _refused(client.evals.delete("eval_none"), 404)
    await _refused(client.fine_tuning.alpha.graders.validate(grader={"type": "none"}), 400)
    await _refused(client.chat.completions.create(model="none", messages=CHAT), 404)
    await _refused(client.chat.completions.retrieve("chatcmpl-none"), 404)
    await _refused(client.responses.create(model="tiny", input=[]), 400)
    await _refused(client.responses.delete("resp_none"), 404)
    await _refused(client.embeddings.create(model="none", input="a"), 404)
    await _refused(client.batches.retrieve("batch_none"), 404)
    await _refused(client.webhooks.retrieve("we_none"), 404)
    await _refused(client.get("/nowhere", cast_to=object), 404)
