"""Files: a fitted model in netCDF-4 or Zarr."""
