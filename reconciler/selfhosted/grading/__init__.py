"""
Graders: what an eval and a reinforcement job ask about one answer.

`check` reads a grader's definition and lists what is wrong with it; `grade` applies it to one item and
one sample. Neither evaluates anything that a grader's author wrote inside this process: templates and
formulas have small parsers of their own, and `python` graders run in the `Sandbox`.
"""

from .checking import check
from .grader import grade, members
from .grades import Embedder, Grade, Judge, JudgeAnswer, JudgeFailed
from .sandbox import GraderFailed, Limits, Sandbox
from .template import UnknownVariable, render, render_messages, sample_of

__all__ = [
    "Embedder",
    "Grade",
    "GraderFailed",
    "Judge",
    "JudgeAnswer",
    "JudgeFailed",
    "Limits",
    "Sandbox",
    "UnknownVariable",
    "check",
    "grade",
    "members",
    "render",
    "render_messages",
    "sample_of",
]
