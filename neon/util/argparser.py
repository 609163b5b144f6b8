"""NeonArgparser: the command line of programs that train, with the options of the documented framework."""

from __future__ import annotations

import argparse
import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import neon
from neon.arguments import rounding, whole_number
from neon.backends import check_backend, gen_backend
from neon.callbacks import Callbacks
from neon.log import logger
from neon.messages import listed, received

__all__ = ["NeonArgparser", "extract_valid_args"]

_DATA, _LOG = (os.path.join(os.path.expanduser("~"), "nervana", name) for name in ("data", "neon_log.txt"))
_TYPES = {"f16": np.float16, "f32": np.float32, "f64": np.float64}
_IGNORED = "taken, and means nothing here"
# Of the logger, from the last parse.
_handlers: list[logging.Handler] = []
# What a user's "~" may stand in.
_PATHS = ("data_dir", "save_path", "model_file", "output_file", "logfile")


def _bits(text: str) -> int:
    """A width in mantissa bits, as the options of optimizers take it."""
    try:
        return int(rounding("BITS", int(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _named_file(text: str) -> str:
    """NAME:FILE."""
    if ":" not in text:
        raise argparse.ArgumentTypeError(f"must be NAME:FILE, such as train:train.csv. {received('manifest', text)}")
    return text


def _option(*words: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """An option's strings, and what argparse is told besides."""
    return words, settings


_FLAG: dict[str, Any] = {"action": "store_true"}
_COUNT: dict[str, Any] = {"type": int, "help": _IGNORED}
_SAVING: dict[str, Any] = {"nargs": "?", "type": int, "const": 1, "default": 0, "metavar": "N"}
_ROUNDING: dict[str, Any] = {"nargs": "?", "type": _bits, "const": True, "default": False, "metavar": "BITS"}
_OPTIONS = {
    "": [
        _option("--version", action="version", version=neon.__version__),
        _option("-c", "--config", metavar="FILE", help="refused: give the options themselves"),
        _option("-v", "--verbose", action="count", default=1, help="more v's show more of the log"),
        _option("--no_progress_bar", **_FLAG, help="show no progress bar"),
    ],
    "benchmark": [
        _option("--profile", **_FLAG, help=_IGNORED),
        _option("--profiling_method", default="time", help=_IGNORED),
        _option("--profile_inference", **_FLAG, help=_IGNORED),
        _option("--profile_iterations", **_COUNT, default=50),
        _option("--profile_iter_skip", **_COUNT, default=5),
    ],
    "runtime": [
        _option("-w", "--data_dir", default=_DATA, help="where the program finds its data"),
        _option("-e", "--epochs", type=int, default=10, help="passes over the dataset"),
        _option("-s", "--save_path", help="file to save the model to"),
        _option("--serialize", **_SAVING, help="save every N epochs"),
        _option("--model_file", help="file of a saved model to go on from"),
        _option("-l", "--log", dest="logfile", nargs="?", const=_LOG, help="file for the log"),
        _option("-o", "--output_file", help="refused by Callbacks: Model.fit returns the costs"),
        _option("-eval", "--eval_freq", type=int, help="epochs from one evaluation to the next"),
        _option("-H", "--history", type=int, default=1, help="how many saved files to keep"),
        _option("--log_token", default="", help=_IGNORED),
        _option("--manifest", action="append", type=_named_file, help="NAME:FILE, for the program itself"),
        _option("--manifest_root", help="folder of those files, for the program itself"),
    ],
    "backend": [
        _option("-b", "--backend", choices=["cpu", "gpu", "mkl"], default="cpu", help="gpu is refused: move the model"),
        _option("-i", "--device_id", type=int, default=0, help="others than 0 are refused: move the model"),
        _option("-m", "--max_devices", **_COUNT, default=1),
        _option("-r", "--rng_seed", type=int, metavar="SEED", help="seed of random numbers"),
        _option("-u", "--rounding", **_ROUNDING, help="args.rounding, for stochastic_round= of optimizers"),
        _option(
            "-d", "--datatype", choices=[*_TYPES], default="f32", help="f16 and f64 are refused: convert the model"
        ),
        _option("-z", "--batch_size", type=int, default=128, help="samples in a minibatch"),
        _option("--caffe", **_FLAG, help="refused: sizes of convolutions are torch's"),
        _option("--deterministic", **_FLAG, help=_IGNORED),
    ],
}


class NeonArgparser(argparse.ArgumentParser):
    """The options of the documented framework's programs, by its names, short forms and defaults.

    `desc` is the text above the help, as a rule `__doc__`. `default_overrides` has other defaults by the options'
    names. `default_config_files` that are there are refused, as `--config` is: defaults stand in the program. Options
    that mean nothing here say so in `--help`. Options of one's own are added by `add_argument`, before `parse_args`.

    Raises `ValueError` for overrides of options that there are not, and for files that are there; `TypeError` for
    overrides of numbers by what is none.
    """

    def __init__(
        self,
        desc: str | None = None,
        *,
        default_overrides: Mapping[str, Any] | None = None,
        default_config_files: Iterable[str] = (),
        add_config_file_help: bool = False,
        **kwargs: Any,
    ) -> None:
        if found := [path for path in default_config_files if os.path.exists(os.path.expanduser(path))]:
            raise ValueError(
                f"default_config_files are not read here. Received: {listed(found)}. Give default_overrides={{...}}."
            )
        super().__init__(**{"description": desc, "formatter_class": argparse.ArgumentDefaultsHelpFormatter, **kwargs})
        for name, options in _OPTIONS.items():
            place = self.add_argument_group(name) if name else self
            for words, settings in options:
                place.add_argument(*words, **settings)
        self._override({} if default_overrides is None else default_overrides)

    def _override(self, defaults: Mapping[str, Any]) -> None:
        known = {action.dest: action for action in self._actions}
        for name, value in defaults.items():
            if name not in known:
                raise ValueError(f"default_overrides has {name!r}, which is no option. Options: {listed(known, 300)}.")
            choices = known[name].choices
            if choices is not None and value not in choices:
                raise ValueError(f"{name} must be one of {listed(map(str, choices))}. {received(name, value)}")
            parsed = isinstance(value, str) and known[name].type is not None  # argparse converts these
            if type(known[name].default) is int and not parsed:
                whole_number(name, value)
        self.set_defaults(**defaults)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | bool | None = None, gen_be: bool = True, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse the command line, or `args`; then, with `gen_be`, call `gen_backend`, and set the log's level.

        Besides the options, what is returned has `datatype` as numpy's type, `progress_bar`, `compat_mode`,
        `log_thresh` and `callback_args`, for `Callbacks(model, eval_set=..., **args.callback_args)`. `rounding` is what
        optimizers take as `stochastic_round`. A `save_path` alone saves every epoch, `serialize` alone to
        neon_model.pkl, with a warning, as in the documented framework; the folder of `save_path` is made.

        Raises `OSError` for files that cannot be read or written, and what `gen_backend` raises; nothing is changed.
        """
        if isinstance(args, bool):  # the documented framework's first argument
            args, gen_be = None, args
        found = super().parse_args(args, namespace)
        if found.config is not None:
            self.error(f"--config is not read here: give the options themselves. {received('config', found.config)}")
        _complete(found)
        _check_files(found)
        backend = extract_valid_args(found, gen_backend)
        if gen_be:
            check_backend(**extract_valid_args(found, check_backend))
        _set_up_log(found)
        if found.save_path:
            os.makedirs(os.path.dirname(os.path.abspath(found.save_path)), exist_ok=True)
        if gen_be:
            gen_backend(**backend)
        found.callback_args = extract_valid_args(found, Callbacks.__init__, startidx=1)
        return found


def extract_valid_args(args: argparse.Namespace, func: Callable[..., Any], startidx: int = 0) -> dict[str, Any]:
    """Of parsed arguments those that a function has by name, without the first `startidx` of its own.

    >>> extract_valid_args(argparse.Namespace(epochs=3, backend="cpu"), gen_backend)
    {'backend': 'cpu'}
    """
    parameters = [*inspect.signature(func).parameters.values()][startidx:]
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in vars(args).items() if name in names}


def _complete(args: argparse.Namespace) -> None:
    """What follows from the options."""
    for name in _PATHS:
        if getattr(args, name):
            setattr(args, name, os.path.expanduser(getattr(args, name)))
    args.log_thresh = max(logging.DEBUG, logging.ERROR - 10 * args.verbose)
    args.datatype = _TYPES[args.datatype]
    args.progress_bar = not args.no_progress_bar
    args.compat_mode = "caffe" if args.caffe else None
    args.manifest = args.manifest and dict(entry.split(":", 1) for entry in args.manifest)
    if args.serialize > 0 and not args.save_path:
        args.save_path = "neon_model.pkl"
        logger.warning("No path to save the model to is given: it is saved to %s.", args.save_path)
    if args.save_path and args.serialize == 0:
        args.serialize = 1
        logger.warning("No epochs to save the model after are given: it is saved after each.")


def _check_files(args: argparse.Namespace) -> None:
    """Refuse files that cannot be read or written, before a run is lost by it."""
    if args.model_file and not os.path.isfile(args.model_file):
        raise FileNotFoundError(f"model_file must be a file that is there. {received('model_file', args.model_file)}")
    if args.model_file and not os.access(args.model_file, os.R_OK):
        raise PermissionError(f"model_file must be a file to be read. {received('model_file', args.model_file)}")
    if not args.save_path:
        return
    path = Path(args.save_path).absolute()
    folder = next(parent for parent in path.parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OSError(f"save_path must be a file in a folder to be written to. {received('save_path', args.save_path)}")
    if path.exists():
        logger.warning("%s is there, and will be written over.", args.save_path)


def _set_up_log(args: argparse.Namespace) -> None:
    """The level of the logger `neon`; a file for it; and, where nothing shows it, the standard error."""
    logger.setLevel(args.log_thresh)
    while _handlers:  # a second parse has its own, or both would write to one file
        handler = _handlers.pop()
        logger.removeHandler(handler)
        handler.close()
    form = logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")
    if args.logfile:
        os.makedirs(os.path.dirname(os.path.abspath(args.logfile)), exist_ok=True)
        _handlers.append(logging.FileHandler(args.logfile, mode="w", encoding="utf-8"))
    if not logger.hasHandlers():
        _handlers.append(logging.StreamHandler())
    for handler in _handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
