"""The table of sources: every entry exists, has the declared arguments, and is imported only when used."""

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from fourds_dist.data.datasets.registry import DATASET_BUILDERS


@pytest.mark.parametrize("name", DATASET_BUILDERS)
def test_an_entry_fits_its_function(name):
    source = DATASET_BUILDERS[name]
    module, _, function = source.function.partition(":")
    parameters = inspect.signature(
        getattr(import_module(f"fourds_dist.data.datasets.{module}"), function)
    ).parameters.values()
    told = {argument.name: argument for argument in source.arguments}
    checking = {"num_threads", "on_progress"} if source.checks_files else set()
    assert {p.name for p in parameters} == told.keys() | source.fixed.keys() | checking
    for parameter in parameters:
        if parameter.name in told and parameter.default is not parameter.empty:
            assert told[parameter.name].default == parameter.default


def test_the_table_imports_no_library_of_a_source():
    code = (
        "import sys, fourds_dist.data.datasets; "
        "print([m for m in ('sklearn', 'scipy', 'resvg_py', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_source_by_name():
    source, target = DATASET_BUILDERS["digits"].domains(seed=5)
    assert (source.name, target.name) == ("digits", "digits-photos")
