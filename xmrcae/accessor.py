"""The accessor ``.mrcae`` of DataArray and Dataset: each method is one call; no state, no logic.

What methods call is imported in them: the module itself is imported wherever xmrcae is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from .archive.archive import Archive
    from .model import MrCAE
    from .options import Options


class _Accessor:
    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def __repr__(self) -> str:
        from . import repr as representation

        return representation.accessor_text(self._obj)

    def _repr_html_(self) -> str:
        from . import repr as representation

        return representation.accessor_html(self._obj)


@xr.register_dataarray_accessor("mrcae")
class DataArrayMrcae(_Accessor):
    """What ``da.mrcae`` offers."""

    def fit(self, **options: Any) -> MrCAE:
        """Fit a model to this field: exactly ``xmrcae.MrCAE(**options).fit(da)``.

        Parameters
        ----------
        **options
            Options of :class:`xmrcae.MrCAE`.

        Returns
        -------
        MrCAE
            The fitted model.

        Raises
        ------
        ValueError, TypeError
            For data or options that cannot be fitted, before any training.

        Examples
        --------
        >>> import xmrcae
        >>> field = xmrcae.datasets.drifting_mode(n_times=40, size=31)
        >>> field.mrcae.fit(levels=2, tolerance=0.02, progress=False).levels
        2
        """
        from .model import MrCAE

        return MrCAE(**options).fit(self._obj)

    def to_archive(self, url: Any, **options: Any) -> Archive:
        """Fit a model that suits an archive, and write the field with it in one call.

        Parameters
        ----------
        url : str or os.PathLike
            Where to write; see :meth:`xmrcae.MrCAE.to_archive`.
        **options
            `max_error`, `rmse` and the others of :meth:`xmrcae.MrCAE.to_archive`, and options of
            :class:`xmrcae.MrCAE` that are to differ from those that suit an archive: codes by
            projection, as many as 2.75 percent of the valid pixels; coarse levels that stay good;
            departures from the calendar month where data are monthly.

        Returns
        -------
        Archive
            As :func:`xmrcae.open_archive` gives it.

        Raises
        ------
        ValueError, TypeError
            For data or options that cannot be fitted or archived.

        Examples
        --------
        >>> import tempfile, xmrcae
        >>> field = xmrcae.datasets.drifting_mode(n_times=40, size=31).rename("height")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     url = f"{folder}/height.mrcae.zarr"
        ...     archive = field.mrcae.to_archive(url, max_error=0.01, levels=2, progress=False)
        >>> archive.max_error
        0.01
        """
        from .archive.opening import fit_and_write

        return fit_and_write(self._obj, self._obj, url, options)

    def pyramid(self, **options: Any) -> xr.DataTree:
        """Restrict the field to every level, coarse coordinates being subsets of the fine ones.

        Parameters
        ----------
        **options
            `levels`, `restriction`, `horizontal`, `sample`, `periodic`, `valid` and `land_value` of
            :class:`xmrcae.MrCAE`.

        Returns
        -------
        xarray.DataTree
            /level_0, the coarsest, and up; lazy on lazy data, of which only coordinates and
            `valid` are read. Each snapshot is averaged over what it holds.

        Raises
        ------
        ValueError
            If the horizontal dimensions are not found, or too short for the levels.

        Examples
        --------
        >>> import xmrcae
        >>> tree = xmrcae.datasets.drifting_mode(n_times=40, size=31).mrcae.pyramid(levels=2)
        >>> tree["level_0"].sizes["x"]
        15
        """
        from .grid.tree import build_pyramid
        from .options import make_options

        return build_pyramid(self._obj, make_options(options))


@xr.register_dataset_accessor("mrcae")
class DatasetMrcae(_Accessor):
    """What ``ds.mrcae`` offers."""

    def fit(self, variables: Any = None, **options: Any) -> MrCAE:
        """Fit a model to one variable, or to several as input channels.

        Parameters
        ----------
        variables : str or list of str, optional
            A name is ``ds[name].mrcae.fit``; a list is ``MrCAE(**options).fit(ds[list])``. Without
            it, the only variable that has a sample and two horizontal dimensions.
        **options
            Options of :class:`xmrcae.MrCAE`; `valid` may name a variable of the Dataset.

        Returns
        -------
        MrCAE
            The fitted model.

        Raises
        ------
        ValueError, TypeError
            For data or options that cannot be fitted, before any training; without a name, for
            several variables that could be meant.

        Examples
        --------
        >>> import xmrcae
        >>> ds = xmrcae.datasets.drifting_mode(n_times=40, size=31).to_dataset(name="height")
        >>> ds.mrcae.fit("height", levels=1, max_epochs=3, progress=False).levels
        1
        """
        from .model import MrCAE

        model = MrCAE(**self._named(options))
        return model.fit(self._selected(variables, model.options))

    def to_archive(self, url: Any, variables: Any = None, **options: Any) -> Archive:
        """Fit a model to one variable or several, and write the Dataset with it in one call.

        Parameters
        ----------
        url : str or os.PathLike
            Where to write; see :meth:`xmrcae.MrCAE.to_archive`.
        variables : str or list of str, optional
            As for `fit`; the other variables are kept as they are.
        **options
            As for ``da.mrcae.to_archive``.

        Returns
        -------
        Archive
            As :func:`xmrcae.open_archive` gives it.

        Raises
        ------
        ValueError, TypeError
            For data or options that cannot be fitted or archived.

        Examples
        --------
        >>> import tempfile, xmrcae
        >>> ds = xmrcae.datasets.drifting_mode(n_times=40, size=31).to_dataset(name="height")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     url = f"{folder}/height.mrcae.zarr"
        ...     archive = ds.mrcae.to_archive(url, max_error=0.01, levels=2, progress=False)
        >>> archive.levels
        2
        """
        from .archive.opening import fit_and_write
        from .options import make_options

        fitting = self._named(options)
        keep = {name: each for name, each in fitting.items() if name in ("horizontal", "sample")}
        selected = self._selected(variables, make_options(keep))
        return fit_and_write(self._obj, selected, url, fitting)

    def pyramid(self, variables: Any = None, **options: Any) -> xr.DataTree:
        """Restrict one variable or several to every level, as ``da.mrcae.pyramid``.

        Parameters
        ----------
        variables : str or list of str, optional
            As for `fit`.
        **options
            As for ``da.mrcae.pyramid``.

        Returns
        -------
        xarray.DataTree
            /level_0, the coarsest, and up.

        Raises
        ------
        ValueError
            If no variable or several could be meant, or the horizontal dimensions are not found or
            too short.

        Examples
        --------
        >>> import xmrcae
        >>> ds = xmrcae.datasets.drifting_mode(n_times=40, size=31).to_dataset(name="height")
        >>> ds.mrcae.pyramid(levels=2)["level_0/height"].shape
        (40, 15, 15)
        """
        from .grid.tree import build_pyramid
        from .options import make_options

        checked = make_options(self._named(options))
        return build_pyramid(self._selected(variables, checked), checked)

    def _selected(self, variables: Any, options: Options) -> xr.DataArray | xr.Dataset:
        from .grid.dimensions import select_variables

        dims = {name: getattr(options, name) for name in ("horizontal", "sample")}
        return select_variables(self._obj, variables, **dims)

    def _named(self, options: dict[str, Any]) -> dict[str, Any]:
        from .grid.valid import named_valid

        return options | {"valid": named_valid(self._obj, options.get("valid"))}
