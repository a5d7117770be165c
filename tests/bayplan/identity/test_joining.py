from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bayplan.identity.certificates import key_to_pem
from bayplan.identity.joining import JoinError, joining_key

NO_ANSWER = JoinError("m1:7400: no answer", is_final=False)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """It does not exist yet."""
    return tmp_path / "state" / "identity"


def key_of_an_attempt(directory: Path, token_id: str = "aaaaaaaaaa") -> bytes:
    """The manager's answer was lost."""
    with pytest.raises(JoinError), joining_key(directory, token_id) as key:
        raise NO_ANSWER
    return key_to_pem(key)


class TestJoiningKey:
    def test_is_the_same_until_it_was_of_use(self, directory: Path) -> None:
        first = key_of_an_attempt(directory)
        with joining_key(directory, "aaaaaaaaaa") as key:
            assert key_to_pem(key) == first

        assert list(directory.iterdir()) == []
        assert key_of_an_attempt(directory) != first

    def test_is_another_for_another_token(self, directory: Path) -> None:
        assert key_of_an_attempt(directory) != key_of_an_attempt(directory, "bbbbbbbbbb")

    def test_is_for_its_owner_alone(self, directory: Path) -> None:
        key_of_an_attempt(directory)
        (file,) = directory.iterdir()

        assert [stat.S_IMODE(path.stat().st_mode) for path in (directory, file)] == [0o700, 0o600]

    def test_one_that_is_damaged_is_replaced(self, directory: Path) -> None:
        key_of_an_attempt(directory)
        (file,) = directory.iterdir()
        file.write_bytes(b"junk")

        assert key_of_an_attempt(directory) == key_of_an_attempt(directory)
