"""What `import vosformer` offers, and that it costs nothing before it is used."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import vosformer


def test_every_public_name_is_there_and_listed() -> None:
    assert sorted(vosformer.__all__) == vosformer.__all__
    for name in vosformer.__all__:
        assert getattr(vosformer, name) is not None
        assert name in dir(vosformer)
    assert set(vosformer.__all__) == set(vosformer._HOMES)


def test_no_public_name_hides_a_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(vosformer.__path__)}
    assert not modules & set(vosformer.__all__)


def test_packages_need_no_import_of_their_own() -> None:
    for name in vosformer._PACKAGES:
        assert getattr(vosformer, name) is importlib.import_module(f"vosformer.{name}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sessions'"):
        vosformer.sessions  # noqa: B018


@pytest.mark.parametrize(
    "code", ["import vosformer; vosformer.__version__; vosformer.VOSError", "from vosformer.cli import main; main(['--help'])"]
)
def test_torch_is_not_loaded_before_it_is_needed(code: str) -> None:
    subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; assert 'torch' not in sys.modules"], check=True, capture_output=True
    )
