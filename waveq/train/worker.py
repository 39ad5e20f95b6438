"""One of several training processes that ``processes`` starts: ``python -m waveq.train.worker CONFIG.JSON PARENT``."""

from __future__ import annotations

import sys
from pathlib import Path

from waveq.train.lifeline import end_with_parent

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the whole training. 130: interrupted, 2: bad input, 1: diverged."""
    end_with_parent(int(argv[1]))  # before torch is imported: the parent may be killed meanwhile

    from waveq.train.config import load_recipe
    from waveq.train.divergence import Diverged
    from waveq.train.processes import INTERRUPTED
    from waveq.train.run import TrainingInterrupted, train
    from waveq.train.saying import say_nothing

    path = Path(argv[0])
    try:
        config = load_recipe(path, run_dir=path.parent, resume=True)
        train(config, say=_say if config.progress else say_nothing)
    except TrainingInterrupted:
        return INTERRUPTED
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except Diverged as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")  # standard output is the launcher's, for the result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
