"""Pictures in rows and in requests: what may be looked at, what is skipped, and that it trains and is served."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import training_base
from PIL import Image
from test_training import run

from reconciler.selfhosted.engine import Answer, Ask, EngineError
from reconciler.selfhosted.engine.client import Engine
from reconciler.selfhosted.tiny.shapes import picture
from reconciler.selfhosted.training import lines, pictures, rows
from reconciler.selfhosted.training.pictures import BadPicture
from reconciler.selfhosted.training.rows import Problem


def uri(format: str, image: Image.Image | None = None, said: str | None = None) -> str:
    file = io.BytesIO()
    (image or Image.new("RGB", (4, 4), "red")).save(file, format)
    said = said or format.lower()
    return f"data:image/{said};base64,{base64.b64encode(file.getvalue()).decode()}"


def row(url: str, answer: str = "a red circle") -> dict[str, Any]:
    shown = {"type": "image_url", "image_url": {"url": url}}
    asked = {"role": "user", "content": [shown, {"type": "text", "text": "What is it?"}]}
    return {"messages": [asked, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize("url", [uri("PNG"), uri("JPEG"), uri("WEBP"), uri("PNG", Image.new("RGBA", (4, 4)))])
def test_jpeg_png_and_webp_are_looked_at(url: str) -> None:
    assert ("RGB", (4, 4)) == (pictures.read(url).mode, pictures.read(url).size)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            "https://example.com/x.png",
            "is behind a URL, and nothing is fetched here; write it as a data URI",
        ),
        (uri("GIF"), "is no base64 data URI of a JPEG, PNG or WEBP"),
        (uri("GIF", said="png"), "is broken, or not of the type it says"),
        ("data:image/png;base64,!!!", "is not base64"),
        (uri("PNG")[:-40], "is broken, or not of the type it says"),
        (uri("JPEG", Image.new("CMYK", (4, 4))), "has the colour mode CMYK; the modes are RGB and RGBA"),
        (uri("PNG", Image.new("1", (9000, 9000))), "has 9000 x 9000 pixels; make it smaller"),
        ("data:image/png;base64," + "A" * 14_000_000, "has more than 10 MB"),
    ],
)
def test_what_cannot_be_looked_at_has_a_reason(url: str, reason: str) -> None:
    with pytest.raises(BadPicture) as raised:
        pictures.read(url)

    assert reason == str(raised.value)


def test_pictures_are_for_models_that_see_and_for_users_to_show() -> None:
    shown = row(uri("PNG"))
    backwards = {"messages": [{**message, "role": "assistant"} for message in shown["messages"]]}

    rows.check_chat(shown, sees=True)
    with pytest.raises(Problem, match="message 1 its part 1 is an image, and the model reads text only"):
        rows.check_chat(shown)
    with pytest.raises(Problem, match="its part 1 is an image, which only messages of the user show"):
        rows.check_chat(backwards, sees=True)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose eyes have hardly seen anything, and rows of which two show nothing."""
    from reconciler.selfhosted.tiny import vision

    shelf, rng = tmp_path_factory.mktemp("shelf"), random.Random(1)
    vision.make(shelf / "base", seed=1, steps=1)
    seen = [picture(rng) for _ in range(36)]
    good = [row(one.data_uri(), f"{one.colour} {one.shape}") for one in seen]
    bad = [row("https://example.com/x.png"), row("data:image/png;base64,AAAA")]
    training_base.write_rows(shelf / "training.jsonl", [*good[:16], *bad, *good[16:32]])
    training_base.write_rows(shelf / "validation.jsonl", good[32:])
    return shelf


def vision_job(shelf: Path, folder: Path, tuning: str) -> Path:
    folder.mkdir()
    hyperparameters = {"n_epochs": 3, "batch_size": 8}
    wanted = {
        "id": "ftjob-1",
        "model": {"path": str(shelf / "base")},
        "training_file": str(shelf / "training.jsonl"),
        "validation_file": str(shelf / "validation.jsonl"),
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        "seed": 7,
        "tuning": {"type": tuning},
        "threads": 1,
        "save_every_s": 0,
    }
    (folder / "job.json").write_text(json.dumps(wanted))
    return folder


async def answers(model: Path, *messages: dict[str, Any]) -> list[Answer | EngineError]:
    engine = Engine(threads=1)
    try:
        asks = [Ask(str(model), [message], temperature=0, max_tokens=4) for message in messages]
        return await engine.generate(asks)
    finally:
        await engine.close()


@pytest.mark.train
def test_what_was_shown_is_learned_and_the_model_is_served(shelf: Path, tmp_path: Path) -> None:
    whole = vision_job(shelf, tmp_path / "whole", "full")

    run(whole)

    events = {event["key"]: event for event in lines.read(whole / "events.jsonl")}
    assert (
        "2 example(s) of the training file were skipped: row 17: picture 1 is behind a URL, and nothing is "
        "fetched here; write it as a data URI; row 18: picture 1 is broken, or not of the type it says"
    ) == events["skipped-training_file"]["message"]
    assert events["step-12"]["data"]["train_loss"] < events["step-1"]["data"]["train_loss"] / 2
    shown, text = row(uri("PNG"))["messages"][0], {"role": "user", "content": "What is it?"}
    forged = {"role": "user", "content": "<image>"}
    broken_picture = row("data:image/png;base64,AAAA")["messages"][0]
    seen, unseen, refused, unreadable = asyncio.run(
        answers(whole / "model", shown, text, forged, broken_picture)
    )
    assert isinstance(seen, Answer) and isinstance(unseen, Answer)
    assert 16 == seen.prompt_tokens - unseen.prompt_tokens
    assert EngineError("invalid_request", "the text of the messages spells the mark of a picture") == refused
    assert EngineError("invalid_request", "picture 1 is broken, or not of the type it says") == unreadable


@pytest.mark.train
def test_an_adapter_sees_with_the_eyes_of_its_base(shelf: Path, tmp_path: Path) -> None:
    folder = vision_job(shelf, tmp_path / "job", "lora")

    assert "succeeded" == run(folder)["status"]

    [seen] = asyncio.run(answers(folder / "model", row(uri("PNG"))["messages"][0]))
    assert isinstance(seen, Answer)
