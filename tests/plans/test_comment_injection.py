"""Whatever somebody writes into a manifest, the comment shows it as text."""

import re
from html.parser import HTMLParser

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reconciler.cli import comment
from reconciler.cli.comment import Subject
from reconciler.compare import Compared, Removed
from reconciler.cost import Estimate
from reconciler.gates import Judgement, Trial, Verdict
from reconciler.kind import Action, Decision, Observed, State
from reconciler.plan import Change, Deletion, Plan, RowChanges, Step
from reconciler.resource import Address, Wanted
from reconciler.rowshapes import Example

OURS = {"h3", "p", "b", "br", "code", "table", "tr", "th", "td", "ul", "li", "details", "summary"}
VOID = {"br", "img"}
NASTY = [
    "@org/team", "a@b.com", "<img src=x onerror=alert(1)>", "</code></details><a href='//evil'>x</a>",
    "![x](https://evil.example/p.png)", "[x](javascript:alert(1))", "https://evil.example", "www.evil.example",
    "<https://evil.example>", "```\n@all\n```", "`@all`", "| a | b |", "x\n\n# heading\n\n- @all", "-->",
    "<!-- reconciler:plan:0 -->",
    "\u202e txt.exe", "\u2066x\u2069", "&#64;all", "&lt;script&gt;", "\\@all", ":tada:", "#1", "GH-1", "org/repo#1",
    "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef", "$\\href{//evil}{x}$", "~~x~~ **y** _z_", "\r\n\r\n<script>",
    "\x00\x1b[31m",
    "[^1]: x", "mailto:a@b.com", "</td></tr></table>\n\n<h1>", "\ud800", "\u200b@all", "@\u200ball", "\u3164@all",
]  # fmt: skip
texts = st.one_of(
    st.sampled_from(NASTY), st.text(max_size=60), st.text("@<>&`|[]()!*_~#:/\\\n\r\t $\"'-", max_size=30)
)


class Tags(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[object] = []
        self.comments: list[str] = []
        self.outside: list[str] = []  # text where GitHub looks for mentions, issues, commits and emoji
        self.all: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        self.all.append(data)
        if "code" not in self.open:
            self.outside.append(data)


def subject(text: str, other: str) -> Subject:
    """A plan in which everything that somebody can choose is chosen badly."""
    address, second = Address("Dataset", text), Address(other, text)
    content = {f"/{text}": other, "/facts/sha256": text}
    wanted = Wanted(
        address, "f" * 64, content, (), {"description": text}, {}, f"{text}.yaml", 3, {other: text}
    )
    judged = Judgement(Verdict.PASS, None, 0, 0, 0, 0, text)  # type: ignore[arg-type]  # a rule says nothing here
    observed = Observed(text, None, State.READY, {})
    decision = Decision(Action.UPDATE, text, observed, (observed,), [Trial(other, (judged,))])
    changes = (Change(f"/{text}", text, other), Change("/facts/sha256", text, other),
               Change(f"/x/{other}", {"ref": text, "is": other}, {"ref": other, "is": text}))  # fmt: skip
    first = Step(wanted, decision, (second,), text, changes, RowChanges(1, 1, 0, (1,)), (other, text))
    made = Step(wanted, Decision(Action.CREATE), (second,), text, changes[2:])
    kept = Step(wanted, Decision(Action.KEEP, text, observed))
    plan = Plan((first, made, kept), deletions=(Deletion(text, observed, other),))
    compared = Compared(
        plan, plan.steps, (Removed(second, text, address),), {address: second}, {address: (second, address)}
    )
    rows = {address: (Example("added", 1, None, text), Example("removed", 2, other, None))}
    return Subject(
        text, other, other, compared, text, {address: Estimate(None, None, other)}, rows, [(text, None)]
    )


@given(texts, texts)
@settings(max_examples=400, deadline=None)
@example("@org/team", "</code>\n\n@all <a href=x>")
def test_nothing_in_a_manifest_becomes_anything_but_text(text: str, other: str) -> None:
    said = comment.comment(subject(text, other), lambda wanted, change: f"{wanted.file}:{change.at}")

    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(said)

    tags = Tags()
    tags.feed(page)
    tags.close()
    assert [] == tags.open
    assert tags.seen <= OURS
    assert [] == tags.attributes
    assert 1 == len(tags.comments) == said.count("<!--")
    assert said.startswith(f"<!--{tags.comments[0]}-->\n")
    shown = "".join(tags.all)
    assert not re.search(r"@[\w/-]|://[\w/.-]|www\.\w", shown)
    outside = "".join(tags.outside)
    assert not re.search(r"#\d|GH-\d|:[a-z0-9_+-]+:|[0-9a-f]{7}", outside, re.IGNORECASE)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff\x00-\x08\x1b]", page)
    said.encode()


def test_the_test_would_notice() -> None:
    page = MarkdownIt("commonmark", {"html": True}).render(
        "<p>a</p>\n\n[x](https://evil.example) <img src=x>"
    )

    tags = Tags()
    tags.feed(page)

    assert {"a", "img"} == tags.seen - OURS
