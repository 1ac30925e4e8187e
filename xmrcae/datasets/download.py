"""Files of a server, fetched once: resumed, tried again, and recorded beside the file. Pooch keeps and checks them."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pooch
import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.util import Retry

from .._version import __version__

log = logging.getLogger("xmrcae")

#: Seconds to wait for a connection, and for the next bytes.
TIMEOUT = (10, 60)
#: Most seconds that a server can make us wait before the next try.
RETRY_AFTER_MAX = 30
BLOCK_BYTES = 2**16


class BoundedRetry(Retry):
    """urllib3's rules of when to try again, with a bound on what the header Retry-After asks for."""

    def get_retry_after(self, response: Any) -> float | None:
        """Seconds that the server asks for."""
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, RETRY_AFTER_MAX)


#: A dropped connection and a busy server are tried again, after 0, 1, 2, 4 and 8 s; no connection at all is not.
RETRY = BoundedRetry(
    total=5, connect=0, backoff_factor=0.5, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
)


def fetch(name: str, server: str, *, sha256: str | None = None, progress: bool = True) -> Path:
    """The path of a file in the folder of data, fetched if it is not there or has another checksum.

    Parameters
    ----------
    name : str
        Of the file, below the server's address and below the folder XMRCAE_DATA_DIR (else the user's cache).
    server : str
        Its address, in whose place XMRCAE_DATA_URL may name another.
    sha256 : str, optional
        Checksum of a file that never changes.
    progress : bool
        Whether to show a bar.

    Raises
    ------
    ConnectionError
        If the file can not be fetched.
    ValueError
        If what was sent has another checksum or is no netCDF file. It is not kept.
    """
    folder = Path(os.environ.get("XMRCAE_DATA_DIR") or pooch.os_cache("xmrcae")).expanduser()
    server = (os.environ.get("XMRCAE_DATA_URL") or server).rstrip("/")
    path = folder / name
    if path.is_file() and (sha256 is None or pooch.file_hash(str(path)) == sha256):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    store = pooch.create(path=folder, base_url=f"{server}/", registry={name: sha256})
    try:
        with FileLock(f"{path}.lock"):  # who had to wait finds the file there
            store.fetch(name, downloader=Downloader(path, progress=progress))
    except (requests.RequestException, HTTPError) as error:
        there = " in place of the one there, which has another checksum" if path.is_file() else ""
        kept = " What has arrived is kept: the same call goes on from there." if _part(path).is_file() else ""
        raise ConnectionError(
            f"could not get {name} from {server}/{name} ({_reason(error)}): get it in another way and put it at "
            f"{path}{there}, or name a server that has it under the same name in XMRCAE_DATA_URL.{kept}"
        ) from error
    return path


def provenance(path: Path) -> dict[str, str]:
    """Checksum of a file, and when it was fetched: by the record that `fetch` left, else when it was last changed.

    A copied or touched file has another time of change, so the record comes first; it counts for a file of its checksum
    only. The file is read for that unless its size and time of change are those of the record.
    """
    record, stat = _read_record(path), path.stat()
    is_as_recorded = [record.get("bytes"), record.get("mtime_ns")] == [stat.st_size, stat.st_mtime_ns]
    sha256 = record["sha256"] if is_as_recorded else pooch.file_hash(str(path))
    is_recorded = sha256 == record.get("sha256")
    return {"sha256": sha256, "accessed": record["accessed"] if is_recorded else _time(stat.st_mtime)}


class Downloader:
    """A downloader for pooch, which goes on from what an earlier try or call has left of the file.

    Parameters
    ----------
    path : pathlib.Path
        Where the file is to be in the end; parts of it and the record lie beside.
    progress : bool
        Whether to show a bar.
    """

    def __init__(self, path: Path, *, progress: bool) -> None:
        self.path, self.part, self.progress = path, _part(path), progress

    def __call__(self, url: str, output_file: str, _: Any) -> None:
        """Fetch `url` to `output_file`; errors are those of requests and urllib3."""
        retry: Retry = RETRY
        with requests.Session() as session:
            # Bytes as they are: a packed body has another length, and no part of it could be asked for.
            session.headers.update({"User-Agent": f"xmrcae/{__version__}", "Accept-Encoding": "identity"})
            while True:
                with self._ask(session, url, retry) as response:
                    try:
                        self._receive(response)
                        break
                    except requests.RequestException as error:
                        log.info("%s: %s", url, error)
                        lost = ProtocolError(f"connection lost after {self.part.stat().st_size} bytes")
                        # The tries that the answer itself has taken count too.
                        retry = response.raw.retries.increment("GET", url, error=lost)
                retry.sleep()
        self._keep(url, Path(output_file))

    def _ask(self, session: requests.Session, url: str, retry: Retry) -> requests.Response:
        """An answer whose body is the file, or the rest of it that is missing."""
        size = self.part.stat().st_size if self.part.is_file() else 0
        validator = _read_record(self.path).get("validator")
        resumes = bool(size and validator)
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        response = session.get(
            url, stream=True, timeout=TIMEOUT,
            headers={"Range": f"bytes={size}-", "If-Range": str(validator)} if resumes else None,
        )  # fmt: skip
        is_rest = (
            response.status_code == 206
            and response.headers.get("Content-Range", "").startswith(f"bytes {size}-")
            and _validator(response) in (None, validator)
        )
        if resumes and response.status_code in (206, 416) and not is_rest:
            response.close()
            self.part.unlink()
            return self._ask(session, url, retry)
        response.raise_for_status()
        return response

    def _receive(self, response: requests.Response) -> None:
        """Write the body to the part, behind what is there if that is what was sent."""
        start = self.part.stat().st_size if response.status_code == 206 else 0
        length = response.headers.get("Content-Length")
        whole = response.headers.get("Content-Range", "").rpartition("/")[2]  # a server may send less than is asked for
        total = int(whole) if whole.isdigit() else None if length is None else start + int(length)
        if not start:
            self.part.unlink(missing_ok=True)  # before the record: no part may have the validator of another
            _write_record(self.path, {"validator": _validator(response)})
        with (
            self.part.open("ab") as file,
            tqdm(
                desc=self.path.name, initial=start, total=total, unit="B", unit_scale=True, disable=not self.progress
            ) as bar,
        ):
            for block in response.iter_content(BLOCK_BYTES):
                bar.update(file.write(block))
        size = self.part.stat().st_size
        if total is not None and size != total:
            raise requests.exceptions.ChunkedEncodingError(f"{size} of {total} bytes arrived")

    def _keep(self, url: str, target: Path) -> None:
        """Move the whole part to the file that pooch checks, and write the record."""
        with self.part.open("rb") as file:
            start = file.read(4)
        if not start.startswith((b"CDF", b"\x89HDF")):
            self.part.unlink()
            raise ValueError(f"what {url} sent is no netCDF file: it begins with {start!r}; ask again, or elsewhere")
        stat = self.part.stat()
        record = {"sha256": pooch.file_hash(str(self.part)), "accessed": _time(stat.st_mtime)}
        _write_record(self.path, record | {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns})
        self.part.replace(target)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return json.loads(_record(path).read_text())
    except (OSError, ValueError):
        return {}


def _write_record(path: Path, record: dict[str, Any]) -> None:
    _record(path).write_text(json.dumps(record, indent=1))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _validator(response: requests.Response) -> str | None:
    """What tells one state of the file on the server from another; a weak ETag is not allowed to."""
    etag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def _reason(error: Exception) -> Any:
    """What happened, without the layers of libraries around it."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", None) or getattr(error, "reason", None) or error
