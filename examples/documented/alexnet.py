"""A small AlexNet (Krizhevsky et al. 2012): weights and biases have an optimizer and a schedule each.

Run it: python examples/documented/alexnet.py -e 8
"""

from sklearn.datasets import load_digits

from neon import logger as neon_logger
from neon.callbacks.callbacks import Callbacks
from neon.data import ArrayIterator
from neon.initializers import Constant, Kaiming
from neon.layers import Affine, Conv, Dropout, GeneralizedCost, Pooling
from neon.models import Model
from neon.optimizers import GradientDescentMomentum, MultiOptimizer, Schedule
from neon.transforms import CrossEntropyMulti, Misclassification, Rectlin, Softmax
from neon.util.argparser import NeonArgparser

parser = NeonArgparser(__doc__, default_overrides={"epochs": 8, "batch_size": 64, "rng_seed": 0, "eval_freq": 1})
args = parser.parse_args()

# 1797 images of 8 x 8 pixels with values from 0 to 16; of every five the last is held out.
pixels, digits = load_digits(return_X_y=True)
held_out = [sample for sample in range(len(digits)) if sample % 5 == 4]
kept = [sample for sample in range(len(digits)) if sample % 5 < 4]
train = ArrayIterator(pixels[kept] / 16, digits[kept], nclass=10, lshape=(1, 8, 8))
valid = ArrayIterator(pixels[held_out] / 16, digits[held_out], nclass=10, lshape=(1, 8, 8))

# Five convolutions, three poolings and three dense layers, in sizes for 8 x 8 pixels.
init = Kaiming()
relu = Rectlin()
layers = [
    Conv((3, 3, 16), init=init, bias=Constant(0), activation=relu, padding=1),
    Pooling(3, strides=1, padding=1),
    Conv((3, 3, 32), init=init, bias=Constant(0.1), activation=relu, padding=1),
    Pooling(2, strides=2),
    Conv((3, 3, 48), init=init, bias=Constant(0), activation=relu, padding={"pad_h": 1, "pad_w": 1}),
    Conv((3, 3, 48), init=init, bias=Constant(0.1), activation=relu, padding=1),
    Conv((3, 3, 32), init=init, bias=Constant(0.1), activation=relu, padding=1),
    Pooling(2, strides=2),
    Affine(nout=128, init=init, bias=Constant(0.1), activation=relu),
    Dropout(keep=0.7),
    Affine(nout=64, init=init, bias=Constant(0.1), activation=relu),
    Dropout(keep=0.7),
    Affine(nout=10, init=init, bias=Constant(0), activation=Softmax()),
]
model = Model(layers=layers)
cost = GeneralizedCost(costfunc=CrossEntropyMulti())

# As for ImageNet: the rate of weights falls in two steps, that of biases in one; only weights decay.
sched_weight = Schedule([4, 6], 0.25)
sched_biases = Schedule([6], 0.1)
opt_gdm = GradientDescentMomentum(0.05, 0.9, wdecay=0.0005, schedule=sched_weight, stochastic_round=args.rounding)
opt_biases = GradientDescentMomentum(0.1, 0.9, schedule=sched_biases, stochastic_round=args.rounding)
opt = MultiOptimizer({"default": opt_gdm, "Bias": opt_biases}, gradient_clip_norm=2.0)

callbacks = Callbacks(model, eval_set=valid, metric=Misclassification(), **args.callback_args)
model.fit(train, optimizer=opt, num_epochs=args.epochs, cost=cost, callbacks=callbacks)
error_rate = model.eval(valid, metric=Misclassification())
neon_logger.display(f"Misclassification error = {error_rate * 100:.1f}%")
