"""Webhooks: who is told of what, that it is us, that nothing is lost, and where we do not go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import server_base
from eval_base import FakeEngine, Server, make_eval, run_of, words
from openai import AsyncOpenAI, BadRequestError, InvalidWebhookSignatureError, NotFoundError, OpenAI
from server_base import register, until, upload

from reconciler.selfhosted.notices import outbox, postman
from reconciler.selfhosted.notices.outbox import PATIENCE, PAUSES
from reconciler.selfhosted.storage.store import Store

ALL = list(outbox.EVENTS)


class Clock:
    """A time that only moves when it is told to."""

    def __init__(self) -> None:
        self.time = time.time()

    def __call__(self) -> float:
        return self.time


class Receiver:
    """A place for webhooks: remembers what came, answers with the next status, 200 at the end."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.came: list[tuple[bytes, dict[str, str]]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.came.append((body, headers))
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def events(self, client: OpenAI, secret: str) -> list[tuple[str, str]]:
        unwrapped: list[Any] = [
            client.webhooks.unwrap(body, headers, secret=secret) for body, headers in self.came
        ]
        return [(event.type, event.data.id) for event in unwrapped]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, clock: Clock) -> Iterator[Server]:
    with Server(tmp_path / "data", FakeEngine(), now=clock).running() as running:
        yield running


def subscribe(client: OpenAI, url: str, *types: Any) -> Any:
    return client.webhooks.create(name="ours", url=url, event_types=list(types or ALL))


def test_an_ended_run_is_told_once_and_the_sdk_believes_it(server: Server, receiver: Receiver) -> None:
    endpoint = subscribe(server.client, receiver.url, "eval.run.succeeded")
    subscribe(server.client, receiver.url + "/of-others", "eval.run.failed")

    run = server.ended(run_of(server, make_eval(server).id, words(2)))
    until(lambda: receiver.came)
    until(lambda: not server.store.read_now(lambda tx: tx.all(outbox.MESSAGE)))

    assert [("eval.run.succeeded", run.id)] == receiver.events(server.client, endpoint.signing_secret)
    [(body, headers)] = receiver.came
    with pytest.raises(InvalidWebhookSignatureError):
        server.client.webhooks.unwrap(body + b" ", headers, secret=endpoint.signing_secret)


def test_failed_and_cancelled_runs_and_batches_are_told_too(server: Server, receiver: Receiver) -> None:
    endpoint = subscribe(server.client, receiver.url)
    server.engine.sticks_at = 1
    parent = make_eval(server)

    failed = server.ended(run_of(server, parent.id, [{"item": {}}]))
    run = run_of(server, parent.id, words(2))
    until(server.engine.stuck.is_set)
    server.client.evals.runs.cancel(run.id, eval_id=parent.id)
    file = server.client.files.create(file=("a.jsonl", b"{"), purpose="batch")
    batch = server.client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    until(lambda: 3 == len(receiver.came))

    expected = {("eval.run.failed", failed.id), ("eval.run.canceled", run.id), ("batch.failed", batch.id)}
    assert expected == set(receiver.events(server.client, endpoint.signing_secret))


def test_a_job_tells_how_it_ended_and_a_dead_server_tells_it_later(
    new_server: Callable[[], server_base.Server], base_model: Path, receiver: Receiver
) -> None:
    platform = new_server().start("--allow-model-sources")
    client = platform.client()
    receiver.statuses = [500]
    endpoint = subscribe(client, receiver.url)
    job = client.fine_tuning.jobs.create(model=register(platform, base_model), training_file=upload(platform))
    store = Store(f"sqlite:///{platform.data / 'platform.db'}")
    until(lambda: [m for m in store.read_now(lambda tx: tx.all(outbox.MESSAGE)) if m.hidden()["attempts"]])
    store.close()
    platform.kill()

    client = platform.start("--allow-model-sources").client()
    until(lambda: 2 == len(receiver.came))

    told = receiver.events(client, endpoint.signing_secret)
    assert [("fine_tuning.job.succeeded", job.id)] * 2 == told
    assert 1 == len({headers["webhook-id"] for _, headers in receiver.came})


def test_what_is_not_taken_is_sent_again_later_and_later_until_three_days_are_over(
    server: Server, receiver: Receiver, clock: Clock
) -> None:
    receiver.statuses = [500, 302, 404, *[500] * 50]
    subscribe(server.client, receiver.url)
    began = clock.time
    server.ended(run_of(server, make_eval(server).id, words(1)))

    def waiting() -> list[Any]:
        return server.store.read_now(lambda tx: tx.all(outbox.MESSAGE))

    for attempt in range(1, 4):
        until(lambda attempt=attempt: any(m.hidden()["attempts"] == attempt for m in waiting()))  # type: ignore[misc]
        assert attempt == len(receiver.came)
        [message] = waiting()
        assert clock.time + PAUSES[attempt - 1] == message.hidden()["next_at"]
        clock.time += PAUSES[attempt - 1]
    until(lambda: not waiting() or waiting()[0].hidden()["attempts"] == 4)
    clock.time = began + PATIENCE
    until(lambda: not waiting())

    assert 1 == len({headers["webhook-id"] for _, headers in receiver.came})
    assert 5 == len(receiver.came)


def test_an_endpoint_that_is_gone_gets_no_more(server: Server, receiver: Receiver) -> None:
    receiver.statuses = [410]
    subscribe(server.client, receiver.url)
    server.ended(run_of(server, make_eval(server).id, words(1)))

    until(lambda: receiver.came)
    until(lambda: not server.store.read_now(lambda tx: tx.all(outbox.MESSAGE)))


def test_endpoints_are_made_changed_listed_and_deleted(server: Server, receiver: Receiver) -> None:
    webhooks = server.client.webhooks
    made = [subscribe(server.client, receiver.url, "batch.completed") for _ in range(3)]

    changed = webhooks.update(made[0].id, name="theirs", event_types=["batch.failed"])

    assert made[0].signing_secret.startswith("whsec_")
    assert f"whsec_...{made[0].signing_secret[-4:]}" == changed.signing_secret_hint
    assert ("theirs", ["batch.failed"], receiver.url) == (changed.name, changed.event_types, changed.url)
    assert changed == webhooks.retrieve(made[0].id)
    assert "signing_secret" not in changed.to_dict()
    page = webhooks.list(limit=2)
    assert [made[2].id, made[1].id] == [each.id for each in page.data]
    assert page.has_more
    assert [made[0].id] == [each.id for each in webhooks.list(after=page.last_id).data]
    assert ALL == webhooks.event_types.list().data
    gone = webhooks.delete(made[0].id)
    assert (True, "webhook_endpoint.deleted") == (gone.deleted, gone.object)
    with pytest.raises(NotFoundError, match=made[0].id):
        webhooks.retrieve(made[0].id)


def test_a_test_sends_a_sample_and_says_what_was_answered(server: Server, receiver: Receiver) -> None:
    receiver.statuses = [200, 503]
    endpoint = subscribe(server.client, receiver.url)
    webhooks = server.client.webhooks

    results = [webhooks.test(endpoint.id, event_type="batch.completed") for _ in range(2)]

    assert [(200, True), (503, True)] == [(each.status_code, each.success) for each in results]
    assert ["batch.completed"] * 2 == [
        type for type, _ in receiver.events(server.client, endpoint.signing_secret)
    ]
    webhooks.update(endpoint.id, url="http://127.0.0.1:1/nobody")
    with pytest.raises(BadRequestError, match="could not be reached"):
        webhooks.test(endpoint.id, event_type="batch.completed")


def test_an_old_secret_ends_at_once_or_after_a_day(server: Server, receiver: Receiver, clock: Clock) -> None:
    webhooks = server.client.webhooks
    first = subscribe(server.client, receiver.url)
    second = webhooks.rotate_secret(first.id, keep_old_secret_active_for_24_hours=True)
    webhooks.test(first.id, event_type="batch.completed")
    third = webhooks.rotate_secret(first.id)
    webhooks.test(first.id, event_type="batch.completed")

    def believes(message: tuple[bytes, dict[str, str]], secret: str) -> bool:
        try:
            webhooks.unwrap(*message, secret=secret)
        except InvalidWebhookSignatureError:
            return False
        return True

    secrets = [each.signing_secret for each in (first, second, third)]
    assert [True, True, False] == [believes(receiver.came[0], secret) for secret in secrets]
    assert [False, False, True] == [believes(receiver.came[1], secret) for secret in secrets]
    kept = {"secret": "whsec_bmV3", "old_secret": "whsec_b2xk", "old_until": 100}
    assert [["whsec_bmV3", "whsec_b2xk"], ["whsec_bmV3"]] == [
        postman.valid_secrets(kept, now) for now in (99, 100)
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://example.org/"},
        {"url": "http://user:secret@example.org/"},
        {"url": "http:///nowhere"},
        {"url": "http://169.254.169.254/latest/meta-data"},
        {"url": "http://[fe80::1]/"},
        {"event_types": []},
        {"event_types": ["video.completed"]},
        {"name": ""},
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(server: Server, wrong: dict[str, Any]) -> None:
    asked: Any = {"name": "n", "url": "http://127.0.0.1:1/", "event_types": ["batch.completed"], **wrong}
    with pytest.raises(BadRequestError):
        server.client.webhooks.create(**asked)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://192.168.0.1:8443/x",
    ],
)
def test_a_server_for_others_keeps_out_of_its_own_network(tmp_path: Path, url: str) -> None:
    with (
        Server(tmp_path / "data", FakeEngine(), private_webhooks=False).running() as server,
        pytest.raises(BadRequestError),
    ):
        subscribe(server.client, url)


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1"])
def test_a_name_that_leads_to_a_private_address_is_not_followed(tmp_path: Path, host: str) -> None:
    with Server(tmp_path / "data", FakeEngine(), private_webhooks=False).running() as server:
        endpoint = subscribe(server.client, f"https://{host}/")

        with pytest.raises(BadRequestError, match="could not be reached"):
            server.client.webhooks.test(endpoint.id, event_type="batch.completed")


def test_public_addresses_are_public() -> None:
    assert postman.address_problem("8.8.8.8", private=False) is None
    assert postman.url_problem("https://example.org/hook", private=False) is None
    assert "allow-private-webhooks" in str(postman.address_problem("10.0.0.1", private=False))


def test_the_asynchronous_sdk_reads_the_same(server: Server, receiver: Receiver) -> None:
    made = subscribe(server.client, receiver.url)

    async def read() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return [each.id for each in (await client.webhooks.list()).data]

    assert [made.id] == asyncio.run(read())
