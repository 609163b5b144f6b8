"""A perceptron with one hidden layer reads handwritten digits, as programs of the documented framework are written.

Run it: python examples/documented/mlp.py -e 10          (--help lists what else it takes)
"""

from sklearn.datasets import load_digits

from neon import logger as neon_logger
from neon.callbacks.callbacks import Callbacks
from neon.data import ArrayIterator
from neon.initializers import Gaussian
from neon.layers import Affine, GeneralizedCost
from neon.models import Model
from neon.optimizers import GradientDescentMomentum
from neon.transforms import CrossEntropyBinary, Logistic, Misclassification, Rectlin
from neon.util.argparser import NeonArgparser

parser = NeonArgparser(__doc__, default_overrides={"epochs": 15, "batch_size": 64, "rng_seed": 0, "eval_freq": 1})
args = parser.parse_args()

# 1797 images of 8 x 8 pixels with values from 0 to 16; of every five the last is held out.
pixels, digits = load_digits(return_X_y=True)
held_out = [sample for sample in range(len(digits)) if sample % 5 == 4]
kept = [sample for sample in range(len(digits)) if sample % 5 < 4]
train_set = ArrayIterator(pixels[kept] / 16, digits[kept], nclass=10)
valid_set = ArrayIterator(pixels[held_out] / 16, digits[held_out], nclass=10)

init_norm = Gaussian(loc=0.0, scale=0.1)
layers = [
    Affine(nout=100, init=init_norm, activation=Rectlin()),
    Affine(nout=10, init=init_norm, activation=Logistic(shortcut=True)),
]
mlp = Model(layers=layers)

cost = GeneralizedCost(costfunc=CrossEntropyBinary())
optimizer = GradientDescentMomentum(0.1, momentum_coef=0.9, stochastic_round=args.rounding)
callbacks = Callbacks(mlp, eval_set=valid_set, **args.callback_args)

mlp.fit(train_set, optimizer=optimizer, num_epochs=args.epochs, cost=cost, callbacks=callbacks)
error_rate = mlp.eval(valid_set, metric=Misclassification())
neon_logger.display(f"Misclassification error = {error_rate * 100:.1f}%")
