"""Statistics on to files, TensorBoard, Weights & Biases, and through the callbacks of trainers."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from statistics_rows import row
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neon.commands.report.run_file import read_run
from neon.optimizers import AdamW
from neon.statistics import StatisticsTable, writers
from neon.statistics.new_tables import NewTables, attached_within
from neon.statistics.row import COLUMNS
from neon.statistics.writers import FIGURES

NAN, INF = math.nan, math.inf


def table(step: int = 1, **values: Any) -> StatisticsTable:
    return StatisticsTable(step, [row("0.weight", **values), row("0.bias")])


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    def fail(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_constant=fail) for line in lines]


# -- files -----------------------------------------------------------------------------------------


def test_jsonl_has_a_line_for_each_parameter_and_step(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    table(1).to_jsonl(path)
    table(2, clip_factors=(0.5, 0.25), clipped=0.125).to_jsonl(str(path))
    found = read_jsonl(path)
    assert [(line["step"], line["parameter"]) for line in found] == [
        (1, "0.weight"), (1, "0.bias"), (2, "0.weight"), (2, "0.bias"),
    ]  # fmt: skip
    assert all(list(line) == list(COLUMNS) for line in found)
    assert (found[0]["clipped"], found[0]["clip_factor"], found[0]["clip_factors"]) == (None, None, [])
    assert (found[2]["clipped"], found[2]["clip_factor"], found[2]["clip_factors"]) == (0.125, 0.125, [0.5, 0.25])
    assert found[0]["update_to_weight"] == 0.001


@pytest.mark.parametrize(
    ("value", "word"), [(NAN, "NaN"), (INF, "Infinity"), (-INF, "-Infinity"), (np.float64(INF), "Infinity")]
)
def test_what_json_has_no_number_for(value: float, word: str, tmp_path: Path) -> None:
    strange = table(gradient_norm=value, clip_factors=(value,))
    strange.to_jsonl(tmp_path / "run.jsonl")
    strange.to_csv(tmp_path / "run.csv")
    [line, _] = read_jsonl(tmp_path / "run.jsonl")
    assert (line["gradient_norm"], line["clip_factors"]) == (word, [word])
    np.testing.assert_equal(float(line["gradient_norm"]), value)
    [line, _] = csv.DictReader((tmp_path / "run.csv").read_text().splitlines())
    assert (line["gradient_norm"], line["clip_factors"]) == (word, word)


def test_csv_has_one_header(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    table(1, clip_factors=(0.5, 0.25)).to_csv(path)
    table(2).to_csv(path)
    lines = path.read_text().splitlines()
    assert len(lines) == 5
    assert lines[0] == ",".join(COLUMNS)
    found = list(csv.DictReader(lines))
    assert (found[0]["clip_factors"], found[0]["clipped"], found[1]["clip_factor"]) == ("0.5 0.25", "", "")
    assert float(found[3]["update_norm"]) == 0.002


def test_numbers_come_back_to_the_bit(tmp_path: Path) -> None:
    value = 1 / 3 * 1e-300
    table(update_norm=value).to_csv(tmp_path / "run.csv")
    table(update_norm=value).to_jsonl(tmp_path / "run.jsonl")
    [line, _] = csv.DictReader((tmp_path / "run.csv").read_text().splitlines())
    assert float(line["update_norm"]) == read_jsonl(tmp_path / "run.jsonl")[0]["update_norm"] == value


@pytest.mark.parametrize("name", ["a,b.weight", 'a"b.weight', "größe.weight", "a\nb.weight"])
def test_strange_names_come_back(name: str, tmp_path: Path) -> None:
    strange = StatisticsTable(1, [row(name)])
    for path in (tmp_path / "run.csv", tmp_path / "run.jsonl"):
        strange.append_to(path)
        strange.append_to(path)
    with (tmp_path / "run.csv").open(encoding="utf-8", newline="") as file:
        assert [line["parameter"] for line in csv.DictReader(file)] == [name, name]
    assert [line["parameter"] for line in read_jsonl(tmp_path / "run.jsonl")] == [name, name]


every_file = pytest.mark.parametrize("name", ["run.jsonl", "run.csv"])


@every_file
def test_a_table_without_rows_writes_no_line(name: str, tmp_path: Path) -> None:
    StatisticsTable(1, []).append_to(tmp_path / name)
    table(1).append_to(tmp_path / name)
    StatisticsTable(2, []).append_to(tmp_path / name)
    header = int(name.endswith("csv"))
    assert len((tmp_path / name).read_text().splitlines()) == 2 + header


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("run.csv", "step,loss\n1,0.5\n", r"without parameter, layer, .*, with loss"),
        ("run.csv", "\n", "no line of statistics"),
        ("run.csv", json.dumps(dict.fromkeys(COLUMNS, 1)) + "\n", "no line of statistics"),
        ("run.csv", ",".join(COLUMNS), "no line of statistics"),
        ("run.csv", ",".join((*COLUMNS, "loss")) + "\n", r"without none, with loss"),
        ("run.jsonl", '{"step": 1, "loss": 2}\n', r"without parameter, layer, .*, with loss"),
        ("run.jsonl", "some words\n", "no line of statistics"),
        ("run.jsonl", "3\n", "no line of statistics"),
        ("run.jsonl", '{"step": 1', "no line of statistics"),
    ],
)
def test_a_file_of_other_columns_is_left_as_it_is(name: str, text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{name}' was begun with other columns \({said}.*Write to a new file"):
        table().append_to(path)
    assert path.read_text() == text


def test_a_file_that_is_no_text_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    path.write_bytes(b"\xff\xfe\n\x00")
    with pytest.raises(ValueError, match="no line of statistics"):
        table().to_csv(path)
    assert path.read_bytes() == b"\xff\xfe\n\x00"


@every_file
@pytest.mark.parametrize("rest", ['{"step": 2, "para', "2,0.we", "x" * 200_000])
def test_a_line_that_was_cut_off_is_taken_away(name: str, rest: str, tmp_path: Path) -> None:
    path = tmp_path / name
    table(1).append_to(path)
    whole = path.read_text()
    with path.open("a") as file:
        file.write(rest)
    table(1).append_to(path)
    header = ",".join(COLUMNS) + "\n" if name == "run.csv" else ""
    assert path.read_text() == whole + whole.removeprefix(header)


@every_file
def test_what_another_writes_meanwhile_stays(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    table(1).append_to(path)
    find = writers._begin_of_cut_off

    def found(file: Any) -> int | None:
        there = find(file)
        monkeypatch.setattr(writers, "_begin_of_cut_off", find)
        table(2).append_to(path)
        return there

    monkeypatch.setattr(writers, "_begin_of_cut_off", found)
    table(3).append_to(path)
    assert read_run(path).steps.tolist() == [1, 2, 3]


def test_files_go_by_their_end(tmp_path: Path) -> None:
    table().append_to(tmp_path / "run.jsonl")
    assert len(read_jsonl(tmp_path / "run.jsonl")) == 2
    with pytest.raises(ValueError, match=r"files that end with .jsonl or .csv; received 'run.txt'"):
        table().append_to("run.txt")


def test_pandas_reads_both(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    for name, read in (("run.csv", pd.read_csv), ("run.jsonl", lambda path: pd.read_json(path, lines=True))):
        table(gradient_norm=NAN, update_norm=INF).append_to(tmp_path / name)
        frame = read(tmp_path / name)
        assert list(frame.columns) == list(COLUMNS)
        assert math.isnan(frame["gradient_norm"][0])
        assert list(frame["update_norm"]) == [INF, 0.002]


# -- loggers ---------------------------------------------------------------------------------------


def test_figures_leave_out_what_is_none() -> None:
    found = table(clip_factors=(0.5,), gradient_norm=NAN).figures()
    assert found["clip_factor/0.weight"] == 0.5
    assert math.isnan(found["gradient_norm/0.weight"])
    assert "clip_factor/0.bias" not in found
    assert {name.partition("/")[0] for name in found} == {*FIGURES} - {"clipped"}
    assert table().figures(["lost"]) == table().figures("lost") == {"lost/0.weight": 0.05, "lost/0.bias": 0.05}
    assert table().by_layer().figures(["lost"]) == {"lost/0": 0.05}
    assert StatisticsTable(1, [row("scale")]).by_layer().figures("lost") == {"lost": 0.05}


@pytest.mark.parametrize("column", ["layer", "gradient"])
def test_figures_are_numbers(column: str) -> None:
    with pytest.raises(ValueError, match=rf"columns of figures are update_to_weight, .*; received {column}"):
        table().figures(["lost", column])


class Writer:
    """What torch's and tensorboardX's `SummaryWriter` are asked."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.scalars.append((tag, scalar_value, global_step))


def test_tensorboard_is_given_scalars() -> None:
    writer = Writer()
    table(12).to_tensorboard(writer, ["update_to_weight"])
    assert writer.scalars == [("update_to_weight/0.weight", 0.001, 12), ("update_to_weight/0.bias", 0.001, 12)]


def test_tensorboard_has_them_in_its_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        for step in (1, 2):
            table(step, update_norm=INF).to_tensorboard(writer)
    read = EventAccumulator(str(tmp_path)).Reload()
    assert {tag.partition("/")[0] for tag in read.Tags()["scalars"]} == {*FIGURES} - {"clipped", "clip_factor"}
    assert [(e.step, e.value) for e in read.Scalars("update_to_weight/0.weight")] == [(1, INF), (2, INF)]
    assert [e.value for e in read.Scalars("gradient_norm/0.bias")] == [3.0, 3.0]


class Run:
    """What a run of Weights & Biases, and the module `wandb`, are asked."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int | None, bool | None]] = []

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        self.logged.append((data, step, commit))


def test_wandb_is_given_one_dict() -> None:
    run = Run()
    table(12).to_wandb(run, ["lost"])
    table(13).to_wandb(run, ["lost"], step=7, commit=True)
    values = {"lost/0.weight": 0.05, "lost/0.bias": 0.05}
    assert run.logged == [({"optimizer_step": 12, **values}, None, False), ({"optimizer_step": 13, **values}, 7, True)]


def test_wandb_has_them_beside_what_the_program_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    with wandb.init(project="statistics", mode="disabled", dir=tmp_path) as run:
        table(1).to_wandb(run)
        run.log({"loss": 0.5})


# -- callbacks of trainers -------------------------------------------------------------------------


def test_trainers_are_imported_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import neon.statistics

    with pytest.raises(AttributeError, match="has no attribute 'Other'"):
        _ = neon.statistics.Other
    for package in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "neon.statistics.lightning_callback", raising=False)
    with pytest.raises(ImportError, match=r"needs Lightning. Run: pip install lightning"):
        _ = neon.statistics.LightningStatistics


class Watched(torch.optim.SGD):
    """An optimizer with a new table in each second step."""

    def __init__(self, params: Any, **values: Any) -> None:
        super().__init__(params, lr=0.01)
        self.steps, self.values = 0, values

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        return super().step(closure)

    def statistics(self) -> StatisticsTable | None:
        step = self.steps // 2 * 2
        return table(step, **self.values) if step else None


def test_an_optimizer_is_found_within_wrappers() -> None:
    inner = Watched([nn.Parameter(torch.ones(1))])
    wrapped = SimpleNamespace(optim=SimpleNamespace(_optimizer=SimpleNamespace(optimizer=inner)))
    assert attached_within(wrapped) is inner
    assert attached_within(SimpleNamespace(optimizer=None)) is None
    circle = SimpleNamespace()
    circle.optimizer = circle
    assert attached_within(circle) is None


def test_each_table_is_handed_on_once(tmp_path: Path) -> None:
    optimizer = Watched([nn.Parameter(torch.ones(1))])
    tables = NewTables(tmp_path / "run.jsonl", by_layer=False)
    for _ in range(5):
        optimizer.step()
        tables.hand_on([optimizer, torch.optim.SGD([nn.Parameter(torch.ones(1))])], None, writes=True)
        NewTables(tmp_path / "run.jsonl").hand_on([optimizer], None, writes=False)
    found = [(line["step"], line["parameter"]) for line in read_jsonl(tmp_path / "run.jsonl")]
    assert found == [(2, "0.weight"), (2, "0.bias"), (4, "0.weight"), (4, "0.bias")]


def test_another_optimizer_has_new_tables(tmp_path: Path) -> None:
    """A second `fit`, of a model of its own, whose tables are of the same steps."""
    tables, optimizers = NewTables(tmp_path / "run.jsonl"), []
    for _ in range(2):
        optimizers.append(Watched([nn.Parameter(torch.ones(1))]))
        for _ in range(2):
            optimizers[-1].step()
        tables.hand_on(optimizers[-1:], None, writes=True)
    assert len(read_jsonl(tmp_path / "run.jsonl")) == 2


def test_several_optimizers_are_told_apart(tmp_path: Path) -> None:
    optimizers = [Watched([nn.Parameter(torch.ones(1))]) for _ in range(2)]
    logged: list[dict[str, float]] = []
    tables = NewTables(None, columns="lost")
    for _ in range(2):
        for optimizer in optimizers:
            optimizer.step()
        tables.hand_on(optimizers, logged.append, writes=True)
    assert logged == [{"lost/optimizer_0.0": 0.05}, {"lost/optimizer_1.0": 0.05}]


def test_a_training_without_statistics_is_told_how_to_ask_for_them() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match=r"Ask for them: attach\(model, statistics=True\)"):
        NewTables("run.jsonl").hand_on([optimizer], None, writes=True)


def test_a_callback_says_at_once_that_it_cannot_write() -> None:
    with pytest.raises(ValueError, match=r"end with .jsonl or .csv; received 'run.json'"):
        NewTables("run.json")
    with pytest.raises(ValueError, match=r"columns of figures are .*; received loss"):
        NewTables(None, columns=["loss"])


@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_lightning(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightning = pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.delitem(sys.modules, "neon.statistics.lightning_callback", raising=False)
    from neon.statistics import LightningStatistics

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 1)

        def training_step(self, batch: Any, number: int) -> Any:
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return AdamW(learning_rate=0.01).attach(self, statistics=2)

    assert issubclass(LightningStatistics, lightning.Callback)
    logged: list[tuple[dict[str, float], int]] = []

    class Logger(lightning.loggers.CSVLogger):
        def log_metrics(self, metrics: Any, step: Any = None) -> None:
            logged.append((dict(metrics), step))

    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, default_root_dir=tmp_path, logger=Logger(tmp_path),
        callbacks=[
            LightningStatistics(tmp_path / "run.jsonl", by_layer=False), LightningStatistics(columns=["update_norm"]),
        ],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, accumulate_grad_batches=2,
        log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(Module(), DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=1))
    last = trainer.optimizers[0].statistics()
    lines = read_jsonl(tmp_path / "run.jsonl")
    assert [(line["step"], line["parameter"]) for line in lines[::2]] == [(2, "model.weight"), (4, "model.weight")]
    assert lines[2:] == [{**record, "clip_factors": []} for record in last.records()]
    assert last.by_layer()["model"].update_norm > 0
    told = [(figures, step) for figures, step in logged if "update_norm/model" in figures]
    assert [step for _, step in told] == [2, 4]
    assert told[-1][0] == {"update_norm/model": last.by_layer()["model"].update_norm}


def test_hugging_face_trainer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from neon.statistics import TrainerStatistics

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 1)

        def forward(self, points: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.linear(points).square().mean()}

    network = Network()
    trainer = transformers.Trainer(
        network,
        transformers.TrainingArguments(
            str(tmp_path), max_steps=4, per_device_train_batch_size=1, gradient_accumulation_steps=2, logging_steps=2,
            use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", average_tokens_across_devices=False,
        ),
        train_dataset=[{"points": torch.ones(2)} for _ in range(8)],
        optimizers=(AdamW(learning_rate=0.01, gradient_clip_norm=1.0).attach(network, statistics=2), None),
        callbacks=[TrainerStatistics(tmp_path / "run.csv")],
    )  # fmt: skip
    trainer.add_callback(TrainerStatistics(log=trainer.log, columns=["update_norm"]))
    trainer.train()
    lines = list(csv.DictReader((tmp_path / "run.csv").read_text().splitlines()))
    assert [(line["step"], line["parameter"]) for line in lines] == [("2", "linear"), ("4", "linear")]
    history = trainer.state.log_history
    logged = {entry["step"]: entry["update_norm/linear"] for entry in history if "update_norm/linear" in entry}
    assert logged == {int(line["step"]): float(line["update_norm"]) for line in lines}
    assert min(logged.values()) > 0
    # What the trainer logs of itself in the same steps is still there.
    assert [entry["step"] for entry in history if "loss" in entry] == [2, 4]


@pytest.mark.parametrize("given", [{}, {"path": "run.csv", "log": print}])
def test_a_trainers_callback_has_one_place(given: dict[str, Any]) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from neon.statistics import TrainerStatistics

    with pytest.raises(ValueError, match=r"takes a path, such as 'run.jsonl', or log=trainer.log; give one of them"):
        TrainerStatistics(**given)
