"""
The process in which rules in CEL are checked and judged: `python -P -m reconciler.celchild`.

Rules are written by anybody who can open a pull request, so they run apart from everything, with nothing to
read, little memory and little time. One request a line, one answer a line for each of its rules.
"""

import datetime
import json
import resource
import sys
import time
from typing import Any

from cel_expr_python import cel

MEMORY = 1 << 30  # bytes
TIME = 5  # seconds of the processor, for one rule
KINDS = {"resource": cel.Type.DYN, "action": cel.Type.STRING, "estimate": cel.Type.DYN, "plan": cel.Type.DYN,
         "now": cel.Type.TIMESTAMP}  # fmt: skip
OURS = frozenset({"NOT_FOUND", "INVALID_ARGUMENT", "INTERNAL", "UNKNOWN", "CANCELLED", "OUT_OF_RANGE"})


class Rules:
    """Compiled rules, by their text."""

    def __init__(self) -> None:
        self._env = cel.NewEnv(variables=KINDS)
        self._known: dict[str, Any] = {}

    def compiled(self, rule: str) -> Any:
        """The rule, or what is wrong with it as text."""
        if rule not in self._known:
            try:
                found = self._env.compile(rule)
            except RuntimeError as error:
                self._known[rule] = _first(str(error))
            else:
                type_ = str(found.return_type().name()).lower()
                wrong = f"it yields {type_}, and has to yield true or false; compare it with something"
                self._known[rule] = found if type_ == "bool" else wrong
        return self._known[rule]

    def judged(self, rule: str, known: dict[str, Any]) -> bool | str:
        """Whether the rule holds, or why nobody can tell."""
        compiled = self.compiled(rule)
        if isinstance(compiled, str):
            return compiled
        try:
            value = compiled.eval(data=known)
            said = value.plain_value()
        except RuntimeError as error:
            return _first(str(error))
        return said if isinstance(said, bool) else _first(str(said))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    rules = Rules()
    for line in sys.stdin:
        asked = json.loads(line)
        known = asked.get("known")
        if known is not None:
            known["now"] = datetime.datetime.fromtimestamp(known["now"], datetime.UTC)
        for rule in asked["rules"]:
            spent = int(time.process_time()) + TIME
            resource.setrlimit(resource.RLIMIT_CPU, (spent, resource.RLIM_INFINITY))
            if known is None:
                compiled = rules.compiled(rule)
                answer: bool | str = compiled if isinstance(compiled, str) else True
            else:
                answer = rules.judged(rule, known)
            print(json.dumps(answer), flush=True)


def _first(text: str) -> str:
    """The first line of a message of the library, without its decoration."""
    line = text.partition("\n")[0].strip()
    code, colon, rest = line.partition(": ")
    said = rest if colon and code in OURS else line
    said = (
        said.removeprefix("ERROR: ").partition(" [")[0]
        if said.startswith("ERROR: ")
        else said.partition(" [")[0]
    )
    place, colon, rest = said.partition(": ")
    if colon and place.startswith("<input>:"):
        row, column = place.removeprefix("<input>:").split(":")
        said = f"{rest} (line {row}, column {column})" if int(row) > 0 else rest
    said = said.replace(" (in container '')", "")
    return said[:1].lower() + said[1:300]


if __name__ == "__main__":
    main()
