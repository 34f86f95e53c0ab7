"""What a project forbids does not happen: every rule that does not hold, or that nobody can tell, stops its step."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from core_base import Applier, action, edit, why
from memory_platform import MemoryPlatform
from plans_base import Silent, planned_under

from reconciler import celprocess, engine, project
from reconciler.celprocess import Cel
from reconciler.cli import commands, session
from reconciler.cost import Estimate, Range
from reconciler.errors import ManifestError
from reconciler.kind import Observed, Stamp, State
from reconciler.plan import Deletion
from reconciler.policy import Policies
from reconciler.resource import Address

FRIDAY = 1_795_780_800.0  # 2026-11-27, noon in UTC
JOB = Address("FineTuneJob", "tuned")


def ruled(tree: Path, *rules: str) -> None:
    """The project of a tree, with so many policies."""
    listed = "".join(
        f"    - {{name: rule-{n}, message: not here, rule: {rule!r}}}\n" for n, rule in enumerate(rules)
    )
    text = (tree / "project.yaml").read_text().partition("spec:")[0]
    (tree / "project.yaml").write_text(f"{text}spec:\n  policies:\n{listed}")


def once(
    applier: Applier, known: Mapping[Address, Estimate] | None = None, at: float = FRIDAY
) -> engine.Pass:
    wanted = project.load(applier.root)
    world = planned_under(applier, known or {}, at)
    return engine.once(wanted.desired, world, applier.creator, Silent())


@pytest.mark.parametrize(
    "rule",
    [
        'resource.kind != "FineTuneJob" || resource.spec.model in ["Model/other"]',
        'resource.kind != "FineTuneJob" || resource.spec.method.supervised.hyperparameters.n_epochs <= 1',
        'resource.kind != "FineTuneJob" || resource.labels.team == "a"',  # it has none, so nobody can tell
        'resource.name != "tuned" || has(resource.labels.team)',
        'resource.kind != "FineTuneJob" || estimate.usd.high < 100.0',  # unknown, so nobody can tell
        'resource.kind != "FineTuneJob" || resource.spec.seed != 42',  # its default
    ],
)
def test_what_a_rule_forbids_is_not_made_and_the_rest_is(
    applier: Applier, platform: MemoryPlatform, rule: str
) -> None:
    ruled(applier.root, rule)

    done = once(applier)
    done = once(applier)

    assert [] == platform.objects.get("fine_tuning/jobs", [])
    assert "!" == action(done, str(JOB))
    assert why(done, str(JOB)).startswith("policy rule-0 forbids it: not here")
    assert why(done, str(JOB)).endswith("project.yaml:6")
    assert 2 == len(platform.objects["files"])
    assert 6 == commands._ended(done)


@pytest.mark.parametrize(
    "rule",
    [
        'resource.kind != "FineTuneJob" || resource.spec.model in ["Model/base"]',
        'resource.kind != "PromotionRule" || resource.spec.gates.exists(g, g.eval == "Eval/right")',
        "estimate.usd.high < 100.0 || action != 'create'",
        "plan.usd.high <= 8.0 && plan.create <= 7 && plan.delete == 0",
        "now.getDayOfWeek('Europe/Berlin') == 5 && now.getFullYear() == 2026",
        "action in ['create', 'update'] && !resource.implied || resource.kind in ['EvalRun']",
    ],
)
def test_what_holds_stops_nothing(applier: Applier, rule: str) -> None:
    ruled(applier.root, rule)
    everything = {step: Estimate(Range(1, 1), Range(60, 60)) for step in applier.desired}

    done = once(applier, everything)

    assert not [step for step in done.steps if step.action == "!"]


def test_a_plan_says_what_a_pass_does(applier: Applier) -> None:
    ruled(applier.root, "resource.kind != 'FineTuneJob'")

    plan = planned_under(applier, {}, FRIDAY, plan=True)

    [step] = [step for step in plan.steps if step.address == JOB]
    assert step.decision.why == why(once(applier), str(JOB))
    assert 6 == commands.code_of(plan)


def test_a_rule_over_the_plan_stops_all_of_it(applier: Applier, platform: MemoryPlatform) -> None:
    ruled(applier.root, "plan.create <= 2")

    for _ in range(3):
        done = once(applier)

    assert [] == platform.asked
    assert done.settled


def test_what_stands_is_nobodys_concern(applier: Applier) -> None:
    for _ in range(5):
        applier.once()
        platform = applier.platform
        assert isinstance(platform, MemoryPlatform)
        platform.finish_jobs()
        platform.finish_runs(lambda model, index: model.startswith("ft:"))
    ruled(applier.root, "false")

    assert {"="} == {str(step.action) for step in once(applier).steps}


@pytest.mark.parametrize(
    "rule, said",
    [
        ("1 +", "policy rule-0: syntax error"),
        ("nobody == 1", "policy rule-0: undeclared reference to 'nobody' (line 1, column 1)"),
        ("1 + 1", "policy rule-0: it yields int, and has to yield true or false"),
        ("resource.spec.model", "policy rule-0: it yields dyn, and has to yield true or false"),
        ("action < 3", "policy rule-0: found no matching overload for '_<_'"),
        ("(" * 60 + "true" + ")" * 60, "policy rule-0: expression recursion limit exceeded"),
        ("true && " * 130 + "true", "at most 1000 characters"),
    ],
)
def test_a_rule_that_cannot_be_judged_is_told_where_it_is_written(tree: Path, rule: str, said: str) -> None:
    ruled(tree, "true", "true")
    edit(
        tree / "project.yaml", "rule: 'true'}\n    - {name: rule-1", f"rule: {rule!r}}}\n    - {{name: rule-1"
    )

    with pytest.raises(ManifestError) as error:
        project.load(tree)

    assert said in str(error.value)
    assert "project.yaml:6" in str(error.value)


def test_two_policies_have_two_names(tree: Path) -> None:
    ruled(tree, "true", "true")
    edit(tree / "project.yaml", "rule-1", "rule-0")

    with pytest.raises(ManifestError, match="two policies are named rule-0"):
        project.load(tree)


HOSTILE = {
    "a string that grows": "size(['aaaa'].map(x, x + x)" + ".map(x, x + x + x + x + x + x)" * 20 + "[0]) > 0",
    "a comparison that never ends": "[[1, 1]]" + ".map(x, [x, x, x, x, x, x])" * 12 + " == "
                                    + "[[1, 1]]" + ".map(x, [x, x, x, x, x, x])" * 12,
}  # fmt: skip


@pytest.mark.parametrize("rule", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_rule_that_takes_too_much_counts_as_broken_and_is_not_asked_again(rule: str) -> None:
    assert len(rule) <= 1000
    cel = Cel()
    known = {"resource": {}, "action": "create", "estimate": {}, "plan": {}, "now": FRIDAY}

    answers = cel.judge(["true", rule, "action == 'create'"], known)
    again = cel.judge([rule, "false"], known)
    cel.close()

    assert [True, "it took too much time or memory", True] == answers
    assert ["it took too much time or memory", False] == again


@pytest.mark.parametrize(
    "rule, told",
    [
        (
            "resource.l.all(a, resource.l.all(b, resource.l.all(c, a + b + c >= 0)))",
            "iteration budget exceeded",
        ),
        ("resource.s.matches('(a*)*b')", False),
        ("resource.nothing == 1", 'key not found in map : "nothing"'),
        ("now.getDayOfWeek('Nowhere') == 1", "invalid timezone"),
    ],
)
def test_a_rule_is_bounded(rule: str, told: Any) -> None:
    cel = Cel()
    known = {"resource": {"l": list(range(3000)), "s": "a" * 100_000}, "action": "create", "estimate": {},
             "plan": {}, "now": FRIDAY}  # fmt: skip

    answers = cel.judge([rule], known)
    cel.close()

    assert [told] == answers


def test_the_judge_sees_no_secret_and_no_file_of_the_folder_it_is_called_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cel_expr_python.py").write_text("raise SystemExit('hijacked')")
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    cel = Cel()

    assert [True] == cel.judge(["true"], {"now": 0.0})

    assert cel._process is not None
    assert b"sk-canary" not in Path(f"/proc/{cel._process.pid}/environ").read_bytes()
    cel.close()


def test_a_deletion_that_a_rule_forbids_keeps_everything(applier: Applier) -> None:
    ruled(applier.root, "action != 'delete' || now.getDayOfWeek('Europe/Berlin') != 5")
    stamp = Stamp("demo", "Dataset/old", "f" * 64)
    goes = Deletion("Dataset", Observed("file-1", stamp, State.READY, {}), "no manifest wants Dataset/old")
    friday, monday = (planned_under(applier, {}, at).policies for at in (FRIDAY, FRIDAY + 3 * 86400))
    assert isinstance(friday, Policies) and isinstance(monday, Policies)

    [kept] = friday.spare((goes,))
    [gone] = monday.spare((goes,))

    assert kept.kept.startswith("policy rule-0 forbids it: not here; ")
    assert "" == gone.kept


def test_policies_cost_nothing_where_there_are_none(tree: Path) -> None:
    program = f"from pathlib import Path; from reconciler import project; project.load(Path({str(tree)!r})); "
    program += (
        "import sys; "
        "print(any('cel' in name for name in sys.modules if 'reconciler' in name or 'cel_expr' in name))"
    )

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "False\n" == run.stdout


def test_a_policy_moves_no_fingerprint(tree: Path) -> None:
    before = {address: each.fingerprint for address, each in project.load(tree).desired.items()}

    ruled(tree, "true")

    assert before == {address: each.fingerprint for address, each in project.load(tree).desired.items()}


def test_a_daemon_goes_on_under_the_policies_of_the_newest_manifests(applier: Applier) -> None:
    free = session.renewed(project.load(applier.root), applier.world)
    ruled(applier.root, "true")
    held = session.renewed(project.load(applier.root), applier.world)

    assert None is free.policies
    assert held.policies and ["rule-0"] == [rule.name for rule in held.policies.rules]


def test_the_page_shows_rules_that_hold_for_what_they_allow(tree: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "pull-requests.md").read_text()
    [written] = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "policies:" in block]
    (tree / "project.yaml").write_text(written)
    policies = project.load(tree).spec.policies
    job = {"model": "Model/tiny-chat", "method": {"type": "dpo"}}
    price = {"usd": {"low": 1.0, "high": 2.0}}
    resource = {"kind": "FineTuneJob", "name": "x", "labels": {}, "spec": job}
    known = {"resource": resource, "action": "create", "estimate": price, "plan": price, "now": FRIDAY}

    create = celprocess.shared().judge([policy.rule for policy in policies], known)
    delete = celprocess.shared().judge([policy.rule for policy in policies], known | {"action": "delete"})

    assert [True] * len(policies) == create
    assert ["quiet-fridays"] == [
        policy.name for policy, held in zip(policies, delete, strict=True) if not held
    ]
