"""How the accuracy of a policy is measured: the same way for every policy of a run, the learned one included."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from waveq._names import check_choice
from waveq.train.trained_run import PARTS, TrainedRun

if TYPE_CHECKING:
    from waveq.evaluate.evaluator import PolicyEvaluator
    from waveq.evaluate.finetune import PolicyFinetuner
    from waveq.evaluate.pairs import PairEvaluator
    from waveq.train.config import TrainConfig

__all__ = ["Evaluation", "Protocol", "evaluation", "require_choices"]

Policies = npt.NDArray[np.uint8]
_TOGETHER = 16  # policies that are fine-tuned as one; fixed, so that a resumed enumeration groups them alike


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """From the run's float network: its layers rounded to a policy's bits, and trained a little where asked.

    Args:
        part: the images that accuracies are measured on. Nothing should be chosen on "test".
        finetune_epochs: passes over the training images with the policy's bits; 0 rounds and does not train.
        finetune_lr: learning rate of these.
        batch_size: images of a step of these.

    Raises:
        ValueError: an unknown part, a negative number of epochs, a learning rate that is none.
    """

    part: str = "validation"
    finetune_epochs: int = 0
    finetune_lr: float = 0.01
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_choice("part", self.part, PARTS)
        if self.finetune_epochs < 0:
            raise ValueError(f"finetune_epochs must be 0 or more, not {self.finetune_epochs}")
        if not 0 < self.finetune_lr < float("inf"):
            raise ValueError(f"finetune_lr must be more than 0, not {self.finetune_lr}")

    def __str__(self) -> str:
        if self.finetune_epochs == 0:
            return "post-training quantisation of one float network"
        epochs = f"{self.finetune_epochs} epoch{'s' if self.finetune_epochs > 1 else ''}"
        return f"one float network fine-tuned with the policy's bits for {epochs}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what does not matter without training is left out."""
        fields = asdict(self)
        return fields if self.finetune_epochs else {"part": self.part, "finetune_epochs": 0}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Protocol:
        """The protocol that `to_dict` described."""
        return cls(**fields)


class Evaluation:
    """A protocol on a run's network and images; small enough to be sent to worker processes.

    Attributes:
        names: the quantised layers, the columns of a policy array; then their inputs, where those are varied.
        labels: (S,) int64 class numbers of the images.
    """

    def __init__(
        self,
        evaluator: PolicyEvaluator | PolicyFinetuner | PairEvaluator,
        correct: Callable[[Policies], npt.NDArray[np.bool_]],
        labels: npt.NDArray[np.int64],
        threads: int | None,
    ) -> None:
        self._correct = correct
        self._losses = getattr(evaluator, "losses", None)
        self._threads = threads
        self.names = evaluator.names
        self.labels = labels

    def losses(self, policies: Policies) -> npt.NDArray[np.float64]:
        """Mean cross-entropy: (N, L) uint8 -> (N,); of a protocol that trains nothing."""
        from waveq.threads import torch_threads

        assert self._losses is not None
        with torch_threads(self._threads):
            return np.asarray(self._losses(policies))

    def correct(self, policies: Policies) -> npt.NDArray[np.bool_]:
        """Which images are classified right: (N, L) uint8 -> (N, S)."""
        from waveq.threads import torch_threads

        with torch_threads(self._threads):
            return np.asarray(self._correct(policies))


def require_choices(config: TrainConfig, choices: Sequence[int]) -> None:
    """Refuse bits to choose from that the run's quantizer does not have, before anything is measured.

    Raises:
        ValueError: no bits, or not the quantizer's.
    """
    from waveq.quantizers.registry import require_bits  # scores of a policy come by here without torch

    if isinstance(choices, str) or not len(choices):
        raise ValueError(f"choices must be numbers of bits such as (2, 3, 4, 8), not {choices!r}")
    for bits in choices:
        require_bits(config.quantizer, bits)


def evaluation(run: TrainedRun, protocol: Protocol, *, inputs: bool = False) -> Evaluation:
    """The protocol, ready to evaluate policies of the run; inputs are quantised where the run quantises them.

    Args:
        run: a finished run.
        protocol: how an accuracy is measured.
        inputs: whether policies have columns for the bits of these inputs; by default they keep the run's.
    """
    threads, own = run.config.threads, dict(run.policy.activation_bits)
    labels = run.images(protocol.part).split.labels.numpy()
    if inputs:
        if not own:
            raise ValueError(f"{run.path}: its inputs are in floating point, so that their bits cannot be varied")
        from waveq.evaluate.pairs import PairEvaluator

        pairs = PairEvaluator(functools.partial(_evaluator, run, protocol), list(own))
        return Evaluation(pairs, pairs.correct, labels, threads)
    evaluator: Any = _evaluator(run, protocol, own or None)
    if protocol.finetune_epochs:
        return Evaluation(evaluator, evaluator.correct, labels, threads)
    return Evaluation(evaluator, functools.partial(evaluator.correct, each=True), labels, threads)


def _evaluator(
    run: TrainedRun, protocol: Protocol, inputs: Mapping[str, int] | None
) -> PolicyEvaluator | PolicyFinetuner:
    """What evaluates policies with these bits of inputs."""
    config, images = run.config, run.images(protocol.part)
    common: dict[str, Any] = {
        "quantizer": config.quantizer,
        "scale": scale_of(run),
        "granularity": granularity_of(run),
        "skip": tuple(run.policy.skipped),
        "also": config.also,
        "activation_bits": inputs,
        "activation_quantizer": input_quantizer_of(run),
    }
    if not protocol.finetune_epochs:
        from waveq.evaluate.evaluator import PolicyEvaluator

        return PolicyEvaluator(run.float_network(), images, **common)
    from waveq.evaluate.finetune import PolicyFinetuner

    return PolicyFinetuner(
        run.float_network(),
        run.images("train"),
        images,
        **common,
        epochs=protocol.finetune_epochs,
        batch_size=protocol.batch_size,
        lr=protocol.finetune_lr,
        seed=config.seed,
        together=_TOGETHER,
    )


def granularity_of(run: TrainedRun) -> Any:
    """What has a scale of its own: a layer, or each of its output channels."""
    return run.policy.granularity or "layer"


def scale_of(run: TrainedRun) -> Any:
    """The scale that the run trained with; "max" for one that has to be learned, where the method has it."""
    from waveq.method.presets import get_preset
    from waveq.quantizers import scale_modes

    modes, scale = scale_modes(run.config.quantizer), run.config.scale or get_preset(run.config.preset).scale
    scale = "max" if scale == "learned" else scale
    return scale if scale in modes else modes[0]


def input_quantizer_of(run: TrainedRun) -> str | None:
    """The inputs' quantiser that the run trained with; None where its inputs were in floating point."""
    told = run.policy.provenance.get("activation_quantizer")
    return told if isinstance(told, str) and run.policy.activation_bits else None
