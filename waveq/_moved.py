"""Public modules that moved into rooms: their old paths go on working until 0.2.

One finder in place of an alias file for each: ``import waveq.presets`` gives ``waveq.method.presets`` itself, so that
a class or a patched name is the same under both paths. This file and its call in ``waveq/__init__`` go with 0.2.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "serve_moved_modules"]

MOVED = {
    "arguments": "method.arguments",
    "attachment": "method.attachment",
    "backends": "_kernels.backends",
    "balance": "method.wave_strength",
    "batch_norm": "method.batch_norm",
    "beta_motion": "method.beta_step",
    "budget": "method.budget",
    "checkpoint": "method.checkpoint",
    "design_space": "codesign.space codesign.placement",
    "diagnosis": "method.diagnosis",
    "evaluate_data": "evaluate.samples",
    "evaluate_inputs": "evaluate.inputs",
    "evaluate_weights": "evaluate.weights",
    "finetune": "evaluate.finetune",
    "float_road": "method.float_road",
    "handle": "method.handle",
    "inputs": "method.input_quantizers",
    "learning_plot": "method.learning_plot",
    "losstables": "allocate.losstables",
    "parametrization": "method.parametrization",
    "penalty": "method.penalty",
    "pictures": "codesign.pictures",
    "policy_file": "_policy_file",
    "presets": "method.presets",
    "price": "method.price",
    "pricing": "codesign.score _files",
    "protocol": "codesign.protocol",
    "rectifiers": "method.relus",
    "report": "codesign.report",
    "runs": "train.run_folder _files",
    "schedules": "method.schedules",
    "settings": "method.settings",
    "train_callbacks": "train.callbacks train.progress_bar train.stopping",
    "train_config": "train.config",
    "train_data": "train.batches",
    "train_launch": "train.processes",
    "train_logs": "train.logs",
    "train_module": "train.classifier",
    "train_stage": "train.stage",
    "trained_run": "train.trained_run",
    "zoo.data": "zoo.datasets.data",
    "zoo.models": "zoo.networks.models",
}  # old and new path below ``waveq``; several, where what was one file is in several now


class _Several(ModuleType):
    """The names of several modules under one path."""

    def __init__(self, name: str, modules: Sequence[ModuleType]) -> None:
        super().__init__(name)
        self._modules = modules

    def __getattr__(self, name: str) -> Any:
        for module in self._modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Alias(importlib.abc.Loader):
    """Loads the module at its new path, and leaves it as it is."""

    def __init__(self, new: Sequence[str]) -> None:
        self._new = new
        self._own: importlib.machinery.ModuleSpec | None = None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        modules = [importlib.import_module(new) for new in self._new]
        if len(modules) > 1:
            self._own = spec
            return _Several(spec.name, modules)
        self._own = modules[0].__spec__
        return modules[0]

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own  # Python has just given it the spec of the old path


class _MovedModules(importlib.abc.MetaPathFinder):
    """Answers for the old paths alone; asked after Python's own finders."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != "waveq" or old not in MOVED:
            return None
        return importlib.machinery.ModuleSpec(fullname, _Alias([f"waveq.{new}" for new in MOVED[old].split()]))


def serve_moved_modules() -> None:
    """Let the old paths be imported."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
