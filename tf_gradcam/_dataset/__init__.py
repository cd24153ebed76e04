"""A data set of any size, explained into Parquet files that are whole at every moment. Users call it."""

from tf_gradcam._dataset.dataset import (
    DatasetRun,
    check_moved,
    explain_dataset,
    fit_and_preprocess,
    fit_file,
    fit_pixels,
    run_dataset,
    target_of,
)
from tf_gradcam._dataset.exports import check_forms, export_rows, export_with_problem
from tf_gradcam._dataset.items import find_items
from tf_gradcam._dataset.parts import Parts
from tf_gradcam._dataset.row_maker import DatasetOptions, RowMaker, count_errors
from tf_gradcam._dataset.rows import Item

__all__ = [
    "DatasetOptions",
    "DatasetRun",
    "Item",
    "Parts",
    "RowMaker",
    "check_forms",
    "check_moved",
    "count_errors",
    "explain_dataset",
    "export_rows",
    "export_with_problem",
    "find_items",
    "fit_and_preprocess",
    "fit_file",
    "fit_pixels",
    "run_dataset",
    "target_of",
]
