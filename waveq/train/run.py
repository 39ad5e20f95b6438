"""Training as one function: float network, learned bits, final network, all in one run folder.

    result = waveq.train.train(load_recipe("fashion-mnist", seed=1))
    result.policy, result.test_accuracy

Stages: "float" (unless `init` gives weights), "search" (where bits are learned and rewound), "wave", "finetune". Each
leaves its folder finished or resumable; the same call goes on where the last one stopped. The test images are read
once, at the end.
"""

from __future__ import annotations

import copy
import gc
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from waveq.threads import torch_threads
from waveq.train.classifier import measure
from waveq.train.config import TrainConfig
from waveq.train.doubts import Doubts
from waveq.train.given import remember, require_fit, require_importable, require_named
from waveq.train.lock import alone_in
from waveq.train.materials import make_dataset, make_network
from waveq.train.opening import batch_norm_told, opened
from waveq.train.processes import launch
from waveq.train.ranks import ALONE, Ranks, by_the_first, find_ranks, joined
from waveq.train.result import TrainResult, share_sentence
from waveq.train.run_folder import STAGES, RunFolder, load_weights, save_weights
from waveq.train.saying import Say, say_nothing
from waveq.train.stage import Stage, make_loader, on_cpu, steps_per_epoch
from waveq.train.stopping import StoppedAtOnce, StopRequested, signals_noted
from waveq.train.user_modules import is_own

if TYPE_CHECKING:
    from waveq.method.handle import WaveQ
    from waveq.method.options import Method

__all__ = ["TrainingInterrupted", "train"]


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP; its text says what was written, and how to go on."""


def train(config: TrainConfig, *, say: Say | None = None) -> TrainResult:
    """Train as the config says, or go on where its run folder stopped.

    Args:
        config: the run; `load_recipe` and `parse_config` make one.
        say: receives each line for people; by default standard output.

    Returns:
        What came out; a finished run folder is read and nothing is trained.

    Raises:
        ValueError: a wrong field, a missing dataset, a damaged file, a run folder of another config, or one that
            another process is training in.
        Diverged: a loss or a weight is NaN or infinite; the same call goes on from the last checkpoint, which is good.
        RuntimeError: one of several processes failed or was killed, after as many restarts as `max_restarts` says.
        TrainingInterrupted: Ctrl-C, SIGTERM or SIGHUP; the same call goes on.
    """
    speak = say or _say
    require_named(config)  # before there is a folder
    ranks = find_ranks(config)
    if ranks.size == 1 and config.devices * config.num_nodes > 1:
        finished = _in_processes(config, speak)
    else:
        if ranks.size > 1:
            config = config.model_copy(update={"devices": ranks.devices, "num_nodes": ranks.nodes})
        with joined(ranks, on_cpu=on_cpu(config)):
            finished = _in_this_one(config, ranks, speak if ranks.leads else say_nothing)
    return TrainResult.of(config.folder, finished)


def _in_this_one(config: TrainConfig, ranks: Ranks, say: Say) -> dict[str, Any]:
    """Train, in one process or as one of several; what rank 0 wrote in the end."""
    with ExitStack() as held:
        folder = opened(config, ranks, held, say)
        finished = by_the_first(ranks, folder.result)
        if finished is not None:
            say(f"{folder.path} holds this run, finished.")
            return finished
        with _going_on(folder), signals_noted() as stop, torch_threads(config.threads):
            _Run(config, folder, ranks, say, stop).all_stages()
        finished = by_the_first(ranks, folder.result)
    assert finished is not None
    return finished


def _in_processes(config: TrainConfig, say: Say) -> dict[str, Any]:
    """Train in several processes of this machine; each of them calls `train`."""
    require_importable(config)
    if config.num_nodes > 1:
        raise ValueError(
            f"num_nodes {config.num_nodes}: nobody has started processes on other machines. torchrun does, on each of "
            f"them: torchrun --nnodes {config.num_nodes} --nproc-per-node {config.devices} --rdzv-backend c10d "
            "--rdzv-endpoint FIRST-HOST:29400 -m -- waveq train ...; SLURM (srun) and Kubeflow do too"
        )
    with alone_in(config.folder):  # what is wrong is said before anything starts; process 0 takes the lock then
        folder = RunFolder.open(config)
        finished = folder.result()
    if finished is not None:
        say(f"{folder.path} holds this run, finished.")
        return finished
    with _going_on(folder):
        launch(config)
        finished = folder.result()
        if finished is None:
            raise StopRequested
    return finished


@contextmanager
def _going_on(folder: RunFolder) -> Iterator[None]:
    """Whoever asked to stop hears what to call next."""
    try:
        yield
    except StopRequested:
        raise TrainingInterrupted(f"Everything is in {folder.path}, and the same command goes on from there.") from None
    except StoppedAtOnce:
        raise TrainingInterrupted(
            f"No checkpoint was written of the last steps; the same command goes on in {folder.path} "
            "from the one before them, or from the start of the stage."
        ) from None


class _Run:
    """The stages of one run, in order."""

    def __init__(
        self, config: TrainConfig, folder: RunFolder, ranks: Ranks, say: Say, stop: Callable[[], bool]
    ) -> None:
        self.config = config
        self.folder = folder
        self.ranks = ranks
        self.say = say
        self.stop = stop
        self.dataset = make_dataset(config)
        self._take_what_is_given()
        self.teacher: nn.Module | None = None

    def all_stages(self) -> None:
        """Float, search, wave, fine-tune, judgement."""
        network = self._network()
        if told := batch_norm_told(network, self.config, self.ranks, on_cpu=on_cpu(self.config)):
            self.say(told)
        self._try_attaching(network)
        self._float(network)
        float_weights = {key: value.clone() for key, value in network.state_dict().items()}
        self.teacher = self._frozen(float_weights) if self.config.distill else None
        wq, forecast, doubts = self._wave(network, float_weights)
        if self.config.finetune_epochs:
            network, wq = self._finetune(wq)
        if self.ranks.leads:
            self._judge(network, wq, float_weights, forecast, doubts)
        _meet()

    def _take_what_is_given(self) -> None:
        """Network and data of one's own fit together, and are those that the run began with."""
        if is_own(self.config.model) or is_own(self.config.dataset):
            made = make_network(self.config, self.dataset)
            require_fit(made, self.dataset, self.config)
            remember(self.folder.path, self.config, self.dataset, made, leads=self.ranks.leads)

    def _network(self) -> nn.Module:
        network = make_network(self.config, self.dataset)
        return network.double() if self.config.precision == "64" else network

    def _frozen(self, weights: dict[str, Tensor]) -> nn.Module:
        network = self._network()
        network.load_state_dict(weights)
        return network.eval().requires_grad_(requires_grad=False)

    def _steps(self, epochs: int) -> int:
        return epochs * steps_per_epoch(self.config, make_loader(self.config, self.dataset, "wave", self.ranks))

    def _stage(self, name: str, total_steps: int, rate: float) -> Stage:
        return Stage(
            name=name,
            folder=self.folder.stage(name),
            config=self.config,
            dataset=self.dataset,
            loader=make_loader(self.config, self.dataset, name, self.ranks),
            ranks=self.ranks,
            total_steps=total_steps,
            rate=rate,
            stop=self.stop,
            teacher=None if name == "search" else self.teacher,  # the price of a bit is meant for cross-entropy
        )

    def _try_attaching(self, network: nn.Module) -> None:
        """What attach refuses is said before the float training, not after it."""
        c = self.config
        if c.init is not None or not c.pretrain_epochs or (self.folder.path / "float" / "result.json").exists():
            return
        search, rest = c.parts(self._steps(c.epochs))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns when it is meant
            self._attach(copy.deepcopy(network), c.method(self._bits(), (search or rest) or None))

    def _float(self, network: nn.Module) -> None:
        c = self.config
        if c.init is not None:
            _load_into(network, c.init / "float" / "weights.pt" if c.init.is_dir() else c.init)
        elif c.pretrain_epochs:
            stage = self._stage("float", self._steps(c.pretrain_epochs), c.pretrain_lr or c.lr)
            announced = f"float training: {c.model} on {c.dataset}, {c.pretrain_epochs} epochs"
            self._run(stage, network, None, announced)
            _load_into(network, stage.folder.weights)

    def _wave(self, network: nn.Module, start: dict[str, Tensor]) -> tuple[WaveQ, str, Doubts]:
        """Bits and weights in one run; or the bits in a search, and then the weights, from the start."""
        c = self.config
        search, rest = c.parts(self._steps(c.epochs))
        stage = self._stage("search" if search else "wave", search or rest, c.lr)
        wq = self._attach(network, c.method(self._bits(), stage.total_steps or None))
        announced = forecast = wq.forecast()
        if search:
            announced = f"search: {share_sentence(search, rest)}\n{forecast}"
        self._run(stage, network, wq, announced)
        _load_into(network, stage.folder.state)
        doubts = self._doubts(wq)
        if search:
            wq = self._rewound(wq, network, start, rest)
            doubts = doubts.and_then(self._doubts(wq))
        return wq, forecast, doubts

    def _rewound(self, wq: WaveQ, network: nn.Module, start: dict[str, Tensor], total_steps: int) -> WaveQ:
        from waveq.method.rewinding import rewind

        gc.collect()  # what DDP wrapped around the network for the search is in a circle, and may still be there
        stage = self._stage("wave", total_steps, self.config.lr)
        wq = rewind(wq, start, total_steps=total_steps)
        inputs = {name: f", inputs {bits}" for name, bits in wq.input_bits().items()}
        bits = "; ".join(f"{name} {bits}{inputs.get(name, '')}" for name, bits in wq.bits().items())
        self._run(
            stage, network, wq, f"bits found: {bits}; the float weights are trained with them: {total_steps} steps"
        )
        _load_into(network, stage.folder.state)
        return wq

    def _doubts(self, wq: WaveQ) -> Doubts:
        """What is doubtful whatever comes out is said at once."""
        doubts = Doubts(wq.diagnose(task_kept=True), wq.diagnose())
        for warning in doubts.anyway:
            self.say(f"warning: {warning}")
        return doubts

    def _finetune(self, wq: WaveQ) -> tuple[nn.Module, WaveQ]:
        c = self.config
        stage = self._stage("finetune", self._steps(c.finetune_epochs), c.finetune_lr or c.lr / 10)
        network, told = self._network(), wq.settings
        method = told.method.with_policy(wq.policy(), stage.total_steps)
        wq = self._attach(network, method, search=told.described.get("search"))
        # weights, learned scales and grids go on as they were; the schedule begins anew
        learned = load_weights(self.folder.stage("wave").state)
        learned.pop("waveq_seal", None)  # of the step that is not taken
        network.load_state_dict(learned | {"waveq_step": torch.zeros_like(learned["waveq_step"])})
        self._run(stage, network, wq, f"fine-tuning with fixed bits: {c.finetune_epochs} epochs")
        _load_into(network, stage.folder.state)
        return network, wq

    def _run(self, stage: Stage, network: nn.Module, wq: WaveQ | None, announced: str) -> None:
        """The stage, unless it is finished already."""
        if stage.folder.result() is not None:
            return
        self.say(announced)
        found = stage.run(network, wq) if stage.total_steps else {}
        network.cpu()
        if self.ranks.leads:
            bits: dict[str, Any] = {}
            if wq is not None:
                bits = {"mean_bits": wq.mean_bits(), "bits": wq.bits(), "input_bits": wq.input_bits()}
            stage.folder.finish({"steps": stage.total_steps} | found | bits, network)
        _meet()

    def _attach(self, network: nn.Module, method: Method, **told: Any) -> WaveQ:
        from waveq.method.attachment import attach_method

        return attach_method(network, method, **told)

    def _parts(self) -> dict[str, Any]:
        """The steps of every stage, and what the network had come to when its search was over."""
        found = {name: self.folder.stage(name).result() for name in STAGES if (self.folder.path / name).exists()}
        parts: dict[str, Any] = {"steps": {name: stage["steps"] for name, stage in found.items() if stage is not None}}
        if (search := found.get("search")) is not None:
            parts["search_validation_accuracy"] = search["validation_accuracy"]
        return parts

    def _bits(self) -> Any:
        if not isinstance(self.config.bits, Path):
            return self.config.bits
        from waveq.policy import Policy

        return Policy.load(self.config.bits)

    def _judge(
        self, network: nn.Module, wq: WaveQ, float_weights: dict[str, Tensor], forecast: str, doubts: Doubts
    ) -> None:
        """Final weights on their grids; validation images once more, then the test images, for the only time."""
        from waveq.method.round_once import round_once

        policy = wq.policy()
        validation, test = self.dataset.loader("validation"), self.dataset.loader("test")
        unrounded = {}
        if self.config.forward == "float":
            unrounded = {
                "unrounded_validation_accuracy": measure(network, validation)["accuracy"],
                "unrounded_test_accuracy": measure(network, test)["accuracy"],
            }
        wq.finalize()
        self._reestimate(network)
        policy.save(self.folder.policy)
        save_weights(self.folder.weights, network.state_dict())
        reference = self._frozen(float_weights)
        accuracies = {
            "float_validation_accuracy": measure(reference, validation)["accuracy"],
            "validation_accuracy": measure(network, validation)["accuracy"],
            "float_test_accuracy": measure(reference, test)["accuracy"],
            "test_accuracy": measure(network, test)["accuracy"],
        }
        rounded = {}
        if self.config.forward == "float":
            c = self.config
            round_once(reference, dict(policy), skip=policy.skipped, quantizer=c.quantizer, granularity=c.granularity)
            self._reestimate(reference)
            rounded = {
                "rounded_once_validation_accuracy": measure(reference, validation)["accuracy"],
                "rounded_once_test_accuracy": measure(reference, test)["accuracy"],
            }
        warnings = doubts.left(accuracies, images=len(self.dataset.validation))
        for warning in warnings:
            if warning not in doubts.anyway:
                self.say(f"warning: {warning}")
        self.folder.finish(
            {
                "bits": dict(policy),
                "input_bits": dict(policy.activation_bits),
                "mean_bits": policy.mean_bits,
                **accuracies,
                **unrounded,
                **rounded,
                **self._parts(),
                "forecast": forecast,
                "warnings": warnings,
            }
        )

    def _reestimate(self, network: nn.Module) -> None:
        """Batch norm's statistics for the rounded weights; whole batches, whatever the number of processes."""
        c = self.config
        if not c.reestimate_bn:
            return
        from waveq.method.batch_norm import reestimate_batch_norm

        loader = make_loader(c, self.dataset, "batch norm", ALONE)
        epochs = itertools.chain.from_iterable(itertools.repeat(loader))
        dtype = next(network.parameters()).dtype
        reestimate_batch_norm(network, (x.to(dtype) for x, _ in itertools.islice(epochs, c.reestimate_bn)))


def _load_into(network: nn.Module, path: Path) -> None:
    try:
        network.load_state_dict(load_weights(path))
    except RuntimeError as error:
        reason = str(error).replace("\n\t", " ")
        raise ValueError(f"{path}: its weights do not fit this network. {reason}") from None


def _meet() -> None:
    """Wait for the other processes, where there are some."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
