"""The documents: pydantic models in Kubernetes' shape, frozen, unknown fields refused."""
