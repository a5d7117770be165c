from __future__ import annotations

from pathlib import Path

import pytest

from tests.bayplan.settings_program import Ended


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "thing.toml"


@pytest.fixture
def ended(capsys: pytest.CaptureFixture[str]) -> Ended:
    return Ended(capsys)
