"""What holds for any field: of any shape, order, type, calendar, coast and grid.

A failure prints the field that it was seen with, which can be kept as `@example(Drawn(...))`.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import numpy as np
import pytest
import xarray as xr
from drawn import Drawn, fields, hostile
from hypothesis import settings

import xmrcae
from xmrcae.core.training import Trainer

#: How many times as many examples the long run draws as CI does.
SOAK = 20

settings.register_profile(
    "ci",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
settings.register_profile("soak", settings.get_profile("ci"), derandomize=False)

pytestmark = pytest.mark.filterwarnings(
    "ignore:the values of", "ignore:.*singular vector", "ignore:a stage of level"
)


def by_name(obj: Any) -> dict[Any, xr.DataArray]:
    """The variables of a Dataset, or the one DataArray."""
    return dict(obj.data_vars) if isinstance(obj, xr.Dataset) else {obj.name: obj}


def same_bits(a: Any, b: Any) -> None:
    """Hold the same values in the same types, labels aside."""
    for one, other in zip(by_name(a).values(), by_name(b).values(), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.values, other.transpose(*one.dims).values)


def same_models(a: Any, b: Any) -> None:
    """Have learnt the same, to the bit."""
    same_bits(a.history.drop_vars("seconds"), b.history.drop_vars("seconds"))
    one, other = (model.fitted.codec.network.vector().numpy() for model in (a, b))
    np.testing.assert_array_equal(one, other)


def turned(field: Drawn, obj: Any) -> Any:
    """Turn over what lies on the field's ascending grid, as the field is."""
    pairs = zip("yx", field.descending, strict=True)
    return obj.isel({dim: slice(None, None, -1) for dim, descends in pairs if descends})


def turned_as(given: xr.DataArray, found: xr.DataArray) -> xr.DataArray:
    """Turn a result as its coordinates say: codes of one row cannot tell which way it lay."""
    for dim in ("y", "x"):
        along = [name for name in given.coords if dim in given[name].dims]
        if not all((found[name].values == given[name].values).all() for name in along):
            found = found.isel({dim: slice(None, None, -1)})
    return found


def is_described(field: Drawn, obj: Any, model: Any) -> None:
    """Results lie as the data came, with a number wherever there is to be one, else nowhere."""
    found = by_name(model.reconstruct(obj).load())
    decoded = by_name(model.decode(model.encode(obj)).load())
    for v, (name, one) in enumerate(by_name(obj).items()):
        assert found[name].dims == one.dims
        assert found[name].dtype == np.result_type(one.dtype, np.float32)
        assert set(found[name].coords) == set(one.coords)
        assert all(found[name][coord].identical(one[coord]) for coord in one.coords)
        described = turned(field, xr.DataArray(field.described(v), dims=("y", "x")))
        assert (np.isfinite(found[name]) == described).all()
        if field.grid != "none":  # without labels, nothing tells how a single row lay
            same_bits(turned_as(found[name], decoded[name]), found[name])
    assert bool(model.fitted.codec.network.vector().isfinite().all())
    for part in ("train", "validation"):
        assert np.isfinite(model.history[f"{part}_loss"]).all()


# The properties


def described_as_it_came(field: Drawn) -> None:
    obj = field.build()
    before = obj.copy(deep=True)
    is_described(field, obj, field.fit(obj))
    xr.testing.assert_identical(obj, before)


def the_same_in_any_order(field: Drawn) -> None:
    descends, left = field.descending
    flip = slice(None, None, 1 if field.grid == "none" else -1)  # labels tell which way rows lie
    other = field.but(descending=(descends != (flip.step < 0), left), chunk=0 if field.chunk else 3)
    obj, again = field.build(), other.build()
    again = again.transpose(*reversed(list(again.dims)))
    one, two = field.fit(obj), other.fit(again)
    same_models(one, two)
    same_bits(one.reconstruct(obj), two.reconstruct(again).isel(y=flip))


def untouched_by_land(field: Drawn) -> None:
    field = field.but(variables=1, gaps=None)
    valid = turned(field, xr.DataArray(field.valid(), dims=("y", "x")))
    dry, wet = field.build(), field.build(land=1e3)
    one, two = field.fit(dry, valid=valid), field.fit(wet, valid=valid)
    same_models(one, two)
    same_bits(one.reconstruct(dry), two.reconstruct(wet))


def reproduced_if_constant(field: Drawn) -> None:
    centred = dict(field.options) | {"center": True, "scale": "std", "noise": 0.0}
    field = field.but(options=tuple(centred.items()))
    obj = field.build(constant=7.25)
    model = field.fit(obj)
    is_described(field, obj, model)
    again = model.reconstruct(obj).load()
    for found, one in zip(by_name(again).values(), by_name(obj.compute()).values(), strict=True):
        known = found.notnull() & one.notnull()
        np.testing.assert_allclose(found.where(known), one.where(known), rtol=1e-6)


def the_same_once_saved(field: Drawn) -> None:
    obj = field.build()
    model = field.fit(obj)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("model.zarr" if field.seed % 2 else "model.nc")
        model.save(path)
        again = xmrcae.open_model(path)
        same_bits(model.reconstruct(obj), again.reconstruct(obj))
        same_bits(model.stack(model.encode(obj)), again.stack(again.encode(obj)))


def described_or_refused(field: Drawn) -> None:
    obj, begun = field.build(), []
    run = Trainer.run
    with mock.patch.object(Trainer, "run", lambda self: (begun.append(self), run(self))):
        try:
            model = field.fit(obj)
        except (ValueError, TypeError) as error:
            hypothesis.event("refused")
            assert not begun
            assert raised_by_the_package(error)
            return
    if field.gaps:
        field = field.but(gaps=model.options.gaps)
    is_described(field, obj, model)


def raised_by_the_package(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    folder = Path(xmrcae.__file__).parent
    return Path(trace.tb_frame.f_code.co_filename).is_relative_to(folder)


def archived_within_its_bound(field: Drawn) -> None:
    obj = field.build()
    bound = (0.5, 0.01, 1e-4, 3.0)[field.seed % 4]
    options = {"rows_per_block": 1 + field.seed % 7, "append_dim": "time", "lossless": True}
    opened = xr.open_dataset if isinstance(obj, xr.Dataset) else xr.open_dataarray
    with tempfile.TemporaryDirectory() as folder:
        url = f"{folder}/data.mrcae.zarr"
        model = field.fit(obj)
        model.to_archive(obj, url, max_error=bound, progress=False, **options)
        with opened(url, engine="mrcae") as archived:
            found = by_name(archived.load())
    for name, one in by_name(obj.compute()).items():
        assert (found[name].dims, found[name].dtype) == (one.dims, one.dtype)
        xr.testing.assert_identical(found[name].copy(data=one.values), one)
        np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(one))
        apart = np.abs(found[name].values.astype(np.float64) - one.values)
        assert np.nanmax(apart, initial=0) <= bound


#: What to draw for each property, and how many times in CI: a hundred in all.
PROPERTIES: dict[Callable[[Drawn], None], tuple[Any, int]] = {
    described_as_it_came: (fields(), 20),
    the_same_in_any_order: (fields(), 15),
    untouched_by_land: (fields(), 15),
    reproduced_if_constant: (fields(), 10),
    the_same_once_saved: (fields(), 10),
    described_or_refused: (hostile(), 20),
    archived_within_its_bound: (fields(most=24), 10),
}


def hold(check: Callable[[Drawn], None], profile: str, times: int) -> None:
    """Try a property on that many times the examples of CI."""
    drawn, n = PROPERTIES[check]
    chosen = settings(settings.get_profile(profile), max_examples=times * n)
    chosen(hypothesis.given(drawn)(check))()


each = pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)


@each
def test_any_field_is(check):
    hold(check, "ci", 1)


@each
@pytest.mark.soak
def test_any_field_is_in_the_long_run(check):
    hold(check, "soak", SOAK)
