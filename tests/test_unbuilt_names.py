"""Names of the documented framework that are not built say what to write instead."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from neon import data, layers, transforms
from neon.callbacks import Callbacks
from neon.initializers import Gaussian
from neon.layers import Linear
from neon.models import Model
from neon.not_built import INSTEAD, instead_of
from neon.util.persist import ensure_dirs_exist, get_data_cache_dir, get_data_cache_or_nothing

PACKAGES = ("layers", "transforms", "data", "callbacks", "models", "backends", "optimizers", "initializers")
NAMES = [name for names in INSTEAD.values() for name in names.split()]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_not_built_is_in_no_package_and_says_what_to_write(name: str) -> None:
    for package in PACKAGES:
        assert name not in import_module(f"neon.{package}").__all__
    words = instead_of(name, "neon.callbacks.callbacks")
    assert words is not None
    assert words.startswith(f"neon.callbacks.callbacks has no {name} here. ")
    assert len(words) <= 500


def test_the_page_lists_every_name_with_its_words() -> None:
    page = (Path(__file__).parent.parent / "docs" / "documented_programs.md").read_text(encoding="utf-8")
    for words, names in INSTEAD.items():
        row = f"| {', '.join(f'`{name}`' for name in names.split())} | {words} |"
        assert row in page


@pytest.mark.parametrize("module", ["layers", "layers.layer", "layers.container", "layers.recurrent"])
def test_it_can_be_imported_and_is_refused_when_it_is_used(module: str) -> None:
    found = import_module(f"neon.{module}").Tree
    assert found is import_module(f"neon.{module}").Tree
    for use in (found, lambda: found([], name="tree"), lambda: type("Mine", (found,), {})):
        with pytest.raises(
            NotImplementedError, match=rf"neon\.{module} has no Tree here\. .*Write a torch\.nn\.Module"
        ):
            use()


def test_names_of_no_framework_are_errors_as_ever() -> None:
    for package in (layers, transforms, data):
        with pytest.raises(AttributeError, match="has no attribute 'Affinity'"):
            package.Affinity  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Affinity'"):
        exec("from neon.layers import Affinity")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'neon\.affinity'"):
        import_module("neon.affinity")


def test_methods_that_are_not_built_say_what_to_write() -> None:
    model = Model([Linear(2, Gaussian())])
    with pytest.raises(AttributeError, match=r"Model has no get_outputs_beam here\. Write model\.get_outputs"):
        model.get_outputs_beam(None)
    with pytest.raises(AttributeError, match=r"Model has no bprop here\. Write loss\.backward"):
        model.bprop  # noqa: B018
    named = Linear(2, Gaussian(), name="benchmark")
    assert Model([named]).benchmark is named
    with pytest.raises(AttributeError, match="'Model' object has no attribute 'affinity'"):
        model.affinity  # noqa: B018
    with pytest.raises(AttributeError, match=r"Callbacks has no add_hist_callback here\. Write a subclass"):
        Callbacks(model).add_hist_callback()
    assert not hasattr(Callbacks(), "affinity")


def test_neon_alone_stays_light() -> None:
    code = "import sys, neon; sys.exit('torch' in sys.modules or 'neon.not_built' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_folders_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tmp_path / "a" / "b" / "file.prm")
    assert ensure_dirs_exist(file) == file
    assert ensure_dirs_exist("file.prm") == "file.prm"
    assert (tmp_path / "a" / "b").is_dir()
    assert not Path(file).exists()
    assert ensure_dirs_exist(f"{tmp_path}/results/") == f"{tmp_path}/results/"
    assert (tmp_path / "results").is_dir()
    monkeypatch.delenv("NEON_DATA_CACHE_DIR", raising=False)
    assert get_data_cache_or_nothing("mnist/") == ""
    assert get_data_cache_dir(str(tmp_path), ["c", "d"]) == str(tmp_path / "c" / "d")
    monkeypatch.setenv("NEON_DATA_CACHE_DIR", str(tmp_path / "e"))
    assert get_data_cache_dir("elsewhere", "f") == str(tmp_path / "e" / "f")
    assert get_data_cache_or_nothing("g/") == f"{tmp_path}/e/g/"
    assert all((tmp_path / name).is_dir() for name in ("c/d", "e/f", "e/g"))
    with pytest.raises(NotImplementedError, match=r"Write pickle\.dump"):
        import_module("neon.util.persist").save_obj({}, file)
