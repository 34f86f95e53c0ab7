"""A small tree of every kind, and appliers that keep it true on any platform."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from reconciler import engine, guards, project
from reconciler.creation import Creator
from reconciler.engine import Pass, World
from reconciler.journal import Journal
from reconciler.kind import Progress
from reconciler.kinds import all_kinds
from reconciler.plan import Step
from reconciler.resource import Address, Desired
from reconciler.world import Platform

Say = Callable[..., tuple[int, str, str]]  # a command's exit code and what it printed on either side
ROWS = [
    {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": str(n)}]}
    for n in range(12)
]
ITEMS = [{"item": {"question": f"say {n}", "expected": str(n)}} for n in range(20)]
FILES = {
    "project.yaml": "apiVersion: reconciler/v1\nkind: Project\nmetadata: {name: demo}\n",
    "train.yaml": """\
apiVersion: reconciler/v1
kind: Model
metadata: {name: base}
spec: {id: tiny-chat}
---
apiVersion: reconciler/v1
kind: Dataset
metadata: {name: train}
spec: {file: train.jsonl, format: chat}
---
apiVersion: reconciler/v1
kind: FineTuneJob
metadata: {name: tuned}
spec:
  model: Model/base
  training_file: Dataset/train
  method: {type: supervised, supervised: {hyperparameters: {n_epochs: 2}}}
""",
    "measure.yaml": """\
apiVersion: reconciler/v1
kind: Dataset
metadata: {name: heldout}
spec: {file: heldout.jsonl, format: items}
---
apiVersion: reconciler/v1
kind: Prompt
metadata: {name: ask}
spec: {messages: [{role: user, content: "{{ question }}"}]}
---
apiVersion: reconciler/v1
kind: Grader
metadata: {name: exact}
spec: {type: string_check, operation: eq, input: "{{ sample.output_text }}", reference: "{{ item.expected }}"}
---
apiVersion: reconciler/v1
kind: Eval
metadata: {name: right}
spec:
  item_schema: {type: object, properties: {question: {type: string}, expected: {type: string}}}
  graders: [Grader/exact]
  dataset: Dataset/heldout
  prompt: Prompt/ask
""",
    "promote.yaml": """\
apiVersion: reconciler/v1
kind: PromotionRule
metadata: {name: production}
spec:
  channel: demo/production
  candidates: [FineTuneJob/tuned]
  baseline: Model/base
  gates:
    - {eval: Eval/right, at_least: 0.8}
    - {eval: Eval/right, improves_by: 0.1}
""",
    "train.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "heldout.jsonl": "".join(json.dumps(item) + "\n" for item in ITEMS),
}


def write(root: Path, files: Mapping[str, str] = FILES) -> Path:
    """The files of a tree, below `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text, f"{before!r} is not in {path}"
    path.write_text(text.replace(before, after))


@dataclass
class Clock:
    """Time that passes when somebody sleeps."""

    at: float = 1_000_000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += max(seconds, 0.01)


class Watcher:
    """Sees everything and says nothing."""

    def uploading(self, address: Address, sent: int, total: int) -> None: ...

    def made(self, step: Step) -> None: ...

    def waiting(self, done: Pass, progress: Mapping[Address, Progress]) -> None: ...


class Applier:
    """Somebody who applies one tree to one platform, with a journal and a clock."""

    def __init__(self, root: Path, platform: Platform, clock: Clock, holder: str = "here:1:1") -> None:
        self.root, self.platform, self.clock = root, platform, clock
        self.journal = Journal.at(root / ".reconciler" / "journal.db")
        self.creator = Creator(platform, self.journal, holder, clock.now)
        self.world = World("demo", all_kinds(), platform)

    @property
    def desired(self) -> Desired:
        return project.load(self.root).desired

    def once(self) -> Pass:
        wanted = project.load(self.root)
        world = replace(self.world, guards=guards.of(wanted.spec))
        return engine.once(wanted.desired, world, self.creator, Watcher())

    def passes(self, count: int) -> Pass:
        for _ in range(count):
            done = self.once()
            self.clock.sleep(done.pause(0.0))
        return done

    def settle(self, timeout: float = 600.0) -> Pass:
        return engine.settle(self.desired, self.world, self.creator, Watcher(), self.clock.sleep, timeout)


def why(done: Pass, address: str) -> str:
    """What a pass says of one resource."""
    step = next(each for each in done.steps if str(each.address) == address)
    held = done.deferred.get(step.address)
    return held.why if held else step.decision.why


def action(done: Pass, address: str) -> str:
    return next(str(each.action) for each in done.steps if str(each.address) == address)
