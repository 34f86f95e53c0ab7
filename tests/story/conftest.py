import sys
from pathlib import Path

# the platform behind a door, the stand-ins for engine and trainer, and a daemon as a process
sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("core", "selfhosted", "daemon")]
