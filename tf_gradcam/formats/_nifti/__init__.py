"""NIfTI, Analyze and MGH files, read and written. `_catalogue` names its functions."""
