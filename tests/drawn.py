"""Made-up fields of any shape, order, type, calendar, coast and grid, as hypothesis draws them."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st

#: Options with which a fit is over soon.
QUICK = {"channels": [[1, 1]], "max_epochs": 2, "progress": False}

#: What rows and columns are known by; on the last two grids nothing can be fitted.
GRIDS = ("geographic", "globe", "projected", "none", "curvilinear")
BAD_GRIDS = ("unsorted", "repeated")

#: What snapshots are known by.
TIMES = ("standard", "noleap", "360_day", "numbers", "none", "unsorted", "repeated")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a field is made from, in plain values: a failure's text can be pasted as an example."""

    rows: int = 6
    columns: int = 9
    times: int = 8
    members: int = 1
    variables: int = 1
    dtype: str = "float32"
    time: str = "standard"
    grid: str = "geographic"
    descending: tuple[bool, bool] = (False, False)
    chunk: int = 0
    land: float = 0.3
    gaps: str | None = None
    seed: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def names(self) -> list[str]:
        return ["sst", "ssh", "salt"][: self.variables]

    def random(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *purpose])

    def valid(self, variable: int = 0) -> np.ndarray:
        """Pixels to be described, (row, column): at least one; none is a sea of one pixel."""
        draw = self.random(1, variable).random((self.rows, self.columns))
        return (draw >= self.land) | (draw == draw.max())

    def missing(self, variable: int = 0) -> np.ndarray:
        """Values that are missing, (snapshot, row, column): of a pixel one at most, of the first valid none."""
        random, n = self.random(2, variable), self.times * self.members
        at = random.integers(0, 4 * n, (self.rows, self.columns))
        at.flat[np.flatnonzero(self.valid(variable))[0]] = n
        return (np.arange(n)[:, None, None] == at) & (self.gaps is not None)

    def described(self, variable: int = 0) -> np.ndarray:
        """Pixels, (row, column), that results hold values on."""
        holey = self.missing(variable).any(0) if self.gaps == "mask" else False
        return self.valid(variable) & ~holey

    def build(self, *, land: float = np.nan, constant: float | None = None) -> Any:
        """The field: a DataArray or, of several variables, a Dataset; `land` stands on land."""
        fields = {}
        for v, name in enumerate(self.names):
            values = self._values(v, land, constant)
            values = values.reshape(self.times, self.members, self.rows, self.columns)
            dims = ("time", "member", "y", "x")
            fields[name] = (dims, self._stored(values), {"units": "K"})
        ds = xr.Dataset(fields, coords=self._coordinates())
        if self.dtype == "int16":
            ds = xr.decode_cf(self._packed(ds))
        if self.members == 1:
            ds = ds.squeeze("member")
        ds = ds.isel(y=slice(None, None, -1)) if self.descending[0] else ds
        ds = ds.isel(x=slice(None, None, -1)) if self.descending[1] else ds
        ds = ds.transpose(*self.random(3).permutation(list(ds.dims)))
        if self.chunk:
            sizes = {
                dim: 1 + (self.chunk * (i + 1)) % n for i, (dim, n) in enumerate(ds.sizes.items())
            }
            ds = ds.chunk(sizes)
        return ds if self.variables > 1 else ds[self.names[0]]

    def _values(self, v: int, land: float, constant: float | None) -> np.ndarray:
        shape = (self.times * self.members, self.rows, self.columns)
        random = self.random(4, v)
        waves = random.standard_normal((2, self.rows, self.columns)).cumsum(2)
        values = 10 + np.tensordot(random.standard_normal((shape[0], 2)), waves, 1)
        values += 0.1 * random.standard_normal(shape)
        values = values if constant is None else np.full(shape, constant)
        values[:, ~self.valid(v)] = land
        values[self.missing(v)] = np.nan
        return values

    def _stored(self, values: np.ndarray) -> np.ndarray:
        return values.astype("float64" if self.dtype == "int16" else self.dtype)

    @staticmethod
    def _packed(ds: xr.Dataset) -> xr.Dataset:
        """The fields as files pack them: whole numbers with scale, offset and a fill value."""
        packing = {
            "scale_factor": np.float32(0.01),
            "add_offset": np.float32(5),
            "_FillValue": -32768,
        }
        fields = {}
        for name, field in ds.data_vars.items():
            steps = ((field - 5) / 0.01).clip(-30000, 30000).round().fillna(-32768)
            fields[name] = steps.astype(np.int16).assign_attrs(field.attrs | packing)
        return ds.assign(fields)

    def _coordinates(self) -> dict[str, Any]:
        y, x = np.arange(float(self.rows)), np.arange(float(self.columns))
        if self.grid in BAD_GRIDS:
            x = np.roll(x, 1) if self.grid == "unsorted" else np.minimum(x, 1)
        places: dict[str, Any] = {"y": ("y", 3000 * y), "x": ("x", 2000 * x)}
        lat, lon = (
            y * 120 / self.rows - 60,
            x * (360 if self.grid == "globe" else 120) / self.columns,
        )
        units = {"units": "degrees_north"}, {"units": "degrees_east"}
        if self.grid in ("geographic", "globe"):
            places = {"y": ("y", lat, units[0]), "x": ("x", lon, units[1])}
        elif self.grid == "curvilinear":
            places = {
                "lat": (("y", "x"), lat[:, None] + 0.1 * x, units[0]),
                "lon": (("y", "x"), lon + 0.1 * y[:, None], units[1]),
            }
        elif self.grid == "none":
            places = {}
        return places | self._times() | {"member": np.arange(self.members), "height": 2.0}

    def _times(self) -> dict[str, Any]:
        if self.time in ("none", "numbers"):
            return {} if self.time == "none" else {"time": 3.5 * np.arange(self.times)}
        calendar = self.time if self.time in ("noleap", "360_day") else "standard"
        time = xr.date_range(
            "2001-01-15",
            periods=self.times,
            freq="MS",
            calendar=calendar,
            use_cftime=calendar != "standard",
        )
        order = np.arange(self.times)
        if self.time == "unsorted":
            order = self.random(5).permutation(order)
        if self.time == "repeated":
            order //= 2
        return {"time": time[order]}

    @property
    def fit_options(self) -> dict[str, Any]:
        return QUICK | self._dimensions() | {"gaps": self.gaps} | dict(self.options)

    def _dimensions(self) -> dict[str, Any]:
        named = {"sample": ["time", "member"] if self.members > 1 else "time"}
        return named | {"horizontal": ("y", "x")}

    def fit(self, obj: Any, **options: Any) -> Any:
        """Fit a model; of a Dataset, to all its variables."""
        given = self.fit_options | options
        return obj.mrcae.fit(self.names, **given) if self.variables > 1 else obj.mrcae.fit(**given)

    def but(self, **changes: Any) -> "Drawn":
        """The same field, but for some of what it is made from."""
        return dataclasses.replace(self, **changes)


def most_levels(rows: int, columns: int) -> int:
    return min(6, min(rows, columns).bit_length() - 1)


@st.composite
def options(draw: Any, levels: int, times: int) -> tuple[tuple[str, Any], ...]:
    """Some options of a fit that any field with so many levels can be fitted under."""
    chosen = {
        "levels": draw(st.integers(1, levels)),
        "encoder": draw(st.sampled_from(["filters", "filters", "projection"])),
        "widening": draw(st.sampled_from(["residual", "parallel"])),
        "restriction": draw(st.sampled_from(["full_weighting", "injection"])),
        "solver": draw(st.sampled_from(["lbfgs", "lbfgs", "adam"])),
        "fill": draw(st.sampled_from([0, "harmonic"])),
        "split": draw(
            st.sampled_from([(0.7, 0.2, 0.1), "blocks"] if times > 9 else [(0.7, 0.2, 0.1)])
        ),
        "scale": draw(st.sampled_from(["std", None])),
        "center": draw(st.booleans()),
        "tolerance": draw(st.sampled_from(["default", None, 0.5])),
    }
    if draw(st.integers(0, 4)) == 0 and chosen["encoder"] == "filters":
        chosen["activation"] = "relu"
    if draw(st.integers(0, 4)) == 0:
        chosen |= {"center": False, "scale": "minmax"}
    return tuple(chosen.items())


@st.composite
def fields(draw: Any, *, most: int = 80) -> Drawn:
    """Fields that can be fitted, of at most so many rows and columns; most of them are small."""
    size = st.one_of(st.integers(2, 12), st.integers(2, 12), st.integers(2, most))
    rows, columns = draw(size), draw(size)
    times = draw(st.integers(6, 14))
    members = draw(st.sampled_from([1, 1, 1, 2, 3]))
    time = draw(st.sampled_from(TIMES))
    distinct = times // 2 if time == "repeated" else times  # which blocks are cut between
    return Drawn(
        rows=rows,
        columns=columns,
        times=times,
        members=members,
        variables=draw(st.sampled_from([1, 1, 1, 2, 3])),
        dtype=draw(st.sampled_from(["float32", "float32", "float64", "int16", "float16"])),
        time=time,
        grid=draw(st.sampled_from(GRIDS)),
        descending=draw(st.tuples(st.booleans(), st.booleans())),
        chunk=draw(st.sampled_from([0, 0, 1, 2, 5, 11])),
        land=draw(st.sampled_from([0.0, 0.02, 0.3, 0.7, 0.9, 0.99, 1.0])),
        gaps=draw(st.sampled_from([None, None, "mask", "mean"])),
        seed=draw(st.integers(0, 2**16)),
        options=draw(options(most_levels(rows, columns), distinct)),
    )


@st.composite
def hostile(draw: Any) -> Drawn:
    """Fields and options of which some cannot be fitted."""
    field = draw(fields(most=24))
    small = st.integers(1, 4)

    def maybe(usual: int, other: Any) -> int:
        return draw(st.one_of(st.just(usual), st.just(usual), st.just(usual), other))

    changes = {
        "rows": maybe(field.rows, small),
        "columns": maybe(field.columns, small),
        "times": maybe(field.times, st.integers(1, 5)),
        "grid": draw(st.sampled_from((*GRIDS, *GRIDS, *BAD_GRIDS))),
    }
    levels = maybe(dict(field.options)["levels"], st.integers(1, 6))
    chosen = dict(field.options) | {
        "levels": levels,
        "gaps": draw(st.sampled_from([None, "mask", "mean"])),
    }
    return field.but(**changes, options=tuple(chosen.items()))
