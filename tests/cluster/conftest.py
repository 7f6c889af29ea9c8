"""`pytest tests/cluster --kuberay-schemas DIR`: KubeRay's JSON schemas, which are not part of this repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.validate.render import KUBERNETES, Object, render, tool

OVERLAYS = sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (KUBERNETES / "components").iterdir())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kuberay-schemas", type=Path, help="folder of KIND.v1.schema.json[.gz] of KubeRay 1.7")


@pytest.fixture(autouse=True, scope="session")
def _kustomize() -> None:
    if tool() is None:
        pytest.skip("neither kubectl nor kustomize is installed")


@pytest.fixture(scope="session")
def kuberay_schemas(request: pytest.FixtureRequest) -> Path:
    folder = request.config.getoption("--kuberay-schemas", None)
    if folder is None:
        pytest.skip("no KubeRay schemas; give --kuberay-schemas DIR")
    return folder


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Object]]:
    """Every overlay's objects."""
    return {name: render(KUBERNETES / "overlays" / name) for name in OVERLAYS}
