from __future__ import annotations

import pytest

from agent.runtime.image_name import parse_image_name, qualify
from agent.runtime.port import ImageError

DIGEST = "sha256:" + "0123456789abcdef" * 4


class TestQualify:
    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("team/web", "docker.io/team/web:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/team/web:1", "docker.io/team/web:1"),
            ("localhost/web", "localhost/web:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("registry.example:5000/a/b/c:1.2-x_Y", "registry.example:5000/a/b/c:1.2-x_Y"),
            (f"quay.io/web@{DIGEST}", f"quay.io/web@{DIGEST}"),
            (f"quay.io/web:1@{DIGEST}", f"quay.io/web:1@{DIGEST}"),
            ("[::1]:5000/web:1", "[::1]:5000/web:1"),
            (DIGEST, DIGEST),
        ],
    )
    def test_means_what_docker_means(self, written: str, meant: str) -> None:
        assert qualify(written) == meant

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("my-app:latest", "registry:5000/my-app:latest"),
            ("team/web", "registry:5000/team/web:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("quay.io/web:1", "quay.io/web:1"),
        ],
    )
    def test_names_without_a_registry_use_the_clusters(self, written: str, meant: str) -> None:
        assert qualify(written, "registry:5000") == meant

    def test_the_default_registry_may_have_a_path(self) -> None:
        name = parse_image_name("web:1", default_registry="registry.example/mirror")

        assert (name.registry, name.repository) == ("registry.example", "mirror/web")

    def test_twice_is_once(self) -> None:
        assert qualify(qualify("nginx"), "registry:5000") == qualify("nginx")

    @pytest.mark.parametrize(
        ("written", "problem"),
        [
            ("", "no repository"),
            ("Web:1", "lower case"),
            ("web:", "no tag"),
            ("web:1 2", "no tag"),
            ("web:" + "x" * 129, "no tag"),
            ("web@sha256:123", "no digest"),
            ("../etc/passwd", "no registry"),
            ("a//b", "no repository"),
            ("web\n", "no repository"),
            ("wéb", "no repository"),
            ("http://quay.io/web", "no repo|no registry|no tag"),
            ("a" * 300, "longer"),
        ],
    )
    def test_says_what_is_wrong(self, written: str, problem: str) -> None:
        with pytest.raises(ImageError, match=problem) as caught:
            qualify(written)

        assert caught.value.reason == "InvalidImageName"
