"""What an eval says of its clusters reaches the results that gates judge."""

from reconciler.kind import Stamp
from reconciler.kinds.eval import CLUSTER, KIND
from reconciler.resource import Address, Wanted

SCHEMA = {"type": "object", "properties": {"document": {"type": "string"}, "expected": {"type": "string"}}}
GRADER = {"type": "string_check", "operation": "eq", "input": "x", "reference": "{{ item.expected }}"}


def wanted(**more: str) -> Wanted:
    body = {"item_schema": SCHEMA, "graders": [GRADER]} | more
    return Wanted(Address("Eval", "e"), "f", {}, (), body, {}, "e.yaml", 1)


def test_an_eval_carries_the_name_of_its_clusters_on_the_platform() -> None:
    stamp = Stamp("p", "Eval/e", "f")

    clustered, plain = (
        KIND.ask(each, {}, stamp, None).body for each in (wanted(cluster="document"), wanted())
    )

    assert "document" == clustered["metadata"][CLUSTER]
    assert CLUSTER not in plain["metadata"]
    assert stamp == Stamp.read(clustered["metadata"])


def test_a_cluster_that_no_item_has_is_refused() -> None:
    each = wanted(cluster="chapter")

    problems = list(KIND.check(each, KIND.spec(each), {}))

    assert ["cluster chapter is no field of item_schema; it has document, expected"] == [
        p.what for p in problems
    ]
