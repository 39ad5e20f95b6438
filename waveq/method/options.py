"""The options of the method, each with its default, its text and its check: what ``attach`` takes, in one record.

The training config and the command line offer the same options under the same names; ``option_names`` holds them to
that. No torch here, because both are read without it.
"""

from __future__ import annotations

import inspect
import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from waveq._names import check_choice, nearest
from waveq.method.schedules import check_total_steps

if TYPE_CHECKING:
    from waveq.functional import ScaleRule
    from waveq.method.budget import LayerCosts
    from waveq.method.schedules import Profile
    from waveq.quantizers import Quantizer
    from waveq.quantizers.base import Granularity, ScaleMode

__all__ = [
    "Bits",
    "Forward",
    "InputBitsOption",
    "Method",
    "option_help",
    "option_names",
    "takes_options",
    "usual_quantizer",
    "written_options",
]

Bits = Literal["learn"] | int | Mapping[str, int]
Forward = Literal["quantized", "float"]
InputBitsOption = Literal["learn"] | int | Mapping[str, Literal["learn"] | int] | None
_Check = Callable[[str, Any], Any]  # name and value to the value that is kept
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _told(text: str, more: str = "", check: _Check | None = None) -> dict[str, Any]:
    """What is said of a field of ``Method``.

    Args:
        text: one sentence, for the command line too.
        more: what users of ``attach`` should know beyond that.
        check: refuses values that are wrong whatever the other options are; not asked about a None that is the default.
    """
    return {"text": text, "more": more, "check": check}


def _steps(_name: str, value: Any) -> int:
    return check_total_steps(value)


def _strength(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number >= 0, not {value!r}")
    return float(value)


def _start(name: str, value: Any) -> Any:
    for each in value.values() if isinstance(value, Mapping) else (value,):
        if isinstance(each, bool) or not isinstance(each, int | float) or not math.isfinite(each):
            raise ValueError(f"{name} must be a number of total bits or a mapping of layers to them, not {value!r}")
    return value


def _forward(name: str, value: Any) -> Any:
    known = get_args(Forward)
    if value not in known:
        raise ValueError(f'{name} must be "quantized" or "float", not {value!r}{nearest(str(value), known)}')
    return value


def _granularity(name: str, value: Any) -> Any:
    check_choice(name, value, ("layer", "channel"))
    return value


def _exponent(name: str, value: Any) -> Any:
    if value == "off":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < math.inf:
        raise ValueError(f'{name} must be "off" or an exponent above 0, such as 0.5, not {value!r}')
    return float(value)


def _signs(name: str, value: Any) -> Any:
    for each in value.values() if isinstance(value, Mapping) else (value,):
        if not isinstance(each, bool):
            raise ValueError(f"{name} must be True, False or a mapping of layers to them, not {value!r}")
    return value


def _scale_rule(name: str, value: Any) -> Any:
    from waveq.functional import ScaleRule  # torch

    if value not in get_args(ScaleRule):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(ScaleRule)))}, not {value!r}")
    return value


@dataclass(frozen=True, kw_only=True)
class Method:
    """Everything that users may say about the method; what follows from it together is for ``arguments`` to find.

    The texts of the fields are those of ``attach``'s arguments.

    Raises:
        ValueError: a value that is wrong by itself.

    Example:
        >>> Method(bits=4).forward
        'quantized'
        >>> Method(lambda_w=-1.0)
        Traceback (most recent call last):
        ValueError: lambda_w must be a finite number >= 0, not -1.0
    """

    quantizer: Quantizer | None = field(
        default=None,
        metadata=_told(
            "Weight quantiser.",
            "A name of ``waveq.quantizers.quantizer_names()``; a class derived from "
            "``waveq.quantizers.WeightQuantizer``; or an instance without parameters and buffers, of which each layer "
            "gets a copy. None is the one that a Policy given as ``bits`` was made "
            'with, else "lsq"; in presets paper and released "dorefa"; on the float road "midrise".',
        ),
    )
    bits: Bits = field(
        default="learn",
        metadata=_told(
            '"learn"; one number of total bits (1 to 9, sign included) for all layers; or a mapping or Policy that '
            "names every layer that is not skipped.",
        ),
    )
    skip: Iterable[str] = field(
        default=(), metadata=_told('Layers left in floating point: exact names or patterns ("layer1.*").')
    )
    also: Iterable[str] = field(
        default=(),
        metadata=_told(
            "Weights to quantise beyond the usual ones: embeddings, stacked experts; names or patterns.",
            "An embedding goes by its module's name, any other parameter by its own. Of a parameter with three axes "
            "and more each slice along the first one (an expert) gets levels of its own, and all have the same bits.",
        ),
    )
    total_steps: int | None = field(
        default=None,
        metadata=_told("Optimiser steps of the whole run; needed wherever a schedule depends on it.", check=_steps),
    )
    preset: str = field(
        default="recommended",
        metadata=_told("recommended, paper or released.", "None in any option means what the preset says."),
    )
    schedule: str | Profile | None = field(
        default=None,
        metadata=_told(
            "three-phase, search, constant, exponential or rising.",
            '"three-phase" is the default when learning, "constant" for preset bits, "rising" on the float road of '
            'preset "recommended". "search" is three-phase up to where the bits freeze, for a run that is rewound then '
            "(``waveq.rewind``). Or a callable from step to (lambda_w, lambda_beta); a "
            "``waveq.schedules.Schedule`` brings its own phases.",
        ),
    )
    scale: ScaleMode | None = field(
        default=None,
        metadata=_told(
            "Scale of the levels: none, max or learned.",
            'Methods that learn their own levels (LSQ, LQ-Nets, DSQ, TTQ) have "learned" alone and take it by '
            "themselves.",
        ),
    )
    granularity: Granularity | None = field(
        default=None,
        metadata=_told(
            "What has a scale of its own: layer, or channel (each output channel).",
            'Methods DoReFa, WRPN and LSQ have "channel", with scale max or learned; a layer keeps one number of bits. '
            'None is the one that a Policy given as ``bits`` was made with, else "layer".',
            check=_granularity,
        ),
    )
    forward: Forward = field(
        default="quantized",
        metadata=_told(
            "quantized; or float: no quantiser in the forward pass, the weights freeze on their levels one by one.",
            '"float" is the float road: the weights of the forward pass stay in floating point until they are put on '
            "their levels (``freezing``), or are rounded once by ``finalize``. Only where the task loss moves beta "
            '(preset "recommended") phase 2 is quantised. Inputs, which have no wave, are quantised from the first '
            "step on. ``with wq.rounded():`` shows the rounded network meanwhile.",
            check=_forward,
        ),
    )
    fit_range: bool | None = field(
        default=None,
        metadata=_told(
            "Whether levels of scale max get the range at which rounding moves the weights least.",
            "The range is chosen once, by squared error, and the weights are clipped to it from then on, instead of "
            "the levels following the largest weight. On the float road that is the default; on the other one the "
            "default is not to.",
        ),
    )
    freezing: float | Literal["off"] | None = field(
        default=None,
        metadata=_told(
            "Float road: exponent of the course by which weights freeze on their levels; or off.",
            "The weights nearest to their levels are put there and stay: a share of ((t - 0.1)/0.85)^freezing of each "
            "layer's at t of the run, with learned bits from when these are fixed; all of them at 95 %, so that "
            '``finalize`` changes nothing. The smaller the exponent, the earlier. "off" rounds once, at the end.',
            check=_exponent,
        ),
    )
    first_last: int | None = field(
        default=None,
        metadata=_told("Fixed bits of the first and last layer.", "Total bits; those two are then not learned."),
    )
    activation_bits: InputBitsOption = field(
        default=None,
        metadata=_told(
            'Bits of the layers\' inputs: 1 to 8, or "learn".',
            'One number or "learn" for all but the network\'s first layer, or a mapping by layer name. Learned ones '
            "have a beta of their own, which the task loss and the price move as those of weights (preset "
            '"recommended"); inputs have no wave. A layer whose '
            "inputs hold negative values gets a signed grid. A ReLU in an ``nn.Sequential`` before a layer with an "
            'unsigned one of method "range", "dorefa" or "pact" is left out; ``wq.relus_left_out`` says which.',
        ),
    )
    activation_quantizer: str | None = field(
        default=None,
        metadata=_told(
            "Quantiser of the layers' inputs.",
            "See ``waveq.quantizers.activation_quantizer_names()``; None takes the one that the weight quantiser was "
            'published with, but where that is DoReFa\'s fixed range, [0, 1], preset "recommended" takes "range", the '
            "same levels over a range from the first batches (or ``waveq.calibrate``). What it learns is in "
            "``model.parameters()``.",
        ),
    )
    activation_signed: bool | Mapping[str, bool] | None = field(
        default=None,
        metadata=_told(
            "Whether the layers' inputs have a sign.",
            "True, False, or a mapping by layer name; None looks at the first batch, and a negative value that comes "
            "later gives a layer the signed grid with a warning.",
            check=_signs,
        ),
    )
    lambda_w: float | None = field(default=None, metadata=_told("Strength of the wave.", check=_strength))
    lambda_beta: float | None = field(default=None, metadata=_told("Price of a bit.", check=_strength))
    target: Mapping[str, float] | None = field(
        default=None,
        metadata=_told(
            'A budget of learned bits instead of a price: {"mean_bits": 3.85}, or a share of the 8-bit cost, '
            '{"bitops": 0.3} or {"energy_pj": 0.4}.',
            '"bitops" is multiplications x weight bits x input bits, against 8 bits for both; inputs in floating point '
            "count as 16 bits. The multiplications are counted in the first step where ``layer_costs`` does not say "
            "them.",
        ),
    )
    layer_costs: LayerCosts | None = field(
        default=None,
        metadata=_told(
            "What a bit costs in each layer: a number, or cost by total bits.",
            "A target that is a share needs the latter; where bits of inputs are learned too, the cost by total bits "
            'of the weight and then by bits of the input, ``{"conv1": {2: {2: 10.0, ...}, ...}}``, in which 16 stands '
            'for floating point. For the target "bitops" a number, the layer\'s multiplications.',
        ),
    )
    start_bits: Mapping[str, float] | float | None = field(
        default=None,
        metadata=_told(
            "Where learned bits begin: total bits of all layers, or by layer; by default the most there are.",
            "Real or whole: the bits that would cost the budget if all layers had them, or another method's policy, "
            "which the gradient then refines (a Policy brings those of inputs, a number is for inputs too; what a "
            "mapping does not name begins with the most). Bits then move by a few at most, and slower.",
            check=_start,
        ),
    )
    beta_lr: float | None = field(default=None, metadata=_told("Rate of beta's own SGD.", check=_strength))
    scale_rule: ScaleRule = field(
        default="exact",
        metadata=_told(
            'The form of c(beta): "exact", or the printed "2^(b/beta)" and "2^(b-beta)".', check=_scale_rule
        ),
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value, check = getattr(self, option.name), option.metadata["check"]
            if check is not None and not (value is None and option.default is None):
                object.__setattr__(self, option.name, check(option.name, value))

    def with_policy(self, policy: Mapping[str, int], total_steps: int | None, **changes: Any) -> Method:
        """The same method with the bits that it has learned: what drove them is left out, all else stays.

        Args:
            policy: a Policy; it brings the bits of the inputs too.
            total_steps: of the run with these bits.
            changes: options that shall differ all the same.

        Raises:
            ValueError: an unknown option among the changes, or a value that is wrong by itself.

        Example:
            >>> Method(quantizer="wrpn", lambda_beta=0.1).with_policy({"fc": 3}, None)
            Method(quantizer='wrpn', bits={'fc': 3}, ..., lambda_beta=None, ...)
        """
        for name in changes:
            if name not in _OPTIONS:
                raise ValueError(f"{name!r} is no option of attach(){nearest(name, _OPTIONS)}")
        drivers = {"activation_bits": None, "lambda_beta": None, "start_bits": None, "target": None}
        if self.schedule == "search":
            drivers["schedule"] = None
        return replace(self, **{**drivers, "bits": policy, "total_steps": total_steps, **changes})


_OPTIONS = {option.name: option for option in fields(Method)}


def usual_quantizer(preset: str, forward: Forward = "quantized") -> str:
    """The weight quantiser where nobody names one.

    Presets "paper" and "released" take what they reproduce, "recommended" the grid that has a zero and was nowhere
    worse ("Which grid the defaults should have", docs/experiments.md). The float road gives a learned step no gradient:
    it takes DoReFa's grid without its tanh, which would not let weights stay on their levels.

    Example:
        >>> usual_quantizer("recommended"), usual_quantizer("paper"), usual_quantizer("paper", "float")
        ('lsq', 'dorefa', 'midrise')
    """
    if forward == "float":
        return "midrise"
    return "dorefa" if preset in ("paper", "released") else "lsq"


def option_help(name: str) -> str:
    """The sentence that says what an option is.

    Raises:
        KeyError: there is no such option.

    Example:
        >>> option_help("lambda_beta")
        'Price of a bit.'
    """
    text: str = _OPTIONS[name].metadata["text"]
    return text


def option_names(where: str, offered: Collection[str], *, instead: Mapping[str, str]) -> tuple[str, ...]:
    """The options that a place offers, once it is sure that it offers all but those that something else stands for.

    Args:
        where: the place, for the error.
        offered: the names that it has, among others.
        instead: what stands there for options that it does not offer.

    Raises:
        TypeError: names an option that is missing there, or an exception that is none.

    Example:
        >>> option_names("here", ["bits", "lr"], instead=dict.fromkeys(set(_OPTIONS) - {"bits", "skip"}, ""))
        Traceback (most recent call last):
        TypeError: here lacks the option 'skip' of waveq.method.options.Method
    """
    for name in _OPTIONS:
        if name not in offered and name not in instead:
            raise TypeError(f"{where} lacks the option {name!r} of waveq.method.options.Method")
    for name in instead:
        if name in offered or name not in _OPTIONS:
            raise TypeError(f"{where} makes an exception of {name!r}, which it offers or which is no option of Method")
    return tuple(name for name in _OPTIONS if name in offered)


def takes_options(function: _Function) -> _Function:
    """Hold a function's keywords to the record's names and defaults, and write their texts where it says ``OPTIONS``.

    Raises:
        TypeError: names a keyword that is missing, strange, or has another default.
    """
    keywords = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    option_names(f"{function.__name__}()", keywords, instead={})
    for name, default in keywords.items():
        if name not in _OPTIONS or _OPTIONS[name].default != default:
            raise TypeError(f"{function.__name__}({name}={default!r}) is no option of Method, or has another default")
    if function.__doc__ is not None:  # python -OO leaves none
        function.__doc__ = written_options(function.__doc__, indent=8)
    return function


def written_options(docstring: str, *, indent: int) -> str:
    """A docstring with all options where it has a line ``OPTIONS``, ``indent`` spaces deep.

    Example:
        >>> print(written_options("Args:\\n    OPTIONS", indent=4).splitlines()[1][:14])
            quantizer:
    """
    return docstring.replace(" " * indent + "OPTIONS", "\n".join(_argument(name, indent) for name in _OPTIONS))


def _argument(name: str, indent: int) -> str:
    """An option as a docstring lists it."""
    told = _OPTIONS[name].metadata
    text = f"{name}: {told['text']} {told['more']}".rstrip()
    first, further = " " * indent, " " * (indent + 4)
    return textwrap.fill(text, 120, initial_indent=first, subsequent_indent=further, break_on_hyphens=False)
