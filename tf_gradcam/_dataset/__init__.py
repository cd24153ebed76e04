"""A data set of any size, explained into Parquet files that are whole at every moment. Users call it."""

from tf_gradcam._dataset.dataset import (
    DatasetOptions,
    DatasetRun,
    RowMaker,
    count_errors,
    explain_dataset,
    fit_and_preprocess,
    fit_pixels,
    run_dataset,
    target_of,
)
from tf_gradcam._dataset.items import find_items
from tf_gradcam._dataset.parts import Parts, remove_parts
from tf_gradcam._dataset.rows import Item

__all__ = [
    "DatasetOptions",
    "DatasetRun",
    "Item",
    "Parts",
    "RowMaker",
    "count_errors",
    "explain_dataset",
    "find_items",
    "fit_and_preprocess",
    "fit_pixels",
    "remove_parts",
    "run_dataset",
    "target_of",
]
