"""The recipes reach, level by level, what the authors' own runs printed, with no more parameters."""

import numpy as np
import pytest

import xmrcae

#: Validation loss and parameters at each level's last stage; the authors printed four decimals.
AUTHORS = {
    "two_modes": [(0.0003, 40), (0.0002, 100), (0.0001, 237)],
    "drifting_mode": [(0.0001, 80), (0.0001, 160), (0.0000, 297)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AUTHORS)
def test_every_level_ends_no_higher_than_the_authors(name: str) -> None:
    field = getattr(xmrcae.datasets, name)()
    model = field.mrcae.fit(progress=False, **xmrcae.recipes[name])
    last = model.history.isel(
        epoch=np.flatnonzero(np.diff(model.history["level"], append=model.levels))
    )
    parameters = model.score(field[:1])["n_parameters"]
    for level, (loss, most) in enumerate(AUTHORS[name]):
        assert round(float(last["validation_loss"][level]), 4) <= loss
        assert int(parameters[level]) <= most
