"""What an image is called: parsing, and which registry a name without one means.

Follows the grammar of Docker's references, so that a name is refused here, with words, before an
engine sees it. A name without a registry means the cluster's default registry, else docker.io,
where single names live under `library/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.runtime.port import ImageError

DOCKER_HUB = "docker.io"
# Docker's own limit for registry and repository together.
NAME_LENGTH_MAX = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageName:
    """A full reference. At least one of `tag` and `digest` is set; a digest wins over a tag."""

    registry: str  # Host and port, e.g. "docker.io" or "registry.local:5000".
    repository: str  # e.g. "library/nginx"
    tag: str = ""
    digest: str = ""  # e.g. "sha256:…"

    @property
    def name(self) -> str:
        """Registry and repository, e.g. `docker.io/library/nginx`."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def is_image_id(image: str) -> bool:
    """Whether it names a local image by its content instead of by a registry's name for it."""
    return _DIGEST.fullmatch(image) is not None


def parse_image_name(image: str, *, default_registry: str = "") -> ImageName:
    """Split a reference as a user wrote it; what is left out gets its default (`latest`, the registry).

    Raises: ImageError with reason InvalidImageName, saying which part is wrong.
    """
    rest, at, digest = image.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _invalid(image, f'"{digest}" is no digest (sha256: and 64 hexadecimal digits)')
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(image, f'"{tag}" is no tag')
    registry, repository = _split_registry(head + slash + last, default_registry)
    if not _REGISTRY.fullmatch(registry):
        raise _invalid(image, f'"{registry}" is no registry (host, or host:port)')
    if repository != repository.lower():
        raise _invalid(image, "repository names are lower case")
    if not _REPOSITORY.fullmatch(repository):
        raise _invalid(image, f'"{repository}" is no repository name')
    if len(registry) + 1 + len(repository) > NAME_LENGTH_MAX:
        raise _invalid(image, f"longer than {NAME_LENGTH_MAX} characters")
    if not tag and not digest:
        tag = "latest"
    return ImageName(registry=registry, repository=repository, tag=tag, digest=digest)


def qualify(image: str, default_registry: str = "") -> str:
    """The full name of `image`; an image id stays as it is.

    `default_registry` is the cluster's, "" for docker.io.
    Raises: ImageError with reason InvalidImageName.
    """
    if is_image_id(image):
        return image
    return str(parse_image_name(image, default_registry=default_registry))


def _split_registry(path: str, default_registry: str) -> tuple[str, str]:
    """Docker's rule: the first component is a registry if it could not be anything else."""
    first, slash, rest = path.partition("/")
    has_registry = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    if not has_registry:
        first, slash, prefix = (default_registry or DOCKER_HUB).partition("/")
        rest = f"{prefix}{slash}{path}"
    if first == "index.docker.io":
        first = DOCKER_HUB
    if first == DOCKER_HUB and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def _invalid(image: str, problem: str) -> ImageError:
    return ImageError(f'invalid image name "{image}": {problem}', reason="InvalidImageName")
