import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import canary
import pytest

# Files that start real servers, browsers, databases and sandboxes, or count on thousands of examples.
# What is left by `-m "not train and not slow"` takes under a minute.
SLOW = {
    "test_creation.py", "test_faults.py", "test_cli.py", "test_embedded.py", "test_engine.py", "test_engine_embed.py",
    "test_batches.py", "test_embeddings.py", "test_chat.py", "test_completions.py", "test_responses.py",
    "test_webhooks.py", "test_runner.py", "test_evals.py", "test_eval_logs.py", "test_sandbox.py",
    "test_sandbox_hostile.py", "test_report_browser.py", "test_report_cli.py", "test_report_collect.py",
    "test_release_histories.py", "test_release_costs.py", "test_release_platform.py", "test_promotion_simulation.py",
    "test_loader_fuzz.py", "test_rows_fuzz.py", "test_upstreams.py", "test_upstreams_kept.py",
    "test_openai_upload_memory.py", "test_files.py", "test_jobs.py", "test_uploads.py", "test_permissions.py",
    "test_ownership_commands.py", "test_ownership_histories.py", "test_ownership_daemon.py", "test_tiny.py",
    "test_money_ledger.py", "test_money_story.py", "test_canary.py", "test_canary_story.py", "test_many_at_once.py",
    "test_kills.py", "test_leases.py", "test_stuck_writers.py", "test_shared_journal.py", "test_idle.py",
    "test_signals.py",
    "test_rule_served.py", "test_vllm.py", "test_judges_elsewhere.py", "test_in_use.py",
    "test_policies.py", "test_planbook.py", "test_comments.py", "test_comment_injection.py", "test_plans_cli.py",
    "test_daemon_git.py", "test_daemon_process.py", "test_daemon_http.py", "test_daemon_publish.py",
    "test_ci_pull_requests.py", "test_ci_merges.py", "test_ci_actions.py",
}  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    canary.register(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in SLOW:
            item.add_marker("slow")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write tests/golden anew; read the difference in review"
    )


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def postgres(postgres_server: str) -> str:
    """The URL of an empty PostgreSQL database."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"host={postgres_server} user=me dbname=postgres", autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
    return f"postgresql+psycopg://me@/{name}?host={postgres_server}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The socket folder of a PostgreSQL of our own; it refuses to run as root, so another user runs it then."""
    pytest.importorskip("psycopg", reason="PostgreSQL needs the extra `postgres`")
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("PostgreSQL's initdb and pg_ctl are not on the path")
    folder, user = Path(tempfile.mkdtemp(prefix="pg-")), {}
    if os.getuid() == 0:
        try:
            shutil.chown(folder, pwd.getpwnam("postgres").pw_uid)
        except KeyError:
            pytest.skip("root may not run PostgreSQL and there is no user postgres")
        user = {"user": "postgres"}
    silent = {"stdout": subprocess.DEVNULL, "check": True, "cwd": folder, **user}
    subprocess.run(["initdb", "-D", folder / "db", "-U", "me", "-A", "trust", "--no-sync"], **silent)
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    control = ["pg_ctl", "-D", folder / "db", "-w", "-l", folder / "log"]
    subprocess.run([*control, "-o", options, "start"], **silent)
    yield str(folder)
    subprocess.run([*control, "-m", "immediate", "stop"], **silent)
    shutil.rmtree(folder, ignore_errors=True)
