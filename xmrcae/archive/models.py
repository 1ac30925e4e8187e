"""Models that suit an archive: options to fit one, and what is made of a fitted one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ..defaults import TO_SIZE, compact_encoder
from ..grid.pyramid import restrict_known

if TYPE_CHECKING:
    from ..core.network import Network
    from ..fitted import Fitted
    from ..grid.conventions import Labelled

#: Weight of coarser levels: it costs nothing at the finest and keeps coarse pictures good.
ANCHOR = 0.1

#: Codes per valid pixel and variable: with more, codes take more bytes than the rest loses.
SHARE = 0.0275

#: Days from one month to the next, and the fewest months with a climatology.
MONTH_DAYS, LEAST_MONTHS = (28, 31), 24


def archive_options(obj: Labelled, **options: Any) -> dict[str, Any]:
    """Return the options of a fit that is to serve an archive of some data.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        The data, of which one snapshot is read, and the times.
    **options
        What is to differ, as for :class:`xmrcae.MrCAE`.
    """
    from ..grid.description import describe, fittable
    from ..options import make_options

    usual: dict[str, Any] = TO_SIZE | {"anchor": ANCHOR, "split": (0.9, 0.1, 0.0)}
    result = usual | options
    checked = make_options(result)
    obj = fittable(obj, checked)
    about = describe(obj, checked)
    array = about.layout.array(obj)
    if "center" not in options and _is_monthly(about.samples):
        result["center"] = "month"
    if not {"tolerance", "encoding_size"} & set(options):
        n_valid = int(np.isfinite(np.asarray(array[len(array) // 2])).sum())
        bottleneck = int(np.prod(about.pyramid.shape(-1))) * array.shape[1]
        result["encoding_size"] = max(round(SHARE * n_valid), 2 * bottleneck)
    if "encoder" not in options:  # codes are to be few under a tolerance, too
        result["encoder"] = compact_encoder(int(np.prod(array.shape[1:])))
    return result


def _is_monthly(samples: Any) -> bool:
    """Tell whether samples are of consecutive months, enough of them for a climatology."""
    from ..grid.split import time_of

    time = time_of(samples.coords.to_dataset(), samples.dims)
    if time is None or time.ndim != 1 or time.size < LEAST_MONTHS or time.dtype.kind not in "MO":
        return False
    days = np.diff(time.values).astype("timedelta64[s]").astype(float) / 86400
    return bool((days >= MONTH_DAYS[0]).all() and (days <= MONTH_DAYS[1]).all())


def projecting(fitted: Fitted) -> Fitted:
    """Return a model with the same decoders whose codes are found by least squares.

    It is the model itself where the grid is so large that projecting would be too dear: codes of
    filters serve there, as the rest corrects them.
    """
    from ..core.projection import from_state

    network = fitted.codec.network
    state = network.state()
    if state.projection is not None or compact_encoder(state.counts.size) == "filters":
        return fitted
    weights = []
    for level, standard in enumerate(fitted.codec.standards):
        weight = np.zeros(state.has_data[level].shape, dtype=np.float32)
        counts = standard.valid.sum((1, 2), keepdims=True)
        share = standard.valid / np.maximum(counts, 1) / len(counts)
        weight[fitted.codec.pyramid.cut(level)] = share
        weights.append(weight)
    # A model that was fitted without regard to coarse levels needs some for coarse pictures.
    anchor = json.loads(fitted.options_json).get("anchor") or ANCHOR
    decoders = {name: each for name, each in state.weights.items() if "decoder" in name}
    state = replace(state, activation=None, projection=weights, anchor=anchor, weights=decoders)
    return _with_network(fitted, from_state(state, network.device), "projecting")


def truncated(fitted: Fitted, n_groups: int) -> Fitted:
    """Return a model that keeps the first groups alone, at least those of level 0.

    Its levels stay, so that it opens at each of them.
    """
    from ..core.network import Level
    from ..core.projection import from_state

    whole = fitted.codec.network
    state = whole.state()
    numbers = [len(masks) for masks in state.masks]
    left = max(n_groups, numbers[0])
    if left >= sum(numbers):
        return fitted
    before = np.cumsum([0, *numbers[:-1]])
    kept = [int(np.clip(left - first, 0, n)) for first, n in zip(before, numbers, strict=True)]
    # What is left is shared, not made anew: matrices of a million pixels take 200 MB.
    network = from_state(replace(state, masks=[], channels=[], weights={}), whole.device)
    for level, n in zip(whole.levels, kept, strict=True):
        network.levels.append(Level(level.deepening, level.groups[:n]))
    return _with_network(fitted, network, f"{left} groups")


def group_counts(fitted: Fitted, levels: int | None, codes: int | None) -> list[int]:
    """Return the numbers of groups to try: those of the coarsest level, of the two coarsest, ..."""
    sizes = [fitted.codec.network.stage_sizes(k) for k in range(fitted.codec.pyramid.levels)]
    ends = list(accumulate(len(each) - 1 for each in sizes))
    if levels is not None:
        if not 1 <= levels <= len(ends):
            raise ValueError(f"levels={levels!r}: from 1 to {len(ends)}, those of the model")
        ends = [ends[levels - 1]]
    if codes is None:
        return sorted(set(ends))
    needed = list(accumulate([sum(sizes[0]), *(n for each in sizes[1:] for n in each[1:])]))
    if codes < needed[0]:
        raise ValueError(
            f"codes={codes!r}: level 0 alone takes {needed[0]}: allow more, or fit a model with a "
            "smaller encoding_size"
        )
    most = len(sizes[0]) - 1 + sum(n <= codes for n in needed[1:])
    return sorted({min(end, most) for end in ends})


def _with_network(fitted: Fitted, network: Network, what: str) -> Fitted:
    """Return a model with another network: its codes are others, so its id is."""
    from ..codec import Codec

    codec, model_id = fitted.codec, str(uuid.uuid5(uuid.NAMESPACE_OID, f"{fitted.id} {what}"))
    codec = Codec(network, codec.pyramid, fitted.standard, model_id)
    return replace(fitted, codec=codec, id=model_id)


def centred(fitted: Fitted, maps: Sequence[np.ndarray], kept: Sequence[np.ndarray]) -> Fitted:
    """Return a model that departs from other maps.

    Parameters
    ----------
    fitted : Fitted
        The model.
    maps : sequence of numpy.ndarray, shape (season, pixel)
        Of each variable, in the data's units.
    kept : sequence of numpy.ndarray of bool, shape (y, x)
        The pixels that they lie on, all valid ones among them.
    """
    from ..codec import Codec

    codec, centre = fitted.codec, fitted.standard.centre.copy()
    for v, (own, pixels) in enumerate(zip(maps, kept, strict=True)):
        valid = fitted.standard.valid[v]
        centre[:, v, valid] = own[:, valid[pixels]]
    standard = replace(fitted.standard, centre=centre)
    return replace(fitted, codec=Codec(codec.network, codec.pyramid, standard, codec.token))


def level_errors(fitted: Fitted, values: np.ndarray, season: np.ndarray) -> np.ndarray:
    """Return the root-mean-square error of each level and variable, in the data's units."""
    codec = fitted.codec
    dtype = fitted.standard.centre.dtype
    squares, counts = codec.squared_errors(values.astype(dtype, copy=False), season)[0]
    shapes = [standard.valid.shape for standard in codec.standards]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    result = []
    for shape, end in zip(shapes, ends, strict=True):
        own = slice(end - int(np.prod(shape)), end)
        square, count = (each[own].reshape(shape[0], -1).sum(1) for each in (squares, counts))
        result.append(np.sqrt(square / np.maximum(count, 1)))
    return np.maximum(result, 1e-30)


def coarsest(fitted: Fitted, values: np.ndarray) -> np.ndarray:
    """Restrict snapshots to level 0, (snapshot, variable, y, x); NaN where it has no data."""
    pyramid = fitted.codec.pyramid
    known = np.where(fitted.standard.valid, values, np.nan)
    return restrict_known(pyramid, known)[0][pyramid.cut(0)]
