"""The engine's model side against Transformers itself: architectures, adapters, the shelf and the batch."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.selfhosted import tiny
from reconciler.selfhosted.engine import Ask, EngineError
from reconciler.selfhosted.engine.front import Key

pytestmark = pytest.mark.train  # imports torch, transformers and peft: most of a minute on a busy machine

TINY = Path(tiny.__file__).parent
SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
WINDOW = 12  # shorter than the prompts
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen3": {},
    "gemma3_text": {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "gemma2": {"sliding_window": WINDOW},
}
ASK = Ask("", [{"role": "user", "content": "hello"}], temperature=0, max_tokens=20)


@pytest.fixture(autouse=True, scope="module")
def inference() -> Iterator[None]:
    import torch

    with torch.inference_mode():
        yield


def folder_of(path: Path, model: Any) -> str:
    """A model folder with the packaged model's tokenizer."""
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, path / name)
    return str(path)


def random_model(kind: str, **config: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    with torch.inference_mode(False):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **config})).eval()


def prompts(count: int) -> list[str]:
    words = ["red", "green", "blue", "lamp", "boat", "and", "or", "the", "order", "is", "late"]
    return [" ".join(words[: 1 + 5 * i % len(words)]) for i in range(count)]


def by_generate(folder: str, texts: list[str], adapter: str | None = None) -> list[str]:
    """What Transformers' own `generate` says greedily, one prompt at a time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    if adapter:
        model = PeftModel.from_pretrained(model, adapter).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    said = []
    for text in texts:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        out = model.generate(**prompt, max_new_tokens=ASK.max_tokens, do_sample=False)
        said.append(tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
    return said


def by_batch(served: Any, texts: list[str]) -> list[str]:
    """What a batch says in which rows of all lengths run, leave and join."""
    from reconciler.selfhosted.engine.batch import Batch
    from reconciler.selfhosted.engine.row import Row

    asks = [replace(ASK, messages=[{"role": "user", "content": text}]) for text in texts]
    rows = [Row(Key(0, i), i, ask, served) for i, ask in enumerate(asks)]
    batch = Batch(served)
    batch.add(rows[: (len(rows) + 1) // 2])
    for _ in range(5):
        if batch:
            batch.step()
    batch.add(rows[len(rows) // 2 :])
    while batch:
        batch.step()
    return [row.answer().text for row in rows]


def shelf(memory: int = 1 << 30) -> Any:
    from reconciler.selfhosted.engine.shelf import Shelf

    return Shelf(memory)


def cut(text: str) -> str:
    """`generate` prints broken characters that the engine leaves out at the end."""
    return text.rstrip("\ufffd")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_greedy_answers_are_those_of_generate(tmp_path, kind):
    folder = folder_of(tmp_path, random_model(kind, **ARCHITECTURES[kind]))

    ours = by_batch(shelf().get(folder, ()), prompts(12))

    assert [cut(text) for text in by_generate(folder, prompts(12))] == [cut(text) for text in ours]


def test_greedy_answers_of_the_packaged_model_are_those_of_generate():
    texts = [f"Repeat: {text}" for text in prompts(16)]

    assert by_generate(str(TINY), texts) == by_batch(shelf().get(str(TINY), ()), texts)


@pytest.mark.parametrize("kind", ["bloom", "mamba"])
def test_an_architecture_that_our_slots_do_not_fit_is_refused(tmp_path, kind):
    folder = folder_of(tmp_path, random_model(kind))

    with pytest.raises(EngineError, match=f"does not serve models of type {kind}") as caught:
        shelf().get(folder, ())

    assert "model_unloadable" == caught.value.code


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    model = random_model("llama")
    model.model.norm.weight.data.fill_(float("nan"))

    with pytest.raises(EngineError, match="finite"):
        shelf().get(folder_of(tmp_path, model), ())


def test_a_tokenizer_that_is_broken_is_refused(tmp_path):
    folder = folder_of(tmp_path, random_model("llama"))
    (tmp_path / "tokenizer.json").write_text('{"model": 7}')

    with pytest.raises(EngineError, match="cannot be loaded"):
        shelf().get(folder, ())


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = folder_of(tmp_path, random_model("llama"))
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(EngineError, match="up_proj"):
        shelf().get(folder, ())


def adapter_of(path: Path, seed: int) -> str:
    """A LoRA over the packaged model that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    with torch.inference_mode(False):
        base = AutoModelForCausalLM.from_pretrained(TINY)
        model = get_peft_model(base, LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False))
        model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / name, path / name)
    (path / "reconciler.json").write_text(f'{{"base": "{TINY}"}}')
    return str(path)


def test_adapters_and_their_base_answer_side_by_side_from_one_copy(tmp_path):
    one, two = adapter_of(tmp_path / "one", 1), adapter_of(tmp_path / "two", 2)
    models = shelf()
    texts = prompts(6)

    base, first, second = (models.get(folder, ()) for folder in (str(TINY), one, two))
    said = {served.folder: by_batch(served, texts) for served in (first, base, second, first, base)}

    assert first.base is base.base is second.base
    assert models.held() < 2 * base.base.size
    assert by_generate(str(TINY), texts) == said[str(TINY)]
    for adapter in (one, two):
        assert [cut(t) for t in by_generate(str(TINY), texts, adapter)] == [cut(t) for t in said[adapter]]
    assert 3 == len({str(each) for each in said.values()})


def test_an_adapter_whose_weights_are_a_pickle_is_refused(tmp_path):
    adapter = Path(adapter_of(tmp_path / "one", 1))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")

    with pytest.raises(EngineError, match="safetensors"):
        shelf().get(str(adapter), ())


def test_the_model_that_was_not_used_for_longest_makes_room(tmp_path):
    folders = [folder_of(tmp_path / name, random_model("llama")) for name in "abc"]
    size = shelf().get(folders[0], ()).base.size
    models = shelf(memory=int(size * 2.5))
    a, b = (models.get(folder, ()) for folder in folders[:2])

    assert a is models.get(folders[0], ())
    models.get(folders[2], ())

    assert a is models.get(folders[0], ())
    assert models.held() <= size * 2.5
    assert b is not models.get(folders[1], ())


def test_a_model_that_is_busy_stays(tmp_path):
    folders = [folder_of(tmp_path / name, random_model("llama")) for name in "ab"]
    models = shelf(memory=1)
    first = models.get(folders[0], ())

    models.get(folders[1], {folders[0]})

    assert first is models.get(folders[0], ())


def test_an_adapter_that_made_room_can_come_back(tmp_path):
    one, two = adapter_of(tmp_path / "one", 1), adapter_of(tmp_path / "two", 2)
    models = shelf(memory=1)
    before = by_batch(models.get(one, ()), prompts(4))

    models.get(two, ())

    assert before == by_batch(models.get(one, ()), prompts(4))


def test_a_tool_call_never_shows_in_the_streamed_text():
    from reconciler.selfhosted.engine.row import Row

    served = shelf().get(str(TINY), ())
    row = Row(Key(0, 0), 0, replace(ASK, tools=[{"type": "function"}], max_tokens=200), served)
    text = 'Let me <see>. <tool_call>{"name": "find", "arguments": {"id": 7}}</tool_call>'

    pieces = []
    for token in [*served.tokenizer.encode(text, add_special_tokens=False), *served.ends]:
        row.take(token, None)
        pieces.append(row.delta())

    answer = row.answer()
    assert ("Let me <see>.", "Let me <see>.", "tool_calls") == (
        answer.text,
        "".join(pieces),
        answer.finish_reason,
    )
    assert {"name": "find", "arguments": '{"id": 7}'} == answer.tool_calls[0]["function"]


def test_cancelled_rows_leave_the_batch_and_the_others_go_on():
    from reconciler.selfhosted.engine.batch import Batch
    from reconciler.selfhosted.engine.row import Row

    served = shelf().get(str(TINY), ())
    (alone,) = by_generate(str(TINY), ["hello"])
    batch = Batch(served)
    rows = [Row(Key(i % 2, i), 0, ASK, served) for i in range(6)]
    batch.add(rows)
    batch.step()

    batch.cancel(lambda key: key.connection == 1)
    while batch:
        assert {0} == {row.key.connection for row in batch.step()}

    assert [alone] * 3 == [row.answer().text for row in rows[::2]]
    assert all(row.finish is None for row in rows[1::2])


def test_penalties_and_a_bias_are_added_to_the_logits_of_their_tokens():
    import torch

    from reconciler.selfhosted.engine.row import Row

    served = shelf().get(str(TINY), ())
    ask = replace(ASK, presence_penalty=0.5, frequency_penalty=0.25, logit_bias={"40": 3, "41": -100})
    row = Row(Key(0, 0), 0, ask, served)
    for token in (41, 42, 41):
        row.take(token, None)

    row.shape(logits := torch.zeros(SIZES["vocab_size"]))

    moved = {token: float(logits[token]) for token in logits.nonzero().flatten().tolist()}
    assert {40: 3.0, 41: -101.0, 42: -0.75} == moved
