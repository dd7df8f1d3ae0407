"""The same server on several machines: segdet's application as a Ray Serve deployment.

    pip install '.[cpu,serve]' 'ray[serve]'
    export RAY_USAGE_STATS_ENABLED=0    # Ray sends usage statistics otherwise; also set it for `ray start` on every machine
    SEGDET_MODELS=crack=exports/unet-crack.onnx SEGDET_REPLICAS=4 serve run deploy.ray_serve:app

Every replica is a whole `segdet serve` application with its own model, queue and threads; Ray starts, watches, replaces
and feeds them. Paths in SEGDET_MODELS (separated by commas) must exist on every machine. SEGDET_API_KEY sets the key,
SEGDET_CORES the cores of a replica (2). `/metrics` and `/v1/models/{name}/reload` answer for one replica only: use Ray's
metrics, and deploy again to change a model.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "RAY_USAGE_STATS_ENABLED", "0"
)  # before Ray starts; without effect on a cluster that runs already
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from fastapi import FastAPI
from ray import serve

from segdet.serving.app import create_app
from segdet.serving.settings import Settings, named_models


def build() -> FastAPI:
    """The application, made in each replica."""
    given = [word for word in os.environ.get("SEGDET_MODELS", "").split(",") if word]
    cores = int(os.environ.get("SEGDET_CORES", "2"))
    # Ray does not bind a replica to its cores, so the server must be told how many are its own.
    return create_app(Settings(models=named_models(given), api_key=os.environ.get("SEGDET_API_KEY"), workers=cores))


def deployment(replicas: int, cores: float) -> serve.Application:
    """`replicas` of the application, each with `cores` cores."""
    options = {
        "num_replicas": replicas,
        "ray_actor_options": {"num_cpus": cores},
        "max_ongoing_requests": 128,  # segdet's own queue decides; this only has to be longer
        "health_check_period_s": 10,
        "graceful_shutdown_timeout_s": 35,
    }
    return serve.deployment(serve.ingress(build)(), name="segdet").options(**options).bind()


app = deployment(int(os.environ.get("SEGDET_REPLICAS", "1")), float(os.environ.get("SEGDET_CORES", "2")))
