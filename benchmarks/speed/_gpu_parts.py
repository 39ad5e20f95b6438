"""What ``python -m benchmarks gpu`` does, the most wanted first, and the same in sizes that a CPU does in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.speed.step import COMPILED, FUSED, NAIVE, PLAIN

__all__ = ["FULL", "REHEARSAL", "Part"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One call of ``python -m benchmarks``.

    Attributes:
        name: what it is called, one word.
        words: the call, without what all parts are told (device, files).
        least: seconds below which it is not begun.
        limit: seconds after which it is stopped; None for an experiment, which stops by itself.
        share: an experiment's, of the seconds that are left when its turn comes.
        dataset: what it cannot do without; empty where it reads none.
        starts: whether it starts from a file of float weights for SimpleNet-5 (``--init``).
    """

    name: str
    words: tuple[str, ...]
    least: float
    limit: float | None = None
    share: float = 1.0
    dataset: str = ""
    starts: bool = False

    @property
    def experiment(self) -> bool:
        """Whether it trains: resumable by itself, its table in a folder."""
        return self.limit is None


_LEAST = {"depthwise": 90.0, "simplenet5": 90.0, "resnet20": 180.0}
"""Seconds in which float networks and a first training come to their end; of one that was killed nothing is kept."""


def _step(network: str, *, limit: float, compiling: float) -> list[Part]:
    """One network beside the peers; then the forms that need long to be compiled, which may cost nobody else's row."""
    call = ("step", "--networks", network, "--rounds", "15", "--methods")
    others = ("dorefa", FUSED, "dorefa+wave by channel", "lsq", "lsq+wave", NAIVE, "brevitas", "torchao")
    rivals = (PLAIN, FUSED, NAIVE, *COMPILED)
    return [
        Part(name=f"step_{network}", words=(*call, *others), least=15, limit=limit),
        Part(name=f"compiled_{network}", words=(*call, *rivals), least=25, limit=compiling),
    ]


def _claim(name: str, dataset: str, network: str, objective: str, share: float, *more: str) -> Part:
    words = ("claim", "--name", name, "--datasets", dataset, "--networks", network, "--objectives", objective)
    methods = ("--draws", "3", "--methods", "hawq", "refined, hawq", "rewound, near", "random", "rewound")
    least = _LEAST[network]
    return Part(name=name, words=(*words, *methods, *more), least=least, share=share, dataset=dataset)


def _grid(name: str, network: str, share: float, *more: str) -> Part:
    words = ("default_grid", "--name", name, "--networks", network, *more)
    starts = network == "simplenet5"
    return Part(name=name, words=words, least=_LEAST[network], share=share, dataset="cifar10", starts=starts)


FULL: tuple[Part, ...] = (
    Part(name="alike", words=("alike",), least=20, limit=150),
    *_step("resnet18", limit=60, compiling=120),
    *_step("simplenet5", limit=45, compiling=60),
    Part(name="penalty", words=("penalty", "--sizes", "100000", "1000000", "11000000"), least=20, limit=75),
    *_step("resnet20", limit=45, compiling=120),
    *_step("mobilenet_v2", limit=60, compiling=180),
    Part(name="penalty_large", words=("penalty", "--sizes", "100000000"), least=20, limit=150),
    # what docs/experiments.md has no figures of, or too few
    _claim("claim_resnet20", "cifar10", "resnet20", "macs", 0.5, "--limits", "0.85"),
    _claim("claim_cycles", "cifar10", "depthwise", "cycles", 0.4),
    _claim("claim_fashion", "fashion-mnist", "depthwise", "energy_pj", 0.4, "--limits", "0.9"),
    _claim("claim_macs", "cifar10", "depthwise", "macs", 0.4),
    _grid("default_grid_simplenet5", "simplenet5", 0.4),
    _grid("default_grid_resnet20", "resnet20", 0.5, "--epochs", "2"),
    Part(
        name="table2_simplenet5",
        words=("table2_simplenet5", "--epochs", "1", "4", "20", "--epochs-others", "4"),
        least=_LEAST["simplenet5"],
        dataset="cifar10",
        starts=True,
    ),
)

_DIGITS = ("claim", "--name", "claim_digits", "--datasets", "digits", "--networks", "digitsnet", "--seeds", "0")
_TINY_STEP = ("step", "--networks", "simplenet5", "--batch", "2", "--rounds", "2", "--threads", "1", "--methods")
REHEARSAL: tuple[Part, ...] = (
    Part(name="alike", words=("alike", "--methods", "ttq"), least=1, limit=120),
    Part(
        name="compiled_simplenet5",
        words=(*_TINY_STEP, PLAIN, FUSED, NAIVE, *COMPILED, "brevitas", "torchao"),
        least=1,
        limit=300,
    ),
    Part(name="penalty", words=("penalty", "--sizes", "10000", "--rounds", "2", "--threads", "1"), least=1, limit=120),
    Part(name="claim_digits", words=(*_DIGITS, "--methods", "hawq", "--limits", "0.95"), least=1, dataset="digits"),
)
"""Each kind of part once."""
