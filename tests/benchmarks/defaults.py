"""Numbers of the encoding against numbers of the data, with a fit that is told nothing."""

import time
import warnings
from typing import Any

import xarray as xr
from common import DATA, THREADS

GOAL = 2.0

TITLE = "Numbers of a default fit"
TEXT = """\
Every file of several times that the tests know, fitted with no option but what its gaps call for.
`values` are the valid ones of a snapshot, `numbers` those of its encoding, `ratio` one over the
other. The errors are those of the test snapshots at the finest level, over the rms of the training
snapshots about their time mean. Under the default tolerance groups stop at half as many numbers as
values; the columns `without the limit` are of `tolerance=` 0.1 of that rms, where it differs.
`5 degrees` is ERSST in the tropical Pacific, averaged over 3 x 2 cells, less its climatology. Sea
ice is averaged to 1 degree, and 0 where there is none."""
COLUMNS = {
    "data": "data", "device": "device", "threads": "threads", "values": "values",
    "numbers": "numbers", "ratio": "ratio", "goal": "goal", "error": "error over rms",
    "seconds": "fit, s", "numbers_free": "numbers without the limit",
    "ratio_free": "ratio without", "error_free": "error without",
}  # fmt: skip

#: File, variable and options of each.
FILES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ERSST": ("ersst_v5_2010-2020.nc", "sst", {}),
    "ERSST, 5 degrees": ("ersst_v5_2010-2020.nc", "sst", {}),
    "Mediterranean": ("aviso_med_adt_2005.nc", "adt", {"gaps": "mask"}),
    "precipitation": ("cmap_precip_tropics.nc", "precip", {}),
    "air temperature": ("hadgem_a1b_360day.nc", "air_temperature", {}),
    "wake, velocity": ("cylinder_wake_openfoam.nc", "u", {}),
    "wake, vorticity": ("cylinder_wake_openfoam.nc", "vorticity_z", {}),
    "climatology": ("oisst_v21_climatology.nc", "sst", {}),
    "sea ice": ("oisst_v21_icec_arctic.nc", "icec", {}),
}
QUICK = "ERSST, 5 degrees"


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """All files that are there, or the smallest if quick."""
    return [
        {"data": name, "device": "cpu", "threads": THREADS[-1]}
        for name, (file, *_) in FILES.items()
        if (DATA / file).is_file() and (name == QUICK or not quick)
    ]


def measure(*, data: str, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """A default fit, and one to the tolerance itself where the limit stops that."""
    from xmrcae import MrCAE

    field, options = opened(data), FILES[data][2] | ({"max_epochs": 2} if quick else {})
    model = MrCAE(progress=False, **options)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(field)
    seconds = time.perf_counter() - start
    training = field[(model.split == "training").values]
    rms = float(((training - training.mean("time")) ** 2).mean() ** 0.5)
    row = figures(model, field, rms)
    if any("the default tolerance" in str(each.message) for each in told):
        free = MrCAE(progress=False, tolerance=0.1 * rms, **options).fit(field)
        row |= {f"{name}_free": value for name, value in figures(free, field, rms).items()}
    return row | {"goal": GOAL, "seconds": seconds}


def figures(model: Any, field: xr.DataArray, rms: float) -> dict[str, Any]:
    """Numbers and error of a fitted model."""
    score = model.score(field[(model.split == "test").values]).isel(level=-1)
    numbers, ratio = int(score["encoding_size"]), float(score["ratio"])
    return {
        "values": round(numbers * ratio),
        "numbers": numbers,
        "ratio": ratio,
        "error": float(score["rmse"]) / rms,
    }


def opened(name: str) -> xr.DataArray:
    """A field of `FILES` in memory."""
    file, variable, _ = FILES[name]
    with xr.open_dataset(DATA / file) as dataset:
        field = dataset[variable].load()
    if name == "ERSST, 5 degrees":
        field = field.coarsen(lat=3, lon=2, boundary="trim").mean()
        field = field.sel(lat=slice(30, -30)).isel(lon=slice(30, 72))
        field = field.groupby("time.month") - field.groupby("time.month").mean()
    if name == "sea ice":
        field = field.fillna(0).where(field.notnull().any("time"))
        field = field.coarsen(lat=4, lon=4).mean()
    return field
