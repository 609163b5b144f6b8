"""Generative pairs: every step against a loop in plain float64, and what is refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neon.callbacks.callbacks import Callbacks, GANCostCallback
from neon.data import ArrayIterator
from neon.initializers import Constant, Gaussian, GlorotUniform
from neon.layers import (
    Activation,
    Affine,
    BatchNorm,
    Conv,
    GeneralizedCost,
    GeneralizedGANCost,
    GenerativeAdversarial,
    Linear,
)
from neon.layers import Sequential as Row
from neon.models import GAN, Model
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, RMSProp
from neon.transforms import GANCost, Logistic, MeanSquared, Rectlin, Tanh

RATE, MOMENTUM = 0.2, 0.9


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def pair(last: Any = Logistic(), init: Any = Gaussian(scale=0.5)) -> GenerativeAdversarial:  # noqa: B008 - immutable
    generator = [Affine(4, init, activation=Tanh()), Affine(3, init)]
    discriminator = [Affine(5, init, activation=Tanh()), Affine(1, init, activation=last)]
    return GenerativeAdversarial(
        generator=Row(generator, name="Generator"), discriminator=Row(discriminator, name="Discriminator")
    )


def small_gan(func: str = "modified", **given: Any) -> GAN:
    return GAN(layers=pair(None if func == "wasserstein" else Logistic()), noise_dim=2, **given)


def cost_of(func: str = "modified", **given: Any) -> GeneralizedGANCost:
    return GeneralizedGANCost(costfunc=GANCost(func=func, **given))


def data(samples: tuple[int, ...] = (4, 4, 4, 4, 3), dtype: torch.dtype = torch.float32) -> list[Any]:
    return [(torch.randn(n, 3, dtype=dtype), torch.zeros(n)) for n in samples]


# -- the same in plain float64 ---------------------------------------------------------------------

Weights = list[Tensor]
LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "original": (lambda d, n: -(d.log() + (1 - n).log()), lambda n: (1 - n).log()),
    "modified": (lambda d, n: -(d.log() + (1 - n).log()), lambda n: -n.log()),
    "wasserstein": (lambda d, n: d - n, lambda n: n),
}


def two_layers(x: Tensor, weights: Weights, *, sigmoid: bool) -> Tensor:
    w1, b1, w2, b2 = weights
    y = torch.tanh(x @ w1.T + b1) @ w2.T + b2
    return 1 / (1 + torch.exp(-y)) if sigmoid else y


def descend(weights: Weights, velocities: Weights, loss: Tensor, samples: int) -> None:
    for weight, velocity, gradient in zip(weights, velocities, torch.autograd.grad(loss, weights), strict=True):
        velocity.mul_(MOMENTUM).sub_(RATE * gradient / samples)
        with torch.no_grad():
            weight.add_(velocity)


def plain_training(
    generator: Weights, discriminator: Weights, batches: list[Any], func: str, k: int, clamp: float | None
) -> list[float]:
    """The costs of the generator's steps, with both networks trained in place."""
    of_pair, of_generator = LOSSES[func]
    moving = [[torch.zeros_like(weight) for weight in weights] for weights in (generator, discriminator)]
    sigmoid, costs, last = func != "wasserstein", [], 0
    for count, (x, _) in enumerate(batches):
        if clamp is not None:
            with torch.no_grad():
                for weight in discriminator:
                    weight.clamp_(-clamp, clamp)
        made = two_layers(torch.randn(len(x), 2, dtype=torch.float64), generator, sigmoid=False).detach()
        on_noise = two_layers(made, discriminator, sigmoid=sigmoid)
        on_data = two_layers(x, discriminator, sigmoid=sigmoid)
        descend(discriminator, moving[1], of_pair(on_data, on_noise).sum(), len(x))
        if count == last + k:
            made = two_layers(torch.randn(len(x), 2, dtype=torch.float64), generator, sigmoid=False)
            on_noise = two_layers(made, discriminator, sigmoid=sigmoid)
            costs.append(of_pair(on_data, on_noise).mean().item())
            descend(generator, moving[0], of_generator(on_noise).sum(), len(x))
            last = count
    return costs


def weights_of(network: nn.Module) -> Weights:
    return [value.detach().clone().requires_grad_() for value in network.parameters()]


def descent() -> GradientDescentMomentum:
    return GradientDescentMomentum(RATE, MOMENTUM)


OPTIMIZERS: dict[str, Callable[[GAN], Any]] = {
    "neon's": lambda gan: descent(),
    "one for each": lambda gan: MultiOptimizer(
        {"default": Adam(), "Generator": descent(), "Discriminator": GradientDescentMomentum(RATE, MOMENTUM)}
    ),
    "attached": lambda gan: descent().attach(gan),
    # torch's holds no rate in its velocity; a constant rate makes them one
    "torch's": lambda gan: torch.optim.SGD(gan.parameters(), RATE, MOMENTUM),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("func", "k", "clamp"),
    [
        ("original", 1, None),
        ("original", 2, None),
        ("modified", 1, None),
        ("modified", 2, 0.3),
        ("wasserstein", 1, 0.2),
        ("wasserstein", 2, None),
    ],
)
def test_steps_are_those_of_a_plain_loop(func: str, k: int, clamp: float | None, optimizer: str) -> None:
    gan = small_gan(func, k=k, wgan_param_clamp=clamp).double()
    gan.initialize(cost=cost_of(func))
    generator, discriminator = weights_of(gan.generator), weights_of(gan.discriminator)
    batches = data(dtype=torch.float64)
    torch.manual_seed(1)
    expected = plain_training(generator, discriminator, batches, func, k, clamp)
    torch.manual_seed(1)
    (mean,) = gan.fit(batches, cost_of(func), OPTIMIZERS[optimizer](gan), num_epochs=1)
    assert mean == pytest.approx(sum(expected) / len(expected), rel=1e-12)
    assert len(expected) == gan.gen_iter == {1: 4, 2: 2}[k]
    for ours, reference in zip(gan.parameters(), [*generator, *discriminator], strict=True):
        torch.testing.assert_close(ours.detach(), reference.detach(), rtol=1e-12, atol=1e-14)


def test_scale_multiplies_gradients_and_leaves_costs() -> None:
    gans = [small_gan(k=1) for _ in range(2)]
    gans[0].initialize()
    gans[1] = copy.deepcopy(gans[0])
    means, batches = [], data()[:2]
    for gan, scale in zip(gans, (1.0, 3.0), strict=True):
        torch.manual_seed(2)
        rate = 0.03 / scale
        means += gan.fit(batches, cost_of(scale=scale), GradientDescentMomentum(rate, 0.0), num_epochs=1)
    assert means[0] == pytest.approx(means[1], rel=1e-6)
    for one, other in zip(gans[0].parameters(), gans[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_a_step_of_one_network_leaves_the_other_as_it_is() -> None:
    """With momentum and decay, which move what has a gradient of zero; a MultiOptimizer has a key for each."""
    gan = small_gan()
    gan.initialize()
    rules = {name: GradientDescentMomentum(0.1, 0.9, wdecay=0.1) for name in ("default", "Generator", "Discriminator")}
    optimizer = MultiOptimizer(rules)
    gan.fit(data(), cost_of(), optimizer, num_epochs=1)
    cost = GANCost()
    before = copy.deepcopy(gan.state_dict())
    on_data = gan.train_discriminator(torch.randn(4, 3), cost, optimizer)
    after = copy.deepcopy(gan.state_dict())
    changed = {key.split(".")[1] for key in before if key[0] == "0" and not torch.equal(before[key], after[key])}
    assert changed == {"Discriminator"}
    gan.train_generator(on_data, cost, optimizer)
    last = gan.state_dict()
    assert {key.split(".")[1] for key in before if key[0] == "0" and not torch.equal(after[key], last[key])} == {
        "Generator"
    }


def test_a_discriminator_that_is_sure_goes_on_learning() -> None:
    """Its outputs are 0 and 1 in float32, where no gradient flows; its logits say by how much."""
    linear = Linear(1, Constant(100.0))
    layers = GenerativeAdversarial([Linear(1, Constant(-1.0))], [linear, Activation(Logistic())])
    gan = GAN(layers, noise_dim=1, noise_type="uniform")
    x = torch.tensor([[-3.0], [-2.0]])  # surely taken for noise
    gan.initialize()
    torch.manual_seed(3)
    noise = 2 * torch.rand(2, 1) - 1
    torch.manual_seed(3)
    gan.train_discriminator(x, GANCost(), GradientDescentMomentum(1e-3, 0.0))
    # d/dw of softplus(-w x) is -x where -w x is large; of softplus(w G(z)) it is G(z) sigmoid(w G(z)), with G(z) = -z
    made = -noise.double()
    expected = 100 - 1e-3 * (-x.double() + made * torch.sigmoid(100 * made)).mean()
    assert linear.weight.item() == pytest.approx(expected.item(), rel=1e-6)
    value = gan.eval([(x, x)], GANCost(cost_type="dis_data"))
    assert value == pytest.approx((linear.weight.double() * 2.5).item(), rel=1e-6)


def test_costs_are_the_documented_formulas() -> None:
    """Of outputs and, for the logarithms, of logits."""
    x_data, x_noise = torch.randn(6, 1, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)
    for func, (of_pair, of_generator) in LOSSES.items():
        squash = (lambda x: x) if func == "wasserstein" else (lambda x: 1 / (1 + (-x).exp()))
        y_data, y_noise = squash(x_data), squash(x_noise)
        for given, call in {"outputs": (y_data, y_noise), "logits": (x_data, x_noise)}.items():
            cost = GANCost(func=func)
            function = cost.from_logits if given == "logits" and cost.fuses_with else cost
            torch.testing.assert_close(function(*call), of_pair(y_data, y_noise)[:, 0], rtol=1e-12, atol=0)
            torch.testing.assert_close(function(None, call[1], "gen"), of_generator(y_noise)[:, 0], rtol=1e-12, atol=0)
            parts = function(*call, "dis_data") + function(*call, "dis_noise")
            torch.testing.assert_close(parts, function(*call, "dis"), rtol=1e-12, atol=0)
    assert GANCost()(torch.zeros(1, 1), torch.ones(1, 1)).isfinite().all()
    assert float(cost_of("wasserstein")(torch.tensor([[3.0], [1.0]]), torch.zeros(2, 1))) == 2.0


def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """With an odd number of minibatches in an epoch, in the middle of the generator's wait of 2."""
    whole, batches = small_gan(k=2), data()
    whole.fit(batches, cost_of(), Adam(learning_rate=0.01), num_epochs=1)
    whole.save_params(tmp_path / "gan.prm")
    torch.manual_seed(4)
    whole.fit(batches, cost_of(), Adam(learning_rate=0.01), num_epochs=1)
    resumed = small_gan(k=2)
    resumed.load_params(tmp_path / "gan.prm")
    torch.manual_seed(4)
    resumed.fit(batches, cost_of(), Adam(learning_rate=0.01), num_epochs=1)
    assert (resumed.current_batch, resumed.gen_iter, resumed.last_gen_batch) == (10, 4, 8)
    assert all(map(torch.equal, resumed.parameters(), whole.parameters()))


def test_the_generator_waits_by_the_schedule() -> None:
    gan = small_gan(k=5, wgan_train_sched=True)
    assert [gan.get_k(step) for step in (0, 24, 25, 499, 500, 501)] == [100, 100, 5, 5, 100, 5]
    assert small_gan(k=5).get_k(0) == 5
    (mean,) = gan.fit(data(), cost_of(), Adam(), num_epochs=1)
    assert math.isnan(mean)


def test_a_pair_learns_a_line() -> None:
    """What it makes of noise comes to lie where the data do; as a program of the documented framework writes it."""
    init = GlorotUniform()
    layers = GenerativeAdversarial(
        generator=Row([Affine(16, init, activation=Rectlin()), Affine(2, init)], name="Generator"),
        discriminator=Row(
            [Affine(16, init, activation=Rectlin(slope=0.1)), Affine(1, init, activation=Logistic())],
            name="Discriminator",
        ),
    )
    gan = GAN(layers=layers, noise_dim=(4,), k=1)
    train = ArrayIterator(torch.randn(512, 1) * 0.3 + torch.tensor([[2.0, -2.0]]), batch_size=64)
    callbacks = Callbacks(gan, eval_set=train, progress_bar=False)
    callbacks.add_callback(GANCostCallback())
    history = gan.fit(
        train, optimizer=Adam(learning_rate=5e-3, beta_1=0.5), num_epochs=40, cost=cost_of(), callbacks=callbacks
    )
    assert callbacks.callback_data["gan/gen_iter"] == [*range(1, 320)]
    assert sum(callbacks.callback_data["gan/cost_dis"][-8:]) / 8 == pytest.approx(history[-1], rel=1e-5)
    made = gan.fprop_gen(gan.noise(500), inference=True)
    assert made.mean(0).tolist() == pytest.approx([2, -2], abs=0.5)
    assert gan.eval(train, cost_of()) == gan.eval(train, cost_of()) == callbacks.eval_costs[-1]
    assert gan.training


def test_images_with_batch_norm_and_a_clamp() -> None:
    generator = [Affine(16, Gaussian(scale=0.1), activation=Tanh())]
    discriminator = [Conv((2, 2, 3), Gaussian(scale=0.1), batch_norm=True), Conv((3, 3, 1), Gaussian(scale=0.1))]

    class ToImages(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), 1, 4, 4)

    gan = GAN(GenerativeAdversarial([*generator, ToImages()], discriminator), (2,), wgan_param_clamp=0.01)
    images = [(torch.randn(8, 1, 4, 4), torch.zeros(8)) for _ in range(3)]
    (mean,) = gan.fit(images, cost_of("wasserstein"), RMSProp(learning_rate=1e-4), num_epochs=1)
    assert math.isfinite(mean)
    assert any(isinstance(module, BatchNorm) for module in gan.discriminator.modules())
    gan.clamp_discriminator()
    assert max(value.detach().abs().max().item() for value in gan.discriminator.parameters()) <= 0.01


untyped: Any = None
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: GAN([Linear(1, Gaussian())], 2), TypeError, "layers must be GenerativeAdversarial"),  # type: ignore[arg-type]
    (lambda: small_gan(noise_type="gauss"), ValueError, 'noise_type must be "normal" or "uniform".*\'gauss\''),
    (lambda: small_gan(k=0), ValueError, "k must be at least 1. Received: k=0"),
    (lambda: small_gan(wgan_param_clamp=-1), ValueError, "wgan_param_clamp must be a finite number greater than 0"),
    (lambda: GAN(pair(), (2, 0)), ValueError, "noise_dim must be at least 1"),
    (lambda: GANCost(func="hinge"), ValueError, "func must be one of 'original', .*func='hinge'"),
    (lambda: GANCost(cost_type="both"), ValueError, "cost_type must be 'dis'"),
    (lambda: GANCost(scale="2"), TypeError, "scale must be a number"),  # type: ignore[arg-type]
    (lambda: GANCost(scale=float("nan")), ValueError, "scale must be finite"),
    (lambda: GeneralizedGANCost(MeanSquared()), TypeError, "costfunc must be a GANCost"),  # type: ignore[arg-type]
    (lambda: GenerativeAdversarial(3, []), TypeError, r"generator must be a Sequential\(layers, name='Generator'\)"),
    (lambda: GANCost()(torch.ones(2, 2), torch.ones(2, 2)), ValueError, r"one output for each sample.* \(2, 2\)"),
    (lambda: small_gan().fit(data(), GeneralizedCost(MeanSquared()), Adam(), 1), TypeError, "cost must be a GANCost"),
    (lambda: small_gan().eval(data(), MeanSquared()), TypeError, "cost must be a GANCost"),
    (lambda: Model([Linear(1, Gaussian())]).fit(data(), cost_of(), Adam(), 1), TypeError, "trains a GAN"),
]


@pytest.mark.parametrize(("action", "error", "message"), ERRORS, ids=[m for _, _, m in ERRORS])
def test_bad_input_is_named(action: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        action()
    assert len(str(raised.value)) <= 500
