"""Error against numbers stored per snapshot, for xmrcae and for what people use instead.

Every method sees departures from the training mean and is judged on held-out snapshots, over
pixels that are valid at all times. ``python notebooks/compressors.py ersst --data
ersst_v5_2010-2020.nc`` writes ``compressors_ersst.nc`` beside this file; another run with
``--methods`` replaces the rows of these methods only. zfp's package needs an environment of its
own (zfpy 1.0.1 breaks numcodecs 0.16), with numpy, xarray and netCDF4; the others need ``pip
install 'xmrcae[notebooks]'``.
"""

from __future__ import annotations

import argparse
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

HERE = Path(__file__).parent

#: Variable, factor to the units of the table, its units, numbers per snapshot.
FIELDS: dict[str, tuple[str, float, str, tuple[int, ...]]] = {
    "ersst": ("sst", 1.0, "degC", (329, 1098, 3296)),
    "mediterranean": ("adt", 100.0, "cm", (501, 1672, 5018)),
}

SPLITS = ("random", "blocks")

#: How xmrcae is asked to describe as much as it can with so many numbers.
COMPRESSOR = {
    "levels": 4,
    "encoder": "projection",
    "channels": [[1] * 6],
    "omega": 1.0,
    "anchor": 0.0,
    "progress": False,
}


@dataclass(frozen=True)
class Field:
    """Departures from the training mean, valid pixels only, and how they lie on the grid.

    Attributes
    ----------
    data : xarray.DataArray, (time, y, x)
        Departures; NaN where not valid.
    train, validation, test : numpy.ndarray of int
        Positions in time.
    """

    data: xr.DataArray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @classmethod
    def of(cls, data: xr.DataArray, split: str) -> Field:
        """Split 70 / 20 / 10: "random" by numpy's default_rng(0).permutation, or "blocks", contiguous in time."""
        n = data.sizes["time"]
        order = np.random.default_rng(0).permutation(n) if split == "random" else np.arange(n)
        train, validation, test = np.split(order, [int(0.7 * n), int(0.9 * n)])
        data = data.where(data.notnull().all("time"))
        return cls(data - data[train].mean("time"), train, validation, test)

    @property
    def snapshots(self) -> np.ndarray:
        """All of them on the whole grid, (time, y, x) in float64, 0 where not valid."""
        return self.data.fillna(0).values.astype(np.float64)

    def rmse(self, reconstruction: Any) -> float:
        """Root-mean-square error of the test snapshots over valid pixels."""
        error = np.asarray(reconstruction, dtype=np.float64) - self.data.values[self.test]
        return float(np.sqrt(np.nanmean(error**2)))


#: Numbers per snapshot, and the test snapshots made of them.
Points = Iterator[tuple[float, Any]]


def eof(field: Field, sizes: Iterable[int]) -> Points:
    """Empirical orthogonal functions of the training snapshots, by xeofs: as many numbers as modes."""
    from xeofs.single import EOF

    n, test = len(field.train), field.data[field.test]
    model = EOF(n_modes=n, center=False).fit(field.data[field.train], dim="time")
    scores = model.transform(test)
    for modes in sorted({20, 50, n}):
        yield (
            modes,
            model.inverse_transform(scores.sel(mode=slice(1, modes)))
            .reindex_like(test)
            .transpose(*test.dims),
        )


def wavelet(field: Field, sizes: Iterable[int], *, anew: bool) -> Points:
    """The largest coefficients of the wavelet bior4.4 on 4 levels, 0 on land, kept.

    Positions are those of the largest energy in training, or with `anew` those of the largest
    coefficients of each snapshot; these positions would have to be stored too, and are not
    counted.
    """
    import pywt

    def analyse(snapshot: np.ndarray) -> np.ndarray:
        nonlocal slices
        array, slices = pywt.coeffs_to_array(
            pywt.wavedec2(snapshot, "bior4.4", mode="periodization", level=4)
        )
        return array

    slices: Any = None
    rows, columns = field.snapshots.shape[1:]
    energy = sum(analyse(snapshot) ** 2 for snapshot in field.snapshots[field.train])
    coefficients = [analyse(snapshot) for snapshot in field.snapshots[field.test]]
    for size in sizes:
        fields = []
        for array in coefficients:
            rank = np.abs(array) if anew else energy
            kept = np.where(rank >= np.partition(rank.ravel(), -size)[-size], array, 0)
            coded = pywt.array_to_coeffs(kept, slices, output_format="wavedec2")
            fields.append(pywt.waverec2(coded, "bior4.4", mode="periodization")[:rows, :columns])
        yield size, fields


def zfp(field: Field, sizes: Iterable[int]) -> Points:
    """Each snapshot in float32 by zfp at a fixed accuracy; a number is four bytes of the stream."""
    import zfpy

    for tolerance in 2.0 ** np.arange(2, -9, -1):
        streams = [
            zfpy.compress_numpy(s.astype(np.float32), tolerance=tolerance)
            for s in field.snapshots[field.test]
        ]
        size = np.mean([len(stream) for stream in streams]) / 4
        yield size, [zfpy.decompress_numpy(stream) for stream in streams]


def fitted(field: Field, size: int, **options: Any) -> Any:
    """An :class:`xmrcae.MrCAE` that describes as much as it can with so many numbers."""
    from xmrcae import MrCAE

    split = (field.train, field.validation, field.test)
    return MrCAE(**COMPRESSOR | {"encoding_size": size, "split": split} | options).fit(field.data)


def autoencoder(field: Field, sizes: Iterable[int], **options: Any) -> Points:
    """The codes of xmrcae, counted where they are finite."""
    test = field.data[field.test]
    for size in sizes:
        model = fitted(field, size, **options)
        codes = model.encode(test[:1])
        counted = sum(
            int(np.isfinite(level["encoding"]).sum()) for level in codes.children.values()
        )
        yield counted, model.reconstruct(test)


def written(model: Any, codes: xr.DataArray) -> np.ndarray:
    """What a code of one writes on the field, as root-sum-square over pixels: that of one cell for all of its filter.

    Parameters
    ----------
    model : xmrcae.MrCAE
        Fitted to one variable.
    codes : xarray.DataArray, (time, feature)
        Its stacked codes.

    Returns
    -------
    numpy.ndarray, shape (feature,)
    """
    levels, channels = (codes[name].values for name in ("level", "channel"))
    norms = np.empty(codes.sizes["feature"])
    nothing = codes[:1].copy(data=np.zeros((1, len(norms)), dtype=np.float32))
    for level, channel in set(zip(levels, channels, strict=True)):
        same = np.flatnonzero((levels == level) & (channels == channel))
        impulse = nothing.copy(deep=True)
        impulse[0, same[len(same) // 2]] = 1
        difference = model.decode(model.unstack(impulse)) - model.decode(model.unstack(nothing))
        norms[same] = float(np.sqrt((difference**2).sum()))
    return norms


def quantised(field: Field, sizes: Sequence[int]) -> Points:
    """The codes of xmrcae in whole steps, by zlib; a number is four bytes of the stream.

    A step is as long, on the field, for the codes of all filters, and changes the error by some
    per cent.
    """
    model = fitted(field, sizes[-1])
    codes = model.stack(model.encode(field.data[field.test]))
    n_codes, n_pixels = codes.sizes["feature"], int(field.data[0].notnull().sum())
    norms = written(model, codes)
    validation = field.data[field.validation]
    error = float(np.sqrt(((model.reconstruct(validation) - validation) ** 2).mean()))
    for share in (2.0, 1.0, 0.5):
        steps = share * error * np.sqrt(12 * n_pixels / n_codes) / norms
        whole = np.round(codes / steps)
        planes = (
            np.array(whole.values, dtype="<i2", order="C")[..., None]
            .view(np.uint8)
            .transpose(0, 2, 1)
        )
        size = np.mean([len(zlib.compress(np.ascontiguousarray(plane), 9)) for plane in planes]) / 4
        yield size, model.decode(model.unstack((whole * steps).astype(np.float32)))


METHODS: dict[str, Callable[[Field, Sequence[int]], Points]] = {
    "EOF": eof,
    "wavelet, fixed positions": lambda field, sizes: wavelet(field, sizes, anew=False),
    "wavelet, positions per snapshot": lambda field, sizes: wavelet(field, sizes, anew=True),
    "zfp": zfp,
    "xmrcae, filters": lambda field, sizes: autoencoder(
        field, sizes, encoder="filters", channels=[[1] * 4]
    ),
    "xmrcae, projection": autoencoder,
    "xmrcae, projection, quantised": quantised,
}

#: Those that count bytes.
BYTES = ("zfp", "xmrcae, projection, quantised")


def compare(field: Field, sizes: Sequence[int], methods: Iterable[str] = METHODS) -> xr.Dataset:
    """Held-out errors of methods.

    Parameters
    ----------
    field : Field
        The data.
    sizes : sequence of int
        Numbers per snapshot, for those methods that can choose.
    methods : iterable of str
        Out of `METHODS`.

    Returns
    -------
    xarray.Dataset
        `rmse`, `size` (numbers per snapshot) and `seconds` (since the point before) over `point`,
        with its `method`.
    """
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of what xeofs will change, and that 4 levels are many for PyWavelets
        for method in methods:
            started = time.perf_counter()
            for size, reconstruction in METHODS[method](field, sizes):
                rows.append(
                    (method, size, field.rmse(reconstruction), time.perf_counter() - started)
                )
                started = time.perf_counter()
    method, size, rmse, seconds = zip(*rows, strict=True)
    return xr.Dataset(
        {
            "size": (
                "point",
                np.asarray(size, dtype=float),
                {"long_name": "numbers stored per snapshot"},
            ),
            "rmse": ("point", np.asarray(rmse), {"long_name": "held-out root-mean-square error"}),
            "seconds": ("point", np.asarray(seconds), {"long_name": "time taken", "units": "s"}),
        },
        coords={"method": ("point", list(method))},
    )


def markdown(result: xr.Dataset) -> str:
    """The table of the docs: a row a method, with its points as "rmse at size", under each split."""
    lines = [
        "| method | random split: rmse (numbers) | blocks: rmse (numbers) |",
        "| --- | --- | --- |",
    ]
    for method in METHODS:
        points = result.isel(point=(result["method"] == method).values)
        if not points.sizes["point"]:
            continue
        cells = []
        for split in SPLITS:
            one = (
                points.sel(split=split).sortby("size").isel(point=slice(0, 4))
            )  # zfp has more, ever smaller ones
            pairs = zip(one["rmse"].values, one["size"].values, strict=True)
            cells.append(", ".join(f"{rmse:.3f} ({size:.0f})" for rmse, size in pairs))
        lines.append(f"| {method}{' *' * (method in BYTES)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the methods on one data set, under both splits, and write the result."""
    parser = argparse.ArgumentParser(
        description="Held-out error against numbers stored per snapshot."
    )
    parser.add_argument("field", choices=FIELDS)
    parser.add_argument("--data", required=True, type=Path, help="its file")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=[name for name in METHODS if name != "zfp"]
    )
    parser.add_argument(
        "--output", type=Path, help="compressors_FIELD.nc beside this script, if not given"
    )
    given = parser.parse_args(arguments)
    variable, factor, units, sizes = FIELDS[given.field]
    output = given.output or HERE / f"compressors_{given.field}.nc"
    with xr.open_dataset(given.data) as ds:
        data = ds[variable].load() * factor
    results = []
    for split in SPLITS:
        field = Field.of(data, split)
        results.append(
            compare(field, sizes, given.methods).assign(
                rms=field.rmse(np.zeros_like(field.data[field.test]))
            )
        )
    result = xr.concat(results, xr.DataArray(list(SPLITS), dims="split", name="split"))
    result["rms"].attrs["long_name"] = "root-mean-square departure of the test snapshots"
    for name in ("rms", "rmse"):
        result[name].attrs["units"] = units
    if output.exists():
        with xr.open_dataset(output) as before:
            kept = before.load().isel(point=~np.isin(before["method"], given.methods))
        pieces = [
            piece.assign_coords(method=piece["method"].astype(object)) for piece in (kept, result)
        ]
        result = xr.concat(pieces, "point", data_vars="minimal", combine_attrs="override")
    result.attrs = {
        "title": f"Held-out error against numbers stored per snapshot: {given.field}",
        "references": "see datasets/README.md",
        "command": f"python notebooks/compressors.py {given.field} --data {given.data.name}",
    }
    part = output.with_suffix(".part")
    result.to_netcdf(part)
    part.replace(output)
    print(markdown(result))


if __name__ == "__main__":
    main()
