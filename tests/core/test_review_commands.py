"""Numbers that nobody means get a sentence."""

import sys
from pathlib import Path

import pytest
from core_base import write

from reconciler.cli.main import main


@pytest.mark.parametrize("interval", ["-1", "0", "nan", "inf"])
def test_a_daemon_does_not_run_without_a_pause(
    tmp_path: Path, interval: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reconciler", "run", str(write(tmp_path / "manifests")), "--interval", interval]
    monkeypatch.setattr(sys, "argv", command)

    with pytest.raises(SystemExit) as ended:
        main()

    assert 1 == ended.value.code
    assert f"error: --interval is 0.5 s or more, not {interval}\n" == capsys.readouterr().err
