"""``python -m waveq`` is the ``waveq`` command."""

from __future__ import annotations

import sys

from waveq.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
