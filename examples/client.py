"""Run a Deployment on the cluster you are logged in to, and show where its pods are: `python examples/client.py`."""

import asyncio
import sys

from bayplan.client import Client, NotReadyError

WEB = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "nginx:1.27"}]},
        },
    },
}


async def main() -> int:
    """Apply, wait, print."""
    async with Client.from_context() as cluster:
        for applied in await cluster.apply([WEB]):
            print(f"{applied.kind}/{applied.name} {applied.result}")
        try:
            await cluster.wait_ready("Deployment", "web", timeout_s=120)
        except NotReadyError as error:
            print(error, file=sys.stderr)
            return 1
        for pod in await cluster.pods(workload="web"):
            print(f"{pod.name} runs on {pod.node}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
