"""GAN: a generator that learns to make samples, by a discriminator that learns to tell them from data."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor

from neon.arguments import flag, positive, positive_integer
from neon.callbacks import Callbacks
from neon.layers.adversarial import GenerativeAdversarial
from neon.layers.container import Sequential
from neon.messages import received
from neon.models.minibatches import Dataset, place
from neon.models.model import Model
from neon.models.model_checks import adversarial_cost
from neon.transforms import GANCost

# The generator waits this many minibatches for a discriminator that has just begun (Arjovsky et al. 2017).
_FIRST_UPDATES, _EVERY, _LONG = 25, 500, 100


class GAN(Model):
    """A pair of networks (Goodfellow et al. 2014), which a GANCost trains. Called on noise it is D(G(noise)).

    In each minibatch the discriminator takes a step against the costs on as much noise as there is data, and on the
    data. Then, in every `k`-th minibatch, the generator takes one on noise of its own, by gradients that come through
    the discriminator and leave it as it is. The first is in the minibatch after the first `k`: counts go on from one
    epoch to the next, and are saved with the parameters.

    A dataset is as `Model` has it; its targets mean nothing. `optimizer.optimize` gets all layers, of which those of
    one network have gradients.

    Args:
        layers: GenerativeAdversarial(generator=..., discriminator=...), the discriminator with one output a sample.
        noise_dim: the shape of one sample of noise, such as 100 or (2, 7, 7).
        noise_type: "normal", with mean 0 and deviation 1, or "uniform", in [−1, 1). Default "normal".
        k: minibatches for each step of the generator, 1 or more. Default 1.
        wgan_param_clamp: c > 0 puts the discriminator's parameters into [−c, c] before each minibatch. Default None.
        wgan_train_sched: with 100 in k's place before each of the generator's first 25 steps and before each 500th.
        weights_only, optimizer: mean nothing here.
    """

    def __init__(
        self,
        layers: GenerativeAdversarial,
        noise_dim: int | tuple[int, ...],
        noise_type: str = "normal",
        weights_only: bool = False,
        name: str | None = None,
        optimizer: Any = None,
        k: int = 1,
        wgan_param_clamp: float | None = None,
        wgan_train_sched: bool = False,
    ) -> None:
        if not isinstance(layers, GenerativeAdversarial):
            raise TypeError(
                "A GAN's layers must be GenerativeAdversarial(generator=..., discriminator=...). "
                f"{received('layers', layers)}"
            )
        if noise_type not in ("normal", "uniform"):
            raise ValueError(f'noise_type must be "normal" or "uniform". {received("noise_type", noise_type)}')
        super().__init__(layers, name)
        sizes = noise_dim if isinstance(noise_dim, (tuple, list)) else (noise_dim,)
        self.noise_dim = tuple(positive_integer("noise_dim", size) for size in sizes)
        self.noise_type = noise_type
        self.k = positive_integer("k", k)
        self.wgan_param_clamp = None if wgan_param_clamp is None else positive("wgan_param_clamp", wgan_param_clamp)
        self.wgan_train_sched = flag("wgan_train_sched", wgan_train_sched)
        self.current_batch = self.gen_iter = self.last_gen_batch = 0
        # The discriminator's mean cost at the generator's last step.
        self.cost_dis: Tensor | None = None

    @property
    def generator(self) -> Sequential:
        """What makes samples of noise."""
        return cast(GenerativeAdversarial, self.layers[0]).generator

    @property
    def discriminator(self) -> Sequential:
        """What tells samples of data from those."""
        return cast(GenerativeAdversarial, self.layers[0]).discriminator

    def initialize(self, dataset: Any = None, cost: Any = None) -> None:
        """Give parameters that have none yet their shapes and first values: they follow from the noise's shape."""
        zeros = torch.zeros(1, *self.noise_dim, dtype=torch.float32, device="cpu")
        super().initialize([(zeros, zeros)], cost)

    def noise(self, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise for so many samples, by torch's random numbers or by those of a generator."""
        like = self.example()
        draw = torch.randn if self.noise_type == "normal" else torch.rand
        drawn = draw(samples, *self.noise_dim, generator=generator, dtype=like.dtype, device=like.device)
        return drawn if self.noise_type == "normal" else 2 * drawn - 1

    def fprop_gen(self, x: Any, inference: bool = False) -> Tensor:
        """What the generator makes of noise, as in training or as in evaluation."""
        return self._through(self.generator, x, inference)

    def fprop_dis(self, x: Any, inference: bool = False) -> Tensor:
        """What the discriminator says of samples."""
        return self._through(self.discriminator, x, inference)

    def _through(self, network: Sequential, x: Any, inference: bool) -> Tensor:
        with self.evaluating() if inference else nullcontext():
            return network(place(x, self.example()))

    def get_k(self, giter: int) -> int:
        """How many minibatches the generator waits for its step number `giter`, from 0."""
        waits = self.wgan_train_sched and (giter < _FIRST_UPDATES or giter % _EVERY == 0)
        return _LONG if waits else self.k

    def fit_epoch(self, dataset: Dataset, cost: Any, optimizer: Any, callbacks: Callbacks | None = None) -> float:
        """One pass over the dataset. Returns the mean of the discriminator's cost where the generator took a step.

        It is NaN in an epoch without such a step.
        """
        costfunc = adversarial_cost(cost)
        self.initialize()
        self.begin_epoch(optimizer)
        begin, end = (callbacks or Callbacks()).minibatch_hooks()
        costs: list[Tensor] = []
        for minibatch, (inputs, _) in enumerate(self.batches(dataset)):
            for hook in begin:
                hook(self, self.epoch, minibatch)
            self.clamp_discriminator()
            on_data = self.train_discriminator(inputs, costfunc, optimizer)
            if self.current_batch == self.last_gen_batch + self.get_k(self.gen_iter):
                self.cost_dis = self.train_generator(on_data, costfunc, optimizer)
                costs.append(self.cost_dis)
                self.last_gen_batch = self.current_batch
                self.gen_iter += 1
            for hook in end:
                hook(self, self.epoch, minibatch)
            self.current_batch += 1
        return float(torch.stack(costs).mean()) if costs else float("nan")

    @torch.no_grad()
    def clamp_discriminator(self) -> None:
        """Put the discriminator's parameters into [−c, c], with c the `wgan_param_clamp`."""
        bound = self.wgan_param_clamp
        for parameter in self.discriminator.parameters() if bound is not None else ():
            parameter.clamp_(-bound, bound)  # type: ignore[operator]

    def train_discriminator(self, inputs: Tensor, cost: GANCost, optimizer: Any) -> Tensor:
        """A step of the discriminator. Returns its scores for the data, before the step."""
        with torch.no_grad():
            made = self.generator(self.noise(len(inputs)))
        on_noise, on_data = self.score(made, cost), self.score(inputs, cost)
        self.zero_grad()
        self.update(optimizer, self.of_scores(cost, on_data, on_noise, "dis"), self.discriminator)
        return on_data.detach()

    def train_generator(self, on_data: Tensor, cost: GANCost, optimizer: Any) -> Tensor:
        """A step of the generator. Returns the discriminator's mean cost, before the step."""
        on_noise = self.score(self.generator(self.noise(len(on_data))), cost)
        self.zero_grad()
        self.update(optimizer, self.of_scores(cost, None, on_noise, "gen"), self.generator)
        return self.of_scores(cost, on_data, on_noise.detach(), "dis").mean()

    def score(self, x: Tensor, cost: GANCost) -> Tensor:
        """What the discriminator gives the cost: its logits where the cost fuses with its last transform."""
        return self.discriminator.logits(x) if self.fuses(cost) else self.discriminator(x)

    def of_scores(self, cost: GANCost, on_data: Tensor | None, on_noise: Tensor, cost_type: str) -> Tensor:
        """The cost of each sample."""
        return (cost.from_logits if self.fuses(cost) else cost)(on_data, on_noise, cost_type)

    def fuses(self, cost: GANCost) -> bool:
        return cost.fuses_with is not None and cost.fuses_with == self.discriminator.last_transform

    def check_cost(self, cost: Any) -> None:
        """Refuse what is no GANCost."""
        adversarial_cost(cost)

    def per_sample(self, cost: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        """What `eval` measures: the cost on data, and on noise that is the same in each evaluation."""
        costfunc = adversarial_cost(cost)
        seeded = torch.Generator(inputs.device).manual_seed(0)
        made = self.generator(self.noise(len(inputs), seeded))
        return self.of_scores(
            costfunc, self.score(inputs, costfunc), self.score(made, costfunc), costfunc.cost_type
        ).detach()

    def get_extra_state(self) -> dict[str, int]:
        """The counts of minibatches and of the generator's steps, for `state_dict`."""
        return {name: getattr(self, name) for name in _COUNTS}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Load counts from a `state_dict`."""
        for name in _COUNTS:
            setattr(self, name, state[name])


_COUNTS = ("current_batch", "gen_iter", "last_gen_batch")
