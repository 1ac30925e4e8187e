"""A server of NOAA's files on this machine, which can fail in the ways of real ones, and small files of their form."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import xarray as xr
from helpers import make_field


@dataclass
class Fault:
    """What is wrong with one answer.

    Of the body, only the first `sent` bytes arrive (None: no answer at all); then `after` is
    called. `length` tells whether the length of the body is told.
    """

    status: int | None = None
    sent: float | None = float("inf")
    length: bool = True
    after: Callable[[], object] = lambda: None


class Mirror:
    """A server of a folder. `requests` are those that it got, (path, headers); `faults` those of its next answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.faults: list[Fault] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/").partition("?")[0]
                mirror.requests.append((name, dict(self.headers)))
                fault = mirror.faults.pop(0) if mirror.faults else Fault()
                self.answer(fault, mirror.folder / name)
                fault.after()

            def answer(self, fault, path):
                if fault.sent is None:
                    return
                found = path.is_file() and not fault.status
                self.send_response(200 if found else fault.status or 404)
                body = path.read_bytes() if found else b"busy" * 9
                if fault.length:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: min(fault.sent, len(body))])

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def make_psl(path: Path, *, seed: int = 0, bounds: bool = True, lsmask: bool = False) -> Path:
    """Write a small file as PSL's are: no standard name of sst, bounds of time that its attributes do not name."""
    field = make_field(4, (25, 36), seed=seed)
    time = {"time": {"units": "days since 1800-01-01 00:00:00", "dtype": "float64"}}
    if lsmask:
        ds = field.notnull().astype(np.float32)[:1].to_dataset(name="mask")
        ds["mask"].attrs = {"units": "none", "valid_range": [0, 1], "long_name": "Land Sea Mask"}
        ds.to_netcdf(path, format="NETCDF3_CLASSIC", encoding=time)
        return path
    ds = field.drop_attrs(deep=False).to_dataset()
    ds["sst"].attrs = {
        "long_name": "Daily Sea Surface Temperature",
        "units": "degC",
        "valid_range": [-3.0, 45.0],
    }
    ds["time"].attrs = {"long_name": "Time", "delta_t": "0000-00-01 00:00:00"}
    if bounds:
        days = (ds.time.values - np.datetime64("1800-01-01")) / np.timedelta64(1, "D")
        ds["time_bnds"] = (
            ("time", "nbnds"),
            np.stack([days, days + 28], axis=1),
            {"long_name": "Time Boundaries"},
        )
    sst = {"sst": {"chunksizes": (1, 25, 36), "missing_value": np.float32(-9.96921e36)}}
    ds.assign_attrs(source="a made-up field").to_netcdf(
        path, unlimited_dims="time", encoding=time | sst
    )
    return path


def read_psl(path: Path) -> xr.Dataset:
    """Read such a file, its bounds left out."""
    return xr.load_dataset(path, drop_variables="time_bnds")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder: Path) -> list[str]:
    """Give the names of all files in a folder and those below it."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
