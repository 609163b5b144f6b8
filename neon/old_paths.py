"""Names and module paths of the documented framework: where neon has them, and what to write where it has none.

`INSTEAD` is the one table of what is not built. A name of it can be imported, since programs import more than they
use, and says what to write when it is called or subclassed; a module of `MODULES` says so when it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import Any

__all__ = ["instead_of", "names_of"]

_ARRAYS = "Load the arrays yourself, samples first, and write ArrayIterator(X, y, nclass=10, lshape=(1, 28, 28))."
_TEXT = (
    "Load the text yourself, and write a class whose __iter__ gives minibatches: inputs (N, T) of numbers or "
    "(N, T, features), targets (N, T)."
)
_LOADER = "Write a torch.utils.data.DataLoader, which Model.fit takes: it gives (inputs, targets), samples first."
_BRANCHES = (
    "A Model has one input and one output here. Write a torch.nn.Module with these branches, and train it by an "
    "attached optimizer: optimizer.attach(module)."
)
_BIDIRECTIONAL = (
    "Write a torch.nn.Module with two layers, LSTM or Recurrent, whose forward returns "
    "torch.cat([ahead(x), back(x.flip(1)).flip(1)], -1)."
)
_BACKEND = 'Write gen_backend(batch_size=128): arrays are torch tensors, and a model is moved by model.to("cuda").'
_CALLBACK = "Write a subclass of neon.callbacks.callbacks.Callback that does it in on_epoch_end."
_PLOT = "Draw it by matplotlib, in on_epoch_end of a subclass of neon.callbacks.callbacks.Callback."
_TIME = "Time model.fit; `neon bench` times optimizers."
_OUTPUTS = "Write model.get_outputs(dataset), and take it from there."
_FILE = "Write model.save_params(path) and model.load_params(path)."

# What to write: the names that are not built, of classes, functions and methods.
INSTEAD = {
    _ARRAYS: "MNIST CIFAR10 DUMMY Dataset HDF5Iterator HDF5IteratorOneHot HDF5IteratorAutoencoder",
    _TEXT: "Text TextNMT PTB Shakespeare HutterPrize IMDB SICK BABI QA Ticker CopyTask RepeatCopyTask PrioritySortTask "
    "clean_string pad_sentences pad_data get_paddedXY get_google_word2vec_W",
    _LOADER: "AeonDataLoader DataLoaderAdapter DataLoaderTransformer OneHot PixelWiseOneHot TypeCast Retuple "
    "BGRMeanSubtract ValueNormalize ImageCaption ImageCaptionTest Flickr8k Flickr30k Coco",
    _BRANCHES: "Tree SingleOutputTree BranchNode Multicost MergeMultistream Seq2Seq Encoder Decoder SkipThought "
    "DeltasTree RoiPooling",
    _BIDIRECTIONAL: "BiRNN BiBNRNN BiLSTM DeepBiRNN DeepBiLSTM BiSum",
    "Write BatchNorm() and Linear, or a torch.nn.Module.": "ShiftBatchNorm BatchNormAutodiff BinaryAffine BinaryLinear",
    "Write Activation(transform) with it as a function of a tensor.": "DataTransform Normalizer Sign",
    "Write Softmax(axis=1): the channels hold the classes.": "PixelwiseSoftmax",
    "Write a function of (outputs, targets) in torch's words, such as torch.nn.functional.smooth_l1_loss.": "LogLoss "
    "SmoothL1Loss SquareHingeLoss PrecisionRecall ObjectDetection BLEUScore MultiMetric",
    _BACKEND: "NervanaCPU NervanaGPU NervanaMKL cleanup_backend",
    _CALLBACK: "BatchNormTuneCallback DeconvCallback HistCallback LossCallback MetricCallback MultiLabelStatsCallback "
    "RunTimerCallback TrainCostCallback TrainLoggerCallback TrainMulticostCallback WatchTickerCallback "
    "ProgressBarCallback add_deconv_callback add_hist_callback add_watch_ticker_callback",
    _OUTPUTS: "get_outputs_beam",
    _FILE: "serialize deserialize load_weights load_callbacks",
    "Write model.state_dict() for the parameters, print(model) for the layers.": "get_description",
    "Write loss.backward(): gradients are autograd's.": "Autodiff OpTree bprop bprop_dis bprop_gen allocate_deltas",
    _TIME: "Benchmark benchmark",
    "Write pickle.dump(obj, file) and pickle.load(file).": "save_obj load_obj",
    "Give minibatches of that size: layers take any.": "set_batch_size set_seq_len",
}
# Modules that are not built, with what to write.
MODULES = {
    _ARRAYS: "data.image data.datasets data.hdf5iterator",
    _TEXT: "data.text data.text_preprocessing data.ticker data.questionanswer",
    _LOADER: "data.aeon_shim data.dataloaderadapter data.dataloader_transformers data.imagecaption",
    _BACKEND: "backends.nervanacpu backends.nervanagpu backends.nervanamkl backends.util",
    "Write loss.backward(): gradients are autograd's.": "backends.autodiff",
    _OUTPUTS: "util.beamsearch",
    _PLOT: "visualizations callbacks.plotting_callbacks",
    "Write the program in Python: layers, then Model(layers).": "util.yaml_parse util.modeldesc util.load_experiment",
    _TIME: "benchmark",
    "Write import pickle: Python 3 needs nothing in between.": "util.compat",
}


def _by_name(table: dict[str, str]) -> dict[str, str]:
    return {name: words for words, names in table.items() for name in names.split()}


_INSTEAD, _MODULES = _by_name(INSTEAD), _by_name(MODULES)


def instead_of(name: str, place: str) -> str | None:
    """What to write in place of a name of the documented framework that is not built; None for any other name."""
    return f"{place} has no {name} here. {_INSTEAD[name]}" if name in _INSTEAD else None


def names_of(package: str, module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module: names that it does not have itself are those of its package, or say what to write.

    The package itself may be the module.
    """

    def find(name: str) -> Any:
        found = import_module(package)
        known: Iterable[str] = () if package == module else found.__all__
        if name in known:
            return getattr(found, name)
        if name in _INSTEAD:
            return _absent(name, module)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


@cache
def _absent(name: str, module: str) -> type:
    """A class that says what to write when it is called or subclassed."""
    words = instead_of(name, module)

    def refuse(*_args: Any, **_named: Any) -> Any:
        raise NotImplementedError(words)

    return type(name, (), {"__module__": module, "__doc__": words, "__new__": refuse, "__init_subclass__": refuse})


class _AbsentModules(MetaPathFinder):
    """Asked for modules that nobody else has found."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        words = _MODULES.get(fullname.removeprefix("neon.")) if fullname.startswith("neon.") else None
        if words is not None:
            raise ModuleNotFoundError(f"There is no {fullname} here. {words}", name=fullname)


if not any(type(finder).__name__ == _AbsentModules.__name__ for finder in sys.meta_path):
    sys.meta_path.append(_AbsentModules())
