"""Archives opened by their URL, and written with a model that is fitted for them."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .archive import Archive
from .format import require
from .store import ArchiveStore

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from ..fitted import Fitted
    from ..grid.conventions import Labelled
    from ..model import MrCAE
    from ..options import Options


def open_archive(
    url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> Archive:
    """Open an archive; one file is read.

    Parameters
    ----------
    url : str or os.PathLike
        A path, or a URL that fsspec knows.
    storage_options : mapping, optional
        Options of the file system.

    Returns
    -------
    Archive
        With its model, its codes and its data; neither torch nor dask is needed until the codes or
        the model are.

    Raises
    ------
    ArchiveError
        If there is no archive, or it is damaged, unfinished or of a later version.
    ImportError
        Naming the packages that are missing.

    Examples
    --------
    >>> import tempfile, xmrcae
    >>> field = xmrcae.datasets.drifting_mode(n_times=40, size=31).rename("height")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     url = f"{folder}/height.mrcae.zarr"
    ...     _ = field.mrcae.to_archive(url, max_error=0.01, levels=2, progress=False)
    ...     archive = xmrcae.open_archive(url)
    ...     shape = archive.to_dataset(level=0).height.shape
    ...     worst = float(archive.verify(field)["worst"].max())
    >>> archive.max_error, shape, worst <= 0.01
    (0.01, (40, 15, 15), True)
    """
    return Archive(ArchiveStore.open(url, storage_options=storage_options), make_model)


def make_model(options: Mapping[str, Any], fitted: Fitted) -> MrCAE:
    """Make the model of what was read; torch is imported for it."""
    from ..model import fitted_model

    return fitted_model(options, fitted)


def fit_and_write(
    obj: Labelled, fitted_to: Labelled, url: Any, options: Mapping[str, Any]
) -> Archive:
    """Do what ``.mrcae.to_archive`` documents; `fitted_to` are the variables of `obj` to fit."""
    from ..model import MrCAE
    from .models import archive_options
    from .writer import content_id

    require()
    known = inspect.signature(MrCAE.to_archive).parameters.keys() - {"self", "obj", "url", "levels"}
    writing = {name: value for name, value in options.items() if name in known}
    fitting = {
        name: value for name, value in options.items() if name not in known or name == "progress"
    }
    model = MrCAE(**archive_options(fitted_to, **fitting))
    _check_before_fit(fitted_to, url, model.options, **writing)
    model.fit(fitted_to)
    # By its content the same fit has the same id, so that a run that was stopped can go on.
    fitted = replace(model.fitted, id=content_id(model.fitted))
    return make_model(vars(model.options), fitted).to_archive(obj, url, **writing)


def _check_before_fit(
    obj: Labelled,
    url: Any,
    options: Options,
    *,
    mode: str = "w-",
    storage_options: Mapping[str, Any] | None = None,
    progress: bool = True,  # taken here, as no Request has it
    **asked: Any,
) -> None:
    """Refuse what writing would refuse after a fit, which may take hours."""
    from ..grid.description import describe, fittable
    from .prepare import Request
    from .source import rows_and_lanes
    from .writer import call_of, check_place

    if mode != "w-":
        raise ValueError(
            f"mode={mode!r}: a new model writes a new archive; to add to one that is there, use "
            "xmrcae.open_archive(url).append(obj)"
        )
    request, fields = Request(**asked), fittable(obj, options)
    about = describe(fields, options)
    append, _ = rows_and_lanes(fields, about.pyramid.grid, request.append_dim)
    check_place(url, storage_options, call_of(request, about.labels.variables, fields, append))
