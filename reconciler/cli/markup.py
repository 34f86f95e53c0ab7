"""
Text from manifests as GitHub may show it: as text, whatever is in it.

Everything we write for a pull request is HTML blocks without blank lines, so no Markdown in a name is ever
read. Inside them characters that mean something are entities, and a zero-width space stands where a mention,
a link, an issue, a commit or an emoji would begin.
"""

import re

ENTITIES = {ord(each): f"&#{ord(each)};" for each in "&<>\"'`|*[]!\\~$"}
GAP = "\u200b"  # takes no room and ends a word
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f"
    "\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
TRIGGERS = re.compile(
    r"(@)|(#)(?=\d)|(GH-)(?=\d)|(://)|(www\.)|(:)(?=[a-z0-9_+-]+:)|([0-9a-f]{6})(?=[0-9a-f])", re.IGNORECASE
)
LONGEST = 300  # characters of one text


def text(value: str, longest: int = LONGEST) -> str:
    """Plain text: on one line, seen in full, and nothing but text. Pure."""
    short = value if len(value) <= longest else f"{value[: longest - 1]}…"
    seen = UNSEEN.sub(lambda found: " " if found[0] in "\t\n\r" else "\ufffd", short)
    return TRIGGERS.sub(lambda found: found[0] + GAP, seen).translate(ENTITIES)


def code(value: object, longest: int = LONGEST) -> str:
    """Something to be read letter by letter."""
    return f"<code>{text(str(value), longest)}</code>"
