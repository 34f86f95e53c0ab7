"""A stand-in for the trainer that waits for a file before it begins: `holding_trainer.py GO FOLDER …`."""

import os
import signal
import sys
import time
from pathlib import Path

PAUSED = 75  # exit code: stopped when told to
TRAINER = Path(__file__).parents[1] / "selfhosted" / "server_trainer.py"


def main(go: Path, *rest: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(PAUSED))
    while not go.exists():
        time.sleep(0.01)
    os.execv(sys.executable, [sys.executable, str(TRAINER), *rest])


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
