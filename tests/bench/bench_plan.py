"""
A plan of 10,000 standing resources, cold and warm, as whole processes.

`python -m tests.bench plan`: the platform is a stub that only lists, so the numbers are the
reconciler's own. The floor of the cold plan is PyYAML's C parser over the same files, that of the warm
one a bare interpreter that stats them.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from reconciler import project
from reconciler.kind import Stamp

COLD, WARM, MEMORY = 5.0, 1.0, 250.0  # wanted at most: seconds, seconds, MB
SHARES = {"Dataset": 0.2, "Prompt": 0.3, "Grader": 0.3, "Eval": 0.1, "FineTuneJob": 0.1}


class Cost(NamedTuple):
    seconds: float
    megabytes: float


def main(smoke: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        count = write_tree(root, 200 if smoke else 10_000)
        with_platform(root, count)


def with_platform(root: Path, count: int) -> None:
    pages: Counter[str] = Counter()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lister(root, pages))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_port}/v1"
    (root / "project.yaml").write_text(manifest("Project", "bench", platforms={"local": {
        "type": "openai", "base_url": place, "api_key_env": "BENCH_KEY"}}))  # fmt: skip
    server.objects = standing(root)  # type: ignore[attr-defined]  # read by the handler
    command = [sys.executable, "-m", "reconciler", "plan", str(root)]
    (root / ".reconciler").mkdir()
    time.sleep(0.1)  # the cache does not trust files that were written this moment
    parse = measure([sys.executable, "-c", PARSE, str(root)])
    cold = measure(command)
    asked = pages.total()
    pages.clear()
    runs = [measure(command) for _ in range(5)]
    warm = sorted(runs)[2]
    stat = measure([sys.executable, "-c", STAT, str(root)])
    print(f"{count} resources; {asked} list requests a plan: {dict(pages)}")
    print(_line("cold", cold, parse, "parsing alone", f"≤ {COLD} s"))
    print(_line("warm", warm, stat, "stat alone", f"≤ {WARM} s, ≤ {MEMORY:.0f} MB"))
    server.shutdown()


def _line(name: str, cost: Cost, floor: Cost, what: str, wanted: str) -> str:
    ratio = f"{cost.seconds / floor.seconds:.1f} × {what}, {floor.seconds:.2f} s"
    return f"{name} plan {cost.seconds:.2f} s ({ratio}), {cost.megabytes:.0f} MB; wanted {wanted}"


def write_tree(root: Path, count: int) -> int:
    names = {
        kind: [f"{kind.lower()}-{i}" for i in range(int(count * share))] for kind, share in SHARES.items()
    }
    texts: dict[str, list[str]] = {kind: [] for kind in names}
    (root / "data").mkdir()
    for name in names["Dataset"]:
        row = {"messages": [{"role": "user", "content": name}, {"role": "assistant", "content": "yes"}]}
        (root / "data" / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 12)
        texts["Dataset"].append(manifest("Dataset", name, file=f"data/{name}.jsonl", format="chat"))
    for name in names["Prompt"]:
        messages = [
            {"role": "system", "content": f"You are {name}."},
            {"role": "user", "content": "{{ question }}"},
        ]
        texts["Prompt"].append(manifest("Prompt", name, messages=messages))
    for name in names["Grader"]:
        check = {"type": "string_check", "operation": "eq", "input": "{{ sample.output_text }}"}
        texts["Grader"].append(manifest("Grader", name, **check, reference=f"{name} {{{{ item.answer }}}}"))
    fields = {"question": {"type": "string"}, "answer": {"type": "string"}}
    for name, grader in zip(names["Eval"], names["Grader"], strict=False):
        texts["Eval"].append(manifest("Eval", name, item_schema={"type": "object", "properties": fields},
                                      graders=[f"Grader/{grader}"]))  # fmt: skip
    for name, dataset in zip(names["FineTuneJob"], names["Dataset"], strict=False):
        texts["FineTuneJob"].append(manifest("FineTuneJob", name, model="Model/base", training_file=dataset,
                                             method={"type": "supervised"}))  # fmt: skip
    texts["Model"] = [manifest("Model", "base", id="base")]
    for kind, documents in texts.items():
        for start in range(0, len(documents), 100):
            (root / f"{kind.lower()}-{start:05}.yaml").write_text(
                "---\n".join(documents[start : start + 100])
            )
    return sum(map(len, texts.values())) + 1


def manifest(kind: str, name: str, **spec: Any) -> str:
    import yaml

    document = {"apiVersion": "reconciler/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False)


def standing(root: Path) -> dict[str, list[dict[str, Any]]]:
    """What a platform that has everything would list."""
    found: dict[str, list[dict[str, Any]]] = {"models": [{"id": "base", "object": "model", "created": 1}]}
    for number, (address, wanted) in enumerate(project.load(root).desired.items()):
        stamp = Stamp("bench", str(address), wanted.fingerprint)
        stood: dict[str, Any] = {
            "id": f"{address.kind.lower()}_{number}",
            "created_at": number,
            "metadata": stamp.metadata(),
        }
        if address.kind == "Dataset":
            filename = f"{address.name}@bench.{wanted.fingerprint}.jsonl"
            found.setdefault("files", []).append(
                stood | {"filename": filename, "bytes": wanted.facts["bytes"], "status": "processed"}
            )
        elif address.kind == "Eval":
            found.setdefault("evals", []).append(stood | {"testing_criteria": []})
        elif address.kind == "FineTuneJob":
            found.setdefault("fine_tuning/jobs", []).append(
                stood | {"status": "succeeded", "fine_tuned_model": f"ft:{number}"}
            )
    return found


def lister(root: Path, pages: Counter[str]) -> type[BaseHTTPRequestHandler]:
    class Lister(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or every answer waits 40 ms for an acknowledgement

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            collection = parts.path.removeprefix("/v1/")
            query = {key: value[0] for key, value in parse_qs(parts.query).items()}
            objects = self.server.objects.get(collection)  # type: ignore[attr-defined]
            if objects is None:
                self._answer(
                    404,
                    {
                        "error": {
                            "message": "none",
                            "type": "invalid_request_error",
                            "param": None,
                            "code": None,
                        }
                    },
                )
                return
            pages[collection] += 1
            start = int(query["after"].rpartition("_")[2]) if "after" in query else -1
            rest = [
                each
                for each in objects
                if "_" not in each["id"] or int(each["id"].rpartition("_")[2]) > start
            ]
            page = rest[: int(query.get("limit", 10_000))]
            self._answer(200, {"object": "list", "data": page, "has_more": len(page) < len(rest)})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    return Lister


def measure(command: list[str]) -> Cost:
    """Wall seconds and peak memory of a whole process."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"BENCH_KEY": "none"})
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[2:5])} ended with {os.waitstatus_to_exitcode(status)}")
    return Cost(time.perf_counter() - start, usage.ru_maxrss / 1024)


PARSE = """
import pathlib, sys, yaml
for path in pathlib.Path(sys.argv[1]).glob("*.yaml"):
    list(yaml.load_all(path.read_bytes(), yaml.CSafeLoader))
"""
STAT = """
import os, sys
for folder, _, files in os.walk(sys.argv[1]):
    for file in files:
        os.stat(os.path.join(folder, file))
"""
