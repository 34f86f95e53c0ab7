"""Items come from anybody: whatever they say stays text."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from report_base import BREAKOUT, HOSTILE, MENTION, example

from reconciler.report import browse, junit, markdown, page
from reconciler.report.markup import Markup, data_block, tag
from reconciler.report.values import Item, Report

GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
LINKING = re.compile(r"[@#]\w|www\.|://|GH-\d", re.IGNORECASE)  # what GitHub makes a mention or a link of
ANYTHING = st.text(st.characters(codec=None), max_size=60)


class Elements(HTMLParser):
    """The elements and attributes of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and self.cdata_elem == "script":
            self.scripts[-1] += data


def hostile(text: str) -> Report:
    """The example with one text everywhere a platform or an item can put it."""
    report = example()

    def put(item: Item) -> Item:
        grades = tuple(grade._replace(grader=text, note=text) for grade in item.grades)
        return item._replace(
            fields={text: text, "kind": text}, answer=text, error=text, grades=grades, id=text
        )

    runs = tuple(
        replace(run, subject=text, model=text, eval=text, graders=(text,), items=tuple(map(put, run.items)))
        for run in report.runs
    )
    origins = tuple(origin._replace(id=text, detail=text) for origin in report.origins)
    return replace(report, runs=runs, origins=origins, headline=text, detail=text, platform=text)


def everything(tokens: list[Token]) -> list[Token]:
    return [each for token in tokens for each in (token, *everything(token.children or []))]


@pytest.mark.parametrize("text", [*HOSTILE, "\x00", "\u2028", "]]>", "<!--", "-->", "{{", "' onload='"])
def test_a_page_holds_the_same_elements_whatever_its_items_say(text: str) -> None:
    tame, wild = Elements(page.html(hostile("tame"))), Elements(page.html(hostile(text)))

    assert tame.tags == wild.tags
    assert tame.attributes == wild.attributes
    assert 2 == len(wild.scripts)


def test_a_page_runs_nothing_from_attributes_and_loads_nothing(report: Report) -> None:
    told = page.html(report)

    found = Elements(told)
    assert [] == [
        name for name in found.attributes if name.startswith("on") or name in ("src", "style", "action")
    ]
    assert set() == set(found.tags) & {"iframe", "object", "embed", "img", "form", "base"}
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', told)
    assert policy and policy[1].startswith("default-src &#x27;none&#x27;")
    assert "unsafe" not in policy[1]
    assert ["data:,"] == re.findall(r'href="([^#][^"]*)"', told)


def test_the_data_of_a_page_is_what_the_items_said(report: Report) -> None:
    [data, _] = Elements(page.html(report)).scripts

    assert browse.data(report) == json.loads(data)
    assert BREAKOUT == json.loads(data)["evals"][0]["items"][0]["fields"]["question"]


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_no_text_ends_a_data_block(text: str) -> None:
    block = data_block("data", {"text": text})

    assert block.count("<") == 2
    block.encode()


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_no_text_becomes_an_element_or_an_attribute(text: str) -> None:
    made = tag("p", text, title=text)

    found = Elements(made)
    assert (["p"], {"title"}) == (found.tags, found.attributes)
    assert isinstance(made, Markup)
    made.encode()


@settings(max_examples=300, deadline=None)
@given(st.one_of(ANYTHING, st.text("<>&@#:/w.[]()!`*_|\\~$-hHtpsG7 \n", max_size=40)))
def test_plain_markdown_is_one_paragraph_of_text(text: str) -> None:
    told = markdown.plain(f"a{text}")

    tokens = everything(GITHUB.parse(told))
    assert {"paragraph_open", "paragraph_close", "inline", "text", "text_special"} >= {t.type for t in tokens}
    assert (
        re.search(r"[@#][\w\d]|www\.|://|GH-\d", "".join(t.content for t in tokens if t.type == "text"))
        is None
    )


@settings(max_examples=300, deadline=None)
@given(st.text("`\n~ ab<", max_size=60))
def test_a_fence_cannot_be_ended_from_inside(text: str) -> None:
    tokens = GITHUB.parse(markdown.fenced(text))

    assert ["fence"] == [token.type for token in tokens]
    assert text == tokens[0].content.removesuffix("\n") or text.endswith("\n")


def test_markdown_without_items_holds_no_text_of_any(report: Report) -> None:
    told = markdown.markdown(report, False)

    assert [] == [
        text for text in (*HOSTILE, "answer 1", "far & away", "ran out of", "short") if text in told
    ]


def test_markdown_with_items_neither_mentions_nor_links(report: Report) -> None:
    tokens = everything(GITHUB.parse(markdown.markdown(report, True)))

    assert [] == [t for t in tokens if t.type in ("link_open", "image")]
    assert [] == [t.content for t in tokens if t.type.startswith("text") and LINKING.search(t.content)]
    assert [] == [t.content for t in tokens if t.type.startswith("html") and not re.fullmatch(
        r"<details><summary>[^<]*</summary>\s*|</details>\s*", t.content)]  # fmt: skip
    assert any(MENTION in t.content for t in tokens if t.type == "fence")


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
def test_junit_is_xml_whatever_the_items_say(text: str) -> None:
    told = "".join(junit.junit(hostile(text), True))

    suites = ET.fromstring(told.encode("utf-8", "backslashreplace"))
    assert "testsuites" == suites.tag
    assert {"testsuite"} == {suite.tag for suite in suites}
