"""
What a response may ask for, as the chat completion that answers it. Pure.

A response is a chat with other words: items become messages, and messages are checked where chats are.
A parameter that we know and cannot honour is refused; one that we do not know passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.selfhosted import wire
from reconciler.selfhosted.serving import chatbody
from reconciler.selfhosted.serving.chatbody import Chat
from reconciler.selfhosted.serving.sampling import Problem
from reconciler.selfhosted.wire import WireError

ROLES = ("user", "assistant", "system", "developer")
LOGPROBS = "message.output_text.logprobs"
TEXTS = ("input_text", "output_text", "text")
INSTEAD = {  # of what is known and not here
    "conversation": "is not kept by this server; go on from a response by its previous_response_id",
    "prompt": "is not kept by this server; send its text as instructions and input",
    "prompt_id": "is not kept by this server; send its text as instructions and input",
    "context_management": "is not supported by this server; leave it out",
}
CALLED = {  # a chat's parameter, and the response's that it came from
    "messages": "input",
    "response_format": "text.format",
    "max_completion_tokens": "max_output_tokens",
}


@dataclass(frozen=True)
class Asked:
    """A checked request for a response."""

    chat: Chat
    items: Sequence[Mapping[str, Any]]  # its own input, each with an id
    messages: Sequence[Mapping[str, Any]]  # the conversation without instructions, for whoever goes on
    settings: Mapping[str, Any]  # what the response repeats of its request
    store: bool
    background: bool


def read(body: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> Asked:
    """The request after the `earlier` messages of its conversation, or a 400 that names every problem."""
    problems = _unsupported(body)
    items = _items(body.get("input"), problems)
    messages = [*earlier, *_messages(items, problems)]
    tools = chat_tools(body.get("tools"), problems)
    text = body.get("text") or {}
    if not isinstance(text, Mapping):
        problems.append(Problem("text", "must be an object"))
        text = {}
    instructions = body.get("instructions")
    if not isinstance(instructions, str | None):
        problems.append(Problem("instructions", "must be a string"))
    if not isinstance(body.get("store"), bool | None):
        problems.append(Problem("store", "must be true or false"))
    metadata = _metadata(body, problems)
    refuse(problems)
    wanted = {
        **{name: body.get(name) for name in ("model", "temperature", "top_p", "stream")},
        "tool_choice": chat_choice(body.get("tool_choice")),
        "messages": [*([{"role": "system", "content": instructions}] if instructions else []), *messages],
        "max_completion_tokens": body.get("max_output_tokens"),
        "tools": tools,
        "response_format": response_format(text.get("format")),
        "top_logprobs": body.get("top_logprobs"),
        "logprobs": LOGPROBS in (body.get("include") or ()) or bool(body.get("top_logprobs")),
    }
    return Asked(
        chat=_chat(wanted),
        items=items,
        messages=messages,
        settings=_settings(body, text, metadata),
        store=body.get("store") is not False,
        background=bool(body.get("background")),
    )


def refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise wire.bad("; ".join(map(str, problems)), problems[0].param, "invalid_value")


def _chat(wanted: Mapping[str, Any]) -> Chat:
    try:
        return chatbody.read(wanted)
    except WireError as wrong:
        message, param = wrong.message, wrong.param or ""
        for chats, ours in CALLED.items():
            message, param = message.replace(chats, ours), param.replace(chats, ours)
        raise wire.bad(message, param or None, wrong.code) from wrong


def _settings(
    body: Mapping[str, Any], text: Mapping[str, Any], metadata: Mapping[str, str]
) -> dict[str, Any]:
    def given(name: str, default: Any = None) -> Any:
        return default if body.get(name) is None else body[name]

    reasoning = given("reasoning", {})
    return {
        "background": bool(body.get("background")),
        "instructions": given("instructions"),
        "max_output_tokens": given("max_output_tokens"),
        "max_tool_calls": given("max_tool_calls"),
        "metadata": metadata,
        "parallel_tool_calls": given("parallel_tool_calls", True),
        "previous_response_id": given("previous_response_id"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": "default",
        "store": given("store", True),
        "temperature": given("temperature", 1.0),
        "text": {"verbosity": "medium", **text, "format": text.get("format") or {"type": "text"}},
        "tool_choice": given("tool_choice", "auto"),
        "tools": given("tools", []),
        "top_logprobs": given("top_logprobs", 0),
        "top_p": given("top_p", 1.0),
        "truncation": "disabled",
        **({"user": body["user"]} if body.get("user") is not None else {}),
    }


def _items(given: Any, problems: list[Problem]) -> list[dict[str, Any]]:
    """The input as items with ids, in the words of the API."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        problems.append(Problem("input", "is required and must be a string or a list of items"))
        return []
    if not all(isinstance(item, Mapping) for item in given):
        problems.append(Problem("input", "must be a string or a list of items, each an object"))
        return []
    return [_item(item) for item in given]


def _item(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = item.get("type") or ("message" if "role" in item else None)
    prefix = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_"}.get(
        str(kind), "item_"
    )
    kept = {**item, "type": kind, "id": item.get("id") or wire.new_id(prefix), "status": "completed"}
    if kind == "message" and isinstance(item.get("content"), str):
        spoken = "output_text" if item.get("role") == "assistant" else "input_text"
        more: dict[str, Any] = {"annotations": [], "logprobs": []} if spoken == "output_text" else {}
        kept["content"] = [{"type": spoken, "text": item["content"], **more}]
    return kept


def _messages(items: Sequence[Mapping[str, Any]], problems: list[Problem]) -> list[dict[str, Any]]:
    """Items as chat messages; calls belong to the assistant's message before them."""
    messages: list[dict[str, Any]] = []
    for position, item in enumerate(items):
        where = f"input[{position}]"
        match item["type"]:
            case "message" if item.get("role") in ROLES:
                messages.append(
                    {"role": item["role"], "content": _content(item.get("content"), where, problems)}
                )
            case "message":
                problems.append(Problem(f"{where}.role", f"must be one of {', '.join(ROLES)}"))
            case "function_call" if _has_texts(item, "call_id", "name", "arguments"):
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": None})
                function = {"name": item["name"], "arguments": item["arguments"]}
                call = {"id": item["call_id"], "type": "function", "function": function}
                messages[-1].setdefault("tool_calls", []).append(call)
            case "function_call":
                problems.append(Problem(where, "needs call_id, name and arguments, all strings"))
            case "function_call_output" if _has_texts(item, "call_id"):
                content = _content(item.get("output"), where, problems)
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
            case "reasoning":
                continue  # our models do not read their earlier thoughts
            case other:
                problems.append(
                    Problem(f"{where}.type", f"items of type {other!r} are not read by this server")
                )
    return messages


def _has_texts(item: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(item.get(name), str) for name in names)


def _content(content: Any, where: str, problems: list[Problem]) -> Any:
    """Content in the words of chats: one text stays a string."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        problems.append(Problem(f"{where}.content", "must be a string or a list of content parts"))
        return ""
    if len(content) == 1 and content[0].get("type") in TEXTS:
        return content[0].get("text")
    return [_part(part) for part in content]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part.get("type") in TEXTS:
        return {"type": "text", "text": part.get("text")}
    if part.get("type") == "input_image":
        of = {"url": part.get("image_url"), "file_id": part.get("file_id"), "detail": part.get("detail")}
        image = {name: value for name, value in of.items() if value is not None}
        return {"type": "image_url", "image_url": image}
    return dict(part)


def chat_tools(tools: Any, problems: list[Problem]) -> list[dict[str, Any]] | None:
    """Function tools in the words of chats. Pure but for what it adds to the problems."""
    if not tools:
        return None
    if not isinstance(tools, list):
        problems.append(Problem("tools", "must be a list of functions"))
        return None
    made = []
    for position, tool in enumerate(tools):
        if not isinstance(tool, Mapping) or tool.get("type") != "function":
            problems.append(Problem(f"tools[{position}].type", "must be 'function'; no other tool is here"))
            continue
        function = {key: value for key, value in tool.items() if key != "type" and value is not None}
        made.append({"type": "function", "function": function})
    return made


def chat_choice(choice: Any) -> Any:
    """A `tool_choice` in the words of chats; what has none there stays, to be refused there. Pure."""
    match choice:
        case {"type": "function", "name": name}:
            return {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
            named = [
                {"type": "function", "function": {"name": tool.get("name")}}
                for tool in tools
                if isinstance(tool, Mapping)
            ]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
    return choice


def response_format(format: Any) -> Any:
    """A text format in the words of chats. Pure."""
    if not isinstance(format, Mapping) or format.get("type") != "json_schema":
        return format
    return {
        "type": "json_schema",
        "json_schema": {key: value for key, value in format.items() if key != "type"},
    }


def _metadata(body: Mapping[str, Any], problems: list[Problem]) -> dict[str, str]:
    try:
        return wire.checked_metadata(body.get("metadata"))
    except WireError as wrong:
        problems.append(Problem(wrong.param or "metadata", wrong.message))
        return {}


def _unsupported(body: Mapping[str, Any]) -> list[Problem]:
    problems = [Problem(name, instead) for name, instead in INSTEAD.items() if body.get(name)]
    if not isinstance(body.get("background"), bool | None):
        problems.append(Problem("background", "must be true or false"))
    elif body.get("background") and (body.get("stream") or body.get("store") is False):
        sentence = (
            "needs the response to be stored and not streamed; look at it by its id until it is answered"
        )
        problems.append(Problem("background", sentence))
    if body.get("truncation") not in (None, "disabled"):
        problems.append(Problem("truncation", "must be 'disabled'; this server drops nothing"))
    if not isinstance(body.get("include"), list | None):
        problems.append(Problem("include", "must be a list"))
    if not isinstance(body.get("reasoning"), dict | None):
        problems.append(Problem("reasoning", "must be an object"))
    return problems
