"""A data set of any size, explained into Parquet files that are whole at every moment. Users call it."""

from tf_gradcam._dataset.dataset import (
    DatasetOptions,
    DatasetRun,
    explain_dataset,
    fit_and_preprocess,
    run_dataset,
    target_of,
)
from tf_gradcam._dataset.items import find_items

__all__ = [
    "DatasetOptions",
    "DatasetRun",
    "explain_dataset",
    "find_items",
    "fit_and_preprocess",
    "run_dataset",
    "target_of",
]
