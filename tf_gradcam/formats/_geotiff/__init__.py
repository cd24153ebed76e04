"""GeoTIFF and other TIFF files, read by windows and written. `_catalogue` names its functions."""
