"""MrCAE: the fitted autoencoder; labelled data in, labelled data out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import xarray as xr

from .fitted import Fitted
from .grid.conventions import Labelled
from .options import make_options, shows_options
from .results import Results

if TYPE_CHECKING:
    from .archive.archive import Archive


@shows_options
class MrCAE(Results):
    """Multi-resolution convolutional autoencoder (Liu et al., arXiv:2004.04946).

    Parameters
    ----------
    **options
        Those of `Options`.

    Raises
    ------
    ValueError, TypeError
        For an option that does not exist, or a value that it does not take.

    Examples
    --------
    >>> import tempfile, xmrcae
    >>> field = xmrcae.datasets.drifting_mode(n_times=40, size=31)
    >>> model = xmrcae.MrCAE(levels=2, tolerance=0.02, max_epochs=10, progress=False).fit(field)
    >>> model.levels, model.n_parameters > 0, "validation_loss" in model.history
    (2, True, True)
    >>> codes = model.encode(field)
    >>> (
    ...     [model.decode(codes, level=k).sizes["x"] for k in (0, 1)],
    ...     model.reconstruct(field).sizes["x"],
    ... )
    ([15, 31], 31)
    >>> test = field.isel(time=(model.split == "test").values)
    >>> (
    ...     model.score(test)["rmse"].dims,
    ...     model.refinement_map(level=1).dims,
    ...     model.refinement_count(level=1).dims,
    ... )
    (('level',), ('group', 'y', 'x'), ('y', 'x'))
    >>> table = model.stack(codes)
    >>> table.dims, model.unstack(table.mean("time"))["level_1/encoding"].dims
    (('time', 'feature'), ('channel', 'y', 'x'))
    >>> coarse = field.isel(x=slice(1, None, 2), y=slice(1, None, 2))
    >>> coarse.mrcae.fit(levels=2, max_epochs=1, progress=False).refine(field).levels
    3
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model.nc")
    """

    def __init__(self, **options: Any) -> None:
        self.options = make_options(options)
        self._fitted: Fitted | None = None

    def fit(self, obj: Labelled, *, start: MrCAE | None = None) -> MrCAE:
        """Learn levels, filters and refinement maps from data (Algorithm 3.1).

        Parameters
        ----------
        obj : xarray.DataArray or xarray.Dataset
            With a sample dimension and two horizontal ones, in any order; NaN on land. The
            variables of a Dataset are input channels. Lazy data are read through dask, others are
            loaded.
        start : MrCAE, optional
            A fitted model to go on from, on the same grid or on one of its coarser levels. Its
            weights and groups are taken over; its last level is trained again, for more epochs,
            and a level whose error is still high gets what `channels` has in further groups. That
            model stays as it is.

        Returns
        -------
        MrCAE
            This model, fitted.

        Raises
        ------
        ValueError, TypeError
            For data or options that cannot be fitted, before any training; an earlier fit of this
            model stays.
        BaseException
            Whatever else ends the training, Ctrl-C too. An earlier fit is gone: the model is then
            `partial`, with what was learnt so far, or not fitted if that cannot be used.
        """
        from .fitting import fit

        self._fitted, stopped = fit(obj, self.options, None if start is None else start.fitted)
        if self._fitted is not None and self.options.encoder == "auto":
            self.options = replace(self.options, encoder=self._fitted.encoder)
        if stopped is not None:
            raise stopped
        return self

    def refine(self, finer: Labelled, **options: Any) -> MrCAE:
        """Fit a model with one more level to data of twice the resolution, starting from this one.

        Parameters
        ----------
        finer : xarray.DataArray or xarray.Dataset
            Data on a grid of twice the resolution: its every second point in both directions is
            the fitted grid.
        **options
            Those that are to change. Options that hold one value per level repeat the last.

        Returns
        -------
        MrCAE
            The new model; this one stays as it is.

        Raises
        ------
        ValueError
            If the grids do not fit.
        """
        return MrCAE(**self.options.with_level(self.levels, options)).fit(finer, start=self)

    def encode(self, obj: Labelled) -> xr.DataTree:
        """Compute the codes of every level.

        Parameters
        ----------
        obj : xarray.DataArray or xarray.Dataset
            On the fitted grid, in any order and orientation; at any times. A missing valid pixel
            counts as its mean.

        Returns
        -------
        xarray.DataTree
            /level_k with `encoding` (time, channel, y, x), NaN where a group does not act; lazy on
            lazy data.

        Raises
        ------
        ValueError
            Before fitting; for data on another grid, in other units or packed, and infinite ones.
        """
        from .codes import codes_to_tree, flat_codes

        flat, layout = flat_codes(obj, self.fitted)
        return codes_to_tree(flat, self.fitted, layout)

    def decode(self, codes: xr.DataTree, *, level: int | None = None) -> Labelled:
        """Compute fields from codes.

        Parameters
        ----------
        codes : xarray.DataTree
            As `encode` gives them; also forecast, averaged or rebuilt ones. Only levels up to
            `level` are used.
        level : int, optional
            The resolution wanted; the finest by default.

        Returns
        -------
        xarray.DataArray or xarray.Dataset
            On the level's grid, in the data's units, NaN where not valid; lazy on lazy codes.

        Raises
        ------
        ValueError, TypeError
            For codes that do not fit the model.
        """
        from .codes import codes_to_fields, tree_to_codes

        level = self.fitted.level(level)
        flat, layout = tree_to_codes(codes, self.fitted, level=level)
        return layout.orient(codes_to_fields(flat, self.fitted, layout, level=level))

    def reconstruct(self, obj: Labelled, *, keep_gaps: bool = False) -> Labelled:
        """Return decode(encode(obj)), on the data's own grid.

        Parameters
        ----------
        obj : xarray.DataArray or xarray.Dataset
            On the fitted grid.
        keep_gaps : bool
            Put NaN back where `obj` has it.

        Returns
        -------
        xarray.DataArray or xarray.Dataset
            In the order and orientation of `obj`; lazy on lazy data.

        Raises
        ------
        ValueError
            For data on another grid.
        """
        from .codes import codes_to_fields, flat_codes, laid_as, with_gaps_of

        flat, layout = flat_codes(obj, self.fitted)
        given = self.fitted.variables_of(obj)
        fields = codes_to_fields(flat, self.fitted, layout, level=self.levels - 1)
        result = laid_as(given, layout.restore(fields))
        return with_gaps_of(given, result) if keep_gaps else result

    def stack(self, codes: xr.DataTree) -> xr.DataArray:
        """Put all active codes side by side: what EOFs, DMD or a forecast model take.

        Parameters
        ----------
        codes : xarray.DataTree
            As `encode` gives them.

        Returns
        -------
        xarray.DataArray, (time, feature)
            `feature` is a MultiIndex (level, channel, y, x). No value is missing. Lazy on lazy
            codes.

        Raises
        ------
        ValueError, TypeError
            For codes that do not fit the model.
        """
        from .codes import stack

        return stack(codes, self.fitted)

    def unstack(self, stacked: xr.DataArray) -> xr.DataTree:
        """Undo `stack`.

        Parameters
        ----------
        stacked : xarray.DataArray, (..., feature)
            As `stack` gives it; also forecast or averaged, with other sample dimensions or none.

        Returns
        -------
        xarray.DataTree
            Codes as `encode` gives them.

        Raises
        ------
        ValueError
            If the features are not this model's.
        """
        from .codes import unstack

        return unstack(stacked, self.fitted)

    def save(self, path: Any, *, overwrite: bool = False) -> None:
        """Write the model as netCDF-4, or as Zarr if the path ends in ``.zarr``.

        All comes back to the bit but the losses in `history`, which are written in float32.

        Parameters
        ----------
        path : str or os.PathLike
            A file or folder, or any URL that fsspec knows.
        overwrite : bool
            Replace what is there.

        Raises
        ------
        ValueError
            If the path exists, and `overwrite` is not set.
        OSError
            If the disk is full or writing fails otherwise; what was there is as it was.
        """
        from .io.model_file import save_model

        save_model(self.fitted, path, overwrite=overwrite)

    def to_archive(
        self,
        obj: Labelled,
        url: Any,
        *,
        max_error: Any = None,
        rmse: Any = None,
        mode: str = "w-",
        levels: int | None = None,
        codes: int | None = None,
        rows_per_block: int | None = None,
        append_dim: str | None = None,
        lossless: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> Archive:
        """Write data as codes, and what they leave, into a Zarr archive that xarray opens.

        ``xr.open_dataset(url, engine="mrcae")`` gives the data back, and with ``level=k`` those of
        a coarser level. Data are read block by block. A run that was stopped is finished by the
        same call.

        Parameters
        ----------
        obj : xarray.DataArray or xarray.Dataset
            On the fitted grid. What a Dataset has beside the fitted variables is kept as it is.
        url : str or os.PathLike
            Where to write: a path, by custom one that ends in ``.mrcae.zarr``, or any URL that
            fsspec knows.
        max_error, rmse : float or mapping, optional
            Bounds in the data's units, one number or one by variable: of every value, and of the
            root-mean-square error of every snapshot. What is read is within them, which is checked
            at writing. Without either, codes alone are kept.
        mode : {"w-", "a"}
            Write a new archive, or add later snapshots to one that this model has written.
        levels, codes : int, optional
            Levels that keep codes of their own, and the most codes per snapshot; chosen by default
            so that the sum of all bytes is least, on a sample.
        rows_per_block : int, optional
            Places along the append dimension in a block, which is read as a whole.
        append_dim : str, optional
            The sample dimension that the archive grows along; that of time by default.
        lossless : bool
            Keep blocks as they are whose bounds are finer than their type can follow; otherwise
            they are an error.
        storage_options : mapping, optional
            Options of the file system.
        progress : bool
            Show a bar, with the bytes written so far.

        Returns
        -------
        Archive
            With bytes, ratio to the data, and the errors that were measured.

        Raises
        ------
        ArchiveError
            For data that cannot be kept within the bounds or do not fit the archive, if something
            else is at `url`, or another process writes there.
        OSError
            If the disk is full or a store fails; the same call goes on after complete blocks.
        ImportError
            Naming packages that archives need and that are missing.

        Examples
        --------
        >>> import tempfile, xarray as xr, xmrcae
        >>> field = xmrcae.datasets.drifting_mode(n_times=40, size=31).rename("height")
        >>> model = field.mrcae.fit(levels=2, tolerance=0.02, max_epochs=10, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     url = f"{folder}/height.mrcae.zarr"
        ...     archive = model.to_archive(
        ...         field[:30], url, max_error=0.001, rows_per_block=10, progress=False
        ...     )
        ...     archive = model.to_archive(field[30:], url, mode="a", progress=False)
        ...     worst = float(abs(xr.open_dataset(url, engine="mrcae").height - field).max())
        ...     coarse = xr.open_dataset(url, engine="mrcae", level=0)
        ...     print(worst <= 0.001, archive.ratio > 1, coarse.height.shape)
        True True (40, 15, 15)
        """
        from .archive.archive import Archive
        from .archive.prepare import Request
        from .archive.store import ArchiveStore
        from .archive.writer import append_archive, create_archive

        asked = Request(
            max_error=max_error,
            rmse=rmse,
            levels=levels,
            codes=codes,
            rows_per_block=rows_per_block,
            append_dim=append_dim,
            lossless=lossless,
        )
        at: Any = {"url": url, "storage_options": storage_options}
        if mode == "w-":
            create_archive(self.fitted, obj, asked, **at, progress=progress)
        elif mode == "a":
            asked.check_appends()
            there = Archive(ArchiveStore.open(**at), fitted_model)
            append_archive(there.reader, obj, fitted=self.fitted, progress=progress)
        else:
            raise ValueError(f'mode={mode!r}: "w-" for a new archive, "a" to append to one')
        return Archive(ArchiveStore.open(**at), fitted_model)


def fitted_model(options: Mapping[str, Any], fitted: Fitted) -> MrCAE:
    """Make the model of some options that was fitted before."""
    model = MrCAE(**options)
    model._fitted = fitted
    return model
