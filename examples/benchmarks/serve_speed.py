"""Time requests to ``examples/serve.py`` in a process of its own, and weigh it.

``python examples/benchmarks/serve_speed.py`` fits a linear probe on drawn scenes, with
the encoders of ``--backbone``, serves it and sends pictures with captions, over a
connection for each thread. Milliseconds are those of whole requests, as the client sees
them, and those that the server computes; the memory is its resident set afterwards.
Linux only.
"""

import argparse
import base64
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path

import numpy as np

import robustmm
from robustmm.datasets import make_scenes

SERVE = Path(__file__).parents[1] / "serve.py"
parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
parser.add_argument("--backbone", default="robustmm/tiny-clip")
parser.add_argument("--requests", type=int, default=400)
parser.add_argument("--threads", type=int, nargs="+", default=[1, 8])
parser.add_argument("--torch-threads", type=int, nargs="+", default=[1])
parser.add_argument("--pixels", type=int, default=640, help="a picture's width")
args = parser.parse_args()


def bodies(X) -> list[bytes]:
    """JSON of some rows, with JPEGs of the size that cameras or shops have."""
    made = []
    for picture, text in zip(X["image"], X["text"], strict=True):
        stream = BytesIO()
        picture.resize((args.pixels, args.pixels)).save(stream, "JPEG", quality=90)
        image = base64.b64encode(stream.getvalue()).decode()
        made.append(json.dumps({"image": image, "text": text}).encode())
    return made


def wait_for(port: int, server: subprocess.Popen) -> float:
    """Seconds until the server is healthy."""
    start = time.perf_counter()
    while server.poll() is None and time.perf_counter() - start < 120:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return time.perf_counter() - start
        except OSError:
            time.sleep(0.05)
    raise SystemExit("The server has not started.")


def ask(port: int, rows: list[bytes]) -> list[float]:
    """Milliseconds of each request, over one connection."""
    connection, times = HTTPConnection("127.0.0.1", port, timeout=60), []
    for row in rows:
        start = time.perf_counter()
        headers = {"content-type": "application/json"}
        connection.request("POST", "/predict", row, headers)
        answer = connection.getresponse()
        answer.read()
        times.append(1e3 * (time.perf_counter() - start))
        if answer.status != 200:
            raise SystemExit(f"A request was answered with {answer.status}.")
    return times


def cpu_seconds(server: subprocess.Popen) -> float:
    """What the server has computed so far, however busy the machine is."""
    stat = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def measure(server, port: int, rows: list[bytes], n_threads: int) -> str:
    """Send all requests from some threads, and say how long they took."""
    shares = [
        [rows[i % len(rows)] for i in range(t, args.requests, n_threads)]
        for t in range(n_threads)
    ]
    start, before = time.perf_counter(), cpu_seconds(server)
    with ThreadPoolExecutor(n_threads) as pool:
        times = np.concatenate(list(pool.map(lambda share: ask(port, share), shares)))
    rate = args.requests / (time.perf_counter() - start)
    p50, p95 = np.percentile(times, [50, 95])
    cpu = 1e3 * (cpu_seconds(server) - before) / args.requests
    return (
        f"{n_threads} threads: p50 {p50:.1f} ms, p95 {p95:.1f} ms, "
        f"{rate:.0f} requests a second, {cpu:.1f} ms of a core each"
    )


def memory(server: subprocess.Popen) -> str:
    """The resident set, now and at its largest, in MB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    now, peak = (
        int(re.search(rf"{name}:\s+(\d+)", status).group(1)) / 1024
        for name in ("VmRSS", "VmHWM")
    )
    return f"resident {now:.0f} MB, at most {peak:.0f} MB"


X, y = make_scenes(60, n_classes=3, random_state=0)
clf = robustmm.LinearProbeClassifier(args.backbone, device="cpu").fit(X, y)
rows = bodies(X)
with tempfile.TemporaryDirectory() as folder:
    robustmm.save(clf, folder)
    for torch_threads in args.torch_threads:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = ["--port", str(port), "--torch-threads", str(torch_threads)]
        command = [sys.executable, str(SERVE), folder, "--device", "cpu", *words]
        server = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            seconds = wait_for(port, server)
            ask(port, rows[:10])
            print(f"torch threads {torch_threads}: ready after {seconds:.1f} s")
            for n_threads in args.threads:
                print(" ", measure(server, port, rows, n_threads))
            print(" ", memory(server))
        finally:
            server.terminate()
            server.wait()
