"""Numbers that nobody means get a sentence."""

import sys
from pathlib import Path

import pytest
from core_base import write

from reconciler import project, release
from reconciler.cli import commands
from reconciler.cli.main import main
from reconciler.errors import ManifestError, Problem, Refused
from reconciler.plan import Change
from reconciler.release import Channel
from reconciler.resource import Address, Wanted


@pytest.mark.parametrize("interval", ["-1", "0", "nan", "inf"])
def test_a_daemon_does_not_run_without_a_pause(
    tmp_path: Path, interval: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reconciler", "run", str(write(tmp_path / "manifests")), "--interval", interval]
    monkeypatch.setattr(sys, "argv", command)

    with pytest.raises(SystemExit) as ended:
        main()

    assert 1 == ended.value.code
    assert f"error: --interval is 0.1 s or more, not {interval}\n" == capsys.readouterr().err


def test_a_soak_is_a_time(tmp_path: Path) -> None:
    manifests = write(tmp_path / "manifests")
    rule = manifests / "promote.yaml"
    rule.write_text(f"{rule.read_text()}  canary: {{share: 0.1, soak: {'9' * 5000}s}}\n")

    with pytest.raises(ManifestError) as refused:
        project.load(manifests)

    assert ["soak"] == [each.what.partition(": ")[0].rpartition(".")[2] for each in refused.value.problems]


def test_what_is_no_number_is_a_name_that_was_never_released() -> None:
    channel = Channel("demo/production", "tiny-chat")

    with pytest.raises(Refused, match="² was never released on demo/production"):
        release.target(channel, "²")


def test_a_place_is_found_whatever_its_keys_look_like(tmp_path: Path) -> None:
    file = write(tmp_path / "manifests") / "measure.yaml"
    wanted = Wanted(Address("Eval", "right"), "f", {}, (), {}, {}, str(file), 20)

    for key in ("²", "9" * 5000):
        assert f"{file}:" in commands.locate(wanted, Change(f"/item_schema/{key}", 1, 2))

    assert 1 == len(ManifestError([Problem("folder:²", "is empty")]).problems)
