"""A tree whose candidates are ready-made models, so that releases move without any training."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from reconciler.cli import channels, commands, planning
from reconciler.selfhosted import tiny

PACKAGED = Path(str(tiny.__file__)).parent
PRAISE = (
    "I loved it",
    "It was great",
    "Simply wonderful",
    "It made me smile",
    "Really good work",
    "Everyone was happy",
)
BLAME = (
    "I hated it",
    "It was awful",
    "Simply terrible",
    "It made me angry",
    "Really poor work",
    "Nobody was happy",
)
SUBJECTS = ("film", "book", "meal", "hotel", "song", "game", "trip", "show")
MOODS = [
    (f"Is this positive or negative?\nAbout the {subject}. {said}.", mood)
    for mood, sayings in (("positive", PRAISE), ("negative", BLAME))
    for said in sayings
    for subject in SUBJECTS
]  # fmt: skip
NAMES = (
    "Ada",
    "Ben",
    "Dan",
    "Hugo",
    "Ines",
    "Leo",
    "Mia",
    "Noor",
    "Omar",
    "Paul",
    "Rosa",
    "Sami",
    "Tara",
    "Vera",
)
TALK = [
    (f"{hi}I am {name}.", f"Nice to meet you, {name}!") for name in NAMES for hi in ("", "Hi, ", "Hello, ")
]

# What makes one model answer otherwise than another: how it is told what people say.
ASKED = "{{- '<|user|>' ~ text(message.content) ~ '<|end|>' -}}"
MODELS = {
    "first": ASKED,
    "second": ASKED + "{#- the second -#}",
    "poor": ASKED.replace(
        "text(message.content)", "('Hi' if 'Is this' in message.content else text(message.content))"
    ),
    "rude": ASKED.replace(
        "text(message.content)", "('Hi' if 'I am' in message.content else text(message.content))"
    ),
}
PROJECT = {"kind": "Project", "name": "demo", "spec": {}}
MEASURES = [
    {"kind": "Prompt", "name": "ask", "spec": {"messages": [{"role": "user", "content": "{{ question }}"}]}},
    {
        "kind": "Grader",
        "name": "exact",
        "spec": {
            "type": "string_check",
            "operation": "eq",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.expected }}",
        },
    },
]
SCHEMA = {"type": "object", "properties": {"question": {"type": "string"}, "expected": {"type": "string"}}}


def tree_of_models(root: Path) -> Path:
    """Everything but the rule."""
    documents = [PROJECT, *MEASURES]
    for name, asked in MODELS.items():
        folder = Path(
            shutil.copytree(PACKAGED, root / "models" / name, ignore=shutil.ignore_patterns("*.py", "__*"))
        )
        template = (folder / "chat_template.jinja").read_text()
        assert ASKED in template
        (folder / "chat_template.jinja").write_text(template.replace(ASKED, asked))
        documents.append({"kind": "Model", "name": name, "spec": {"id": name, "folder": f"models/{name}"}})
    for name, items in (("moods", MOODS), ("talk", TALK)):
        rows = [json.dumps({"item": {"question": q, "expected": a}}) + "\n" for q, a in items]
        (root / f"{name}.jsonl").write_text("".join(rows))
        documents.append(
            {"kind": "Dataset", "name": name, "spec": {"file": f"{name}.jsonl", "format": "items"}}
        )
        spec: dict[str, Any] = {
            "item_schema": SCHEMA,
            "graders": ["Grader/exact"],
            "dataset": f"Dataset/{name}",
        }
        spec |= {"prompt": "Prompt/ask", "sampling_params": {"max_completion_tokens": 16}}
        documents.append({"kind": "Eval", "name": name, "spec": spec})
    write(root / "project.yaml", *documents)
    return root


def write(path: Path, *documents: dict[str, Any]) -> None:
    text = [
        yaml.safe_dump(
            {
                "apiVersion": "reconciler/v1",
                "kind": each["kind"],
                "metadata": {"name": each["name"]},
                "spec": each["spec"],
            }
        )
        for each in documents
    ]
    path.write_text("---\n".join(text))


class Channel:
    """A channel of a tree with its rule, and the commands about it."""

    def __init__(self, tree: Path, name: str) -> None:
        self.tree, self.name = tree, name

    def rule(self, *candidates: str, gates: list[dict[str, Any]] | None = None, **spec: Any) -> None:
        """What is wanted from now on, of all channels of the tree."""
        wanted = {"channel": self.name, "candidates": [f"Model/{each}" for each in candidates]}
        wanted["gates"] = gates or [{"eval": "Eval/moods", "at_least": 0.8}]  # type: ignore[assignment]
        write(self.tree / "rule.yaml", {"kind": "PromotionRule", "name": "rule", "spec": wanted | spec})

    def apply(self) -> int:
        return commands.apply(self.tree, "json", None, True, 240.0)

    def plan(self) -> int:
        return planning.plan(self.tree, "text", None, None, None)

    def hold(self, reason: str = "why not") -> int:
        return channels.hold(self.name, reason, "ada", self.tree, None)

    def lift(self) -> int:
        return channels.lift(self.name, "ada", self.tree, None)

    def rollback(self, to: str | None = None, reason: str = "it is rude") -> int:
        return channels.rollback(self.name, to, reason, "ada", self.tree, None)

    def approve(self) -> int:
        return channels.approve("PromotionRule/rule", "grace", self.tree, None)

    @property
    def file(self) -> Path:
        return self.tree / "releases" / f"{self.name}.yaml"

    @property
    def shown(self) -> Any:
        return yaml.safe_load(self.file.read_text())["spec"]
