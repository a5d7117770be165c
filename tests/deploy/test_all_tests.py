from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy import all_tests
from deploy.all_tests import CLUSTER, GROUPS, HOSTS, Group
from deploy.shell import ROOT, StepError

PASSES = "def test_a() -> None:\n    print('nobody sees this')\n"
FAILS = "def test_b() -> None:\n    assert 1 == 2, 'as it must'\n"
# Waits until it is interrupted, and then takes its time to take away what it made.
WAITS = """\
import pathlib, signal, time, pytest

@pytest.fixture
def made():
    here = pathlib.Path(__file__).parent
    (here / "made").touch()
    yield
    time.sleep(0.3)
    (here / "made").rename(here / "taken-away")

def test_c(made):
    signal.pause()
"""
WITHIN_S = 30.0


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Group]:
    """Two, the one that fails first; their logs and caches below a directory of the test's."""
    monkeypatch.setattr(all_tests, "CACHE", tmp_path / "cache")
    return [group(tmp_path, "bad", FAILS), group(tmp_path, "good", PASSES)]


def group(directory: Path, name: str, program: str) -> Group:
    path = directory / name / f"test_{name}.py"
    path.parent.mkdir()
    path.write_text(program)
    return Group(name=name, paths=(f"--rootdir={path.parent}", "-c", "/dev/null", str(path)))


class TestGroups:
    def test_together_are_every_test_once(self, tmp_path: Path) -> None:
        """In a tree as ours."""
        files = {HOSTS, f"{CLUSTER}/test_nodes.py", "tests/deploy/test_setup.py", "tests/test_docs.py"}
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(PASSES)
        (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")

        collected = []
        for one in GROUPS:
            command = one.command(
                ["--collect-only", "-q", "--import-mode=importlib", "-p", "no:cacheprovider"]
            )
            done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
            collected += re.findall(r"^(tests/\S+)::", done.stdout, re.MULTILINE)

        assert (ROOT / HOSTS).exists()
        assert sorted(collected) == sorted(files)

    def test_that_failed_are_shown_whole_and_last(
        self, groups: list[Group], capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(StepError, match=r"^tests failed: bad$"):
            all_tests.run_all(groups=groups)

        said = capfd.readouterr().out
        good, bad = said.index("=== good: passed"), said.index("=== bad: FAILED")
        assert good < bad < said.index("as it must") < said.rindex("bad: FAILED")
        assert "(1 passed in" in said
        assert "(1 failed in" in said

    def test_that_all_pass_raise_nothing(self, groups: list[Group]) -> None:
        all_tests.run_all(groups=groups[1:])

    def test_without_a_test_that_an_option_chooses_are_good(self, groups: list[Group]) -> None:
        all_tests.run_all(["-k", "nothing_is_called_so"], groups=groups)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_take_away_what_they_made_when_they_are_interrupted(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        waiting = group(tmp_path, "waiting", WAITS)
        program = (
            "import sys; from pathlib import Path; from deploy import all_tests; from deploy.shell import ends\n"
            f"all_tests.CACHE = Path({str(tmp_path / 'cache')!r})\n"
            f"group = all_tests.Group(name='waiting', paths={waiting.paths!r})\n"
            "ends(lambda: all_tests.run_all(groups=[group]))\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, start_new_session=True)
        try:
            there(tmp_path / "waiting/made")

            # As a terminal does it: to every process of the foreground's group.
            os.killpg(process.pid, number)

            assert process.wait(WITHIN_S) == 130
            assert (tmp_path / "waiting/taken-away").exists()
        finally:
            process.kill()
            process.wait()


def there(path: Path) -> None:
    give_up_s = time.monotonic() + WITHIN_S
    while not path.exists():
        assert time.monotonic() < give_up_s, f"no {path}"
        time.sleep(0.02)
