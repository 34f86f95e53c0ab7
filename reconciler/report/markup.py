"""
HTML that is escaped unless it was made here.

`tag` takes text and `Markup`; only `Markup` is passed on as it is, and only this module and the
constant style and script make any.
"""

import html
import json
import re
from collections.abc import Iterable
from typing import Any

VOID = frozenset({"br", "col", "meta", "link"})
INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already."""


def tag(element: str, /, *children: "str | Iterable[str]", **attributes: Any) -> Markup:
    """
    One element. `class_` is class, `aria_label` is aria-label; None and False leave an attribute out.
    """
    said = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{html.escape(visible(str(value)))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if element in VOID:
        return Markup(f"<{element}{said}>")
    return Markup(f"<{element}{said}>{''.join(map(_child, children))}</{element}>")


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Several pieces as one."""
    return Markup(_child(between).join(map(_child, parts)))


def data_block(id: str, value: Any) -> Markup:
    """JSON that a script reads; no text in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for each in "<>&\u2028\u2029":
        text = text.replace(each, f"\\u{ord(each):04x}")
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    return Markup(f'<script type="application/json" id="{id}">{text}</script>')


def visible(text: str) -> str:
    """Text without control characters and without those that turn the reading direction around."""
    return INVISIBLE.sub("\ufffd", text)


def _child(child: "str | Iterable[str]") -> str:
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return html.escape(visible(child))
    return "".join(map(_child, child))


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
