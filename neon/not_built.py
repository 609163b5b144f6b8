"""What of the documented framework is not built: names that can be imported and, when used, say what to write."""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["INSTEAD", "absent", "instead_of"]

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

_WORDS = {name: words for words, names in INSTEAD.items() for name in names.split()}


def instead_of(name: str, place: str) -> str | None:
    """What to write in place of a name of the documented framework that is not built; None for any other name."""
    return f"{place} has no {name} here. {_WORDS[name]}" if name in _WORDS else None


@cache
def absent(name: str, module: str) -> type | None:
    """A class that says what to write when it is called or subclassed, for programs import more than they use.

    None for a name that is not in the table.
    """
    words = instead_of(name, module)
    if words is None:
        return None

    def refuse(*_args: Any, **_named: Any) -> Any:
        raise NotImplementedError(words)

    return type(name, (), {"__module__": module, "__doc__": words, "__new__": refuse, "__init_subclass__": refuse})
