"""
Judges: models that grade. The graders ask one question each; the judge asks the model in batches.
Texts that graders compare are embedded in batches too.

Questions of the same turn of the event loop share a batch, in the order in which they were asked.
A chunk is graded item by item in order, so a chunk that is graded again makes the same batches,
and the judge says the same.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

from reconciler.selfhosted.engine.values import Answer, Ask, EngineError
from reconciler.selfhosted.evaluation.evalitems import Usage
from reconciler.selfhosted.grading import JudgeAnswer, JudgeFailed
from reconciler.selfhosted.serving.sampling import Sampler, Served, ask_of, read_sampling
from reconciler.selfhosted.upstream.upstreamreply import REFUSED

BATCH = 64
EMBEDDING = ""  # under this name the models of a run hold the one that embeds; no model is called so
UNASKED = {"temperature": 0, "seed": 42}  # a judge that was told nothing else says the same every time


class _Question(NamedTuple):
    name: str
    model: Served
    ask: Ask
    reply: asyncio.Future[Answer]


class _Texts(NamedTuple):
    texts: Sequence[str]
    vectors: asyncio.Future[list[list[float]]]


class BatchJudge:
    """Asks judges by the names that graders use, embeds texts, and remembers what it cost."""

    def __init__(self, sampler: Sampler, models: Mapping[str, Served]) -> None:
        self._sampler = sampler
        self._models = models
        self._waiting: list[_Question] = []
        self._unembedded: list[_Texts] = []
        self._asking: set[asyncio.Task[None]] = set()
        self.usage: dict[str, Usage] = {}
        self.denied: EngineError | None = None  # an upstream refuses our key, and so every question

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
        self._add(served, Usage(1, answer.prompt_tokens, answer.completion_tokens))
        return JudgeAnswer(
            text=answer.text,
            usage={"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens},
        )

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of these texts. Raises JudgeFailed when there are none."""
        loop = asyncio.get_running_loop()
        asked = _Texts(texts, loop.create_future())
        if not self._unembedded:
            loop.call_soon(self._begin_embedding)
        self._unembedded.append(asked)
        return await asked.vectors

    def _begin_embedding(self) -> None:
        asked, self._unembedded = self._unembedded, []
        self._begin(self._embed(asked))

    async def _embed(self, asked: Sequence[_Texts]) -> None:
        """Embed what was asked in one turn, every text once; a text that cannot be spoils only its own."""
        served = self._models[EMBEDDING]
        vectors: dict[str, list[float] | EngineError] = {}
        unique = list(dict.fromkeys(text for each in asked for text in each.texts))
        for start in range(0, len(unique), BATCH):
            vectors |= await self._embedded(served, unique[start : start + BATCH])
        for each in asked:
            found = [vectors[text] for text in each.texts]
            wrong = next((vector for vector in found if isinstance(vector, EngineError)), None)
            if each.vectors.done():  # whoever asked has gone
                continue
            if wrong is None:
                each.vectors.set_result([vector for vector in found if not isinstance(vector, EngineError)])
            else:
                each.vectors.set_exception(JudgeFailed(wrong.message))

    async def _embedded(
        self, served: Served, texts: Sequence[str]
    ) -> Mapping[str, list[float] | EngineError]:
        try:
            made = await self._sampler.embed(served, texts)
        except EngineError as error:
            if len(texts) == 1:
                return {texts[0]: error}
            one_by_one = [await self._embedded(served, [text]) for text in texts]
            return {text: vector for each in one_by_one for text, vector in each.items()}
        self._add(served, Usage(1, sum(one.tokens for one in made), 0))
        return {text: one.vector for text, one in zip(texts, made, strict=True)}

    def _add(self, served: Served, cost: Usage) -> None:
        self.usage[served.id] = self.usage[served.id].plus(cost) if served.id in self.usage else cost

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _send(self) -> None:
        """Send what was asked in this turn, one batch per model and 64 questions."""
        by_model: dict[str, list[_Question]] = {}
        for question in self._waiting:
            by_model.setdefault(question.name, []).append(question)
        self._waiting = []
        for questions in by_model.values():
            for start in range(0, len(questions), BATCH):
                self._begin(self._batch(questions[start : start + BATCH]))

    async def _batch(self, questions: Sequence[_Question]) -> None:
        replies: Sequence[Answer | EngineError]
        try:
            replies = await self._sampler.sample(questions[0].model, [question.ask for question in questions])
        except EngineError as error:
            replies = [error] * len(questions)
            self.denied = error if error.code in REFUSED else self.denied
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
