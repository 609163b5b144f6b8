"""Attached optimizers under Lightning's Trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import MultiStepLR
from training_runs import FACTORS, OPTIMIZERS, Make, assert_same, batches, by_hand, network, warm_up

import neon.torch
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Schedule

pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed")
import pytorch_lightning as pl
from lightning_fabric import Fabric
from pytorch_lightning.callbacks import (
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins import MixedPrecision

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # One process reads 96 points: workers would only cost.
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    # Lightning's _pytree asks torch in a way that torch has deprecated.
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning"),
]


class Module(pl.LightningModule):
    def __init__(self, configure: Callable[[nn.Module], Any]) -> None:
        super().__init__()
        self.model = network()
        self.configure = configure

    def training_step(self, batch: Any, number: int) -> Tensor:
        points, labels = batch
        return cross_entropy(self.model(points), labels)

    def configure_optimizers(self) -> Any:
        return self.configure(self.model)


def fit(
    module: Module, directory: Path, checkpoint: Path | None = None, val_dataloaders: Any = None, **options: Any
) -> tuple[nn.Module, torch.optim.Optimizer]:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_epochs": 2, "enable_checkpointing": False, **quiet, **options}
    trainer = pl.Trainer(accelerator="cpu", devices=1, default_root_dir=directory, **options)
    trainer.fit(module, batches(), val_dataloaders, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return module.model, trainer.optimizers[0]


def scheduled(make: Make) -> Callable[[nn.Module], Any]:
    """For configure_optimizers: with a scheduler that moves at each step."""

    def configure(model: nn.Module) -> Any:
        optimizer = make(model)
        return [optimizer], [{"scheduler": warm_up(optimizer), "interval": "step"}]

    return configure


every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)

# What configure_optimizers may return besides an optimizer alone.
FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "lists": lambda optimizer, step: ([optimizer], [step]),
    "dict": lambda optimizer, step: {"optimizer": optimizer, "lr_scheduler": step},
    "list of dicts": lambda optimizer, step: [{"optimizer": optimizer, "lr_scheduler": step}],
}


@every_optimizer
def test_an_optimizer_alone_equals_a_loop(make: Make, tmp_path: Path) -> None:
    assert_same(fit(Module(make), tmp_path), by_hand(make))


@every_optimizer
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_scheduler(make: Make, form: Callable[[Any, Any], Any], tmp_path: Path) -> None:
    def configure(model: nn.Module) -> Any:
        optimizer = make(model)
        return form(optimizer, {"scheduler": warm_up(optimizer), "interval": "step"})

    assert_same(fit(Module(configure), tmp_path), by_hand(make, schedule=warm_up))


CLIPS: dict[str, tuple[Callable[[Any], Any], dict[str, Any]]] = {
    "norm": (lambda params: nn.utils.clip_grad_norm_(params, 0.1), {"gradient_clip_val": 0.1}),
    "value": (
        lambda params: nn.utils.clip_grad_value_(params, 0.02),
        {"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"},
    ),
}


@every_optimizer
@pytest.mark.parametrize(("clip", "options"), CLIPS.values(), ids=CLIPS)
def test_lightning_clips(make: Make, clip: Callable[[Any], Any], options: dict[str, Any], tmp_path: Path) -> None:
    assert_same(fit(Module(make), tmp_path, **options), by_hand(make, clip=clip))


@pytest.mark.parametrize(
    ("own", "lightnings", "tolerance"),
    # torch.nn.utils divides by the norm plus 1e-6
    [({"gradient_clip_norm": 0.1}, CLIPS["norm"], 2e-7), ({"gradient_clip_value": 0.02}, CLIPS["value"], 0)],
    ids=CLIPS,
)
def test_neons_clipping_equals_lightnings(own: Any, lightnings: Any, tolerance: float, tmp_path: Path) -> None:
    found = fit(Module(lambda model: Adam(learning_rate=0.01, **own).attach(model)), tmp_path)
    expected = fit(Module(lambda model: Adam(learning_rate=0.01).attach(model)), tmp_path, **lightnings[1])
    assert_same(found, expected, tolerance)


@every_optimizer
def test_accumulated_gradients(make: Make, tmp_path: Path) -> None:
    assert_same(fit(Module(make), tmp_path, accumulate_grad_batches=3), by_hand(make, accumulate=3))


@every_optimizer
# A run that goes on writes beside the checkpoint that it has read.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resumed_run_equals_a_whole_one(make: Make, tmp_path: Path) -> None:
    whole = fit(Module(scheduled(make)), tmp_path, max_epochs=3)
    fit(Module(scheduled(make)), tmp_path, max_epochs=1, enable_checkpointing=True)
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert_same(fit(Module(scheduled(make)), tmp_path, checkpoint, max_epochs=3, enable_checkpointing=True), whole)


class Averaged(Module):
    """A validation with the averages of the weights: they stand there until the hook after ModelCheckpoint's."""

    def on_validation_start(self) -> None:
        self.stack = ExitStack()
        if not self.trainer.sanity_checking:
            self.stack.enter_context(self.optimizers().averaged())

    def validation_step(self, batch: Any, number: int) -> None:
        points, labels = batch
        self.log("loss", cross_entropy(self.model(points), labels))

    def on_validation_end(self) -> None:
        self.stack.close()


AVERAGING: dict[str, Make] = {
    "attached": lambda model: Adam(learning_rate=0.02, weight_average=0.5).attach(model),
    "drop-in class": lambda model: neon.torch.AdamW(model.parameters(), lr=0.02, weight_average=0.5),
}


@pytest.mark.parametrize("make", AVERAGING.values(), ids=AVERAGING)
@pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty", "ignore:The 'val_dataloader' does not have many workers"
)
def test_a_checkpoint_that_is_saved_in_a_validation_of_averages(make: Make, tmp_path: Path) -> None:
    """The best model in the file has the averages; the run that is resumed of it has the weights, to the bit."""

    def run(epochs: int, file: Path | None = None) -> tuple[nn.Module, torch.optim.Optimizer]:
        best = ModelCheckpoint(monitor="loss", save_top_k=-1, save_on_train_epoch_end=False)
        return fit(
            Averaged(scheduled(make)), tmp_path, file, max_epochs=epochs, callbacks=[best], val_dataloaders=batches(),
            enable_checkpointing=True,
        )  # fmt: skip

    whole = run(3)
    assert_same(whole, fit(Module(scheduled(make)), tmp_path, max_epochs=3))
    file = next(tmp_path.rglob("epoch=1*.ckpt"))
    saved = torch.load(file, weights_only=True)
    [averages] = saved["optimizer_states"]
    for number, weight in enumerate(saved["state_dict"].values()):
        assert torch.equal(weight, averages["state"][number]["weight_average"])
    assert_same(run(3, file), whole)


# -- mixed precision -------------------------------------------------------------------------------

# Lightning scales no losses on a CPU of itself.
PRECISIONS: dict[torch.dtype, Callable[[], dict[str, Any]]] = {
    torch.bfloat16: lambda: {"precision": "bf16-mixed"},
    torch.float16: lambda: {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))},
}
every_precision = pytest.mark.parametrize("precision", PRECISIONS, ids=str)


@every_optimizer
@every_precision
def test_mixed_precision(make: Make, precision: torch.dtype, tmp_path: Path) -> None:
    assert_same(fit(Module(make), tmp_path, **PRECISIONS[precision]()), by_hand(make, precision=precision))


@every_precision
def test_clipping_in_mixed_precision(precision: torch.dtype, tmp_path: Path) -> None:
    """Lightning refuses to clip for an optimizer that unscales; the optimizer's own clipping takes its place."""
    plain = Module(lambda model: Adam(learning_rate=0.01).attach(model))
    with pytest.raises(RuntimeError, match="AttachedOptimizer, does not allow for gradient clipping"):
        fit(plain, tmp_path, gradient_clip_val=0.1, **PRECISIONS[precision]())

    def clipping(model: nn.Module) -> torch.optim.Optimizer:
        return Adam(learning_rate=0.01, gradient_clip_norm=0.1).attach(model)

    # The loop unscales before the step: bit for bit the same, so the norm is that of gradients without their scale.
    assert_same(fit(Module(clipping), tmp_path, **PRECISIONS[precision]()), by_hand(clipping, precision=precision))


# -- callbacks and hooks ---------------------------------------------------------------------------


@every_optimizer
def test_learning_rate_monitor(make: Make, tmp_path: Path) -> None:
    monitor = LearningRateMonitor(log_momentum=True, log_weight_decay=True)
    logger = CSVLogger(tmp_path)
    _, optimizer = fit(Module(scheduled(make)), tmp_path, callbacks=[monitor], logger=logger, log_every_n_steps=1)
    rates = [values for name, values in monitor.lrs.items() if "momentum" not in name and "decay" not in name]
    expected = [[group["initial_lr"] * factor for factor in FACTORS] for group in optimizer.param_groups]
    assert rates == expected


AVERAGES: dict[str, Callable[[], pl.Callback]] = {
    "SWA": lambda: StochasticWeightAveraging(0.05, swa_epoch_start=2, annealing_epochs=2),
    "EMA": lambda: EMAWeightAveraging(decay=0.9),
}


@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)
def test_averaged_weights_equal_torchs(average: Callable[[], pl.Callback], tmp_path: Path) -> None:
    def run(cls: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
        module = Module(lambda model: cls(model.parameters(), lr=0.02))
        return fit(module, tmp_path, max_epochs=4, callbacks=[average()])

    assert_same(run(neon.torch.AdamW), run(torch.optim.AdamW), tolerance=5e-7)


def test_neons_schedule_in_epochs(tmp_path: Path) -> None:
    """`self.optimizers()` gives Lightning's wrapper, which passes on what is not torch's."""

    class Scheduled(Module):
        def on_train_epoch_start(self) -> None:
            self.optimizers().set_epoch(self.current_epoch)

    def torchs(model: nn.Module) -> Any:
        optimizer = Adam(learning_rate=0.01).attach(model)
        return [optimizer], [MultiStepLR(optimizer, [1, 2], 0.5)]

    neons = Scheduled(lambda model: Adam(learning_rate=0.01, schedule=Schedule([1, 2], 0.5)).attach(model))
    assert_same(fit(neons, tmp_path, max_epochs=3), fit(Module(torchs), tmp_path, max_epochs=3))


class Manual(Module):
    """A step of each optimizer by hand; the layers under control through Lightning's wrapper."""

    def __init__(self, configure: Callable[[nn.Module], Any]) -> None:
        super().__init__(configure)
        self.automatic_optimization = False

    def training_step(self, batch: Any, number: int) -> None:
        first, last = self.optimizers()
        for optimizer in (first, last):
            optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, number))
        self.clip_gradients(first, 0.1, "norm")
        for optimizer in (first, last):
            optimizer.step()
        for scheduler in self.lr_schedulers():
            scheduler.step()


def test_manual_optimization(tmp_path: Path) -> None:
    rules = {"0": Adam(learning_rate=0.01), "2": GradientDescentMomentum(0.1, 0.9)}

    def configure(model: nn.Module) -> Any:
        optimizers = [rule.attach(model.get_submodule(name)) for name, rule in rules.items()]
        return optimizers, [warm_up(optimizer) for optimizer in optimizers]

    module = Manual(configure)
    fit(module, tmp_path)
    expected, _ = by_hand(
        lambda model: MultiOptimizer({**rules, "default": None}).attach(model),
        schedule=warm_up,
        clip=lambda params: nn.utils.clip_grad_norm_([*params][:2], 0.1),
    )
    for found, param in zip(module.model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(found, param)


def test_methods_that_are_called_on_lightnings_wrapper_reach_the_optimizer() -> None:
    model = network()
    made = AVERAGING["attached"](model)
    saved = copy.deepcopy(made.state_dict())
    wrapper: Any = LightningOptimizer(made)
    kept = set(vars(wrapper))
    wrapper.set("lr", 0.5, layers="0")
    wrapper.freeze("2")
    model.append(nn.Linear(3, 3))
    wrapper.add_layers(model)
    wrapper.set_epoch(1)
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    made.step()
    with wrapper.averaged(), pytest.raises(RuntimeError, match=r"leave averaged\(\)"):
        made.step()
    assert len(made.param_groups[0]["params"]) == 6
    assert "3" in repr(made)
    saved["param_groups"][0] |= {"params": list(range(6)), "lr": 0.25}
    del saved["param_groups"][0]["param_names"]
    wrapper.load_state_dict(saved)
    assert (made.param_groups[0]["lr"], dict(made.state)) == (0.25, {})
    assert set(vars(wrapper)) == kept


@every_optimizer
def test_fabric(make: Make, tmp_path: Path) -> None:
    """Lightning's Fabric, with a checkpoint in between."""

    def run(load: bool, save: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
        fabric = Fabric(accelerator="cpu", devices=1)
        plain = network()
        made = make(plain)
        model, optimizer = fabric.setup(plain, made)
        if load:
            fabric.load(tmp_path / "saved", {"model": model, "optimizer": optimizer})
        for points, labels in batches():
            fabric.backward(cross_entropy(model(points), labels))
            fabric.clip_gradients(model, optimizer, max_norm=0.1)
            optimizer.step()
            optimizer.zero_grad()
        if save:
            fabric.save(tmp_path / "saved", {"model": model, "optimizer": optimizer})
        return plain, made

    run(load=False, save=True)
    resumed = run(load=True, save=False)
    assert_same(resumed, by_hand(make, clip=lambda params: nn.utils.clip_grad_norm_(params, 0.1)))
