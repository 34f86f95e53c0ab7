"""A run that failed measured nothing and may be tried again; one that measured something may not."""

from reconciler.kind import Action, Observed, Seen, Stamp, State
from reconciler.kinds.evalrun import KIND
from reconciler.resource import Address, Wanted

RUN = Address("EvalRun", "triage")


def run(id: str, state: State) -> Observed:
    return Observed(id, Stamp("p", str(RUN), "f" * 64), state, {}, note="out of memory")


def decide(tries: int, *runs: Observed) -> Action:
    wanted = Wanted(RUN, "f" * 64, {}, (), {"tries": tries}, {}, "a.yaml", 1)
    return KIND.decide(wanted, Seen.of(runs, "p"), {}).action


def test_a_failed_run_is_not_tried_again_unasked() -> None:
    assert Action.BLOCK == decide(1, run("evalrun_1", State.FAILED))


def test_raising_tries_runs_a_failed_one_again() -> None:
    assert Action.CREATE == decide(2, run("evalrun_1", State.FAILED))
    assert Action.BLOCK == decide(2, run("evalrun_1", State.FAILED), run("evalrun_2", State.FAILED))


def test_what_was_measured_is_not_measured_again_however_many_tries_there_are() -> None:
    assert Action.KEEP == decide(9, run("evalrun_1", State.FAILED), run("evalrun_2", State.READY))
