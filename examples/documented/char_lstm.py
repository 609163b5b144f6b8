"""A recurrent network learns to write like Python's manual: RMSProp, clipped by value, weights rounded at random.

The text is the language reference that comes with Python itself (`help("lambda")` reads it there).

Run it: python examples/documented/char_lstm.py -e 4 --rlayer_type gru
"""

from pydoc_data.topics import topics

import numpy as np

from neon import logger as neon_logger
from neon.backends import gen_backend
from neon.callbacks.callbacks import Callbacks
from neon.data import ArrayIterator
from neon.initializers import Uniform
from neon.layers import GRU, LSTM, Affine, GeneralizedCost, LookupTable
from neon.models import Model
from neon.optimizers import RMSProp, Schedule
from neon.transforms import CrossEntropyMulti, Logistic, Misclassification, Softmax, Tanh
from neon.util.argparser import NeonArgparser, extract_valid_args

# Weights keep 12 of the 23 bits of their mantissa: -u 12.
parser = NeonArgparser(__doc__, default_overrides={"epochs": 4, "rng_seed": 0, "rounding": 12, "eval_freq": 1})
parser.add_argument("--rlayer_type", default="lstm", choices=["gru", "lstm"], help="the recurrent layer")
args = parser.parse_args(gen_be=False)

args.batch_size = 64
time_steps = 32
hidden_size = 96
gradient_clip_value = 5
be = gen_backend(**extract_valid_args(args, gen_backend))

text = "\n".join(topics[name] for name in sorted(topics))[:150_000]
vocab = sorted(set(text))
token_to_index = {token: index for index, token in enumerate(vocab)}
codes = np.array([token_to_index[token] for token in text])

# The network reads characters 0 to 31 of a sequence and is asked for characters 1 to 32; a tenth is held out.
sequences = (len(codes) - 1) // time_steps
X = codes[: sequences * time_steps].reshape(sequences, time_steps)
y = codes[1 : sequences * time_steps + 1].reshape(sequences, time_steps)
train_set = ArrayIterator(X[sequences // 10 :], y[sequences // 10 :])
valid_set = ArrayIterator(X[: sequences // 10], y[: sequences // 10])

init = Uniform(low=-0.08, high=0.08)
rlayer = {"lstm": LSTM, "gru": GRU}[args.rlayer_type]
layers = [
    LookupTable(vocab_size=len(vocab), embedding_dim=32, init=init),
    rlayer(hidden_size, init, activation=Tanh(), gate_activation=Logistic(), reset_cells=True),
    Affine(len(vocab), init, bias=init, activation=Softmax()),
]
model = Model(layers=layers)
cost = GeneralizedCost(costfunc=CrossEntropyMulti(usebits=True))

optimizer = RMSProp(
    learning_rate=0.01,
    gradient_clip_value=gradient_clip_value,
    stochastic_round=args.rounding,
    schedule=Schedule(list(range(3, args.epochs)), 0.7),
)
callbacks = Callbacks(model, eval_set=valid_set, **args.callback_args)
model.fit(train_set, optimizer=optimizer, num_epochs=args.epochs, cost=cost, callbacks=callbacks)

bits = model.eval(valid_set, metric=CrossEntropyMulti(usebits=True)) / time_steps
error_rate = model.eval(valid_set, metric=Misclassification())
neon_logger.display(f"Misclassification error = {error_rate * 100:.1f}%")
neon_logger.display(f"Bits per character = {bits:.2f}")
