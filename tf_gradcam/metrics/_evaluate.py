"""`evaluate` and `Evaluator`: several metrics of an explainer over images, as a table. Called by users."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_gradcam.metrics._bootstrap import Interval, confidence_interval
from tf_gradcam.metrics._catalogue import METRICS, MapsOfBatch, centre_maps, noise_maps
from tf_gradcam.metrics._explained import Cam, ExplainedBatch, explained_batches
from tf_gradcam.metrics._imputation import BASELINES
from tf_gradcam.metrics._inputs import check_choice, check_count, check_positive, generator
from tf_gradcam.metrics._masked import adcc_of_means
from tf_gradcam.metrics._tables import html_table, plain_table, record

_DEFAULTS = ("insertion", "deletion", "mu_fidelity")
_OF_MEANS = "adcc_of_means"
_CURVES = ("deletion", "insertion", "insertion_minus_deletion", "road")
_PARTS = ("coherency", "complexity", "average_drop")
_HEADER = (
    "metric",
    "baseline",
    "mean",
    "low",
    "high",
    "images",
    "missing",
    "better",
    "noise map",
    "centre map",
)


class Row(NamedTuple):
    """A metric in a table.

    Attributes:
        metric: its name.
        baseline: what stood in for removed pixels, or `None` for a metric without.
        mean: the mean over images; NaN if no image has a value.
        low: lower end of the confidence interval of the mean.
        high: upper end of it.
        counted: number of images in the mean.
        missing: number of images without a value.
        better: `"higher"` or `"lower"`; `""` where neither is better by itself.
        noise: mean of the same metric for a map of noise; `None` if it was not asked for.
        centre: mean of the same metric for a map that always shows the centre of the image.
        values: the value of each image, `(N,)`, NaN where there is none; empty for a number that only a data
            set has.
    """

    metric: str
    baseline: str | None
    mean: float
    low: float
    high: float
    counted: int
    missing: int
    better: str
    noise: float | None
    centre: float | None
    values: np.ndarray


class Table:
    """Metrics over images: one `Row` for each metric and baseline.

    It is a sequence of rows; `table["deletion", "blur"]` and `table["energy"]` find one by name.

    Attributes:
        rows: tuple of `Row`.
        notes: sentences that belong to the numbers.
    """

    def __init__(self, rows: Sequence[Row], notes: Sequence[str] = ()) -> None:
        self.rows, self.notes = tuple(rows), tuple(notes)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)

    def __getitem__(self, name: str | tuple[str, str | None]) -> Row:
        metric, baseline = (name, None) if isinstance(name, str) else name
        for row in self.rows:
            if row.metric == metric and (row.baseline == baseline or isinstance(name, str)):
                return row
        known = [row.metric if row.baseline is None else (row.metric, row.baseline) for row in self.rows]
        raise KeyError(f"The table has no {name!r}. It has {known}.")

    def __repr__(self) -> str:
        """Return the table as lines of text."""
        header, rows = self._cells()
        return plain_table(header, rows, self.notes)

    def _repr_html_(self) -> str:
        header, rows = self._cells()
        return html_table(header, rows, self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Return `{"rows": [...], "notes": [...]}` for JSON: each row a dict, `None` in place of NaN."""
        return {"rows": [record(row) for row in self.rows], "notes": list(self.notes)}

    def _cells(self):
        referred = any(row.noise is not None for row in self.rows)
        rows = [row[:-1] if referred else row[:-3] for row in self.rows]
        return _HEADER if referred else _HEADER[:-2], rows


def evaluate(
    cam: Cam,
    images: Any,
    target: Any = None,
    *,
    metrics: Sequence[str] = _DEFAULTS,
    baselines: Sequence[str] = ("zero", "blur"),
    masks: Any = None,
    references: bool = True,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    level: float = 0.95,
    seed: int = 0,
    batch_size: int = 32,
) -> Table:
    """Measure an explainer by several metrics over images.

    One target goes through all of them: a class that is left to the model is the predicted class of the
    unaltered image, and is never chosen again for an altered one. Where ranks or signs count, the map is
    signed; where the picture counts, it is the heatmap.

    Curves, ROAD and average drop follow the probability of the class where the model ends in a softmax or
    sigmoid, else the score that is explained. `mu_fidelity` and `infidelity` follow the score.

    Args:
        cam: a `GradCAM`, or anything with its `__call__`, `scores`, `model` and `layer`.
        images: `(N, *axes, C)`, as `cam` takes them, with one input.
        target: as `cam` takes it, with one score for each image and nothing left to the model but the class.
        metrics: names of functions of `tf_gradcam.metrics` that need no more than this function is given,
            and `"insertion_minus_deletion"`. `"adcc"` adds `"adcc_of_means"` to the table.
        baselines: what replaces pixels, for `deletion`, `insertion` and `mu_fidelity`; each in its own row.
            See `deletion`.
        masks: masks or boxes, one for each image, as `energy` takes them, for metrics against a truth.
        references: whether to measure a noise map and a map of the centre too, which takes three times as
            long. The noise is another one for each image, on 7 cells along each axis.
        options: arguments of single metrics, such as `{"deletion": {"steps": 20}}`.
        level: share of bootstrap means inside the confidence intervals.
        seed: seed of everything that is drawn.
        batch_size: largest number of images in memory at once, besides `images`.

    Returns:
        A `Table`.

    Raises:
        ValueError: if a metric is unknown, or needs masks or probabilities that there are not; if the target
            leaves more than a class to the model.

    Example:

    ```python
    table = metrics.evaluate(cam, images, metrics=["insertion", "mu_fidelity", "energy"], masks=masks)
    table["insertion", "blur"].mean
    ```
    """
    evaluator = Evaluator(
        cam,
        metrics=metrics,
        baselines=baselines,
        references=references,
        options=options,
        level=level,
        seed=seed,
        batch_size=batch_size,
    )
    evaluator.update(images, target, masks)
    return evaluator.result()


class Evaluator:
    """Measure an explainer over batches of a data set, such as a `tf.data.Dataset`.

    It keeps the numbers of each image, not the images.

    Args:
        cam: as in `evaluate`.
        metrics: as in `evaluate`.
        baselines: as in `evaluate`.
        references: as in `evaluate`.
        options: as in `evaluate`.
        level: as in `evaluate`.
        seed: as in `evaluate`.
        batch_size: as in `evaluate`.

    Example:

    ```python
    evaluator = metrics.Evaluator(cam, metrics=["insertion", "energy"])
    for images, masks in dataset:
        evaluator.update(images, masks=masks)
    print(evaluator.result())
    ```
    """

    def __init__(
        self,
        cam: Cam,
        *,
        metrics: Sequence[str] = _DEFAULTS,
        baselines: Sequence[str] = ("zero", "blur"),
        references: bool = True,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        level: float = 0.95,
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        names = [metrics] if isinstance(metrics, str) else list(metrics)
        baselines = [baselines] if isinstance(baselines, str) else list(baselines)
        self._options = {name: dict(given) for name, given in (options or {}).items()}
        for name in [*names, *self._options]:
            check_choice("metrics", name, METRICS)
        for baseline in baselines:
            check_choice("baselines", baseline, BASELINES)
        _check_given(names, baselines, self._options)
        check_count(batch_size=batch_size)
        check_positive(level=level, below=1)
        generator(seed)
        hidden = [name for name in _PARTS if name not in names] if "adcc" in names else []
        self._hidden = set(hidden)
        self._columns = [
            (name, baseline)
            for name in [*dict.fromkeys(names), *hidden]
            for baseline in (dict.fromkeys(baselines) if "baseline" in METRICS[name].needs else [None])
        ]
        self._cam, self._level, self._seed, self._batch_size = cam, level, seed, batch_size
        self._of = ("", "noise", "centre") if references else ("",)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._count = 0
        self._scored = ""
        self._values: dict[tuple, list] = {(column, of): [] for column in self._columns for of in self._of}

    def update(self, images: Any, target: Any = None, masks: Any = None) -> None:
        """Measure more images.

        Args:
            images: as in `evaluate`.
            target: as in `evaluate`.
            masks: as in `evaluate`.
        """
        needing = [name for name, _ in self._columns if "masks" in METRICS[name].needs]
        if (masks is None) == bool(needing):
            raise ValueError(
                f"`masks` must be given for {needing}. Received: masks=None"
                if needing
                else "`masks` must be None for these metrics. Received: masks. Add one such as 'energy'."
            )
        if masks is not None and len(masks) != len(images):
            raise ValueError(
                f"`masks` must hold one mask or box for each of the {len(images)} images. "
                f"Received: {len(masks)}"
            )
        start = 0
        for batch in explained_batches(self._cam, images, target, self._batch_size):
            stop = start + len(batch.images)
            self._add(batch, None if masks is None else np.asarray(masks[start:stop]))
            start = stop

    def _add(self, batch: ExplainedBatch, masks) -> None:
        needing = [name for name, _ in self._columns if "probability" in METRICS[name].needs]
        if needing and batch.probability is None:
            raise ValueError(
                f"`metrics` must not hold {needing} where there is no probability: they are shares of it. "
                "Received: a target that is no class, or a model that does not end in a softmax or sigmoid."
            )
        measured = {}
        for of in self._of:
            maps = MapsOfBatch(
                batch, self._seed, self._batch_size, self._maps_of(of, batch.images.shape[:-1])
            )
            for name, baseline in self._columns:
                given = {"baseline": baseline} if baseline else {}
                given |= {"masks": masks} if "masks" in METRICS[name].needs else {}
                values = METRICS[name].measure(maps, **given, **self._options.get(name, {}))
                measured[(name, baseline), of] = values
        for column, values in measured.items():  # All of a batch, or after an error nothing of it.
            self._values[column].append(values)
        self._count += len(batch.images)
        self._scored = "score that is explained" if batch.probability is None else "probability of the class"

    def _maps_of(self, of, shape) -> np.ndarray | None:
        if of == "noise":
            return noise_maps(self._count, shape, self._seed)
        return centre_maps(shape) if of == "centre" else None

    def result(self) -> Table:
        """Return the table of all images so far.

        Raises:
            ValueError: if there are none.
        """
        if not self._count:
            raise ValueError(
                "`result` needs images. Received: none since the start or `reset`. Call `update`."
            )
        rows = [self._row(*column) for column in self._columns if column[0] not in self._hidden]
        if ("adcc", None) in self._columns:
            rows.append(self._row_of_means())
        notes = [f"{self._count} images; {100 * self._level:g} % intervals by bootstrap, seed {self._seed}."]
        if any(name in _CURVES for name, _ in self._columns):
            notes.append(f"Curves follow the {self._scored}.")
        missing = sum(row.missing for row in rows)
        if missing:
            notes.append("Missing: images without a finite map or value; they are in no mean.")
        return Table(rows, notes)

    def _row(self, name, baseline) -> Row:
        values = self._of_all((name, baseline), "")
        interval = confidence_interval(values, level=self._level, seed=self._seed)
        noise, centre = (self._mean_of((name, baseline), of) for of in ("noise", "centre"))
        return Row(name, baseline, *interval, METRICS[name].better, noise, centre, values)

    def _row_of_means(self) -> Row:
        def combined(of) -> Interval:
            parts = [self._of_all((name, None), of) for name in _PARTS]
            return adcc_of_means(*parts, level=self._level, seed=self._seed)

        noise, centre = (combined(of).value if of in self._of else None for of in ("noise", "centre"))
        return Row(_OF_MEANS, None, *combined(""), "higher", noise, centre, np.empty(0))

    def _of_all(self, column, of) -> np.ndarray:
        return np.concatenate(self._values[column, of])

    def _mean_of(self, column, of) -> float | None:
        if of not in self._of:
            return None
        values = self._of_all(column, of)
        return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _check_given(names, baselines, options) -> None:
    if not names:
        raise ValueError("`metrics` must name a metric. Received: none")
    unused = [name for name in options if name not in names]
    if unused:
        raise ValueError(f"`options` must be for metrics of the table, {names}. Received: {unused}")
    for name, given in options.items():
        known = METRICS[name].options
        if not set(given) <= set(known):
            raise ValueError(
                f"`options` of {name!r} must be among {list(known)}. Received: {sorted(set(given))}"
            )
    if any("baseline" in METRICS[name].needs for name in names) and not baselines:
        raise ValueError(
            f"`baselines` must name one or more of {list(BASELINES)}, better two. Received: none"
        )
