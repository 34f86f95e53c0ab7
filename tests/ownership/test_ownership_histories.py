"""Whatever is edited, applied, released and pruned, in whatever order: nothing goes that anybody needs."""

import tempfile
from pathlib import Path
from typing import Any

from core_base import FILES, Clock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from own_base import Owner, Shop, owner

from reconciler import project, pruning
from reconciler.pruning import LEAST_FUSE, Policy, texts

PARTS = {  # what may be declared or not, and what has to be declared with it
    "promote.yaml": ("measure.yaml", "train.yaml"), "measure.yaml": (), "train.yaml": (), "spare.yaml": ("train.yaml",),
}  # fmt: skip
SPARE = """\
apiVersion: reconciler/v1
kind: Dataset
metadata: {name: spare}
spec: {file: spare.jsonl, format: chat}
---
apiVersion: reconciler/v1
kind: FineTuneJob
metadata: {name: spare}
spec:
  model: FineTuneJob/tuned
  training_file: Dataset/spare
  method: {type: supervised, supervised: {hyperparameters: {n_epochs: 2}}}
"""


class Histories(RuleBasedStateMachine):
    @initialize(protected=st.booleans())
    def begin(self, protected: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        root, clock = Path(self.folder.name), Clock()
        self.platform = Shop()
        self.other = owner(root / "other", self.platform, clock, "other")
        (self.other.root / "spare.jsonl").write_text(FILES["train.jsonl"].replace("say", "tell"))
        (self.other.root / "spare.yaml").write_text(SPARE)  # which no release leads to
        self.other.done()
        self.theirs = self.platform.standing()
        self.own: Owner = owner(root / "demo", self.platform, clock)
        (self.own.root / "spare.jsonl").write_text(FILES["train.jsonl"].replace("say", "tell"))
        self.texts = FILES | {"spare.yaml": SPARE}
        self.declared = set(PARTS)
        self.protected: set[str] = set()
        self.write()
        if protected:
            self.protect()
        self.own.done()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def write(self) -> None:
        for part in PARTS:
            path = self.own.root / part
            if part in self.declared:
                path.write_text(self.texts[part])
            else:
                path.unlink(missing_ok=True)

    @rule(epochs=st.integers(1, 3), part=st.sampled_from(["train.yaml", "spare.yaml"]))
    def edit(self, epochs: int, part: str) -> None:
        before = self.texts[part].partition("n_epochs: ")
        self.texts = {**self.texts, part: f"{before[0]}n_epochs: {epochs}{before[2][1:]}"}
        self.write()

    @rule(part=st.sampled_from(sorted(PARTS)))
    def take_out(self, part: str) -> None:
        self.declared -= {part, *(each for each, needs in PARTS.items() if part in needs)}
        self.write()

    @rule(part=st.sampled_from(sorted(PARTS)))
    def put_in(self, part: str) -> None:
        self.declared |= {part, *PARTS[part]}
        self.write()

    def protect(self) -> None:
        """Of a dataset that is declared, by its manifest; for ever."""
        text = self.texts["spare.yaml"]
        self.texts = {
            **self.texts,
            "spare.yaml": text.replace("format: chat}", "format: chat, protect: true}"),
        }
        self.write()
        self.own.once()
        self.protected |= {
            o["id"] for o in self.platform.objects["files"] if o["filename"].startswith("spare@demo")
        }

    @rule(kept=st.sets(st.sampled_from(["promote.yaml", "spare.yaml"]), max_size=1))
    def keep_little(self, kept: set[str]) -> None:
        """Most of the tree goes at once."""
        self.declared = kept.union(*(PARTS[each] for each in kept))
        self.write()

    @rule(passes=st.integers(1, 3))
    def apply(self, passes: int) -> None:
        self.own.passes(passes)

    @rule(tuned=st.sampled_from([20, 200]))
    def time_passes(self, tuned: int) -> None:
        self.platform.finish_jobs()
        self.platform.finish_runs(lambda model, index: index < (tuned if model.startswith("ft:") else 0))

    @rule()
    def settle(self) -> None:
        self.own.done()

    @rule(superseded=st.booleans(), fuse=st.sampled_from([100, None, 1]))
    def prune(self, superseded: bool, fuse: int | None) -> None:
        needed, wanted = self.needed(), self.wanted()
        standing = len(pruning.found(self.own.world.kinds, self.own.holdings()))
        before = len(self.platform.deleted)

        pruned = self.own.prune(Policy(superseded, fuse))

        assert {} == pruned.failed
        limit = max(LEAST_FUSE, standing // 10) if fuse is None else fuse
        assert len(self.platform.deleted) - before <= limit
        assert needed <= self.platform.standing()
        assert wanted <= self.wanted()

    @invariant()
    def nothing_of_another_project_goes(self) -> None:
        if hasattr(self, "theirs"):
            assert self.theirs <= self.platform.standing()

    @invariant()
    def nothing_that_was_protected_goes(self) -> None:
        if hasattr(self, "protected"):
            assert self.protected <= self.platform.standing()

    def needed(self) -> set[str]:
        """What stands and what channels or unfinished work name, and what that names in turn."""
        objects = [
            o for c, each in self.platform.objects.items() if not c.endswith("output_items") for o in each
        ]
        names = {self.platform._id(o): o for o in objects}
        working: list[dict[str, Any]] = [o for o in objects if o.get("status") in ("running", "in_progress")]
        waiting = [*self.platform.objects.get("reconciler/aliases", []), *working]
        found: set[str] = set()
        while waiting:
            for text in texts(waiting.pop()):
                if text in names and text not in found:
                    found.add(text)
                    waiting.append(names[text])
        finished = {o["id"] for o in self.platform.objects.get("fine_tuning/jobs", [])}
        return (found & self.platform.standing()) - finished - {"tiny-chat"}

    def wanted(self) -> set[str]:
        """The fingerprints that are wanted and stand."""
        wanted = {each.fingerprint for each in project.load(self.own.root).desired.values()}
        return {each.stamp.fingerprint for _, each in self.own.holdings().ours() if each.stamp} & wanted


Histories.TestCase.settings = settings(
    max_examples=25, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
TestHistories = Histories.TestCase
