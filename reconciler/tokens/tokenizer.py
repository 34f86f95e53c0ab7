"""
A model's own tokenizer and chat template, found on this machine: packaged, a folder, or a hub revision that
was fetched before. Nothing is ever downloaded.
"""

import hashlib
import importlib.resources
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.tokens.messages import Refused

if TYPE_CHECKING:
    from reconciler.tokens.chat import Rendered, Template

PACKAGED = {"tiny-chat": "selfhosted/tiny"}  # model ids whose folders come with the package
LONGEST = 4096  # tokens of an example, where a folder does not say
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
         "config.json", "reconciler.json")  # fmt: skip


@dataclass(frozen=True)
class Tokenizer:
    """`digest` is of all that a count rests on; `longest` is the most tokens of an example."""

    digest: str
    template: "Template"
    longest: int
    encoder: Any  # tokenizers.Tokenizer

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(each.ids) for each in self.encoder.encode_batch_fast(texts, add_special_tokens=False)]

    def learned(self, examples: "Sequence[Rendered]") -> list[list[int]]:
        """Of each example the positions of the tokens that carry loss, and behind them its length."""
        found = []
        encoded = self.encoder.encode_batch([each.text for each in examples], add_special_tokens=False)
        for example, each in zip(examples, encoded, strict=True):
            at = [
                index
                for index, (start, end) in enumerate(each.offsets)
                if any(end > first and (start < last or end <= last) for first, last in example.spans)
            ]
            found.append([*at, len(each.ids)])
        return found


def folder_of(model: Mapping[str, Any], facts: Mapping[str, Any], hubs: Sequence[Path]) -> Path | None:
    """
    Where the files of a Model lie, if they are here. `model` is its spec as written.

    `hubs` are folders in which platforms of this machine keep what they fetched, as `org--name/revision`.
    """
    if path := facts.get("path"):
        return Path(path)
    if hub := model.get("hub"):
        name, revision = hub.replace("/", "--"), model["revision"]
        cached = _hub_cache() / f"models--{name}" / "snapshots" / revision
        here = (folder for folder in (*(hub / name / revision for hub in hubs), cached) if folder.is_dir())
        return next(here, None)
    packaged = PACKAGED.get(model.get("id", ""))
    return Path(str(importlib.resources.files("reconciler"))) / packaged if packaged else None


def load(folder: Path) -> Tokenizer | str:
    """The tokenizer in a model folder, or why there is none to count with."""
    if missing := [name for name in ("tokenizers", "jinja2") if importlib.util.find_spec(name) is None]:
        return f"counting needs {' and '.join(missing)}; install reconciler with its extra `platform`"
    try:
        texts = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
        config, about, told, named = (
            json.loads(texts.get(f"{name}.json", b"{}"))
            for name in ("config", "reconciler", "tokenizer_config", "special_tokens_map")
        )
        source = _template(texts, told)
        if source is None or "tokenizer.json" not in texts:
            return "its folder has no tokenizer.json with a chat template"
        from tokenizers import Tokenizer as Encoder

        from reconciler.tokens.chat import Template

        encoder = Encoder.from_buffer(texts["tokenizer.json"])
        encoder.no_truncation()
        encoder.no_padding()
        template = Template(source, _special(told) | _special(named), _picture(config, encoder))
    except (OSError, ValueError, Refused) as error:
        return f"its tokenizer cannot be used ({type(error).__name__})"
    digest = hashlib.sha256(b"".join(hashlib.sha256(texts[name]).digest() for name in texts)).hexdigest()
    return Tokenizer(digest, template, _longest(config, about), encoder)


def _hub_cache() -> Path:
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _template(texts: Mapping[str, bytes], told: Mapping[str, Any]) -> str | None:
    if "chat_template.jinja" in texts:
        return texts["chat_template.jinja"].decode()
    said = told.get("chat_template")
    if isinstance(said, list):
        said = next((each["template"] for each in said if each.get("name") == "default"), None)
    return said if isinstance(said, str) else None


def _special(told: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that templates may name: `bos_token` and its like."""
    named = {k: v.get("content") if isinstance(v, dict) else v for k, v in told.items()}
    return {key: value for key, value in named.items() if key.endswith("_token") and isinstance(value, str)}


def _picture(config: Mapping[str, Any], encoder: Any) -> str:
    """What stands in the text for a picture, where the model sees."""
    if "image_token_index" not in config or "image_seq_length" not in config:
        return ""
    return str(encoder.id_to_token(config["image_token_index"])) * int(config["image_seq_length"])


def _longest(config: Mapping[str, Any], about: Mapping[str, Any]) -> int:
    recommended = (about.get("defaults") or {}).get("max_length", LONGEST)
    reads = (config.get("text_config") or config).get("max_position_embeddings", recommended)
    return int(min(recommended, reads))
