"""Videos, read frame by frame and written. `_catalogue` names its functions."""
