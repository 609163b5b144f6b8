"""The command line of programs of the documented framework."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_training import random_batches, small_model

import neon
from neon.backends import default, gen_backend
from neon.callbacks import Callbacks
from neon.optimizers import RMSProp
from neon.transforms import CrossEntropyMulti
from neon.util.argparser import NeonArgparser, extract_valid_args


@pytest.fixture(autouse=True)
def logger_of_before() -> Iterator[None]:
    level, handlers = neon.logger.level, [*neon.logger.handlers]
    yield
    for handler in neon.logger.handlers:
        if handler not in handlers:
            handler.close()
    neon.logger.handlers[:] = handlers
    neon.logger.setLevel(level)


def parsed(line: str = "", **given: Any) -> Any:
    return NeonArgparser("A program.", **given).parse_args(line.split())


def test_defaults_are_the_documented_ones() -> None:
    args = parsed()
    expected = {"backend": "cpu", "batch_size": 128, "epochs": 10, "rng_seed": None, "rounding": False}
    expected |= {"eval_freq": None, "serialize": 0, "save_path": None, "model_file": None, "output_file": None}
    expected |= {"history": 1, "log_token": "", "device_id": 0, "datatype": np.float32, "verbose": 1, "logfile": None}
    expected |= {"progress_bar": True, "compat_mode": None, "log_thresh": logging.WARNING, "manifest": None}
    assert {name: getattr(args, name) for name in expected} == expected
    given = ("eval_freq", "progress_bar", "save_path", "serialize", "history", "model_file", "output_file", "log_token")
    assert args.callback_args == {name: expected[name] for name in given}
    assert Path(args.data_dir).name == "data"


SHORT = "-b mkl -e 3 -z 64 -r 7 -u 10 -eval 2 -s {0}/runs/a.prm -v -w {0} -H 4 -i 0 -d f32 -l {0}/log.txt"
LONG = (
    "--backend mkl --epochs 3 --batch_size 64 --rng_seed 7 --rounding 10 --eval_freq 2 --save_path {0}/runs/a.prm "
    "--verbose --data_dir {0} --history 4 --device_id 0 --datatype f32 --log {0}/log.txt"
)


@pytest.mark.parametrize("line", [SHORT, LONG])
def test_options_have_their_short_and_long_forms(tmp_path: Path, line: str) -> None:
    more = "--serialize 2 --no_progress_bar --log_token x --deterministic --profile --max_devices 2 --manifest a:b.csv"
    args = parsed(f"{line.format(tmp_path)} {more}")
    assert (args.backend, args.epochs, args.batch_size, args.rng_seed, args.rounding) == ("mkl", 3, 64, 7, 10)
    expected = {"eval_freq": 2, "progress_bar": False, "save_path": f"{tmp_path}/runs/a.prm", "serialize": 2}
    expected |= {"history": 4, "model_file": None, "output_file": None, "log_token": "x"}
    assert args.callback_args == expected
    assert args.manifest == {"a": "b.csv"}
    assert (tmp_path / "runs").is_dir()
    assert neon.logger.level == args.log_thresh == logging.INFO
    neon.logger.info("a line")
    assert "a line" in (tmp_path / "log.txt").read_text()


def test_the_backend_is_set_unless_the_program_does_so() -> None:
    args = NeonArgparser("").parse_args(["-z", "32", "-r", "3"], gen_be=False)
    assert (default.bsz, default.has_batch_size) == (1, False)
    be = gen_backend(**extract_valid_args(args, gen_backend))
    first = torch.rand(2)
    assert be.bsz == 32
    assert be.rng.uniform() == np.random.RandomState(3).uniform()
    NeonArgparser("").parse_args(["-z", "16", "-r", "3"])
    assert default.bsz == 16
    assert torch.equal(torch.rand(2), first)
    assert NeonArgparser("").parse_args([]).batch_size == default.bsz == 128


def test_arguments_come_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["program.py", "-e", "4", "--lr", "0.5"])
    for further in ({}, {"gen_be": False}):
        parser = NeonArgparser(__doc__)
        parser.add_argument("--lr", type=float, default=0.1)
        args = parser.parse_args(**further)
        assert (args.epochs, args.lr) == (4, 0.5)
    gen_backend(batch_size=3)
    parser.parse_args(False)  # gen_be by position
    assert default.bsz == 3


def test_a_program_has_other_defaults() -> None:
    overrides = {"epochs": 2, "rng_seed": 0, "batch_size": 64, "backend": "mkl", "rounding": True, "datatype": "f32"}
    args = parsed("-e 5", default_overrides=overrides, default_config_files=["no/such/file.cfg"])
    assert (args.epochs, args.rng_seed, args.batch_size, args.backend, args.rounding) == (5, 0, 64, "mkl", True)


@pytest.mark.parametrize(("line", "expected"), [("", False), ("-u", True), ("-u 10", 10), ("--rounding 1", 1)])
def test_rounding_is_what_optimizers_take(line: str, expected: Any) -> None:
    args = parsed(line)
    assert args.rounding is expected or (args.rounding == expected and type(args.rounding) is int)
    assert RMSProp(stochastic_round=args.rounding).stochastic_round is args.rounding


def test_saving_is_completed_as_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    args = parsed("--serialize")
    assert (args.serialize, args.save_path) == (1, "neon_model.pkl")
    assert "it is saved to neon_model.pkl" in caplog.text
    args = parsed("-s model.prm")
    assert args.serialize == args.callback_args["serialize"] == 1
    assert "saved after each" in caplog.text
    (tmp_path / "model.prm").touch()
    parsed("-s model.prm --serialize 3")
    assert "model.prm is there, and will be written over" in caplog.text


def test_a_program_saves_and_goes_on(tmp_path: Path) -> None:
    """From the command line to the file and back."""
    torch.manual_seed(0)
    batches, path = random_batches(), tmp_path / "runs" / "model.prm"
    args = parsed(f"-e 2 -s {path} --no_progress_bar")
    model = small_model()
    optimizer = RMSProp(stochastic_round=args.rounding)
    callbacks = Callbacks(model, eval_set=batches, **args.callback_args)
    model.fit(batches, optimizer=optimizer, num_epochs=args.epochs, cost=CrossEntropyMulti(), callbacks=callbacks)
    args = parsed(f"-e 5 --model_file {path} --no_progress_bar")
    again = small_model()
    callbacks = Callbacks(again, **args.callback_args)
    history = again.fit(batches, CrossEntropyMulti(), optimizer, num_epochs=args.epochs, callbacks=callbacks)
    assert len(history) == 3
    assert again.epoch == 5


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-c neon.cfg", r"--config is not read here.*config='neon.cfg'"),
        ("-b tpu", "invalid choice: 'tpu'"),
        ("-d f8", "invalid choice: 'f8'"),
        ("-u 30", "must be True, False or a width of 1 to 23"),
        ("-u x", "argument -u/--rounding: invalid"),
        ("-e many", "argument -e/--epochs: invalid int value: 'many'"),
        ("--manifest train.csv", "must be NAME:FILE.*manifest='train.csv'"),
        ("--no_such_option", "unrecognized arguments"),
    ],
)
def test_wrong_options_end_the_program(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(line)
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(words, error)


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("-b gpu", ValueError, r"backend='gpu' cannot be set here"),
        ("-d f16", ValueError, "datatype=float16 cannot be set here"),
        ("-i 1", ValueError, "device_id=1 cannot be set here"),
        ("--caffe", ValueError, "compat_mode='caffe' cannot be set here"),
        ("-z 0", ValueError, "batch_size must be at least 1"),
        ("--model_file no.prm", FileNotFoundError, "model_file must be a file that is there. .*model_file='no.prm'"),
        ("-s {0}/file/model.prm", OSError, "save_path must be a file in a folder to be written to"),
        ("-s {0}", OSError, "save_path must be a file"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_changed(
    tmp_path: Path, line: str, error: Any, words: str
) -> None:
    (tmp_path / "file").touch()
    level, random = neon.logger.level, torch.get_rng_state()
    for more in ("", f" -s {tmp_path}/new/model.prm" if "-s" not in line else " -r 5"):
        with pytest.raises(error, match=words) as raised:
            parsed(line.format(tmp_path) + more + " -r 5")
        assert len(str(raised.value)) <= 500
    assert (default.bsz, default.has_batch_size, neon.logger.level) == (1, False, level)
    assert torch.equal(torch.get_rng_state(), random)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_a_program_gives_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"default_overrides has 'epoch', which is no option. Options: .*epochs"):
        NeonArgparser("", default_overrides={"epoch": 3})
    with pytest.raises(ValueError, match=r"datatype must be one of f16, f32, f64. Received: datatype='f8'"):
        NeonArgparser("", default_overrides={"datatype": "f8"})
    (tmp_path / "train.cfg").touch()
    with pytest.raises(ValueError, match=r"default_config_files are not read here. .*train.cfg"):
        NeonArgparser("", default_config_files=[str(tmp_path / "train.cfg")])


def test_a_second_parse_logs_to_its_own_file_alone(tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt", "two.txt"):
        parsed(f"-v -l {tmp_path}/{name}")
    neon.logger.info("here")
    assert (tmp_path / "one.txt").read_text() == ""
    assert (tmp_path / "two.txt").read_text().count("here") == 1


def test_help_says_what_means_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parsed("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "A program." in shown
    assert "--log_token LOG_TOKEN taken, and means nothing here" in shown
    assert "passes over the dataset (default: 10)" in shown
    with pytest.raises(SystemExit, match="0"):
        parsed("--version")
    assert capsys.readouterr().out.strip() == neon.__version__


def test_arguments_of_a_function_are_picked_by_name() -> None:
    def train(first: int, epochs: int, *rest: int, rng_seed: int = 0, **others: int) -> None: ...

    args = parsed("-e 3 -r 4")
    args.first = 1
    assert extract_valid_args(args, train) == {"first": 1, "epochs": 3, "rng_seed": 4}
    assert extract_valid_args(args, train, startidx=1) == {"epochs": 3, "rng_seed": 4}


@pytest.mark.parametrize("override", [{"serialize": None}, {"verbose": "2"}, {"epochs": 2.5}, {"batch_size": None}])
def test_overrides_of_numbers_are_numbers(override: dict[str, Any]) -> None:
    (name,) = override
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be.*Received: {name}="):
        NeonArgparser("x", default_overrides=override)


def test_overrides_may_be_what_would_stand_on_the_command_line() -> None:
    args = NeonArgparser("x", default_overrides={"epochs": "3", "verbose": 2}).parse_args([], gen_be=False)
    assert (args.epochs, args.verbose) == (3, 2)
