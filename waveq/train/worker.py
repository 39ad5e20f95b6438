"""One of several training processes: ``python -m waveq.train.worker RUN/config.json``, started by ``processes``."""

from __future__ import annotations

import sys
from pathlib import Path

from waveq.train.config import load_recipe
from waveq.train.divergence import Diverged
from waveq.train.lifeline import end_with_parent
from waveq.train.processes import INTERRUPTED
from waveq.train.run import TrainingInterrupted, train

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the whole training; Lightning's DDP joins the processes. 130: interrupted, 2: bad input, 1: diverged."""
    end_with_parent()
    path = Path(argv[0])
    try:
        train(load_recipe(path, run_dir=path.parent))
    except TrainingInterrupted:
        return INTERRUPTED
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except Diverged as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        _leave()
    return 0


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
