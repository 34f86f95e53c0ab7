"""
One generation on its way: what it was asked, what it has said, and when it is done.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from reconciler.selfhosted.engine import prompt
from reconciler.selfhosted.engine.front import Key
from reconciler.selfhosted.engine.network import Served
from reconciler.selfhosted.engine.sampling import Sampling
from reconciler.selfhosted.engine.transcript import Transcript, held_back
from reconciler.selfhosted.engine.values import Answer, Ask, EngineError


class Row:
    """Raises `EngineError` at once for an ask that can never be answered."""

    def __init__(self, key: Key, place: int, ask: Ask, served: Served) -> None:
        _check(ask)
        self.key = key
        self.place = place  # among the asks of its call
        self.ask = ask
        self.prompt = prompt.tokens(served.tokenizer, ask, served.eyes.text if served.eyes else "")
        self.pixels = prompt.shown(served.eyes, ask, self.prompt)
        self.limit = answer_limit(len(self.prompt), ask.max_tokens, served)
        self.sampling = Sampling(ask.temperature, ask.top_p, random.Random(ask.seed))
        self.finish: str | None = None
        self.failure: EngineError | None = None
        self.count = 0  # tokens generated, the end token included
        self._served = served
        self._grammar = (
            served.grammars.call(ask.tools or (), ask.must_call)
            if ask.must_call
            else served.grammars.grammar(ask.response_format)
        )
        self._bias = _bias(ask, served)
        self._said: Counter[int] = Counter()
        self._transcript = Transcript(served.decode, ask.stop)
        self._sent = 0
        self._logprobs: list[tuple[int, dict[str, Any]]] = []  # where each token's text begins, and its entry

    @property
    def done(self) -> bool:
        return self.finish is not None or self.failure is not None

    @property
    def next_input(self) -> int:
        return self._transcript.tokens[-1] if self._transcript.tokens else self.prompt[-1]

    @property
    def shaped(self) -> bool:
        """Whether its logits are not drawn from as they are."""
        penalized = self._said and (self.ask.presence_penalty or self.ask.frequency_penalty)
        return self._grammar is not None or bool(self._bias or penalized)

    def shape(self, logits: Any) -> None:
        """Add the bias, take the penalties off and rule out what the grammar does not allow next, in place."""
        if self._bias:
            _add(logits, self._bias)
        presence, frequency = self.ask.presence_penalty, self.ask.frequency_penalty
        if presence or frequency:
            _add(logits, {token: -presence - frequency * times for token, times in self._said.items()})
        if self._grammar is not None:
            self._grammar.constrain(logits)

    def take(self, token: int, logits: Any) -> None:
        """Go on by `token`, drawn where the unconstrained `[vocabulary]` logits were `logits`."""
        self.count += 1
        if token in self._served.ends:
            self.finish = "stop"
            return
        begins = len(self._transcript.text)
        self._said[token] += 1
        self._transcript.add(token)
        if self.ask.logprobs is not None:
            self._logprobs.append((begins, self._entry(token, logits, self.ask.logprobs)))
        try:
            complete = self._grammar is not None and self._grammar.take(token)
        except EngineError as error:
            self.failure = error
            return
        if self._transcript.stopped or complete:
            self.finish = "stop"
        elif self.count >= self.limit:
            self.finish = "length"

    def delta(self) -> str:
        """The text that is certain by now and was not given out before."""
        sure = len(self.answer().text) if self.done else self._sure()
        new = self._transcript.text[self._sent : sure]
        self._sent = max(self._sent, sure)
        return new

    def _sure(self) -> int:
        sure = self._transcript.sure()
        if not self.ask.tools:
            return sure
        # from the first call on, text becomes calls; and the space before it goes with it
        text = self._transcript.text[:sure]
        return len(text[: held_back(text.split(prompt.OPENS)[0], [prompt.OPENS])].rstrip())

    def answer(self) -> Answer:
        """The answer as it stands; final once `done`."""
        text = self._transcript.text
        said = prompt.said(text, self.prompt) if self.ask.tools else prompt.Said(text, None)
        entries = [entry for begins, entry in self._logprobs if begins < len(text)]
        return Answer(
            text=said.text,
            finish_reason="tool_calls" if said.tool_calls else self.finish or "length",
            tool_calls=said.tool_calls,
            prompt_tokens=len(self.prompt),
            completion_tokens=self.count,
            logprobs=None if self.ask.logprobs is None else entries,
        )

    def _entry(self, token: int, logits: Any, alternatives: int) -> dict[str, Any]:
        """One element of OpenAI's `logprobs.content`."""
        logprobs = torch.log_softmax(logits, dim=-1)
        top = logprobs.topk(min(alternatives, len(logprobs)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return {
            **self._spelled(token, float(logprobs[token])),
            "top_logprobs": [self._spelled(other, value) for other, value in pairs],
        }

    def _spelled(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._served.decode([token])
        # a token that is part of a character only has no text of its own, and its bytes are not known here
        spelled = None if "\ufffd" in text else list(text.encode())
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": spelled}


def _check(ask: Ask) -> None:
    if not ask.temperature >= 0:
        raise EngineError("invalid_request", f"temperature is {ask.temperature}; it must be at least 0")
    if not 0 <= ask.top_p <= 1:
        raise EngineError("invalid_request", f"top_p is {ask.top_p}; it must be between 0 and 1")
    if ask.logprobs is not None and ask.logprobs < 0:
        raise EngineError("invalid_request", f"top_logprobs is {ask.logprobs}; it must be at least 0")


def _bias(ask: Ask, served: Served) -> dict[int, float]:
    """The bias by token; `invalid_request` for a token that the model does not have."""
    vocabulary = served.base.network.config.get_text_config().vocab_size
    try:
        bias = {int(token): float(value) for token, value in ask.logit_bias.items()}
    except ValueError as error:
        raise EngineError("invalid_request", "logit_bias must map token ids to numbers") from error
    if unknown := [token for token in bias if not 0 <= token < vocabulary]:
        raise EngineError(
            "invalid_request", f"logit_bias names the token {unknown[0]}; the model has {vocabulary} tokens"
        )
    return bias


def _add(logits: Any, amounts: Mapping[int, float]) -> None:
    if amounts:
        tokens = torch.tensor(list(amounts), device=logits.device)
        logits[tokens] += torch.tensor(list(amounts.values()), dtype=logits.dtype, device=logits.device)


def answer_limit(prompt_tokens: int, max_tokens: int | None, served: Served) -> int:
    """How many tokens an answer may have; `context_length_exceeded` when there is room for none."""
    room = served.context - prompt_tokens
    if room < 1:
        raise EngineError(
            "context_length_exceeded",
            f"the prompt has {prompt_tokens} tokens, the context is {served.context}; shorten the messages",
        )
    asked = served.longest_answer if max_tokens is None else max_tokens
    if asked is not None and asked < 1:
        raise EngineError("invalid_request", f"max_tokens is {asked}; ask for at least 1")
    return room if asked is None else min(room, asked)
