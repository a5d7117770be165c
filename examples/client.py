"""Run a Deployment on a cluster and show where its pods are: `python examples/client.py 10.0.0.1:7400`."""

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


async def main(managers: list[str]) -> int:
    """Apply, wait, print."""
    async with Client(managers) as cluster:
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
    sys.exit(asyncio.run(main(sys.argv[1:] or ["127.0.0.1:7400"])))
