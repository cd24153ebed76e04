"""Arrays in files: NumPy, MATLAB, HDF5, Zarr and Parquet. `_catalogue` names its functions."""
