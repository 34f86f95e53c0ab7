"""
Judges: models that grade. The graders ask one question each; the judge asks the model in batches.

Questions of the same turn of the event loop share a batch, in the order in which they were asked.
A chunk is graded item by item in order, so a chunk that is graded again makes the same batches,
and the judge says the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.selfhosted.engine.values import Answer, Ask, EngineError
from reconciler.selfhosted.evalitems import Usage
from reconciler.selfhosted.grading import JudgeAnswer, JudgeFailed
from reconciler.selfhosted.sampling import Sampler, Served, ask_of, read_sampling

BATCH = 64
UNASKED = {"temperature": 0, "seed": 42}  # a judge that was told nothing else says the same every time


class _Question(NamedTuple):
    name: str
    model: Served
    ask: Ask
    reply: asyncio.Future[Answer]


class BatchJudge:
    """Asks judges by the names that graders use, and remembers what it cost."""

    def __init__(self, sampler: Sampler, models: Mapping[str, Served]) -> None:
        self._sampler = sampler
        self._models = models
        self._waiting: list[_Question] = []
        self._asking: set[asyncio.Task[None]] = set()
        self.usage: dict[str, Usage] = {}

    async def ask(
        self,
        model: str,
        messages: list[dict[str, Any]],
        response_format: dict[str, Any] | None,
        sampling: dict[str, Any],
    ) -> JudgeAnswer:
        """What the judge says. Raises JudgeFailed when it cannot be asked."""
        served = self._models.get(model)
        if served is None:
            raise JudgeFailed(f"there is no model named {model!r}")
        asked = UNASKED | {key: value for key, value in sampling.items() if value is not None}
        settings, _ = read_sampling({**asked, "response_format": response_format})
        loop = asyncio.get_running_loop()
        question = _Question(model, served, ask_of(served, messages, settings), loop.create_future())
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append(question)
        answer = await question.reply
        cost = Usage(1, answer.prompt_tokens, answer.completion_tokens)
        self.usage[served.id] = self.usage[served.id].plus(cost) if served.id in self.usage else cost
        return JudgeAnswer(
            text=answer.text,
            usage={"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens},
        )

    def _send(self) -> None:
        """Send what was asked in this turn, one batch per model and 64 questions."""
        by_model: dict[str, list[_Question]] = {}
        for question in self._waiting:
            by_model.setdefault(question.name, []).append(question)
        self._waiting = []
        for questions in by_model.values():
            for start in range(0, len(questions), BATCH):
                task = asyncio.create_task(self._batch(questions[start : start + BATCH]))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _batch(self, questions: Sequence[_Question]) -> None:
        replies: Sequence[Answer | EngineError]
        try:
            replies = await self._sampler.sample(questions[0].model, [question.ask for question in questions])
        except EngineError as error:
            replies = [error] * len(questions)
        for question, reply in zip(questions, replies, strict=True):
            if question.reply.done():  # whoever asked has gone
                continue
            if isinstance(reply, EngineError):
                question.reply.set_exception(JudgeFailed(reply.message))
            else:
                question.reply.set_result(reply)

    def close(self) -> None:
        """Stop asking; for a run that was cancelled."""
        for task in self._asking:
            task.cancel()
