"""What an archive keeps beside its fields: coordinates, other variables, attributes, their order.

A labelled object becomes a record that JSON can hold and arrays of plain numbers, and comes back
as it was. Its variables are of four kinds:

`archived`
    kept as codes and a rest elsewhere; the record has their labels;
`static`
    without the dimension that the archive grows along: arrays that are written once;
`rows`
    along that dimension: arrays that grow, converted block by block;
`index`
    the tuples of a MultiIndex, built from its levels.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.indexes import PandasMultiIndex

from ..io.labels import (
    as_texts,
    attributes_from_json,
    attributes_to_json,
    calendar_of,
    date_attributes,
    dates_from_microseconds,
    dates_to_microseconds,
    file_names,
    read_type,
    readable_attributes,
    texts_to_bytes,
    time_attributes,
    type_of,
)
from .format import ArchiveError

Record = dict[str, Any]

# The names by which xarray itself writes a DataArray; `xarray.open_dataarray` undoes them.
DATAARRAY_NAME = "__xarray_dataarray_name__"
DATAARRAY_VARIABLE = "__xarray_dataarray_variable__"

#: What of `.encoding` is the data's own; the rest says how some file held them.
ENCODING = frozenset(
    "units calendar dtype _FillValue missing_value scale_factor add_offset _Unsigned char_dim_name "
    "coordinates grid_mapping bounds climatology cell_measures formula_terms ancillary_variables "
    "geometry unlimited_dims".split()
)


class Labels(NamedTuple):
    """What `describe` finds.

    Attributes
    ----------
    record : dict
        What JSON can hold. `record["variables"]` has one record per variable: `name`, `kind`,
        `dims`, `dtype`, `coordinate`, `attrs`, `encoding`; of static ones and rows also `stored`
        (a name that is safe as a path), `plain` (the type of the numbers that are written), and
        `texts` or `calendar`.
    static : dict of xarray.Variable
        By `stored`: plain numbers.
    rows : dict of xarray.Variable
        By `stored`: values in their own type, lazy ones still lazy, rows first; `to_plain` makes
        numbers of them.
    """

    record: Record
    static: dict[str, xr.Variable]
    rows: dict[str, xr.Variable]


def describe(
    obj: xr.DataArray | xr.Dataset,
    variables: Sequence[Hashable],
    append: Hashable | None,
    horizontal: Sequence[Hashable],
    *,
    taken: Sequence[str] = (),
    archive: Record | None = None,
) -> Labels:
    """Describe all of a labelled object but the values of its archived variables.

    What is neither numbers, text nor times is left out, with a warning. An ArchiveError tells of
    names that JSON cannot hold.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        As the user gave it. A DataArray becomes the Dataset that xarray would write.
    variables : sequence of str
        Names of the archived variables of a Dataset; a DataArray is archived itself.
    append, horizontal
        The dimension that the archive grows along, if any; the horizontal ones, (y, x).
    taken : sequence of str
        Names that nothing may be stored under.
    archive : dict, optional
        The record of the archive that the object is appended to: what it has is stored as there.
    """
    dataset = _as_dataset(obj)
    archived = list(dataset.data_vars) if isinstance(obj, xr.DataArray) else list(variables)
    others = [name for name in dataset.variables if name not in archived]
    names = _stored_names(others, taken, archive)
    dims = {each["name"]: each["dims"] for each in (archive or {}).get("variables", ())}
    records, static, rows = [], {}, {}
    for name, variable in dataset.variables.items():
        each = _labels_of(name, variable, name in dataset.coords)
        if name in archived:
            each["kind"] = "archived"
        elif isinstance(dataset.xindexes.get(name), PandasMultiIndex) and name in dataset.dims:
            each["kind"] = "index"
        elif (kept := _conversion(variable)) is None:
            _warn_of_what_is_left_out(name)
            continue
        elif append is not None and append in variable.dims:
            each |= kept[0] | {"kind": "rows", "stored": names[name]}
            order = [dim for dim in dims.get(each["name"], ()) if dim in kept[1].dims]
            rows[each["stored"]] = kept[1].transpose(*dict.fromkeys([append, *order]), ...)
        else:
            each |= kept[0] | {"kind": "static", "stored": names[name]}
            values = to_plain(each, kept[1].values)
            static[each["stored"]] = xr.Variable(variable.dims, values, attributes(each))
        records.append(each)
    record = {
        "is_dataset": isinstance(obj, xr.Dataset),
        "append": append,
        "horizontal": list(horizontal),
        "sizes": [[dim, size] for dim, size in dataset.sizes.items() if dim != append],
        "variables": records,
        "indexes": _indexes(dataset, {each["name"] for each in records}),
        "attrs": attributes_to_json(dataset.attrs),
        "encoding": _encoding(dataset.encoding),
    }
    return Labels(record, static, rows)


def _warn_of_what_is_left_out(name: Hashable) -> None:
    warnings.warn(
        f"variable {name!r} holds neither numbers, text nor times: the archive leaves it out",
        stacklevel=4,
    )


def _as_dataset(obj: xr.DataArray | xr.Dataset) -> xr.Dataset:
    """Return the Dataset that xarray writes for a DataArray, or the Dataset itself."""
    if isinstance(obj, xr.Dataset):
        return obj
    if obj.name is None:
        return obj.to_dataset(name=DATAARRAY_VARIABLE)
    if obj.name in obj.coords or obj.name in obj.dims:
        dataset = obj.to_dataset(name=DATAARRAY_VARIABLE)
        return dataset.assign_attrs({DATAARRAY_NAME: obj.name})
    return obj.to_dataset()


def _name(name: Hashable) -> Hashable:
    if name is None or isinstance(name, str | int | float):
        return name
    raise ArchiveError(
        f"the name {name!r} is of type {type(name).__name__}: archives hold names that are text "
        "or numbers; rename it"
    )


def _stored_names(
    names: Iterable[Hashable], taken: Sequence[str], archive: Record | None
) -> dict[Hashable, str]:
    """Return names that are safe as paths; those that an archive has already as they are there."""
    made_up = {name: f"_{zlib.crc32(repr(name).encode()):08x}" for name in names}
    known = {} if archive is None else stored(archive)
    return file_names(made_up, taken=taken) | {each["name"]: own for own, each in known.items()}


def _labels_of(name: Hashable, variable: xr.Variable, coordinate: bool) -> Record:
    return {
        "name": _name(name),
        "dims": [_name(dim) for dim in variable.dims],
        "dtype": type_of(variable.dtype),
        "coordinate": coordinate,
        "attrs": attributes_to_json(variable.attrs),
        "encoding": _encoding(variable.encoding),
    }


def _encoding(encoding: Mapping[Any, Any]) -> list[Any]:
    return attributes_to_json({key: encoding[key] for key in encoding if key in ENCODING})


def _indexes(dataset: xr.Dataset, names: set[Hashable]) -> list[list[Hashable]]:
    """Return the names of the coordinates of each index that `set_xindex` can build."""
    found = []
    for index, coords in dataset.xindexes.group_by_index():
        several = isinstance(index, PandasMultiIndex)  # one more name: that of its dimension
        each = [name for name in coords if not (several and name in dataset.dims)]
        if names.issuperset(each) and (several or [c.ndim for c in coords.values()] == [1]):
            found.append(each)
    return found


def _conversion(variable: xr.Variable) -> tuple[Record, xr.Variable] | None:
    """Find how a variable becomes plain numbers: `plain`, and `texts` or `calendar`.

    It comes back with that, computed if it holds text or objects, whose values decide.
    """
    dtype = variable.dtype
    kind = dtype.kind if isinstance(dtype, np.dtype) else "O"
    if kind in "mM":
        return {"plain": "int64"}, variable.to_base_variable()
    if kind in "biuf":
        if dtype.itemsize > 8:
            return None
        number = {"u": "uint", "f": "float"}.get(kind, "int")
        plain = number + ("64" if dtype.itemsize == 8 else "32")
        return {"plain": plain}, variable.to_base_variable()
    values = variable.values
    loaded = xr.Variable(variable.dims, values)
    texts = as_texts(values) if kind in "SUTO" else None
    if texts is not None:
        return {"plain": "int32", "texts": list(dict.fromkeys(texts.ravel()))}, loaded
    calendar = calendar_of(values)
    return None if calendar is None else ({"plain": "int64", "calendar": calendar}, loaded)


def to_plain(record: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    """Write values, any part of a variable, as plain numbers of the type that its record names.

    An ArchiveError tells of times that are finer than the unit in which the archive has them.
    """
    plain = record["plain"]
    if "texts" in record:
        numbers = {text: number for number, text in enumerate(record["texts"])}
        texts = as_texts(values)
        found = (numbers[text] for text in texts.ravel())  # type: ignore[union-attr]
        return np.fromiter(found, plain, values.size).reshape(values.shape)
    if "calendar" in record:
        return dates_to_microseconds(values, record["calendar"])
    if values.dtype.kind in "mM":
        times = values.astype(record["dtype"])
        if not np.array_equal(times, values, equal_nan=True):
            raise ArchiveError(
                f"{record['name']!r} of type {values.dtype} cannot be kept as {times.dtype}, "
                "which the archive has, without rounding: round them, or write another archive"
            )
        values = times
    return values.astype(plain)


def from_plain(record: Mapping[str, Any], values: np.ndarray) -> np.ndarray:
    """Undo `to_plain`."""
    dtype = record["dtype"]
    read_type(dtype, values.size)
    if "texts" in record:
        texts = np.asarray(np.array(record["texts"], dtype=object)[values], dtype=object)
        return texts_to_bytes(texts, dtype) if dtype[1] == "S" else texts.astype(dtype)
    if "calendar" in record:
        return dates_from_microseconds(values, record["calendar"])
    return values.astype(dtype)


def attributes(record: Mapping[str, Any]) -> dict[str, str]:
    """Return attributes with which others can read a variable's plain numbers by CF."""
    found = readable_attributes(attributes_from_json(record["attrs"]))
    if "calendar" in record:
        return {**found, **date_attributes(record["calendar"])}
    dtype = np.dtype(record["dtype"])
    return {**found, **(time_attributes(dtype) if dtype.kind in "mM" else {})}


def stored(record: Mapping[str, Any]) -> dict[str, Record]:
    """Return the records of variables that are kept as plain numbers, by their `stored`."""
    return {each["stored"]: each for each in record["variables"] if "stored" in each}


def assemble(
    record: Mapping[str, Any],
    static: Mapping[str, np.ndarray],
    rows: Mapping[str, Any],
    archived: Mapping[Hashable, xr.Variable],
    horizontal_coords: xr.Dataset | None = None,
) -> xr.Dataset:
    """Put together what `describe` took apart.

    Parameters
    ----------
    record : mapping
        Of the whole object.
    static : mapping of numpy.ndarray
        By `stored`: plain numbers.
    rows : mapping of arrays
        By `stored`, rows first: values as `from_plain` returns them, in memory or lazy. Those of
        an index are loaded.
    archived : mapping of xarray.Variable
        The archived variables by name, with their dimensions in any order.
    horizontal_coords : xarray.Dataset, optional
        Coordinates of the horizontal dimensions on another level. All that lay along these
        dimensions on the finest but the archived variables is left out: bounds of its cells and
        fields that were not fitted have no like on a coarser grid.

    Returns
    -------
    xarray.Dataset
        A DataArray as xarray writes it: `xarray.open_dataarray` gives it back.
    """
    left_out = set() if horizontal_coords is None else {*record["horizontal"]}
    kept = [
        each
        for each in record["variables"]
        if each["kind"] == "archived" or not left_out & {*each["dims"]}
    ]
    dataset = _with_indexes(
        {
            each["name"]: _variable(record, each, static, rows, archived)
            for each in kept
            if each["kind"] != "index"
        },
        {each["name"] for each in kept if each["coordinate"]},
        record["indexes"],
    )
    for each in kept:
        dataset.variables[each["name"]].attrs = attributes_from_json(each["attrs"])
        dataset.variables[each["name"]].encoding = attributes_from_json(each["encoding"])
    if horizontal_coords is not None:
        dataset = dataset.assign_coords(horizontal_coords.coords)
    names = [each["name"] for each in record["variables"] if each["name"] in dataset.variables]
    dataset = dataset[list(dict.fromkeys([*names, *dataset.variables]))]
    dataset.attrs = attributes_from_json(record["attrs"])
    dataset.encoding = attributes_from_json(record["encoding"])
    return dataset


def _variable(
    record: Mapping[str, Any],
    each: Mapping[str, Any],
    static: Mapping[str, np.ndarray],
    rows: Mapping[str, Any],
    archived: Mapping[Hashable, xr.Variable],
) -> xr.Variable:
    """Return one variable with its dimensions in the order in which they were."""
    if each["kind"] == "archived":
        return archived[each["name"]].transpose(*each["dims"])
    if each["kind"] == "static":
        return xr.Variable(each["dims"], from_plain(each, static[each["stored"]]))
    append = record["append"]
    dims = [append, *(dim for dim in each["dims"] if dim != append)]
    return xr.Variable(dims, rows[each["stored"]]).transpose(*each["dims"])


def _with_indexes(
    variables: Mapping[Hashable, xr.Variable],
    coords: set[Hashable],
    indexes: Sequence[Sequence[Hashable]],
) -> xr.Dataset:
    """Build a Dataset that has just these indexes, of those whose coordinates are there."""
    dataset = xr.Dataset(
        {name: variable for name, variable in variables.items() if name not in coords},
        coords=xr.Coordinates(
            {name: variable for name, variable in variables.items() if name in coords}, indexes={}
        ),
    )
    for names in indexes:
        if all(name in dataset.coords for name in names):
            dataset = dataset.set_xindex(names)
    return dataset
