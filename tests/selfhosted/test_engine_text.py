"""What the engine does to text, and its socket: everything that needs no torch."""

import asyncio
import json
import queue
import subprocess
import sys

import pytest

from reconciler.selfhosted.engine import Ask, wire
from reconciler.selfhosted.engine.front import Command, Front, Key
from reconciler.selfhosted.engine.prompt import said
from reconciler.selfhosted.engine.transcript import LONGEST_WINDOW, Transcript, held_back


def by_bytes(tokens: list[int]) -> str:
    """The worst tokenizer there is: every byte a token."""
    return bytes(tokens).decode(errors="replace")


def written(text: str | bytes, *stops: str) -> Transcript:
    transcript = Transcript(by_bytes, stops)
    for byte in text.encode() if isinstance(text, str) else text:
        if not transcript.stopped:
            transcript.add(byte)
    return transcript


def test_a_character_appears_only_when_it_is_whole():
    transcript = Transcript(by_bytes, ())
    seen = []

    for byte in "aé€𝄞z".encode():
        transcript.add(byte)
        seen.append(transcript.text)

    assert ["a", "a", "aé", "aé", "aé", "aé€", "aé€", "aé€", "aé€", "aé€𝄞", "aé€𝄞z"] == seen


def test_an_answer_cut_within_a_character_ends_before_it():
    assert "price: 5" == written("price: 5€".encode()[:-1]).text


def test_bytes_that_are_no_text_do_not_hold_back_what_follows():
    assert "a\ufffdb" == written(b"a\xffb").text


def test_endless_broken_bytes_are_given_up_on():
    assert LONGEST_WINDOW <= len(written(b"\xff" * (LONGEST_WINDOW + 40)).text)


@pytest.mark.parametrize("stop", ["END", "D", "the END"])
def test_a_stop_string_is_cut_even_when_it_is_spelled_over_tokens(stop):
    transcript = written("to the END of it", stop)

    assert "to the END of it".split(stop)[0] == transcript.text
    assert transcript.stopped


def test_the_first_of_several_stop_strings_counts():
    assert "a " == written("a b c d", "d", "b").text


def test_what_may_become_a_stop_string_is_held_back():
    transcript = written("wait for EN", "END")

    assert len("wait for ") == transcript.sure()
    transcript.add(ord("Q"))
    assert len("wait for ENQ") == transcript.sure()


def test_text_without_markers_is_never_held_back():
    assert 5 == held_back("hello", [])


def call(name: str, **arguments: object) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_tool_calls_are_read_from_the_text():
    text = "Let me see.\n" + call("find", id=7) + "\n" + call("count", of="cats")

    answer = said(text, [1, 2])

    assert "Let me see." == answer.text
    assert [
        {"name": "find", "arguments": '{"id": 7}'},
        {"name": "count", "arguments": '{"of": "cats"}'},
    ] == [each["function"] for each in answer.tool_calls]


def test_tool_call_ids_repeat_with_the_prompt_and_differ_without_it():
    text = call("find") + call("find")

    first, again, other = (said(text, prompt).tool_calls for prompt in ([1], [1], [2]))

    assert first == again
    assert 4 == len({each["id"] for each in [*first, *other]})


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{broken</tool_call>",
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": 3}</tool_call>',
        "plain",
    ],
)
def test_what_is_no_tool_call_stays_text(text):
    assert (text, None) == said(text, [])


def test_the_client_imports_no_torch():
    code = "import sys, reconciler.selfhosted.engine; print({'torch', 'transformers'} & set(sys.modules))"

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "set()" == out.strip()


def test_messages_survive_the_wire():
    ask = Ask(
        "/m", [{"role": "user", "content": [{"type": "text", "text": "é"}]}], stop=("a",), seed=3, logprobs=0
    )

    read = wire.requests.decode(wire.frame(wire.Stream(5, ask))[wire.HEADER :])

    assert 5 == read.call
    assert (list(ask.messages), 3, ["a"], 0) == (
        read.ask.messages,
        read.ask.seed,
        read.ask.stop,
        read.ask.logprobs,
    )


def test_a_client_that_hangs_up_takes_its_calls_with_it(tmp_path):
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
    ask = Ask("/m", [])

    async def hang_up() -> None:
        server = await asyncio.start_unix_server(Front(inbox).connected, path=tmp_path / "s")
        _, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(wire.frame(wire.Stream(1, ask)))
        writer.close()
        await asyncio.to_thread(lambda: (commands.append(inbox.get()), commands.append(inbox.get())))
        server.close()

    commands: list[Command] = []
    asyncio.run(hang_up())

    assert [(Key(0, 1), wire.Stream), (Key(0, -1), type(None))] == [
        (key, type(what)) for key, what in commands
    ]


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x02hi", b"\xff\xff\xff\xff"])
def test_noise_on_the_socket_is_hung_up_on(tmp_path, noise):
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()

    async def talk() -> bytes:
        server = await asyncio.start_unix_server(Front(inbox).connected, path=tmp_path / "s")
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(noise)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        server.close()
        return answer

    assert b"" == asyncio.run(talk())
