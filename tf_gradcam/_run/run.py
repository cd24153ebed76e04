"""One run over photographs: explain each, write its pictures, yield its findings. For the command line."""

from collections.abc import Iterator, Sequence

from tf_gradcam._run.batches import ReadResult, explain_in_batches
from tf_gradcam._run.findings import Finding, PhotographExplainer, make_error
from tf_gradcam._run.photographs import Photograph, picture_names
from tf_gradcam._run.pictures import draw_pictures, write_pictures
from tf_gradcam._run.request import Classifier, Request
from tf_gradcam._run.results import remove_results

MOST_PHOTOGRAPHS = 16  # in a batch
MOST_PIXELS = 64_000_000  # of the heatmaps of a batch: where they have more, it has fewer photographs


def explain_photographs(
    photographs: Sequence[Photograph], request: Request, classifier: Classifier
) -> Iterator[list[Finding]]:
    """Explain photographs and write their pictures.

    The folder `request.out` is made, and the results of an earlier run in it are removed; to write those of
    this one is left to the caller.

    Returns:
        The findings in each photograph, in order, as they come: one for each method or class, or a single
        one whose row has an `"error"`.

    Raises:
        ValueError, TypeError: at once, if the request can't be fulfilled; nothing is written then.
    """
    explainer = PhotographExplainer(request, classifier)
    for finding in explainer.rehearse():
        draw_pictures(finding, request)
    request.out.mkdir(parents=True, exist_ok=True)
    remove_results(request.out)

    def write(photograph: ReadResult, findings: list[Finding]) -> list[Finding]:
        return _write(photograph, findings, request)

    named = zip(photographs, picture_names(photographs), strict=True)
    heatmaps = request.top * len(request.methods)  # of a photograph, each of its size
    most = 1 if explainer.is_slow else MOST_PHOTOGRAPHS
    return explain_in_batches(named, explainer.explain, write, most, MOST_PIXELS // heatmaps)


def _write(photograph, findings, request) -> list[Finding]:
    """Write the pictures of a photograph; return its findings with the names of photograph and pictures."""
    if "error" not in findings[0].row:
        try:
            findings = write_pictures(findings, photograph.name, request)
        except Exception as error:  # Whatever is wrong with one photograph, the others still count.
            findings = [make_error(error)]
    file = photograph.photograph.file
    return [finding._replace(row={"file": file, **finding.row}) for finding in findings]
