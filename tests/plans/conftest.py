import sys
from pathlib import Path

# The small tree, and the stand-ins for engine and trainer.
sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("core", "selfhosted")]

from core_fixtures import *  # noqa: F403
