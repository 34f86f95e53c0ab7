"""Counts made without torch are what the trainer trains on and what the engine reads."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tokenizers", reason="exact counts need the extra `platform`")

from reconciler.tokens import Count, Counter, Source, counting, tallies
from reconciler.tokens.tokenizer import Tokenizer, load

TINY = Path(__file__).parents[2] / "reconciler" / "selfhosted" / "tiny"
WORDS = ["the", "order", "F1056", "is", "late", "ünïcödé", "日本", "urgent", "🙂", "json", "{}", "refund"]
UNMARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
FORGETFUL = (  # drops what assistants said before the last turn, as reasoning models' templates do
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role != 'assistant' or loop.last %}{{ m.content }}{% endif %}"
    "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def tokenizer(folder: Path = TINY) -> Tokenizer:
    found = load(folder)
    assert isinstance(found, Tokenizer), found
    return found


def folder_with(tmp_path: Path, template: str, longest: int = 512) -> Path:
    """The packaged model's folder with another template."""
    for path in TINY.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "chat_template.jinja").write_text(template)
    (tmp_path / "reconciler.json").write_text(json.dumps({"defaults": {"max_length": longest}}))
    return tmp_path


def chats(seed: int = 1, rows: int = 60) -> Iterator[dict[str, Any]]:
    """Chats of every shape that a training file may hold."""
    rng = random.Random(seed)

    def text(longest: int = 12) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, longest)))

    for _ in range(rows):
        said: list[dict[str, Any]] = [{"role": rng.choice(["system", "developer"]), "content": text()}]
        for _ in range(rng.randint(1, 3)):
            asked: Any = text() if rng.random() < 0.7 else [{"type": "text", "text": text()}] * 2
            answer: dict[str, Any] = {"role": "assistant", "content": text(60)}
            if rng.random() < 0.3:
                answer["weight"] = rng.choice([0, 1])
            if rng.random() < 0.2:
                call = {"name": "find", "arguments": rng.choice(['{"a": 1}', "no json", "[1]"])}
                answer |= {"content": None, "tool_calls": [{"id": "c", "type": "function", "function": call}]}
            elif rng.random() < 0.1:
                answer |= {"content": None, "function_call": {"name": "find", "arguments": "{}"}}
            said += [{"role": "user", "content": asked}, answer]
        yield {"messages": said} | ({"tools": [TOOL]} if rng.random() < 0.3 else {})


def source(path: Path, rows: list[dict[str, Any]], form: str = "chat") -> Source:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return Source(path, f"digest of {path.name}", path.stat().st_size, form, len(rows))


def trained_on(folder: Path, rows: list[dict[str, Any]], longest: int) -> tuple[int, int]:
    """Tokens and examples that the trainer makes of chat rows."""
    transformers = pytest.importorskip("transformers")
    from reconciler.selfhosted.training.encode import Encoder

    known = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    made = Encoder(known, longest).encode(enumerate(rows, start=1), "training_file")
    return made.tokens, len(made.dataset)


@pytest.mark.slow
@pytest.mark.parametrize(
    "template", ["packaged", UNMARKED, FORGETFUL], ids=["packaged", "unmarked", "forgetful"]
)
@pytest.mark.parametrize("longest", [512, 40])
def test_a_count_is_what_the_trainer_trains_on(tmp_path: Path, template: str, longest: int) -> None:
    text = (TINY / "chat_template.jinja").read_text() if template == "packaged" else template
    folder, rows = folder_with(tmp_path, text, longest), list(chats())

    counted = tallies.examples(rows, tokenizer(folder))

    tokens, examples = trained_on(folder, rows, longest)
    assert Count(tokens, tokens, examples) == counted


@pytest.mark.slow
@pytest.mark.parametrize("longest", [512, 40])
def test_pairs_count_both_answers_behind_their_prompt(tmp_path: Path, longest: int) -> None:
    transformers = pytest.importorskip("transformers")
    from reconciler.selfhosted.training import preference
    from reconciler.selfhosted.training.encode import Encoder

    folder = folder_with(tmp_path, (TINY / "chat_template.jinja").read_text(), longest)
    rows = [
        {"input": {"messages": row["messages"][:-1]},
         "preferred_output": [{"role": "assistant", "content": "yes " * n}],
         "non_preferred_output": [{"role": "assistant", "content": "no"}]}
        for n, row in enumerate(chats(), start=1)
    ]  # fmt: skip
    encoder = Encoder(transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True), longest)

    counted = tallies.pairs(rows, tokenizer(folder))

    class Quiet:
        def say(self, *_: Any) -> None: ...

    path = source(tmp_path / "pairs.jsonl", rows).path
    made = preference._pairs(encoder, path, "training_file", longest, Quiet())  # type: ignore[arg-type]
    assert Count(made.tokens, made.tokens, len(made.dataset)) == counted


@pytest.mark.slow
def test_a_question_has_as_many_tokens_as_the_engine_reads() -> None:
    transformers = pytest.importorskip("transformers")
    from reconciler.selfhosted.engine import prompt
    from reconciler.selfhosted.engine.values import Ask

    known = transformers.AutoTokenizer.from_pretrained(TINY, local_files_only=True)
    asked = [
        {"role": "system", "content": "Triage."},
        {"role": "user", "content": "{{ item.ticket.text }} {{item.n}}"},
    ]
    rows = [{"item": {"ticket": {"text": word}, "n": n}} for n, word in enumerate(WORDS)]

    counted = tallies.questions(rows, tokenizer(), asked)

    read = [
        prompt.tokens(known, Ask("", [asked[0], {"role": "user", "content": f"{word} {n}"}]))
        for n, word in enumerate(WORDS)
    ]
    assert Count(sum(map(len, read)), sum(map(len, read)), len(rows)) == counted


def test_a_conversation_without_tokenizer_is_a_range_that_says_so() -> None:
    rows = [
        {"messages": [{"role": "user", "content": "x" * 600}, {"role": "assistant", "content": "y" * 60}]}
    ]

    rough = tallies.trained_by_bytes(rows, "no tokenizer here")

    assert Count(660 // 6 + 2 * 3, 660 // 2 + 2 * 8, 1, "no tokenizer here") == rough


def test_a_picture_is_not_counted_by_the_bytes_of_its_address() -> None:
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}

    rough = tallies.by_bytes([{"role": "user", "content": [shown]}])

    assert (3 + 85, 8 + 1105) == (rough.low, rough.high)


def test_a_count_is_made_once_for_a_content_and_a_tokenizer(tmp_path: Path) -> None:
    counter, rows = Counter(tmp_path), source(tmp_path / "rows.jsonl", list(chats()))
    first = counter.training(rows, tokenizer())
    rows.path.unlink()

    again = Counter(tmp_path).training(rows, tokenizer())

    assert first == again


def test_nothing_is_kept_where_there_is_no_data_folder(tmp_path: Path) -> None:
    rows = source(tmp_path / "rows.jsonl", list(chats()))

    Counter(tmp_path / "data").training(rows, tokenizer())

    assert not (tmp_path / "data").exists()


def test_a_look_at_a_huge_file_reads_parts_of_it_and_an_apply_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "WHOLE", 100_000)
    monkeypatch.setattr(counting, "SAMPLE", 8_000)
    rows = source(tmp_path / "rows.jsonl", list(chats(rows=1500)))

    looked = Counter(tmp_path).training(rows, tokenizer())
    read = Counter(tmp_path, whole=True).training(rows, tokenizer())
    looked_again = Counter(tmp_path).training(rows, tokenizer())

    assert looked.low < read.low == read.high < looked.high
    assert "16 places" in looked.how
    assert read == looked_again


def test_a_template_that_refuses_a_row_leaves_a_range(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "{{ raise_exception('no') }}")
    rows = source(tmp_path / "rows.jsonl", list(chats()))

    counted = Counter(tmp_path / "data").training(rows, tokenizer(folder))

    assert counted.low < counted.high
    assert "refuses a row" in counted.how


@pytest.mark.parametrize(
    "model, facts, said",
    [
        ({"id": "gpt-4.1-mini"}, {}, "the tokenizer of gpt-4.1-mini is not on this machine"),
        ({"id": "x", "hub": "a/b", "revision": "0" * 40}, {}, "the tokenizer of x is not on this machine"),
        ({"id": "x"}, {"path": "/nowhere"}, "its folder has no tokenizer.json with a chat template"),
    ],
)
def test_what_is_not_here_says_so(tmp_path: Path, model: Any, facts: Any, said: str) -> None:
    assert said == Counter(tmp_path).tokenizer(model, facts)


def test_a_hub_revision_is_found_where_the_platform_and_the_hub_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = "0" * 40
    model = {"id": "x", "hub": "org/name", "revision": revision}
    cached = tmp_path / "home" / "hub" / "models--org--name" / "snapshots"
    cached.mkdir(parents=True)
    (cached / revision).symlink_to(TINY)
    (tmp_path / "ours" / "org--name").mkdir(parents=True)
    (tmp_path / "ours" / "org--name" / revision).symlink_to(TINY)

    ours = Counter(tmp_path, [tmp_path / "ours"]).tokenizer(model, {})
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    fetched = Counter(tmp_path).tokenizer(model, {})

    assert tokenizer().digest == ours.digest == fetched.digest  # type: ignore[union-attr]


def test_counting_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from pathlib import Path; from reconciler.tokens.tokenizer import load; "
        f"load(Path({str(TINY)!r})); print(*sys.modules)"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert set() == {"torch", "transformers", "reconciler.selfhosted"} & set(run.stdout.split())
