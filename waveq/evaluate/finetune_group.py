"""Some policies of one network, trained side by side as one; a group of one is trained without batching."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from waveq.evaluate.side_by_side import one_thread_per_operation
from waveq.evaluate.weights import Policies
from waveq.method.chosen import ChosenWeight
from waveq.quantizers import Quantizer
from waveq.quantizers.base import Granularity, ScaleMode

__all__ = ["Group", "Recipe", "forked_random", "seconds_per_policy"]

_TIMED_STEPS = 3
_PREDICTED_AT_ONCE = 1024  # samples times policies


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How each policy is trained."""

    quantizer: Quantizer
    scale: ScaleMode | None
    granularity: Granularity = "layer"
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    seed: int


class _Quantized(nn.Module):
    """The model with each weight behind its quantiser, as a function of bits that are tensors.

    A tensor of bits, and no Python branch on it, is what lets one trace serve policies with different bits. What a
    quantiser learns starts from its layer's bits, as in ``attach``.

    Args:
        model: copied.
        weights: what is quantised, by name.
        row: total bits of each.
        recipe: with the method and its scale.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, ChosenWeight], row: Policies, recipe: Recipe) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.keys = [weight.keys for weight in weights.values()]
        self.places = [keys[0].rpartition(".") for keys in self.keys]
        self.quantizers = nn.ModuleList(
            weight.quantizer(recipe.quantizer, total_bits=bits, scale=recipe.scale, granularity=recipe.granularity)
            for weight, bits in zip(weights.values(), row.tolist(), strict=True)
        )

    def forward(self, x: Tensor, magnitude_bits: Tensor, has_binary: bool) -> Tensor:
        """Scores of x; magnitude_bits (L,) floating, 0 for a binary layer."""
        swapped = {}
        for (module, _, tensor), keys, quantizer, bits in zip(
            self.places, self.keys, self.quantizers, magnitude_bits, strict=True
        ):
            weight = getattr(self.model.get_submodule(module), tensor)
            rounded = quantizer(weight, bits.clamp_min(1.0))
            if has_binary:
                rounded = torch.where(bits < 1.0, quantizer.binarize(weight), rounded)  # type: ignore[operator]
            swapped.update(dict.fromkeys(keys, rounded))
        scores: Tensor = functional_call(self.model, swapped, (x,), tie_weights=False)
        return scores


class Group:
    """G policies with their own parameters, buffers and optimiser state.

    Args:
        model: the float model that each policy starts from; not changed.
        weights: what of it is quantised, by name.
        rows: (G, L) total bits.
        recipe: how they are trained.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, ChosenWeight], rows: Policies, recipe: Recipe) -> None:
        self.recipe = recipe
        self.size = len(rows)
        nets = [_Quantized(model, weights, row, recipe) for row in rows]
        self._net = nets[0]
        device = next(model.parameters()).device
        self._bits = torch.from_numpy(rows.astype("float32") - 1.0).to(device)
        self._has_binary = bool((rows == 1).any())
        self.parameters = {name: p.requires_grad_() for name, p in _joined([dict(n.named_parameters()) for n in nets])}
        self.buffers = dict(_joined([dict(n.named_buffers()) for n in nets]))
        self._optimizer = torch.optim.SGD(
            list(self.parameters.values()), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )

    def _scores(self, x: Tensor) -> Tensor:
        """(G, n, classes)."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], bits: Tensor) -> Tensor:
            scores: Tensor = functional_call(self._net, {**parameters, **buffers}, (x, bits, self._has_binary))
            return scores

        if self.size == 1:
            return one(self.parameters, self.buffers, self._bits[0])[None]
        # the same dropout mask for all: what each policy would draw alone
        batched: Tensor = vmap(one, randomness="same")(self.parameters, self.buffers, self._bits)
        return batched

    def step(self, x: Tensor, y: Tensor) -> None:
        """One optimiser step of every policy on the same batch."""
        scores = self._scores(x)
        flat = scores.reshape(-1, scores.shape[-1])
        # the sum over policies of each one's mean loss: no policy's gradient sees another
        loss = F.cross_entropy(flat, y.repeat(self.size), reduction="sum") / len(y)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def train(self, x: Tensor, y: Tensor) -> None:
        """All epochs; the order of samples follows from the seed alone."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        torch.manual_seed(self.recipe.seed)  # dropout
        self._net.train()
        for _ in range(self.recipe.epochs):
            for batch in torch.randperm(len(y), generator=generator).to(y.device).split(self.recipe.batch_size):  # type: ignore[no-untyped-call]
                self.step(x[batch], y[batch])

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """(G, samples) classes in evaluation mode."""
        self._net.eval()
        at_once = max(1, _PREDICTED_AT_ONCE // self.size)
        return torch.cat([self._scores(part).argmax(dim=-1) for part in torch.split(x, at_once)], dim=1)


def _joined(states: list[dict[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of one network alone, of several with a leading dimension."""
    for name, tensor in states[0].items():
        each = [state[name].detach() for state in states]
        yield name, torch.stack(each) if len(each) > 1 else tensor.detach().clone()


def seconds_per_policy(group: Group, x: Tensor, y: Tensor) -> float:
    """Time of one training step, divided by the policies of the group; the best of a few, after one to warm up.

    On a CPU it is the processor time of this thread, which other programs on the machine do not lengthen.
    """
    times = []
    clock = time.thread_time if x.device.type == "cpu" else time.perf_counter
    batch, labels = x[: group.recipe.batch_size], y[: group.recipe.batch_size]
    with one_thread_per_operation(x.device):
        for _ in range(1 + _TIMED_STEPS):
            start = clock()
            group.step(batch, labels)
            if x.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(clock() - start)
    return min(times[1:]) / group.size


@contextlib.contextmanager
def forked_random(device: torch.device) -> Iterator[None]:
    """Leave the global random state as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
