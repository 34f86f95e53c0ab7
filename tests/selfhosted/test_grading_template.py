"""Templates look things up, once, and nothing else."""

from typing import Any

import pytest

from reconciler.selfhosted.grading import UnknownVariable, render, render_messages, sample_of

ITEM: dict[str, Any] = {
    "label": "yes",
    "n": 3,
    "flag": True,
    "nothing": None,
    "tags": ["a", "b"],
    "deep": {"list": [{"x": "here"}]},
    "odd-name": "odd",
    "with space": "spaced",
    "grüße": "unicode",
}
SAMPLE: dict[str, Any] = {
    "output_text": "an answer",
    "output_json": {"kind": "bug"},
    "output_tools": [{"function": {"name": "look", "arguments": '{"q": 1}'}}],
    "choices": [{"message": {"content": "an answer"}}],
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ item.label }}", "yes"),
        ("{{item.label}}", "yes"),
        ("{{\n item.label\n}}", "yes"),
        ("a {{item.label}} b {{item.n}} c", "a yes b 3 c"),
        ("{{item.flag}} {{item.nothing}}", "true null"),
        ("{{item.tags}}", '["a", "b"]'),
        ("{{item.tags[0]}}{{ item.tags[-1] }}{{item.tags.1}}", "abb"),
        ("{{item.deep.list[0].x}}", "here"),
        ("{{item['label']}}", "yes"),
        ('{{item["with space"]}}', "spaced"),
        ("{{item.odd-name}}", "odd"),
        ("{{item.grüße}}", "unicode"),
        ("{{sample.output_text}}", "an answer"),
        ("{{sample.output_json.kind}}", "bug"),
        ("{{ sample.output_json }}", '{"kind": "bug"}'),
        ("{{ sample.output_tools[0].function.name }}", "look"),
        ("{{sample.choices[0].message.content}}", "an answer"),
        ("no holes } { }}", "no holes } { }}"),
        ("", ""),
    ],
)
def test_a_template_is_filled_with_what_its_paths_lead_to(template: str, expected: str) -> None:
    assert expected == render(template, ITEM, SAMPLE)


@pytest.mark.parametrize(
    "template",
    [
        "{{ item.absent }}",
        "{{ item.tags[2] }}",
        "{{ item.tags[-3] }}",
        "{{ item.tags.first }}",
        "{{ item.label.upper }}",
        "{{ item.nothing.x }}",
        "{{ item.n[0] }}",
        "{{ items.label }}",
        "{{ itemlabel }}",
        "{{ label }}",
        "{{ item.label | upper }}",
        "{{ item.label() }}",
        "{{ item. }}",
        "{{ item.__class__ }}",
        "{{ }}",
        "{{ 1 + 1 }}",
    ],
)
def test_a_path_that_leads_nowhere_is_an_error_and_not_an_empty_string(template: str) -> None:
    with pytest.raises(UnknownVariable):
        render(template, ITEM, SAMPLE)


def test_braces_inside_a_value_are_never_filled_in_again() -> None:
    sample = {"output_text": "{{ item.label }}"}

    rendered = render("{{ sample.output_text }}", ITEM, sample)

    assert "{{ item.label }}" == rendered


def test_an_unknown_variable_says_what_there_is() -> None:
    with pytest.raises(UnknownVariable) as caught:
        render("{{ sample.output_jsn }}", ITEM, SAMPLE)

    expected = (
        "{{ sample.output_jsn }}: sample has no output_jsn "
        "(it has choices, output_json, output_text, output_tools)"
    )
    assert expected == str(caught.value)


def test_messages_come_out_as_chat_messages_whatever_form_their_content_has() -> None:
    messages = [
        {"type": "message", "role": "developer", "content": "is it {{item.label}}?"},
        {"role": "user", "content": {"type": "input_text", "text": "{{item.n}}"}},
        {"role": "assistant", "content": [{"type": "output_text", "text": "one"}, "{{item.label}}"]},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "data:{{item.label}}"},
                {"type": "input_audio", "input_audio": {"data": "{{item.n}}", "format": "wav"}},
            ],
        },
    ]

    assert [
        {"role": "developer", "content": "is it yes?"},
        {"role": "user", "content": "3"},
        {"role": "assistant", "content": "one\nyes"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:yes", "detail": "auto"}},
                {"type": "input_audio", "input_audio": {"data": "3", "format": "wav"}},
            ],
        },
    ] == render_messages(messages, ITEM, {})


@pytest.mark.parametrize("text", ["plain", "{", "NaN", "[" * 100_000, ""])
def test_a_sample_has_output_json_only_when_its_text_is_json(text: str) -> None:
    assert {"a": [1]} == sample_of('{"a": [1]}')["output_json"]
    assert "output_json" not in sample_of(text)
