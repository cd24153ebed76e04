"""What the files of a run's rows are called: `_dataset` writes them, `_report` reads them."""

import pathlib

JOURNAL = ".tf_gradcam-journal.arrows"  # of rows that are in no part yet
MANIFEST_KEY = b"tf_gradcam"  # in the metadata of a part's schema


def find_parts(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the parts in a folder, in the order in which they were written."""
    return sorted(folder.glob("part-*.parquet"))
