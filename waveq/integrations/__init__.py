"""The method in the training loops of other packages: one file a package, imported by whoever has it."""

from waveq._lazy import needed_by

with needed_by("waveq.integrations"):
    import torch  # noqa: F401  (all of them work on its modules)
