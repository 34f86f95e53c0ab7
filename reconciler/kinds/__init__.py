"""Every kind there is: dropping a file here adds it, with its schema, plan and commands."""

import importlib
import pkgutil
from functools import cache

from reconciler.kind import Kind


@cache
def all_kinds() -> dict[str, Kind]:
    """By name, in the order in which a plan lists them."""
    found = [importlib.import_module(f"{__name__}.{m.name}").KIND for m in pkgutil.iter_modules(__path__)]
    order = (
        "Project",
        "Model",
        "Dataset",
        "Prompt",
        "Grader",
        "Eval",
        "FineTuneJob",
        "EvalRun",
        "PromotionRule",
    )
    known = {name: place for place, name in enumerate(order)}
    return {kind.name: kind for kind in sorted(found, key=lambda k: (known.get(k.name, 99), k.name))}
