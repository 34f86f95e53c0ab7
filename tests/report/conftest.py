import sys
from pathlib import Path

import pytest
from report_base import example

from reconciler.report.values import Report

sys.path.append(str(Path(__file__).parents[1] / "core"))  # the platform in memory and its tree


@pytest.fixture
def report() -> Report:
    """A rule with two gates, judged on six items that try everything."""
    return example()
