"""What chunks consist of, and how they are packed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from xmrcae.archive.packing import metadata, pack


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i4", ">f4", "f8"])
def test_zarr_reads_what_is_packed(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    dims = [f"dim_{i}" for i in range(len(shape))]
    document = metadata(shape, shape, values.dtype, dims, {"units": "K"})
    (tmp_path / "zarr.json").write_text(json.dumps(document))
    chunk = tmp_path.joinpath("c", *("0" for _ in shape))
    chunk.parent.mkdir(parents=True, exist_ok=True)
    chunk.write_bytes(pack(values) or b"")
    array = zarr.open_array(tmp_path, mode="r")
    found = np.asarray(array[...])
    assert found.dtype == values.dtype.newbyteorder("=") and array.attrs["units"] == "K"
    np.testing.assert_array_equal(found, values)


#: Ctrl-C while pcodec, used for the first time, looks for numpy.
INTERRUPTED = """
import os, signal
import numpy as np
from numpy.lib import NumpyVersion
from xmrcae.archive.packing import pack

looked_up = NumpyVersion.__init__

# A shell that runs this in the background leaves Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt(self, *args):
    os.kill(os.getpid(), signal.SIGINT)
    looked_up(self, *args)

NumpyVersion.__init__ = interrupt
try:
    pack(np.zeros(3, np.float32))
except BaseException as error:
    print(type(error).__name__)
"""


def test_ctrl_c_at_the_first_use_of_pcodec_is_no_error_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "KeyboardInterrupt", done.stderr
