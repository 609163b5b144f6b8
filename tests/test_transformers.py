"""Attached optimizers under Hugging Face's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from training_runs import Make, assert_same

import neon.torch
from neon.optimizers import LAMB, AdamW, GradientDescentMomentum, MultiOptimizer, Muon, Prodigy, RMSProp, ScheduleFree

pytest.importorskip("transformers", reason="transformers is not installed")
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIMIZERS: dict[str, Make] = {
    "one rule": lambda model: AdamW(learning_rate=0.01).attach(model),
    "many rules": lambda model: MultiOptimizer(
        {
            "default": AdamW(learning_rate=0.01),
            "Embedding": RMSProp(learning_rate=0.01),
            "classifier": GradientDescentMomentum(0.1, 0.9),
        },
        gradient_clip_norm=0.4,
    ).attach(model),
    "sums over tensors": lambda model: MultiOptimizer(
        {"default": Prodigy(d0=0.01), "Embedding": LAMB(), "classifier": Prodigy(d0=0.02, growth_rate=2.0)}
    ).attach(model),
    "hidden matrices": lambda model: MultiOptimizer(
        {"default": AdamW(learning_rate=0.01), "HiddenMatrix": Muon(learning_rate=0.02)}, gradient_clip_norm=0.4
    ).attach(model),
    "drop-in class": lambda model: neon.torch.AdamW(model.parameters(), lr=0.01),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)

STEPS = 6
EVERYTHING = {"max_grad_norm": 0.5, "gradient_accumulation_steps": 2, "warmup_steps": 2}


def model(dropout: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config)


def sentences() -> list[dict[str, torch.Tensor]]:
    """Words whose sum modulo 3 is the label."""
    words = torch.randint(32, (48, 6), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": line, "labels": line.sum() % 3} for line in words]


def trainer(
    network: nn.Module, directory: Path, options: dict[str, Any], kind: type[Trainer] = Trainer, **optimizer: Any
) -> Trainer:
    given = {"max_steps": STEPS, "per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no", **options}
    args = TrainingArguments(output_dir=str(directory), use_cpu=True, report_to="none", disable_tqdm=True, **given)
    made = kind(network, args, train_dataset=sentences(), **optimizer)
    made.remove_callback(PrinterCallback)
    return made


def schedule(optimizer: torch.optim.Optimizer) -> Any:
    return get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=STEPS)


@every_optimizer
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_the_trainer_equals_a_loop(make: Make, precision: torch.dtype, tmp_path: Path) -> None:
    network = model(dropout=0)
    optimizer = make(network)
    options = {**EVERYTHING, "train_sampling_strategy": "sequential", "bf16": precision == torch.bfloat16}
    trainer(network, tmp_path, options, optimizers=(optimizer, schedule(optimizer))).train()

    by_hand = model(dropout=0).train()
    expected = make(by_hand)
    scheduler = schedule(expected)
    for number, batch in enumerate(DataLoader(sentences(), batch_size=4), 1):
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = by_hand(**batch).loss
        loss.backward()  # not halved: the Trainer leaves that to the model, and this model does not do it
        if number % 2 == 0:
            nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
            expected.step()
            scheduler.step()
            expected.zero_grad()
    assert_same((network, optimizer), (by_hand, expected))


class Averaged(Trainer):
    """Evaluates with the averages of the weights, and saves while they stand there."""

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        with self.optimizer.optimizer.averaged():  # in accelerate's wrapper
            super()._maybe_log_save_evaluate(*args, **kwargs)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: AdamW(learning_rate=0.01, weight_average=0.5).attach(model),
        lambda model: neon.torch.AdamW(model.parameters(), lr=0.01, weight_average=0.5),
    ],
    ids=["attached", "drop-in class"],
)
def test_a_checkpoint_that_is_saved_in_an_evaluation_of_averages(make: Make, tmp_path: Path) -> None:
    def run(options: dict[str, Any], checkpoint: Path | None = None) -> tuple[nn.Module, torch.optim.Optimizer]:
        network = model()
        optimizer = make(network)
        given = {**EVERYTHING, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 3, **options}
        optimizers = (optimizer, schedule(optimizer))
        made = trainer(network, tmp_path, given, Averaged, optimizers=optimizers, eval_dataset=sentences())
        made.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        return network, optimizer

    whole = run({"save_strategy": "steps"})
    saved = torch.load(tmp_path / "checkpoint-3" / "optimizer.pt", weights_only=True)
    assert all("trained_weight" in state for state in saved["state"].values())
    assert_same(run({}, tmp_path / "checkpoint-3"), whole)


VIEWED: dict[str, Make] = {
    "averages": lambda model: AdamW(learning_rate=0.01, weight_average=0.5).attach(model),
    "schedule-free": lambda model: ScheduleFree(AdamW(learning_rate=0.01)).attach(model),
    "one layer": lambda model: MultiOptimizer(
        {"default": AdamW(learning_rate=0.01), "classifier": ScheduleFree(AdamW(learning_rate=0.01))}
    ).attach(model),
}


@pytest.mark.parametrize("make", VIEWED.values(), ids=VIEWED)
def test_the_trainer_evaluates_and_saves_what_the_optimizer_shows(make: Make, tmp_path: Path) -> None:
    """It calls `eval` before each evaluation, behind which it saves, and `train` in each step."""

    def run(options: dict[str, Any], checkpoint: Path | None = None) -> tuple[nn.Module, Any, Trainer]:
        network = model()
        optimizer = make(network)
        given = {**EVERYTHING, "eval_strategy": "steps", "eval_steps": 3, "save_steps": 3, **options}
        optimizers = (optimizer, schedule(optimizer))
        made = trainer(network, tmp_path, given, optimizers=optimizers, eval_dataset=sentences())
        made.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        return network, optimizer, made

    network, optimizer, made = run({"save_strategy": "steps"})
    with pytest.raises(RuntimeError, match=r"call train\(\) before"):
        optimizer.step()
    shown = [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]
    found = made.evaluate()["eval_loss"]
    assert found == shown[-1]
    optimizer.train()
    assert losses_of(network) != pytest.approx(found, rel=1e-6)
    with optimizer.evaluating():
        assert losses_of(network) == pytest.approx(found, rel=1e-6)
    saved = torch.load(tmp_path / "checkpoint-3" / "optimizer.pt", weights_only=True)
    assert any("trained_weight" in state for state in saved["state"].values())
    resumed, again, _ = run({}, tmp_path / "checkpoint-3")
    again.train()
    assert_same((resumed, again), (network, optimizer))


def losses_of(network: nn.Module) -> float:
    """The loss over all sentences, as the Trainer's evaluation has it."""
    network.eval()
    batch = {key: torch.stack([line[key] for line in sentences()]) for key in ("input_ids", "labels")}
    with torch.no_grad():
        return network(**batch).loss.item()


class Norms(nn.Module):
    """Layers that normalise, under names that say so and under others."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.layers = nn.ModuleList([nn.LayerNorm(4), nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.RMSNorm(4)])
        self.norm = nn.BatchNorm1d(4)
        self.bias = nn.Parameter(torch.zeros(4))


def test_what_trainer_leaves_without_decay(tmp_path: Path) -> None:
    """As docs/pytorch.md says: LayerNorm by its class, everything else by its name."""
    adamw = (neon.torch.AdamW, {"lr": 1e-3})
    network = Norms()
    made = trainer(network, tmp_path, {"weight_decay": 0.1}, optimizer_cls_and_kwargs=adamw).create_optimizer()
    names = {id(param): name for name, param in network.named_parameters()}
    decayed, left = ({names[id(param)] for param in group["params"]} for group in made.param_groups)
    assert decayed == {"linear.weight", "layers.1.weight", "layers.2.weight", "layers.3.weight"}
    assert {"layers.0.weight", "norm.weight", "bias"} <= left


def losses(run: Trainer) -> list[float]:
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def test_drop_in_class_equals_torch(tmp_path: Path) -> None:
    """The same training through `optimizer_cls_and_kwargs`, to rounding."""

    def run(cls: type[torch.optim.Optimizer]) -> Trainer:
        values = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-7}
        options = {**EVERYTHING, "weight_decay": 0.1}
        made = trainer(model(), tmp_path, options, optimizer_cls_and_kwargs=(cls, values))
        made.train()
        return made

    found, expected = run(neon.torch.AdamW), run(torch.optim.AdamW)
    assert type(found.optimizer.optimizer) is neon.torch.AdamW  # in accelerate's wrapper
    assert len(losses(found)) == STEPS
    assert losses(found) == pytest.approx(losses(expected), rel=2e-7)
    for a, b in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-7)


@every_optimizer
def test_resumed_run_equals_a_whole_one(make: Make, tmp_path: Path) -> None:
    """With dropout and shuffling, whose random state the Trainer keeps."""

    def run(options: dict[str, Any], checkpoint: Path | None = None) -> tuple[nn.Module, torch.optim.Optimizer]:
        network = model()
        optimizer = make(network)
        made = trainer(network, tmp_path, {**EVERYTHING, **options}, optimizers=(optimizer, schedule(optimizer)))
        made.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        return network, optimizer

    whole = run({"save_strategy": "steps", "save_steps": 3})
    assert_same(run({}, tmp_path / "checkpoint-3"), whole)
