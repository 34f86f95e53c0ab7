"""What the daemon answers over HTTP, on a real port: to people, to Prometheus, to GitHub, and not to strangers."""

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from core_base import write
from daemon_base import PROJECT, Origin, running, until
from faulty_server import FaultyServer, unavailable
from prometheus_client.parser import text_string_to_metric_families

from reconciler.creation import Deferred
from reconciler.daemon import http as answering
from reconciler.daemon import metrics, webhook, wire
from reconciler.daemon.board import Board, Moment
from reconciler.daemon.http import Address, Door, Server
from reconciler.drift import Drift, Finding
from reconciler.engine import Pass
from reconciler.errors import ReconcilerError
from reconciler.kind import Action, Decision, Halt, Observed, State
from reconciler.plan import Step
from reconciler.resource import Address as Where
from reconciler.resource import Wanted

SECRET, TOKEN = "webhook-canary-secret", "bearer-canary-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PUBLISHED = json.loads((Path(wire.__file__).parent / "status.json").read_text())


def step(address: str, action: Action, why: str = "", **decision: Any) -> Step:
    wanted = Wanted(Where.parse(address), "f", {}, (), {}, {}, "m.yaml", 1)
    return Step(wanted, Decision(action, why, **decision))


STEPS = (
    step("Dataset/train", Action.KEEP, observed=Observed("file-1", None, State.READY, {})),
    step("FineTuneJob/tuned", Action.WAIT, "running", observed=Observed("ftjob-1", None, State.WORKING, {})),
    step("PromotionRule/main", Action.BLOCK, "a gate fails", halt=Halt.FAILED),
    step("Eval/right", Action.CREATE),
)
MOMENT = Moment(
    "demo", "local", "abc123", 7, 100.0, 101.5,
    Pass(STEPS, (Where("Dataset", "train"),), {Where("Eval", "right"): Deferred("is busy", 2.0)}),
    problems=("a.yaml:3: no",), kept=("Eval/right",),
    drift=(Finding(Drift.RETIRING, "Model/base", "soon", "gpt-4.1", 74), Finding(Drift.VANISHED, "Eval/right", "gone")),
    money={"spent": 1.5, "reserved": 0.25},
)  # fmt: skip


class Running:
    """A server over a board of its own."""

    def __init__(self, door: Door, host: str = "127.0.0.1") -> None:
        self.board, self.kicked = Board(), threading.Event()
        self.alive = True
        self.tickets: list[int] = []
        self.server = Server(
            Address(host, 0),
            door,
            self.board,
            self.kick,
            lambda limit: EVENTS[:limit],
            lambda: self.alive,
            lambda: 2000.0,
        )
        self.url = f"http://127.0.0.1:{self.server.start()}"

    def kick(self, ticket: int) -> None:
        self.tickets.append(ticket)
        self.kicked.set()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=30, **options)


EVENTS = [
    {"at": 2.0, "platform": "local", "address": "Eval/right", "event": "made", "id": "eval_1"},
    {"at": 1.0, "platform": "local", "address": "Eval/right", "event": "busy"},
]


@contextmanager
def serving(door: Door = Door(), host: str = "127.0.0.1") -> Iterator[Running]:
    serving_ = Running(door, host)
    try:
        yield serving_
    finally:
        serving_.server.stop()


def valid(document: Any, name: str) -> bool:
    schema = {**PUBLISHED, "oneOf": [{"$ref": f"#/$defs/{name}"}]}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(document))


def test_the_published_schema_is_what_is_told() -> None:
    assert PUBLISHED == wire.schema()


def test_the_status_says_everything_and_fits_its_schema() -> None:
    with serving() as daemon:
        daemon.board.show(MOMENT, 0)
        daemon.board.source = "origin is gone"

        told = daemon.get("/api/v1/status").json()

    assert valid(told, "Status")
    assert [("keep", True), ("wait", False), ("blocked", False), ("create", False)] == [
        (each["action"], each["ready"]) for each in told["resources"]
    ]
    assert ("failed", "is busy", True) == (
        told["resources"][2]["halt"], told["resources"][3]["why"], told["resources"][3]["kept"]
    )  # fmt: skip
    assert (7, False, ["Dataset/train"]) == tuple(told["last"][key] for key in ("number", "settled", "made"))
    assert [("base model retiring", 74), ("vanished", None)] == [
        (d["drift"], d["days"]) for d in told["drift"]
    ]
    assert "origin is gone" == told["source"]


def test_a_daemon_that_has_just_started_has_a_status_too() -> None:
    with serving() as daemon:
        told = daemon.get("/api/v1/status").json()
        ready = daemon.get("/readyz")

    assert valid(told, "Status")
    assert (None, False) == (told["last"], told["ready"])
    assert (503, "no pass has ended yet") == (ready.status_code, ready.text)


def test_history_is_what_the_journal_remembers() -> None:
    with serving() as daemon:
        told = daemon.get("/api/v1/history?limit=1").json()
        wrong = daemon.get("/api/v1/history?limit=0")

    assert valid(told, "History")
    assert [("made", {"id": "eval_1"})] == [(each["event"], each["detail"]) for each in told["events"]]
    assert 400 == wrong.status_code


@pytest.mark.parametrize(
    "change, code, says",
    [
        ({}, 200, "ok"),
        ({"done": None, "error": "the journal is broken"}, 503, "the journal is broken"),
        ({"done": Pass((), unseen={"Eval": "local is down"})}, 503, "local is down"),
    ],
)
def test_ready_is_who_has_seen_the_platform(change: dict[str, Any], code: int, says: str) -> None:
    with serving() as daemon:
        daemon.board.show(replace(MOMENT, **change), 0)

        ready = daemon.get("/readyz")

    assert (code, says) == (ready.status_code, ready.text)


def test_healthy_is_whose_loop_goes_on() -> None:
    with serving() as daemon:
        answers = [daemon.get("/healthz")]
        daemon.board.busy_since = 1000.0
        answers.append(daemon.get("/healthz"))
        daemon.board.busy_since, daemon.alive = None, False
        answers.append(daemon.get("/healthz"))

    told = ["ok", "a pass has not ended for 1000 s", "the loop has ended"]
    assert [*zip([200, 503, 503], told, strict=True)] == [(each.status_code, each.text) for each in answers]


def test_metrics_are_what_prometheus_reads() -> None:
    board = Board()
    board.show(MOMENT, 0)
    board.told("list", "files", "done", 0.5)
    board.told("create", "fine_tuning/jobs", "busy", 0.5)
    board.publishing = "no"

    families = {each.name: each for each in text_string_to_metric_families(metrics.text(board).decode())}

    def value(metric: str, **labels: str) -> float:
        family = families[metric.removesuffix("_total")]
        return next(
            s.value for s in family.samples if s.name == metric and labels.items() <= s.labels.items()
        )

    assert 1 == value("reconciler_passes_total", outcome="unsettled")
    assert 1 == value("reconciler_platform_calls_total", collection="fine_tuning/jobs", outcome="busy")
    assert 2 == value("reconciler_queue")
    assert [1, 0] == [value("reconciler_resource_ready", name=n) for n in ("train", "main")]
    assert [1, 1, 0] == [
        value("reconciler_drift", **{"class": c}) for c in ("vanished", "base model retiring", "expired")
    ]
    assert 74 == value("reconciler_retiring_days", kind="Model", name="base")
    assert [1.5, 0.25] == [value("reconciler_money_usd", state=s) for s in ("spent", "reserved")]
    assert [1, 0] == [value(f"reconciler_{what}_failing") for what in ("publishing", "source")]
    histogram = {
        s.labels["le"]: s.value for s in families["reconciler_pass_seconds"].samples if "le" in s.labels
    }
    assert (0, 1, 1) == (histogram["1.0"], histogram["2.5"], histogram["+Inf"])


def signed(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_a_signed_webhook_makes_the_source_look() -> None:
    body = b'{"ref": "refs/heads/main"}'
    with serving(Door(secret=SECRET)) as daemon:
        github = daemon.post("/webhook", content=body, headers={"X-Hub-Signature-256": signed(body)})
        gitlab = daemon.post("/webhook", content=body, headers={"X-Gitlab-Token": SECRET})

    assert [202, 202] == [github.status_code, gitlab.status_code]
    assert [1, 2] == daemon.tickets


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": signed(b"x")},
        {"X-Hub-Signature-256": signed(b"{}", "guess")},
        {"X-Hub-Signature-256": "sha1=abc"},
        {"X-Hub-Signature": signed(b"{}")},
        {"X-Hub-Signature-256": "ä".encode().decode("latin-1")},
        {"X-Gitlab-Token": "guess"},
        {"X-Gitlab-Token": ""},
    ],
)
def test_without_the_right_signature_nothing_happens(headers: dict[str, str]) -> None:
    encoded = {key: value.encode("latin-1") for key, value in headers.items()}
    with serving(Door(secret=SECRET)) as daemon:
        answer = daemon.post("/webhook", content=b"{}", headers=encoded)

    assert (401, []) == (answer.status_code, daemon.tickets)
    assert SECRET not in answer.text
    assert {"401": 1} == daemon.board.webhooks


def test_without_a_secret_there_is_no_webhook() -> None:
    with serving() as daemon:
        answer = daemon.post("/webhook", content=b"{}", headers={"X-Hub-Signature-256": signed(b"{}", "")})

    assert (404, []) == (answer.status_code, daemon.tickets)


def test_a_body_is_bounded_in_size_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "SLOWEST", 0.2)
    body = b"x" * (webhook.LARGEST + 1)
    with serving(Door(secret=SECRET)) as daemon:
        large = daemon.post("/webhook", content=body, headers={"X-Hub-Signature-256": signed(body)})
        host, port = daemon.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
            status = slow.recv(4096).split()[1]

    assert (413, b"408", []) == (large.status_code, status, daemon.tickets)


def test_beyond_this_machine_a_token_is_wanted() -> None:
    with pytest.raises(
        ReconcilerError, match="can be reached from other machines; set RECONCILER_HTTP_TOKEN"
    ):
        Running(Door(), "0.0.0.0")

    with serving(Door(token=TOKEN), "0.0.0.0") as daemon:
        daemon.board.show(MOMENT, 0)
        answers = [
            daemon.get("/api/v1/status"),
            daemon.get("/api/v1/history", headers={"Authorization": "Bearer guess"}),
            daemon.post("/api/v1/reconcile"),
            daemon.get("/api/v1/status", headers={"Authorization": f"Bearer {TOKEN}"}),
            daemon.get("/readyz"),
        ]

    assert [401, 401, 401, 200, 200] == [each.status_code for each in answers]
    assert "Bearer" == answers[0].headers["www-authenticate"]
    assert [] == daemon.tickets


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}])
def test_a_page_in_somebodys_browser_may_not_ask(headers: dict[str, str]) -> None:
    with serving() as daemon:
        answers = [
            daemon.post("/api/v1/reconcile", headers=headers),
            daemon.get("/api/v1/status", headers=headers),
        ]

    assert [403, 403] == [each.status_code for each in answers]
    assert [] == daemon.tickets


@pytest.mark.parametrize(
    "text, expected",
    [
        ("127.0.0.1:8321", Address("127.0.0.1", 8321)),
        (":80", Address("127.0.0.1", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("0.0.0.0:0", Address("0.0.0.0", 0)),
    ],
)
def test_an_address_is_read(text: str, expected: Address) -> None:
    assert expected == Address.parse(text)


@pytest.mark.parametrize("text", ["8321", "localhost", "localhost:x", "localhost:99999", ""])
def test_what_is_no_address_gets_a_sentence(text: str) -> None:
    with pytest.raises(ReconcilerError, match="write HOST:PORT"):
        Address.parse(text)


def test_who_asks_for_a_pass_gets_one_that_began_after_it() -> None:
    with serving() as daemon:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(daemon.post("/api/v1/reconcile")))
        asking.start()
        assert daemon.kicked.wait(30)
        daemon.board.show(replace(MOMENT, number=1), 0)  # it began before
        assert not daemon.board.answers(1)
        daemon.board.show(replace(MOMENT, number=2), daemon.tickets[0])
        asking.join(30)
        late = daemon.post("/api/v1/reconcile?timeout=0.05")

    assert 2 == answers[0].json()["last"]["number"]
    assert (504, "no pass has ended within 0.05 s; it goes on") == (late.status_code, late.json()["error"])


def test_a_push_is_seen_with_the_webhook_and_reconciled_on_request(tmp_path: Path) -> None:
    origin, log = Origin(tmp_path), tmp_path / "log"
    with FaultyServer(tmp_path / "platform").running() as server:
        origin.write(server.url)
        with running(
            log, "--git", origin.url, "--path", "manifests", "--home", tmp_path / "home", "--interval", "3600",
            "--http", "127.0.0.1:0", env={"RECONCILER_WEBHOOK_SECRET": SECRET, "RECONCILER_HTTP_TOKEN": TOKEN},
        ) as daemon:  # fmt: skip
            url = f"http://127.0.0.1:{daemon.until('http.started')['port']}"
            daemon.settles()
            pushed = origin.edit("train.yaml", "n_epochs: 2", "n_epochs: 3")
            began = time.monotonic()
            httpx.post(f"{url}/webhook", content=b"{}", headers={"X-Hub-Signature-256": signed(b"{}")})
            daemon.until("revision.found", lambda each: each["commit"] == pushed)
            seen = time.monotonic() - began
            again = origin.edit("train.yaml", "n_epochs: 3", "n_epochs: 4")
            told = httpx.post(f"{url}/api/v1/reconcile", headers=BEARER, timeout=60).json()
            events = httpx.get(f"{url}/api/v1/history", headers=BEARER, timeout=60).json()["events"]
            scraped = httpx.get(f"{url}/metrics", timeout=60).text
            ready = httpx.get(f"{url}/readyz", timeout=60).status_code

    assert again == told["commit"]
    assert valid(told, "Status")
    assert {"made"} <= {each["event"] for each in events}
    assert (
        'reconciler_platform_calls_total{collection="fine_tuning/jobs",outcome="done",verb="create"}'
        in scraped
    )
    assert 200 == ready
    assert seen < 60  # two seconds, on a machine that does nothing else
    assert SECRET not in log.read_text()
    assert TOKEN not in log.read_text()


def test_a_folder_is_reconciled_on_request_and_says_when_its_platform_is_gone(tmp_path: Path) -> None:
    with FaultyServer(tmp_path / "platform").running() as server:
        tree = write(tmp_path / "manifests")
        (tree / "project.yaml").write_text(PROJECT.format(url=server.url, more=""))
        with running(
            tmp_path / "log", tree, "--interval", "3600", "--http", ":0", env={"RECONCILER_HTTP_TOKEN": TOKEN}
        ) as daemon:
            url = f"http://127.0.0.1:{daemon.until('http.started')['port']}"
            daemon.settles()
            server.always = {"GET files": unavailable}
            told = httpx.post(f"{url}/api/v1/reconcile", headers=BEARER, timeout=90).json()
            ready = httpx.get(f"{url}/readyz", timeout=60)
            server.always = {}
            httpx.post(f"{url}/api/v1/reconcile", headers=BEARER, timeout=90)
            until(lambda: httpx.get(f"{url}/readyz", timeout=60).status_code == 200)

    assert {"Dataset"} == set(told["last"]["unseen"])
    assert 503 == ready.status_code
