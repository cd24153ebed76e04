"""DICOM files, read and written. `_catalogue` names its functions."""
