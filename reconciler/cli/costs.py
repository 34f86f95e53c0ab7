"""What was spent: the `costs` command and how it says it."""

import json
import time
from pathlib import Path
from typing import Any

from reconciler.cli import markup, render, session
from reconciler.cost import Range, money
from reconciler.money import statement
from reconciler.money.budgets import Standing, amount
from reconciler.money.statement import Held, Statement, Sum
from reconciler.project import outline

HEADS = ("", "spent", "reserved", "hours", "reserved", "no price")


def costs(folder: Path, output: str) -> int:
    """Say what a project spent and what is reserved, on all of its platforms."""
    project = outline(folder)
    books = session.accounts(project, project.spec.platform, session.peek(project))
    lines = books.ledger.lines(project.name) if books.ledger else []
    found = statement.of(project.name, lines, project.spec.budgets, time.time())
    print({"json": as_json, "markdown": as_markdown}.get(output, as_text)(found))
    return 0


def as_text(found: Statement) -> str:
    """For a terminal. Pure."""
    if not found.resources:
        return "\n".join([f"{found.project}: nothing was paid for yet", *_budgets(found)])
    rows = [HEADS, *map(_row, found.resources), _row(found.whole._replace(name="all"))]
    months = [("month", *HEADS[1:]), *map(_row, found.months)]
    lines = [f"{found.project}", "", *render.table(rows), "", *render.table(months), *_budgets(found)]
    return "\n".join([*lines, *_unknown(found)])


def as_markdown(found: Statement) -> str:
    """For a job summary. Pure."""
    lines = [f"### What {found.project} spent"]
    for head, sums in (
        ("resource", [*found.resources, found.whole._replace(name="all")]),
        ("month", found.months),
    ):
        lines += ["", f"| {head} | {' | '.join(HEADS[1:])} |", "|---" * len(HEADS) + "|"]
        lines += [f"| {' | '.join(_row(each))} |" for each in sums]
    rest = [line.strip() for line in (*_budgets(found), *_unknown(found)) if line.strip()]
    return "\n".join([*lines, "", *(f"* {markup.text(line)}" for line in rest)]).rstrip()


def as_json(found: Statement) -> str:
    """For a program. Pure."""
    unknown = [
        {
            "address": each.address,
            "platform": each.platform,
            "id": each.object_id,
            "at": each.at,
            "why": each.why,
        }
        for each in found.unknown
    ]
    document = {
        "version": render.VERSION,
        "project": found.project,
        **_sums(found.whole),
        "resources": [{"address": each.name, **_sums(each)} for each in found.resources],
        "months": [{"month": each.name, **_sums(each)} for each in found.months],
        "budgets": [
            {"budget": each.budget, "unit": each.unit, "limit": each.limit, **each.standing._asdict()}
            for each in found.budgets
        ],
        "unknown": unknown,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _sums(each: Sum) -> dict[str, Any]:
    return {"usd": each.usd._asdict(), "hours": each.hours._asdict()}


def _row(each: Sum) -> tuple[str, ...]:
    unknown = str(each.usd.unknown) if each.usd.unknown else "-"
    return each.name, *_pair(each.usd, "$"), *_pair(each.hours, ""), unknown


def _pair(found: Standing, sign: str) -> tuple[str, str]:
    return _amount(found.spent, sign), _amount(found.reserved, sign)


def _amount(value: float, sign: str) -> str:
    if value == 0:
        return "-"
    return money(Range(value, value)) if sign else f"{value:.2f}" if value >= 0.01 else "under 0.01"


def _budgets(found: Statement) -> list[str]:
    return ["", *(f"  {_held(each)}" for each in found.budgets)] if found.budgets else []


def _held(each: Held) -> str:
    stands = each.standing
    left = max(0.0, each.limit - stands.spent - stands.reserved)
    spent, reserved, rest = (amount(each.unit, value) for value in (stands.spent, stands.reserved, left))
    unknown = f", {stands.unknown} unknown" if stands.unknown else ""
    return f"budget of {each.budget}: {spent} spent, {reserved} reserved, {rest} left{unknown}"


def _unknown(found: Statement) -> list[str]:
    if not found.unknown:
        return []
    names = dict.fromkeys((each.address, each.platform, each.why) for each in found.unknown)
    return [
        "",
        "  without a price, and in no sum:",
        *(f"    {a} on {p}: {w or 'unknown'}" for a, p, w in names),
    ]
