"""A data set of any size, explained into Parquet files that are whole at every moment. Users call it."""

from tf_gradcam._dataset.dataset import (
    DatasetOptions,
    DatasetRun,
    explain_dataset,
    fit_and_preprocess,
    run_dataset,
    target_of,
)
from tf_gradcam._dataset.exports import check_forms, export_rows
from tf_gradcam._dataset.items import find_items

__all__ = [
    "DatasetOptions",
    "DatasetRun",
    "check_forms",
    "explain_dataset",
    "export_rows",
    "find_items",
    "fit_and_preprocess",
    "run_dataset",
    "target_of",
]
