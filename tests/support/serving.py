"""A classifier of random weights, and the service around it under a real server."""

import contextlib
import socket
import threading
import time

import httpx
import torch
import uvicorn

from components.certification.classifier import Limits, Origin, SmoothedClassifier
from components.model import networks
from components.model.card import ModelCard

SHAPE = (1, 16, 16)
SIGMA = 0.5


def make_classifier(precision="float32", last_bias=None, **limits):
    """Args:
    last_bias: of the network's last layer, in place of the random one.
    """
    torch.manual_seed(0)
    network = networks.build("small_convnet", SHAPE, 3).eval()
    if last_bias is not None:
        torch.nn.init.constant_(list(network.parameters())[-1], last_bias)
    card = ModelCard(
        sigma=SIGMA,
        network="small_convnet",
        precision=precision,
        image_shape=list(SHAPE),
        classes=["a", "b", "c"],
        mean=None,
        std=None,
        weights_sha256="0" * 64,
        training_key="",
        training={},
        data_sha256="",
    )
    return SmoothedClassifier(network, card, origin=Origin("trial", "3"), n=500, limits=Limits(**limits))


@contextlib.contextmanager
def running(app):
    """The app under a real server, a client of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


ANSWER = ["class", "class_name", "radius", "abstain", "p_lower", "p_upper", "n", "rounded"]
"""What each image is told."""


def some_images(num=2):
    """On the grid of 8 bits."""
    pixels = torch.randint(256, (num, *SHAPE), generator=torch.Generator().manual_seed(1))
    return pixels.float() / 255


IMAGES = some_images(1)


def ask(client, inputs=None, **more):
    return client.post("/invocations", json={"inputs": IMAGES.tolist() if inputs is None else inputs, **more})
