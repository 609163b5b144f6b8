"""Model: training, measuring, saving and loading, with neon's kind of optimizer and torch's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from plain_training import PlainDescent, random_batches, small_model
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from neon.data import ArrayIterator
from neon.initializers import Constant, Gaussian, GlorotUniform, Kaiming, Uniform
from neon.layers import (
    LSTM,
    Affine,
    BatchNorm,
    Conv,
    Dropout,
    GeneralizedCost,
    Linear,
    LookupTable,
    Pooling,
    Recurrent,
    RecurrentLast,
)
from neon.models import Model
from neon.optimizers import GradientDescentMomentum
from neon.transforms import (
    Accuracy,
    CrossEntropyBinary,
    CrossEntropyMulti,
    Logistic,
    MeanSquared,
    Misclassification,
    Rectlin,
    Softmax,
    SumSquared,
    Tanh,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def digits() -> tuple[ArrayIterator, ArrayIterator]:
    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, classes = images[order] / 16, classes[order]
    train = ArrayIterator(images[:1400], classes[:1400], batch_size=32)
    return train, ArrayIterator(images[1400:], classes[1400:], shuffle=False)


def test_an_mlp_learns_digits() -> None:
    train, test = digits()
    layers = [
        Affine(64, Kaiming(), activation=Rectlin()),
        Affine(10, GlorotUniform(), activation=Softmax()),
    ]
    model = Model(layers)
    history = model.fit(
        train,
        cost=GeneralizedCost(costfunc=CrossEntropyMulti()),
        optimizer=GradientDescentMomentum(0.05, 0.9),
        num_epochs=6,
    )
    assert len(history) == model.epoch == 6
    assert history[-1] < 0.2 < history[0]
    accuracy = model.eval(test, metric=Accuracy())
    assert accuracy > 0.9
    assert model.eval(test, metric=Misclassification()) == pytest.approx(1 - accuracy)


def test_a_model_that_is_surely_wrong_learns_because_the_cost_sees_logits() -> None:
    batches = [(torch.ones(1, 1), torch.tensor([1]))]
    model = Model([Affine(2, Constant(), activation=Softmax())])
    model(batches[0][0])
    with torch.no_grad():
        next(model.parameters()).copy_(torch.tensor([[400.0], [-400.0]]))
    blind = copy.deepcopy(model)
    costs = model.fit(batches, CrossEntropyMulti(), PlainDescent(50.0), 5)
    assert costs == pytest.approx([800, 600, 400, 200, np.log(2)])
    # the same equation on rounded outputs: 1 and 0, where no gradient flows
    costs = blind.fit(batches, lambda y, t: CrossEntropyMulti()(y, t), PlainDescent(50.0), 5)
    assert costs == [costs[0]] * 5


def test_the_optimizer_gets_summed_gradients_the_batch_size_and_the_epoch() -> None:
    model, optimizer, batches = small_model(), PlainDescent(), random_batches()
    model.fit(batches, CrossEntropyMulti(), optimizer, num_epochs=2)
    assert optimizer.calls == [(0, 4), (0, 4), (0, 2), (1, 4), (1, 4), (1, 2)]
    assert optimizer.be.bsz == 7
    model.fit(batches[:1], CrossEntropyMulti(), optimizer, num_epochs=1)
    assert optimizer.calls[6:] == [(2, 4)]


@pytest.mark.parametrize(
    "cost",
    [
        CrossEntropyMulti(),
        GeneralizedCost(CrossEntropyMulti()),
        lambda y, t: -y.log().gather(1, t[:, None])[:, 0],
        lambda y, t: nn.NLLLoss()(y.log(), t),
    ],
    ids=["cost", "generalized", "per sample", "torch's mean"],
)
def test_every_kind_of_cost_and_optimizer_takes_the_same_steps(cost: Any) -> None:
    batches = random_batches()
    model = small_model()
    model(batches[0][0])
    twin, reference = copy.deepcopy(model), copy.deepcopy(model)
    ours = model.fit(batches, cost, PlainDescent(0.1), num_epochs=2)
    torchs = twin.fit(batches, cost, torch.optim.SGD(twin.parameters(), 0.1), num_epochs=2)
    optimizer = torch.optim.SGD(reference.parameters(), 0.1)
    for _ in range(2):
        for inputs, targets in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(reference.logits(inputs), targets).backward()
            optimizer.step()
    assert ours == pytest.approx(torchs, rel=1e-5)
    for trained in (model, twin):
        for parameter, expected in zip(trained.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-6)


def test_an_attached_optimizer_is_told_the_epoch() -> None:
    class Attached(torch.optim.SGD):
        def set_epoch(self, epoch: int) -> None:
            epochs.append(epoch)

    epochs: list[int] = []
    model = small_model()
    model.fit(random_batches(), CrossEntropyMulti(), Attached(model.parameters(), 0.1), 3)
    assert epochs == [0, 1, 2]


IMAGES = (torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 1]))
TEXT = torch.randint(8, (4, 5))


def alexnet_like() -> Model:
    init, zero = Gaussian(scale=0.05), Constant(0.0)
    layers = [
        Conv((5, 5, 8), init, strides=2, padding=2, bias=zero, activation=Rectlin()),
        Pooling(3, strides=2),
        Conv((3, 3, 16), init, padding=1, batch_norm=True, activation=Rectlin()),
        Pooling(2, op="avg"),
        Affine(32, init, activation=Rectlin()),
        Dropout(keep=0.9),
        Affine(3, init, activation=Softmax(), name="head"),
    ]
    return Model(layers)


def reader() -> Model:
    layers = [
        LookupTable(8, 8, Uniform(-0.3, 0.3)),
        LSTM(16, GlorotUniform()),
        Affine(8, GlorotUniform(), activation=Softmax()),
    ]
    return Model(layers)


def listener() -> Model:
    layers = [
        Recurrent(12, GlorotUniform()),
        RecurrentLast(),
        Affine(1, GlorotUniform(), activation=Logistic()),
    ]
    return Model(layers)


def torchs_own() -> Model:
    return Model([nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), Affine(3, GlorotUniform())])


# network, one minibatch, cost, learning rate
NETWORKS: list[tuple[Callable[[], Model], tuple[Tensor, Tensor], Any, float]] = [
    (alexnet_like, IMAGES, CrossEntropyMulti(), 0.2),
    (reader, (TEXT, TEXT.roll(-1, 1)), CrossEntropyMulti(), 1.0),
    (listener, (torch.randn(4, 9, 2), torch.tensor([0, 1, 1, 0])), CrossEntropyBinary(), 0.5),
    (torchs_own, (torch.randn(4, 2, 3), torch.randn(4, 3)), SumSquared(), 0.1),
    (torchs_own, (torch.randn(4, 2, 3), torch.randn(4, 3)), MeanSquared(), 0.3),
]


@pytest.mark.parametrize(("build", "batch", "cost", "learning_rate"), NETWORKS)
def test_networks_learn_a_minibatch_by_heart(
    build: Callable[[], Model], batch: tuple[Tensor, Tensor], cost: Any, learning_rate: float
) -> None:
    model = build()
    history = model.fit([batch], cost, PlainDescent(learning_rate), num_epochs=30)
    assert history[-1] < 0.5 * history[0]
    assert model.eval([batch], cost) < 0.5 * history[0]


def test_eval_without_arguments_is_torchs() -> None:
    model = Model([Dropout(), Linear(2, Gaussian())])
    assert model.training
    assert model.eval() is model
    assert not model.training
    assert not model.layers[0].training


def test_measuring_neither_trains_nor_leaves_training_mode() -> None:
    model = Model([Linear(4, Gaussian()), BatchNorm(), Dropout(0.5)])
    batches = [(torch.randn(3, 2), torch.zeros(3, 4)), (torch.randn(1, 2), torch.zeros(1, 4))]
    model(batches[0][0])
    before = copy.deepcopy(model.state_dict())
    outputs = model.get_outputs(batches)
    assert outputs.shape == (4, 4)
    assert not outputs.requires_grad
    # the mean over samples, not over minibatches of different sizes
    expected = outputs.square().sum(1).mean().item() / 2
    assert model.eval(batches, SumSquared()) == pytest.approx(expected)
    assert model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    model.eval()
    model.fit(batches[:1], SumSquared(), PlainDescent(), num_epochs=1)
    assert not model.training


def test_datasets_of_numpy_arrays_and_of_torchs_loader_fit_the_models_dtype() -> None:
    inputs, targets = np.random.default_rng(0).normal(size=(6, 5)), np.arange(6) % 3
    pairs = TensorDataset(torch.from_numpy(inputs), torch.from_numpy(targets))
    loader = DataLoader(pairs, batch_size=4)
    model = small_model()
    from_loader = model.get_outputs(loader)
    from_arrays = model.get_outputs([(inputs[:4], targets[:4]), (inputs[4:], targets[4:])])
    assert from_loader.dtype == torch.float32
    assert torch.equal(from_loader, from_arrays)
    assert small_model().double().get_outputs(loader).dtype == torch.float64


def test_documented_arguments_that_mean_nothing_are_taken() -> None:
    model = Model(small_model().layers, dataset=random_batches(), weights_only=True, optimizer=PlainDescent())
    assert model.name is None
    assert Model([Dropout()], "net").name == "net"
    assert model.layers_to_optimize == list(model.layers)
    assert model.be is GradientDescentMomentum.be
    history = model.fit(
        random_batches(), optimizer=PlainDescent(), num_epochs=1, cost=CrossEntropyMulti(), callbacks=None
    )
    assert model.epoch_index == len(history) == 1
    error = model.eval(random_batches(), metric=Misclassification())
    assert "%.1f%%" % (error * 100) == f"{100 * error:.1f}%"


def with_noise() -> Model:
    layers = [Linear(4, Gaussian()), BatchNorm(), Dropout(0.5), Affine(3, Gaussian(), activation=Softmax())]
    return Model(layers)


DATASETS: dict[str, Callable[[], Any]] = {
    "minibatches": random_batches,
    "an iterator": lambda: ArrayIterator(np.zeros((7, 5)), np.zeros(7), nclass=3, batch_size=3),
    "a loader": lambda: DataLoader(TensorDataset(torch.zeros(7, 5), torch.zeros(7)), batch_size=3, shuffle=True),
    "a number of features": lambda: 5,
    "a shape": lambda: (5,),
    "what has a shape": lambda: type("Data", (), {"shape": 5})(),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_initialize_gives_parameters_their_shapes_and_changes_nothing_else(kind: str) -> None:
    dataset, batches = DATASETS[kind](), random_batches()
    torch.manual_seed(1)
    expected = with_noise().eval()
    expected(batches[0][0][:1].expand(3, 5))
    torch.manual_seed(1)
    model = with_noise()
    model.initialize(dataset, cost=GeneralizedCost(CrossEntropyMulti()))
    assert model.training
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)
    assert all(int(value) == 0 for name, value in model.named_buffers() if name.endswith("num_batches_tracked"))
    assert all(value.grad is None for value in model.parameters())
    assert getattr(dataset, "passes", 0) == 0
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.initialize(iter(()))  # a second time it does not even look
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_fprop_is_a_call_in_the_mode_that_is_asked_for() -> None:
    x, model = np.random.default_rng(0).normal(size=(6, 5)), Model([Linear(4, Gaussian()), Dropout(0.5)])
    model.initialize(5)
    linear = (torch.from_numpy(x).float() @ next(model.parameters()).T).detach()
    evaluated = model.fprop(x, inference=True)
    torch.testing.assert_close(evaluated, linear)
    assert not evaluated.requires_grad
    model.eval()
    dropped = model.fprop(x)
    assert not model.training
    assert dropped.requires_grad
    assert 0 < (dropped == 0).sum() < 24


def test_evaluation_reads_in_order_and_leaves_training_as_it_was() -> None:
    x, y = np.random.default_rng(0).normal(size=(10, 5)), np.arange(10) % 3

    def trained(evaluated: bool) -> Model:
        torch.manual_seed(0)
        model, data = small_model(), ArrayIterator(x, y, nclass=3, batch_size=4)
        model.initialize(data)
        for _ in range(3):
            model.fit(data, CrossEntropyMulti(), PlainDescent(), num_epochs=1)
            if evaluated:
                expected = model(torch.from_numpy(x).float())
                torch.testing.assert_close(model.get_outputs(data), expected)
                cost = -expected.detach().log()[np.arange(10), y].mean().item()
                assert model.eval(data, CrossEntropyMulti()) == pytest.approx(cost, rel=1e-5)
        return model

    assert all(map(torch.equal, trained(True).parameters(), trained(False).parameters()))


def test_one_hot_targets_train_as_class_numbers_do() -> None:
    x, y = np.random.default_rng(0).normal(size=(10, 5)), np.arange(10) % 3
    models = []
    for nclass in (None, 3):
        torch.manual_seed(0)
        models.append(small_model())
        models[-1].fit(ArrayIterator(x, y, nclass, batch_size=4), CrossEntropyMulti(), PlainDescent(), 2)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


def fit(dataset: Any = None, cost: Any = None, optimizer: Any = None, num_epochs: Any = 1) -> list[float]:
    dataset = random_batches() if dataset is None else dataset
    return small_model().fit(dataset, cost or CrossEntropyMulti(), optimizer or PlainDescent(), num_epochs)


untyped: Any = small_model()
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Model([]), ValueError, "A Model needs at least one layer"),
    (lambda: Model([Tanh()]), TypeError, r"A layer must be a torch.nn.Module.* Received: Tanh\(\)"),
    (lambda: fit(num_epochs=-1), ValueError, "num_epochs must be 0 or more. Received: -1"),
    (lambda: fit(num_epochs=1.5), TypeError, "num_epochs must be an int. Received: 1.5"),
    (lambda: fit(cost=CrossEntropyMulti), TypeError, "cost or metric must be an object to call"),
    (lambda: fit(optimizer="adam"), TypeError, r"An optimizer must be .* Received: 'adam'"),
    (lambda: fit(optimizer=PlainDescent), TypeError, "An optimizer must be"),
    (lambda: fit(dataset=[]), ValueError, "The dataset gave no minibatch"),
    (lambda: fit(iter(random_batches()), num_epochs=2), ValueError, r"gives them only once"),
    (lambda: fit(dataset=torch.ones(4, 5)), TypeError, r"ArrayIterator\(X, y\) .* a Tensor"),
    (lambda: untyped.eval(random_batches()), TypeError, "eval takes a dataset and a metric"),
    (lambda: small_model().save_params("x"), ValueError, r"Cannot save 0.0.weight, .* no shape"),
    (lambda: Model("model.prm"), TypeError, r"not of a file. Received: layers='model.prm'. .*load_params\(path\)"),
    (lambda: Model({"model": {}}), TypeError, "A Model is made of layers"),
    (lambda: small_model().initialize("data"), TypeError, r"must give \(inputs, targets\) minibatches"),
    (lambda: small_model().initialize(None), TypeError, "must give minibatches or have the shape of one input"),
    (lambda: small_model().initialize((0,)), TypeError, r"shape of one input.*dataset=\(0,\)"),
    (lambda: small_model().initialize(iter(random_batches())), TypeError, "A generator gives minibatches only once"),
    (lambda: small_model().initialize(5, cost=MeanSquared), TypeError, "must be an object to call"),
    (lambda: ArrayIterator([1.0], [1, 2]), ValueError, "as many samples. Received: 1 and 2"),
    (lambda: ArrayIterator([], []), ValueError, r"X must hold samples .* shape \(0,\)"),
]


@pytest.mark.parametrize(("action", "error", "message"), ERRORS, ids=[m for _, _, m in ERRORS])
def test_bad_input_is_named(action: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        action()


def test_a_layer_in_a_mode_of_its_own_is_left_in_it() -> None:
    """An evaluation put a frozen BatchNorm back into training."""
    model = Model([Affine(3, GlorotUniform(), batch_norm=True), Affine(2, GlorotUniform(), activation=Softmax())])
    model.initialize(5)
    model.layers[0].eval()
    modes = [part.training for part in model.modules()]
    batches = [(torch.randn(4, 5), torch.tensor([0, 1, 0, 1]))]
    model.eval(batches, Accuracy())
    model.get_outputs(batches)
    model.fprop(batches[0][0], inference=True)
    model.fprop(batches[0][0])
    model.fit(batches, CrossEntropyMulti(), PlainDescent(), num_epochs=1)
    assert [part.training for part in model.modules()] == modes
