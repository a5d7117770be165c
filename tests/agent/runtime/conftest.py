from tests.docker_engine import docker_engine, image_registry

__all__ = ["docker_engine", "image_registry"]
