"""The catalogue of data sets agrees with xmrcae.datasets, which stays light to import."""

import hashlib
import subprocess
import sys

import pytest
import yaml
from conftest import REPOSITORY
from helpers import LAND_SEA_MASK

import xmrcae
from xmrcae.datasets import jhtdb, noaa

CATALOG = yaml.safe_load((REPOSITORY / "datasets" / "catalog.yml").read_text())


def test_every_function_is_in_the_catalogue_and_the_other_way_round():
    named = {name for entry in CATALOG.values() for name in entry.get("functions", [])}
    assert named == {
        name for name in xmrcae.datasets.__all__ if callable(getattr(xmrcae.datasets, name))
    }


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_entry_is_whole(entry):
    assert {"title", "source", "licence", "sha256", "citation"} <= entry.keys()
    assert all(entry[key] for key in ("title", "source", "licence", "citation"))
    assert len({"functions", "script", "file"} & entry.keys()) == 1


@pytest.mark.parametrize(
    ("name", "file", "citation", "sha256"),
    [
        ("oisst_v2_monthly", noaa.OISST_V2, noaa.OISST_V2_CITATION, None),
        ("oisst_v2_lsmask", noaa.LSMASK, noaa.OISST_V2_CITATION, noaa.LSMASK_SHA256),
        ("oisst_v21_daily", noaa.OISST_V21, noaa.OISST_V21_CITATION, None),
        ("ersst_v5", noaa.ERSST_V5, noaa.ERSST_V5_CITATION, None),
    ],
)
def test_entry_of_a_file_says_what_its_function_says(name, file, citation, sha256):
    entry = CATALOG[name]
    assert entry["source"] == f"{noaa.PSL}/{file}"
    assert (entry["licence"], entry["citation"], entry["sha256"]) == (
        noaa.LICENSE,
        citation,
        sha256,
    )


@pytest.mark.parametrize("name", jhtdb.SIMULATIONS)
def test_entry_of_a_simulation_says_what_its_attributes_say(name):
    entry, simulation = CATALOG[f"jhtdb_{name}"], jhtdb.SIMULATIONS[name]
    assert (entry["title"], entry["references"]) == (simulation.title, simulation.references)
    assert (entry["licence"], entry["citation"]) == (jhtdb.LICENSE, jhtdb.CITATION)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("oisst_v2_lsmask", LAND_SEA_MASK),
        *((name, entry["file"]) for name, entry in CATALOG.items() if "file" in entry),
    ],
)
def test_checksum_is_the_real_files(name, file, real_file):
    assert CATALOG[name]["sha256"] == hashlib.sha256(real_file(file).read_bytes()).hexdigest()


def test_readme_names_every_entry():
    text = (REPOSITORY / "datasets" / "README.md").read_text()
    assert [name for name in CATALOG if f"`{name}`" not in text] == []


def test_import_is_light():
    heavy = {"pooch", "requests", "h5netcdf", "netCDF4", "givernylocal"}
    code = f"import sys, xmrcae; print(*{heavy}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
