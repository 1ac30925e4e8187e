"""The model's part of an archive as one row of bytes: many small arrays would cost a file each.

Eight bytes tell the length of a header in JSON; after it come the arrays that the header lists, one
after the other, in C order, least significant byte first.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..io.labels import attributes_from_json, attributes_to_json
from .format import ArchiveFault, dumps

#: Path of the array of bytes.
PATH = "model"


def packed(datasets: Mapping[str, xr.Dataset], header: Mapping[str, Any]) -> np.ndarray:
    """Put Datasets of plain arrays and what JSON holds into bytes, (byte,), uint8."""
    arrays, content = [], []
    for name, dataset in datasets.items():
        for key, variable in dataset.variables.items():
            record: dict[str, Any] = {"path": f"{name}/{key}", "dims": list(variable.dims)}
            record["attrs"] = attributes_to_json(variable.attrs)
            if variable.dtype.kind in "OUT":
                arrays.append(record | {"text": variable.values.tolist()})
            else:
                values = variable.values.astype(variable.dtype.newbyteorder("<"))
                arrays.append(record | {"dtype": values.dtype.str, "shape": list(values.shape)})
                content.append(values.tobytes())
    attrs = {name: attributes_to_json(dataset.attrs) for name, dataset in datasets.items()}
    text = dumps({**header, "datasets": attrs, "arrays": arrays})
    parts = [len(text).to_bytes(8, "little"), text, *content]
    return np.frombuffer(b"".join(parts), dtype=np.uint8)


def unpacked(stored: np.ndarray) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Undo :func:`packed`.

    Raises
    ------
    ArchiveError
        If the bytes are not what it made.
    """
    data = stored.tobytes()
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:start])
        datasets = {
            name: xr.Dataset(attrs=attributes_from_json(attrs))
            for name, attrs in header["datasets"].items()
        }
        for record in header["arrays"]:
            name, key = record["path"].split("/", 1)
            if "text" in record:
                values = np.array(record["text"], dtype=object)
            else:
                dtype, shape = np.dtype(record["dtype"]), record["shape"]
                end = start + dtype.itemsize * math.prod(shape)
                values = np.frombuffer(data[start:end], dtype).reshape(shape)
                start = end
            own = attributes_from_json(record["attrs"])
            datasets[name][key] = xr.Variable(record["dims"], values, own)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveFault(f"the model's part of the archive is damaged: {error}") from error
    return datasets, header
