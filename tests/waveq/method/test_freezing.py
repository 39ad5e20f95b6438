"""Progressive freezing: the weights nearest to their levels are put there and stay, in the end all."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from tests.ranks import in_two_ranks
from tests.training import OPTIMIZERS, FunctionalNet, batches, mlp, train
from waveq.method.freezing import freeze_nearest
from waveq.method.parametrization import parametrization_of
from waveq.method.round_once import round_once
from waveq.method.schedules import freezing_course
from waveq.method.settings import WaveLayer


def weight_of(model: nn.Module, name: str = "0") -> Tensor:
    return model.get_submodule(name).parametrizations.weight.original  # type: ignore[union-attr, return-value]


def stays(model: nn.Module, name: str = "0") -> Tensor:
    return parametrization_of(model.get_submodule(name)).frozen.stays.bool()  # type: ignore[union-attr]


def attached(steps: int = 60, **options: Any) -> tuple[nn.Sequential, waveq.WaveQ]:
    model = mlp()
    return model, waveq.attach(model, forward="float", total_steps=steps, **{"bits": 3, "lambda_w": 0.0, **options})


def require_unchanged_by_finalize(model: nn.Module, wq: waveq.WaveQ, x: Tensor) -> None:
    before = {name: weight_of(model, name).detach().clone() for name in wq.names}
    shown = model(x)
    wq.finalize()
    for name, weight in before.items():
        assert torch.equal(model.get_submodule(name).weight, weight), name  # type: ignore[arg-type]
    assert torch.equal(model(x), shown)


# ---------------------------------------------------------------------- the course


@pytest.mark.parametrize("exponent", [0.25, 0.5, 1.0, 3.0])
def test_the_course_is_the_formula(exponent: float) -> None:
    course = freezing_course(2000, exponent=exponent)
    shares = [course.share(step) for step in range(2001)]
    for step in range(200, 1900):
        assert shares[step] == pytest.approx(((step / 2000 - 0.1) / 0.85) ** exponent)
    assert shares[:201] == [0.0] * 201
    assert shares[1900:] == [1.0] * 101
    assert shares == sorted(shares)
    due = [step for step in range(2001) if course.is_due(step)]
    assert due[0] > 200
    assert due[-1] == course.end == 1900
    assert 80 <= len(due) <= 100


@pytest.mark.parametrize("steps", [*range(1, 40), 99, 101, 1001])
@pytest.mark.parametrize("fall", [None, 0.35, 0.75, 1.0])
def test_every_run_ends_with_all_weights_frozen(steps: int, fall: float | None) -> None:
    course = freezing_course(steps, exponent=0.5, fall=None if fall is None else round(fall * steps))
    due = [step for step in range(1, steps + 1) if step > course.begin and course.is_due(step)]
    assert course.share(due[-1]) == 1.0


# ---------------------------------------------------------------------- what freezes


def test_freezing_has_no_wave_unless_one_is_asked_for() -> None:
    def strengths(**options: Any) -> list[float]:
        schedule = waveq.attach(
            mlp(), **{"bits": 3, "forward": "float", "total_steps": 10, **options}
        ).settings.schedule
        return [schedule(step)[0] for step in (0, 5, 10)]

    assert strengths() == [0.0] * 3
    assert strengths(freezing="off") == pytest.approx([0.001, 0.1, 10.0])
    assert strengths(lambda_w=0.1) == pytest.approx([0.001, 0.01, 0.1])
    assert strengths(lambda_w=0.1, schedule="constant") == [0.1] * 3


def test_the_nearest_freeze_first_and_equally_near_ones_together() -> None:
    model = nn.Sequential(nn.Linear(8, 1, bias=False))
    wq = waveq.attach(model, bits=2, quantizer="wrpn", forward="float", total_steps=10)
    with torch.no_grad():
        weight_of(model).copy_(torch.tensor([[1.0, 0.9, -0.2, 0.375, -0.375, 0.1, -0.75, 0.05]]))
    layer = WaveLayer("0", (model[0],), parametrization_of(model[0]))
    for share, frozen in ((0.3, [0, 5, 7]), (0.2, [0, 5, 7]), (0.4, [0, 1, 5, 7]), (0.6, [0, 1, 2, 5, 7])):
        freeze_nearest(layer, share)
        assert stays(model).flatten().nonzero().flatten().tolist() == frozen
    freeze_nearest(layer, 0.8)
    assert stays(model).all(), "the seventh of eight is as far as the eighth"
    assert weight_of(model).tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0]]
    assert wq.frozen_weights() == {"0": 1.0}


@pytest.mark.slow
def test_the_share_follows_the_course_and_the_range_rests() -> None:
    model, wq = attached(120)
    course = wq.settings.freezing
    assert course is not None
    optimizer, before = OPTIMIZERS["sgd"](model.parameters()), {}
    for batch in batches(120):
        train(model, wq, optimizer, [batch])
        for name, share in wq.frozen_weights().items():
            least = course.share(wq.steps - (wq.steps - course.begin) % course.every)
            assert least - 1e-6 <= share, "ties may bring more"
            mask, weight = stays(model, name), weight_of(model, name).detach()
            if name in before:
                old_mask, old = before[name]
                assert mask[old_mask].all()
                assert torch.equal(weight[old_mask], old[old_mask]), "what is frozen stays, to the last bit"
            before[name] = mask.clone(), weight.clone()
    assert wq.on_levels(1e-6) == dict.fromkeys(wq.names, 1.0)


def test_a_layer_of_zeros_waits_for_the_end() -> None:
    model = mlp()
    nn.init.zeros_(model[4].weight)
    wq = waveq.attach(model, bits=3, forward="float", total_steps=40)
    layer = WaveLayer("4", (model[4],), parametrization_of(model[4]))
    freeze_nearest(layer, 0.5)
    assert wq.frozen_weights()["4"] == 0.0
    freeze_nearest(layer, 1.0)
    assert wq.frozen_weights()["4"] == 1.0


# ---------------------------------------------------------------------- exact at the end


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["midrise", "wrpn"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 9])
def test_finalize_changes_nothing(quantizer: str, bits: int) -> None:
    model, wq = attached(quantizer=quantizer, bits=bits)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(60))
    require_unchanged_by_finalize(model, wq, batches(1)[0][0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"scale": "none"},
        {"fit_range": False},
        {"freezing": 2.0, "lambda_w": None},
        {"bits": "learn"},
        {"bits": "learn", "lambda_w": None, "target": {"mean_bits": 3.0}},
        {"activation_bits": 3},
        {"bits": {"0": 1, "2": 5, "4": 2}},
        {"granularity": "channel", "bits": 1},
        {"granularity": "channel", "bits": 2, "lambda_w": None},
        {"granularity": "channel", "bits": "learn", "quantizer": "wrpn"},
    ],
    ids=str,
)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_whatever_the_options(options: dict[str, Any], optimizer: str) -> None:
    model, wq = attached(**options)
    assert "Rounded as they are, the weights would change by" in wq.forecast()
    train(model, wq, OPTIMIZERS[optimizer](model.parameters()), batches(60))
    assert wq.diagnose() == [] or "bits" in options
    require_unchanged_by_finalize(model, wq, batches(1)[0][0])


def test_layers_that_are_used_twice_and_convolutions() -> None:
    model = FunctionalNet()
    wq = waveq.attach(model, bits=2, forward="float", total_steps=12)
    train(model, wq, OPTIMIZERS["adam"](model.parameters()), batches(12, size=4, shape=(3, 6, 6)))  # type: ignore[arg-type]
    require_unchanged_by_finalize(model, wq, batches(1, size=4, shape=(3, 6, 6))[0][0])


def test_stacked_experts_freeze_on_their_own_levels() -> None:
    model = nn.Module()
    model.experts = nn.Parameter(torch.randn(3, 4, 4) * torch.tensor([1.0, 10.0, 0.1])[:, None, None])
    wq = waveq.attach(model, bits=3, also=["experts"], forward="float", total_steps=10)
    original: Any = next(iter(model.parameters()))
    optimizer = torch.optim.SGD([original], lr=0.05)
    for _ in range(10):
        (model.experts.square().mean() + wq.penalty()).backward()
        optimizer.step(), optimizer.zero_grad(), wq.step()
    before = original.detach().clone()
    wq.finalize()
    assert torch.equal(model.experts, before)


def test_closures_and_several_moves_a_step() -> None:
    """LBFGS evaluates the network at places where frozen weights have moved; after its step they are back."""
    model, wq = attached(20)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    for x, y in batches(20):

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y) + wq.penalty()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        mask, held = stays(model).clone(), weight_of(model).detach().clone()
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        wq.step()
        assert torch.equal(weight_of(model)[mask], held[mask])
    require_unchanged_by_finalize(model, wq, batches(1)[0][0])


def test_a_cast_on_the_way() -> None:
    model, wq = attached(20, bits=2)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(10))
    model.bfloat16()
    data = [(x.bfloat16(), y) for x, y in batches(10)]
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), data)
    require_unchanged_by_finalize(model, wq, data[0][0])


def test_float64_is_on_levels_up_to_the_rounding_of_float32() -> None:
    """Levels are spaced in float32: their distance, times their number, is not the range to the last bit of float64."""
    model, wq = attached(20)
    model.double()
    data = [(x.double(), y) for x, y in batches(20)]
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), data)
    before = weight_of(model).detach().clone()
    wq.finalize()
    torch.testing.assert_close(model[0].weight, before, rtol=1e-7, atol=0.0)


def test_a_step_that_a_scaler_skips_freezes_all_the_same() -> None:
    model, wq = attached(10)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for x, y in batches(10):
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + wq.penalty()).backward()
        wq.step(grad_scale=2.0**16)  # the optimizer has not stepped
    assert wq.frozen_weights() == dict.fromkeys(wq.names, 1.0)


# ---------------------------------------------------------------------- learned bits


@pytest.mark.slow
def test_freezing_waits_for_learned_bits() -> None:
    model, wq = attached(100, bits="learn")
    course, fall = wq.settings.freezing, wq.settings.schedule.fall
    assert course is not None
    assert course.begin == wq.settings.bounds_from == fall == 35
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for batch in batches(100):
        train(model, wq, optimizer, [batch])
        assert (max(wq.frozen_weights().values()) > 0.0) is (wq.steps > 35)
    assert not wq.learning


@pytest.mark.slow
def test_a_search_is_rewound_and_the_run_that_follows_freezes_from_its_tenth_on() -> None:
    model = mlp()
    start = copy.deepcopy(model.state_dict())
    search = waveq.attach(model, forward="float", schedule="search", target={"mean_bits": 3.0}, total_steps=40)
    train(model, search, OPTIMIZERS["sgd"](model.parameters()), batches(40))
    wq = waveq.rewind(search, start, total_steps=60)
    assert wq.settings.freezing == freezing_course(60, exponent=0.5)
    assert wq.settings.quantizer == "midrise"
    assert wq.frozen_weights() == dict.fromkeys(wq.names, 0.0)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(60))
    assert wq.bits() == search.bits()
    require_unchanged_by_finalize(model, wq, batches(1)[0][0])


# ---------------------------------------------------------------------- copies, checkpoints, ranks


def test_averaged_copies_are_finished_on_the_runs_grid() -> None:
    model, wq = attached(30)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for batch in batches(30):
        train(model, wq, optimizer, [batch])
        averaged.update_parameters(model)
    wq.finalize_copy(averaged)
    for name, bits in wq.bits().items():
        assert averaged.module.get_submodule(name).weight.unique().numel() <= 2**bits  # type: ignore[union-attr, operator]
    assert wq.frozen_weights() == dict.fromkeys(wq.names, 1.0)
    assert not list(averaged.module.buffers())


def test_a_copy_of_model_and_handle_goes_on_alike() -> None:
    model, wq = attached(20)
    train(model, wq, OPTIMIZERS["adam"](model.parameters()), batches(10))
    twin, handle = copy.deepcopy((model, wq))
    for net, its in ((model, wq), (twin, handle)):
        train(net, its, OPTIMIZERS["adam"](net.parameters()), batches(10, seed=3))
    assert all(torch.equal(weight_of(model, name), weight_of(twin, name)) for name in wq.names)
    assert handle.frozen_weights() == dict.fromkeys(wq.names, 1.0)


def test_checkpoints_hold_one_number_a_weight_more_and_older_ones_load() -> None:
    model, wq = attached(20)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(12))
    state = model.state_dict()
    masks = {key: value for key, value in state.items() if key.endswith("frozen.stays")}
    assert {value.dtype for value in masks.values()} == {torch.int8}
    assert not [key for key in state if key.endswith("frozen.levels")]
    fresh, other = attached(20)
    fresh.load_state_dict({key: value for key, value in state.items() if key not in masks})
    assert other.frozen_weights() == dict.fromkeys(wq.names, 0.0)
    plain = mlp().state_dict()
    model.load_state_dict(plain)  # a float checkpoint: new weights, and those that are frozen stay so
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(8))
    require_unchanged_by_finalize(model, wq, batches(1)[0][0])


def _rank(rank: int, folder: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 1, bias=False))
    waveq.attach(model, bits=2, forward="float", total_steps=10)
    with torch.no_grad():
        weight_of(model).copy_(torch.linspace(-1.0, 1.0, 64)[None])
        if rank:  # as if another kernel had summed in another order
            weight_of(model)[0, 20] += 1e-7
    freeze_nearest(WaveLayer("0", (model[0],), parametrization_of(model[0])), 0.4)
    both = [torch.empty(1, 64, dtype=torch.int8) for _ in range(2)]
    dist.all_gather(both, stays(model).to(torch.int8))
    assert torch.equal(*both)


@pytest.mark.slow
def test_ranks_agree(tmp_path: Path) -> None:
    in_two_ranks(_rank, tmp_path)


# ---------------------------------------------------------------------- what is said, and bad input


def test_the_forecast_says_what_rounding_would_cost_and_when_they_freeze() -> None:
    model = nn.Sequential(nn.Linear(30_000, 1, bias=False))
    with torch.no_grad():
        weight_of_normal = torch.special.ndtri((torch.arange(30_000, dtype=torch.float64) + 0.5) / 30_000)
        model[0].weight.copy_(weight_of_normal[None])
    wq = waveq.attach(model, bits=2, forward="float", total_steps=1000)
    text = wq.forecast()
    # the best four evenly spaced levels leave 0.1188 of a normal distribution's variance (Max 1960, table II)
    assert f"would change by {100 * 0.1188**0.5:.1f} % of their length (most in 0, " in text
    assert "From step 100 on they freeze on their levels: half of them by 313, all by 950." in text
    assert "freeze" not in waveq.attach(mlp(), bits=3, forward="float", freezing="off", total_steps=9).forecast()
    assert "would change" not in waveq.attach(mlp(), bits=3).forecast()


def test_a_run_that_stops_early_is_told() -> None:
    model, wq = attached(100, bits=4)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(20))
    (loose,) = wq.diagnose()
    assert "Train to the end of total_steps, by when freezing has put all on their levels" in loose


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_rounding_once_is_the_quantizer_on_the_fitted_range(granularity: Any) -> None:
    model, road = mlp(), mlp()
    round_once(model, {"0": 2, "4": 3}, skip=["2"], granularity=granularity)
    wq = waveq.attach(
        road, bits={"0": 2, "4": 3}, skip=["2"], forward="float", granularity=granularity, lambda_w=0.0, total_steps=20
    )
    wq.step()  # the range is fitted
    wq.finalize()
    for name in "0", "2", "4":
        assert torch.equal(model.get_submodule(name).weight, road.get_submodule(name).weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"forward": "quantized", "freezing": 0.5}, r"freezing=0\.5 is for forward='float'"),
        (
            {"quantizer": "dorefa"},
            r"cannot freeze .* 'dorefa': they lie in tanh\(w\).*'midrise' or 'wrpn', or freezing='off'",
        ),
        (
            {"preset": "paper", "freezing": 0.5, "bits": "learn"},
            "preset 'paper' keeps the stretched grid of learned bits",
        ),
        ({"freezing": -1}, 'freezing must be "off" or an exponent above 0'),
    ],
)
def test_what_cannot_freeze_is_refused(options: dict[str, Any], complaint: str) -> None:
    model = mlp()
    with pytest.raises(ValueError, match=complaint):
        waveq.attach(model, **{"bits": 3, "forward": "float", "total_steps": 10, **options})
    assert not hasattr(model[0], "parametrizations")


def test_who_freezes_and_who_does_not() -> None:
    def course(**options: Any) -> Any:
        return waveq.attach(mlp(), **{"bits": 3, "forward": "float", "total_steps": 10, **options}).settings.freezing

    assert course().exponent == 0.5
    assert course(freezing=2).exponent == 2.0
    assert course(preset="paper", freezing=0.5).exponent == 0.5
    nobody: list[Callable[[], Any]] = [
        lambda: course(freezing="off"),
        lambda: course(forward="quantized"),
        lambda: course(preset="paper"),
        lambda: course(quantizer="dorefa", freezing="off"),
    ]
    assert [each() for each in nobody] == [None] * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert waveq.attach(mlp(), bits=3).frozen_weights() == {}
