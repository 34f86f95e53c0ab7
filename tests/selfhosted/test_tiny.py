"""What the packaged base model promises, and the rows of the example that tunes it."""

from __future__ import annotations

import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.builders.wheel import WheelBuilder

from reconciler.selfhosted.tiny import corpus

ROOT = Path(__file__).parents[2]
TINY = ROOT / "reconciler" / "selfhosted" / "tiny"
DATA = ROOT / "manifests" / "data"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DATA / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(TINY, use_safetensors=True).eval()


def rows(generate: ModuleType, name: str) -> list[dict]:
    return [json.loads(line) for line in generate.files()[f"{name}.jsonl"].splitlines()]


def asked(row: dict) -> list[str]:
    """What a user says in a training row."""
    return [message["content"] for message in row["messages"] if message["role"] == "user"]


def roles(row: dict) -> tuple[str, ...]:
    return tuple(message["role"] for message in row["messages"])


def render(tokenizer, messages, **kwargs) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **kwargs)


def answers(model, tokenizer, chats: list[list[dict[str, str]]]) -> list[str]:
    """What the model says greedily to each chat."""
    tokenizer.padding_side = "left"
    asked = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**asked, do_sample=False, max_new_tokens=64)
    return tokenizer.batch_decode(said[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_the_packaged_model_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in TINY.iterdir() if path.is_file()}

    assert sum(files.values()) < 5_000_000
    assert files.keys() >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "reconciler.json",
        "MODEL_CARD.md",
        "LICENSE",
    }


def test_a_built_wheel_carries_the_model(tmp_path: Path) -> None:
    builder = WheelBuilder(str(ROOT))

    wheel = next(iter(builder.build(directory=str(tmp_path), versions=["standard"])))

    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True
    ).stdout
    for name in ("model.safetensors", "chat_template.jinja", "reconciler.json", "MODEL_CARD.md", "LICENSE"):
        assert f"reconciler/selfhosted/tiny/{name} " in listed


def test_only_what_the_assistant_says_is_marked_for_the_loss(tokenizer) -> None:
    chat = [user("Hi"), {"role": "assistant", "content": "Hello!"}, user("Bye")]

    encoded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)

    marked = [
        token for token, mark in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mark
    ]
    assert "Hello!<|end|>" == tokenizer.decode(marked)


def test_the_template_renders_every_role_and_tools(tokenizer) -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    chat = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather in Oslo?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]

    text = render(tokenizer, chat, tools=[TOOL], add_generation_prompt=True)

    assert (
        '<|system|>Tools:\n{"name": "weather", "parameters": {"type": "object"}}<|end|>'
        "<|system|>Be brief.<|end|>"
        "<|user|>Weather in Oslo?<|end|>"
        '<|assistant|><tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call><|end|>'
        "<|tool|>rain<|end|>"
        "<|assistant|>"
    ) == text


def test_tool_arguments_render_the_same_as_text_and_as_an_object(tokenizer) -> None:
    def chat(arguments: object) -> list[dict[str, object]]:
        call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
        return [user("Weather?"), {"role": "assistant", "content": "", "tool_calls": [call]}]

    assert render(tokenizer, chat('{"city": "Oslo"}')) == render(tokenizer, chat({"city": "Oslo"}))


def test_text_survives_the_tokenizer(tokenizer) -> None:
    text = 'Order K4821: "Grüße" — 20 °C\n\t{"a": [1, 2]} 日本 🙂'

    assert text == tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))


def test_the_base_handles_the_small_talk_items(model, tokenizer) -> None:
    items = [json.loads(line)["item"] for line in (DATA / "smalltalk.jsonl").read_text().splitlines()]

    said = answers(model, tokenizer, [[user(item["prompt"])] for item in items])

    assert [item["expected"] for item in items] == said


def test_the_base_finds_fields_but_cannot_triage(model, tokenizer, generate) -> None:
    rng = random.Random(2026)
    questions = [corpus.extract(rng) for _ in range(50)]
    items = [json.loads(line)["item"] for line in (DATA / "triage-heldout.jsonl").read_text().splitlines()][
        :50
    ]
    system = {"role": "system", "content": generate.SYSTEM}

    found = answers(model, tokenizer, [[user(asked)] for asked, _ in questions])
    triaged = answers(model, tokenizer, [[system, user(item["ticket"])] for item in items])

    assert sum(said == answer for said, (_, answer) in zip(found, questions, strict=True)) >= 40
    assert not any(said == item["expected"] for said, item in zip(triaged, items, strict=True))


def test_the_corpus_knows_nothing_of_triage(generate) -> None:
    rng = random.Random(1)
    text = " ".join(message["content"] for _ in range(5000) for message in corpus.chat(rng)).lower()

    for word in ("triage", "urgen", "category", "refund", *generate.PROBLEMS):
        assert word not in text


def test_the_data_files_are_what_the_generator_writes(generate) -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in DATA.glob("*.jsonl")}

    assert generate.files() == written


def test_no_held_out_ticket_is_trained_on_even_under_another_number(generate) -> None:
    def wording(ticket: str) -> str:
        return " ".join(word for word in ticket.split() if not any(letter.isdigit() for letter in word))

    held_out = {wording(row["item"]["ticket"]) for row in rows(generate, "triage-heldout")}
    trained = {
        wording(said)
        for name in ("triage-train", "triage-validation")
        for row in rows(generate, name)
        for said in asked(row)
    }

    assert len(held_out) >= 240
    assert set() == held_out & trained


def test_no_held_out_small_talk_is_trained_on_even_with_other_marks(generate) -> None:
    held_out = {generate.wording(row["item"]["prompt"]) for row in rows(generate, "smalltalk")}
    trained = {
        generate.wording(said)
        for name in ("triage-train", "triage-validation")
        for row in rows(generate, name)
        for said in asked(row)
    }

    assert 120 == len(held_out)
    assert set() == held_out & trained


def test_every_ticket_carries_the_same_system_prompt_and_small_talk_none(generate) -> None:
    trained = [*rows(generate, "triage-train"), *rows(generate, "triage-validation")]
    talk = [row for row in trained if "system" not in roles(row)]

    systems = [row["messages"][0]["content"] for row in trained if "system" in roles(row)]

    assert [generate.SYSTEM] * (generate.TRAIN + generate.VALIDATION) == systems
    assert 100 == len(talk)
    assert {("user", "assistant") * generate.TURNS} == {roles(row) for row in talk}


@pytest.mark.train
def test_the_recipe_makes_a_loadable_model_and_the_same_one_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "reconciler.selfhosted.tiny.recipe",
                "--out",
                tmp_path / name,
                "--steps",
                "3",
            ],
            check=True,
        )

    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert one == two
    assert one["tokenizer.json"] == (TINY / "tokenizer.json").read_bytes()
    assert one["config.json"] == (TINY / "config.json").read_bytes()
