"""A generative adversarial pair (Goodfellow et al. 2014) draws handwritten digits, each with its own optimizer.

How near the drawn digits come is measured by the Fréchet distance between normal distributions fitted to real and to
drawn images, in the 16 directions in which real ones vary most: 0 would be the same mean and covariance.

Run it: python examples/documented/gan.py -e 40
"""

import numpy as np
from sklearn.datasets import load_digits

from neon import logger as neon_logger
from neon.callbacks.callbacks import Callbacks
from neon.data import ArrayIterator
from neon.initializers import Gaussian
from neon.layers import Affine, GeneralizedGANCost, Sequential
from neon.layers.container import GenerativeAdversarial
from neon.models.model import GAN
from neon.optimizers import Adam, MultiOptimizer, RMSProp
from neon.transforms import GANCost, Logistic, Rectlin
from neon.util.argparser import NeonArgparser

parser = NeonArgparser(__doc__, default_overrides={"epochs": 40, "batch_size": 64, "rng_seed": 0})
parser.add_argument("--kbatch", type=int, default=1, help="number of data batches per noise batch in training")
args = parser.parse_args()

images = np.asarray(load_digits(return_X_y=True)[0]) / 16  # 1797 images of 64 pixels, values from 0 to 1
train_set = ArrayIterator(images)

init = Gaussian(scale=0.1)
relu, lrelu = Rectlin(slope=0), Rectlin(slope=0.1)
G_layers = [
    Affine(nout=128, init=init, activation=relu, batch_norm=True, name="G1"),
    Affine(nout=128, init=init, activation=relu, batch_norm=True, name="G2"),
    Affine(nout=64, init=init, activation=Logistic(shortcut=False), name="G_out"),
]
D_layers = [
    Affine(nout=128, init=init, activation=lrelu, name="D1"),
    Affine(nout=128, init=init, activation=lrelu, name="D2"),
    Affine(nout=1, init=init, activation=Logistic(shortcut=False), name="D_out"),
]
layers = GenerativeAdversarial(
    generator=Sequential(G_layers, name="Generator"), discriminator=Sequential(D_layers, name="Discriminator")
)
noise_dim = (16,)
gan = GAN(layers=layers, noise_dim=noise_dim, k=args.kbatch)
cost = GeneralizedGANCost(costfunc=GANCost(func="modified"))

optimizer = MultiOptimizer(
    {
        "default": Adam(learning_rate=0.001, beta_1=0.5, stochastic_round=args.rounding),
        "Discriminator": RMSProp(learning_rate=0.0005, stochastic_round=args.rounding),
    }
)


def distance() -> float:
    """The Fréchet distance of 1797 drawn images from the real ones."""
    gan.eval()
    drawn = gan.fprop_gen(gan.be.array(np.random.RandomState(0).standard_normal((len(images), *noise_dim))))
    gan.train()
    _, _, directions = np.linalg.svd(images - images.mean(0), full_matrices=False)
    real, fake = images @ directions[:16].T, drawn.detach().numpy() @ directions[:16].T
    covariances = np.cov(real.T), np.cov(fake.T)
    # The trace of the root of a product of two covariances is the sum of the roots of its eigenvalues.
    shared = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)).sum()
    return float(((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1]) - 2 * shared)


gan.initialize(train_set, cost)
neon_logger.display(f"Distance before training = {distance():.2f}")
callbacks = Callbacks(gan, **args.callback_args)
gan.fit(train_set, optimizer=optimizer, num_epochs=args.epochs, cost=cost, callbacks=callbacks)
neon_logger.display(f"Distance after training = {distance():.2f}")
