"""The system that Fourview replaces, written anew from its description: the rival of `make bench`.

A worker with the model loaded, asked by `POST /inference` with Orthanc's instance ids. For each id, one after the other: download of the
file from Orthanc with basic authentication, pydicom's pixel_array, Otsu, iso-contours, crop, cast, resize, one eager forward of
torchvision's ResNet50. Nothing is stored or sent back. What the application around it does besides (two more questions to Orthanc for
each image, a person who presses a button) is left out, in favour of the rival. tests/test_bench.py holds its pictures against profile
`reference`.

    python benchmarks/reference_path.py --port PORT --weights FILE.safetensors
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

CLASSES = ("Mass", "Calcification", "Architectural/Asymmetry", "Normal")
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
SIZE = 512
DOWNLOAD_SECONDS = 60


# ------------------------------------------------------------------------------------------------------------- what it computes


def decode(part10: bytes) -> npt.NDArray[np.float32]:
    """float32 (rows, columns), the stored values."""
    import pydicom

    return pydicom.dcmread(io.BytesIO(part10)).pixel_array.astype(np.float32)


def picture(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """uint8 (512, 512): the box around the longest contour above Otsu's threshold, cast to 8 bits without scaling."""
    from PIL import Image
    from skimage.filters import threshold_otsu
    from skimage.measure import find_contours

    pixels = pixels.astype(np.float32, copy=False)
    mask = pixels > threshold_otsu(pixels)  # type: ignore[no-untyped-call]
    contours = find_contours(mask.astype(float), 0.5)  # type: ignore[no-untyped-call]
    if contours:
        contour = max(contours, key=len)
        top, left = contour.min(axis=0).astype(int)
        bottom, right = contour.max(axis=0).astype(int)
        pixels = pixels[top:bottom, left:right]
    # Through int32: the cast of a float out of range is undefined, and wraps on the processors that it ran on.
    wrapped = pixels.astype(np.int32).astype(np.uint8)
    return np.asarray(Image.fromarray(wrapped).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def preprocess(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """float32 (1, 3, 512, 512), what the network is given; `pixels` (rows, columns) of any type."""
    grey = picture(pixels).astype(np.float32) / 255.0
    normalised = (np.stack([grey, grey, grey], axis=-1) - MEAN) / STD
    return np.expand_dims(normalised.transpose(2, 0, 1), 0).astype(np.float32)


def load_model(weights: Path) -> Any:
    """The network with the weights of a .safetensors file, on the processor, in eager mode."""
    import torchvision
    from safetensors.torch import load_file

    model = torchvision.models.resnet50(num_classes=len(CLASSES))
    model.load_state_dict(load_file(weights))
    model.eval()
    return model


def classify(model: Any, image: npt.NDArray[np.float32]) -> list[float]:
    """One probability per class."""
    import torch

    with torch.no_grad():
        probabilities: list[float] = torch.softmax(model(torch.from_numpy(image)), dim=1)[0].tolist()
    return probabilities


def analyse(model: Any, orthanc_url: str, auth: tuple[str, str], instance_ids: Sequence[str]) -> list[dict[str, Any]]:
    """The answer's entries, in order; an image that fails does not stop the others."""
    import requests

    results: list[dict[str, Any]] = []
    with requests.Session() as session:
        session.trust_env = False
        for instance_id in instance_ids:
            try:
                answer = session.get(f"{orthanc_url}/instances/{instance_id}/file", auth=auth, timeout=DOWNLOAD_SECONDS)
                answer.raise_for_status()
                probabilities = classify(model, preprocess(decode(answer.content)))
            except Exception as error:  # noqa: BLE001 - as the replaced system did: whatever it is, the others go on
                results.append({"success": False, "instance_id": instance_id, "error": str(error)})
                continue
            best = int(np.argmax(probabilities))
            results.append(
                {
                    "success": True,
                    "instance_id": instance_id,
                    "predicted_class": CLASSES[best],
                    "probability": probabilities[best],
                    "all_probabilities": dict(zip(CLASSES, probabilities, strict=True)),
                }
            )
    return results


# ------------------------------------------------------------------------------------------------------------------ its worker


class ReferenceWorker:
    """The worker as a process of its own, warm when `with` begins; `weights` is the .safetensors file that ours reads too."""

    def __init__(self, folder: Path, *, weights: Path, port: int | None = None) -> None:
        from ports import free_port

        self._weights = weights
        self._port = port or free_port()
        self._log = folder / "reference-path.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=300, trust_env=False)

    def __enter__(self) -> ReferenceWorker:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(Path(__file__).resolve()), "--port", str(self._port), "--weights", str(self._weights)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603 - this file
        give_up_at = time.monotonic() + 120
        while not self._answers():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > give_up_at:
                self.stop()
                raise RuntimeError(f"the reference path does not start:\n{self._log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def analyse(self, orthanc_url: str, auth: tuple[str, str], instance_ids: Sequence[str]) -> list[dict[str, Any]]:
        """One request; the entries in order. RuntimeError when an image failed: a rival that fails is not fast."""
        asked = {"instance_ids": list(instance_ids), "orthanc_url": orthanc_url, "orthanc_auth": list(auth)}
        answer = self._client.post("/inference", json=asked)
        answer.raise_for_status()
        results: list[dict[str, Any]] = answer.json()["results"]
        if failed := [one for one in results if not one["success"]]:
            raise RuntimeError(f"the reference path failed: {failed}")
        return results

    def _answers(self) -> bool:
        try:
            return self._client.get("/").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


def serve(port: int, weights: Path) -> None:
    """Answer on loopback until the process is ended; the first forward is done before the first request."""
    model = load_model(weights)
    classify(model, np.zeros((1, 3, SIZE, SIZE), dtype=np.float32))

    class Inference(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"ready": True})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            auth = (asked["orthanc_auth"][0], asked["orthanc_auth"][1])
            self._answer({"results": analyse(model, asked["orthanc_url"], auth, asked["instance_ids"])})

        def _answer(self, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    HTTPServer(("127.0.0.1", port), Inference).serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    told = parser.parse_args()
    serve(told.port, told.weights)
