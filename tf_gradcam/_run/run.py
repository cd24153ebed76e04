"""Explain photographs, write their pictures and yield their findings. The command line calls it."""

import functools
import os
import pathlib
from collections.abc import Callable, Generator, Sequence

from tf_gradcam._checks import is_disk_full, one_line
from tf_gradcam._run.batches import ReadResult, explain_in_batches
from tf_gradcam._run.files import may_write
from tf_gradcam._run.findings import Finding, PhotographExplainer
from tf_gradcam._run.freezing import PAYS_TO_FREEZE
from tf_gradcam._run.journal import Journal, forget_journal
from tf_gradcam._run.photographs import Photograph, picture_names
from tf_gradcam._run.pictures import draw_pictures, find_boxes, picture_files, write_pictures
from tf_gradcam._run.request import Classifier, Request
from tf_gradcam._run.scan_files import scan_files, write_scan
from tf_gradcam._run.scans import explain_scan

MAX_PHOTOGRAPHS = 16  # in a batch
MAX_PIXELS = 64_000_000  # of all heatmaps of a batch; larger photographs make smaller batches


def explain_photographs(
    photographs: Sequence[Photograph],
    request: Request,
    classifier: Classifier,
    report: Callable[[str], None] = lambda step: None,
    journal: Journal | None = None,
) -> Generator[list[Finding], None, None]:
    """Explain photographs and write their pictures.

    The folder `request.out` is made. Pictures of an earlier run in it are replaced, but not those in the
    journal; other files never are. The caller writes the results.

    Args:
        photographs: photographs and scans.
        request: what to explain, and how pictures look.
        classifier: the model with its preprocessing.
        report: called with a few words on how far a volume or video is.
        journal: of the photographs that `request.out` holds already. Only missing ones are explained, and
            each is added when its pictures are written.

    Returns:
        The findings in each photograph that is explained, in order, as they come: one for each method or
        class, or a single one whose row has an `"error"`. If only the pictures couldn't be written, the row
        has both. An exception that ends the run early (an interrupt, or the `OSError` of a full disk) is
        raised after the findings in all photographs that were explained until then, also if the caller threw
        it into the generator.

    Raises:
        ValueError, TypeError: at once, if the request can't be fulfilled; nothing is written then.
    """
    if request.signed and request.contour is not None:
        raise ValueError(
            f"`contour` must be left out where `signed` is asked for: lines have no sign. Received: "
            f"{request.contour}"
        )
    explainer = PhotographExplainer(request, classifier)
    missing = photographs if journal is None else journal.missing(photographs)
    if missing:
        for finding in explainer.rehearse():
            draw_pictures(finding, request, find_boxes(finding, request))
        if len(missing) >= PAYS_TO_FREEZE:
            explainer.freeze()
        _begin(request, journal)
    disk_full: list[OSError] = []

    def write(photograph: ReadResult, findings: list[Finding]) -> list[Finding]:
        return _write(photograph, findings, request, classifier, disk_full, journal)

    def explain(photographs: Sequence[ReadResult]) -> list[list[Finding]]:
        if request.signed and any(each.scan is not None for each in photographs):
            raise ValueError(
                "`signed` must be left out for scans, whose formats hold heatmaps from 0 to 1. Received: True"
            )
        images = [each.image for each in photographs if each.image is not None]
        if images:
            return explainer.explain(images, [each.viewable(request.picture) for each in photographs])
        found = [explain_scan(each.scan, explainer, request, report) for each in photographs if each.scan]
        return [
            _with_pictures(each, of_scan, request) for each, of_scan in zip(photographs, found, strict=True)
        ]

    def check() -> None:
        if disk_full:
            raise disk_full[0]

    names = _names(missing, _free_names(photographs, request), journal)
    named_photographs = zip(missing, names, strict=True)
    heatmap_count = request.top * len(request.methods)  # of a photograph; each has its size
    max_photographs = 1 if explainer.is_slow else MAX_PHOTOGRAPHS
    max_pixels = MAX_PIXELS // heatmap_count
    by_windows = request.sliding is not None
    return explain_in_batches(
        named_photographs, explain, write, max_photographs, max_pixels, check, by_windows
    )


def _begin(request, journal) -> None:
    if journal is None:
        request.out.mkdir(parents=True, exist_ok=True)
        forget_journal(request.out)
    else:
        journal.begin()


def _names(photographs, is_free, journal) -> list[str]:
    """Return a name for the pictures of each photograph: that which they had, or one that no others have."""
    if journal is None:
        return picture_names(photographs, is_free)
    earlier = {photograph: journal.name_of(photograph) for photograph in set(photographs)}
    kept = {photograph: name for photograph, name in earlier.items() if name and is_free(name)}
    new = [photograph for photograph in photographs if photograph not in kept]
    taken = journal.names()
    others = picture_names(new, lambda name: name.casefold() not in taken and is_free(name))
    names = {**kept, **dict(zip(new, others, strict=True))}
    return [names[photograph] for photograph in photographs]


def _with_pictures(photograph, findings, request) -> list[Finding]:
    """Return the findings by windows in a scan of one image with its picture; others unchanged."""
    if len(photograph.scan.axes) != 2:
        return findings
    picture = photograph.viewable(request.picture)
    return [finding._replace(image=picture) for finding in findings]


def _free_names(photographs, request) -> Callable[[str], bool]:
    """Return a function that says whether pictures of a name replace nothing but an earlier run's."""

    @functools.cache  # Most runs never need it.
    def inputs() -> set[str]:
        sources = (photograph.source for photograph in photographs)
        return {os.path.realpath(source) for source in sources if isinstance(source, str | os.PathLike)}

    def may_replace(path: pathlib.Path) -> bool:
        return may_write(path) and not (path.exists() and os.path.realpath(path) in inputs())

    return lambda name: all(
        may_replace(request.out / file)
        for file in [*picture_files(name, request), *scan_files(name, request)]
    )


def _write(photograph, findings, request, classifier, disk_full, journal) -> list[Finding]:
    """Write the pictures of a photograph; return its findings with the names of photograph and pictures.

    Then the photograph is added to the journal. Once `disk_full` holds an error, nothing more is written.
    """
    if "error" not in findings[0].row:
        try:
            if disk_full:
                raise disk_full[0]
            name, scan = photograph.name, photograph.scan
            if scan is None:
                findings = write_pictures(findings, name, request)
            else:
                findings = write_scan(scan, findings, name, request, classifier.model.name)
        except Exception as error:  # Whatever is wrong with one photograph, the others still count.
            if is_disk_full(error):
                disk_full.append(error)
                error = disk_full[0]  # Other threads write at the same time: all report the first error.
            reason = one_line(error) or type(error).__name__
            findings = [finding._replace(row={**finding.row, "error": reason}) for finding in findings]
    file = photograph.photograph.file
    findings = [finding._replace(row={"file": file, **finding.row}) for finding in findings]
    if journal is not None:
        try:
            journal.add(photograph.photograph, photograph.name, [finding.row for finding in findings])
        except OSError as error:
            disk_full.append(error)
    return findings
