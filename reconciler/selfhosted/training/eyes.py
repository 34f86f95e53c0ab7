"""
What a model that sees does with a picture: so many tokens in the text, so many numbers beside it.

LLaVA is the one architecture served and trained: every picture is resized to one size and takes one fixed
number of tokens, whatever it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = ("preprocessor_config.json", "processor_config.json")  # beside the weights of a model that sees


@dataclass(frozen=True)
class Eyes:
    token: int  # the id that stands for a piece of a picture
    count: int  # of them, for one picture
    text: str  # what the template writes for one picture
    processor: Any

    def pixels(self, images: Sequence[Any]) -> Any:
        """`[images, 3, height, width]`, a float tensor."""
        return self.processor(images=list(images), return_tensors="pt")["pixel_values"]


def of(folder: Path, config: Any, tokenizer: Any) -> Eyes | None:
    """The eyes of the model in `folder`, None when it reads text only. ValueError when we know no such eyes."""
    if getattr(config, "vision_config", None) is None:
        return None
    if config.model_type != "llava":
        raise ValueError(f"of the models that see only llava is known, not {config.model_type}")
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    token = int(config.image_token_index)
    return Eyes(
        token=token,
        count=int(config.image_seq_length),
        text=str(tokenizer.convert_ids_to_tokens(token)) * int(config.image_seq_length),
        processor=processor,
    )
