import sys
from pathlib import Path

from core_fixtures import *  # noqa: F403

sys.path.append(str(Path(__file__).parents[1] / "selfhosted"))  # the stand-ins for engine and trainer
