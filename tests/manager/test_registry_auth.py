from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from manager.registry_auth import RegistryAuthError, read_registry_auth


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    return path


class TestRegistryAuth:
    def test_reads_what_docker_login_wrote(self, tmp_path: Path) -> None:
        auth = base64.b64encode(b"ann:s3cret:with colon").decode()
        path = written(tmp_path, {"auths": {"https://index.docker.io/v1/": {"auth": auth}}})

        (found,) = read_registry_auth(path)

        assert (found.registry, found.username, found.password) == ("docker.io", "ann", "s3cret:with colon")

    def test_reads_plain_names_and_passwords(self, tmp_path: Path) -> None:
        entry = {"username": "ann", "password": "s3cret"}
        path = written(tmp_path, {"auths": {"registry.example:5000": entry}})

        (found,) = read_registry_auth(path)

        assert (found.registry, found.username, found.password) == ("registry.example:5000", "ann", "s3cret")

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ({}, "no `auths`"),
            ([], "no `auths`"),
            ({"auths": {"r": "x"}}, "must be a mapping"),
            ({"auths": {"r": {"auth": "%%"}}}, "not base64"),
            ({"auths": {"r": {}}}, "credential helpers are not supported"),
        ],
    )
    def test_says_what_is_wrong_and_never_the_secret(
        self, tmp_path: Path, content: object, says: str
    ) -> None:
        with pytest.raises(RegistryAuthError, match=says):
            read_registry_auth(written(tmp_path, content))
