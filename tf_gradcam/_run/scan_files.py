"""Write what was found in a scan: pictures, and the heatmap in the scan's own format. `run` calls it."""

from collections.abc import Iterator, Sequence

import numpy as np

from tf_gradcam import formats
from tf_gradcam._checks import one_line
from tf_gradcam._files import PictureOptions
from tf_gradcam._images import (
    fit_slices,
    hottest_slices,
    overlay_video,
    same_for_all_slices,
)
from tf_gradcam._run.findings import Finding
from tf_gradcam._run.photographs import scan_options
from tf_gradcam._run.pictures import draw_overlay, draw_panels, scaled_heatmap, suffix_of, write_pictures
from tf_gradcam._run.request import Request
from tf_gradcam._run.scans import place_of_peak

_MAP_ENDINGS = {"DICOM": ".dcm", "NIfTI": ".nii.gz", "GeoTIFF": ".tif", "slide": ".tif"}
_ARRAY_ENDING = ".npy"  # for every scan whose own format can't hold a map
_PANELS_IN_ROW = 3


def write_scan(scan: formats.Scan, findings: Sequence[Finding], name: str, request: Request, model: str):
    """Write the files of a scan; return its findings, with the files' names and the peak in the rows.

    Args:
        scan: the scan.
        findings: one for each method and class.
        name: that of the files.
        request: the folder, and how pictures look.
        model: the model's name.
    """
    is_image = findings[0].image is not None
    written = write_pictures(findings, name, request, scan.shape[:2]) if is_image else list(findings)
    for rank, finding in enumerate(written, start=1):
        own = name + suffix_of(finding.row.get("method"), rank, request)
        row = {
            **finding.row,
            **place_of_peak(scan, finding.heatmap),
            **_shown(scan_options(scan, request.picture)),
        }
        if not is_image:
            row |= _write_overlays(scan, finding, own, request)
        row |= _write_map(scan, finding, own, request, model)
        written[rank - 1] = finding._replace(row=row)
    return written


def scan_files(name: str, request: Request) -> list[str]:
    """Return the names of the files that `write_scan` may write for a scan, besides those of photographs."""
    several = len(request.methods) > 1
    variants = request.methods if several else range(1, request.top + 1)
    names = [name + suffix_of(variant, rank, request) for rank, variant in enumerate(variants, start=1)]
    endings = ["-overlay.png", "-overlay.mp4", "-overlay.dcm"]
    endings += [f"-heatmap{ending}" for ending in {*_MAP_ENDINGS.values(), _ARRAY_ENDING}]
    return [each + ending for each in names for ending in endings]


def _shown(options: PictureOptions) -> dict:
    """Return which values were black and white in the pictures, for a row, where the user chose."""
    given = {key: value for key, value in options._asdict().items() if value is not None}
    return {"picture": given} if given else {}


def _write_overlays(scan, finding, name, request) -> dict[str, str]:
    """Write the overlays of a volume or video, and return the names of their files."""
    if scan.format == "video":
        file = f"{name}-overlay.mp4"
        heatmaps = fit_slices("heatmap", scaled_heatmap(finding, request), scan.shape[0])
        _write_video(request.out / file, scan, heatmaps, request)
        return {"overlay": file}
    file = f"{name}-overlay.png"
    values, options = scaled_heatmap(finding, request), scan_options(scan, request.picture)
    shown = hottest_slices(scan, "heatmap", values, options)
    panels = [
        (draw_overlay(picture, np.clip(heatmap, 0, 1), request), title)
        for picture, heatmap, title in zip(*shown, strict=True)
    ]
    rows = [panels[start : start + _PANELS_IN_ROW] for start in range(0, len(panels), _PANELS_IN_ROW)]
    draw_panels(rows, min(_PANELS_IN_ROW, len(panels)), request.out / file)
    return {"overlay": file}


def _write_video(path, scan, heatmaps, request) -> None:
    if request.contour is None:
        style = {"alpha": request.alpha, "colormap": request.colormap, "fade": request.fade}
        overlay_video(path, scan, heatmaps, vmax=1.0, **style)
        return
    pairs = enumerate(np.clip(heatmaps, 0, 1))
    frames = (draw_overlay(scan.values[index], heatmap, request) for index, heatmap in pairs)
    formats.write_pictures(path, scan, frames)


def _write_map(scan, finding, name, request, model) -> dict[str, str]:
    """Write the heatmap in the scan's own format, and a DICOM picture; return the names of their files.

    Where the scan's format can't hold it, it is written as an array, with a warning that says why; a DICOM
    picture is left out then.
    """
    about = {"method": finding.row["method"], "label": finding.row["label"], "model": model}
    ending = _MAP_ENDINGS.get(scan.format, _ARRAY_ENDING)
    files: dict[str, str] = {}
    warnings = [finding.row["warning"]] if "warning" in finding.row else []
    try:
        formats.write(request.out / f"{name}-heatmap{ending}", scan, finding.heatmap, **about)
        files["map"] = f"{name}-heatmap{ending}"
    except ValueError as error:
        warnings.append(one_line(error))
        files["map"] = f"{name}-heatmap{_ARRAY_ENDING}"
        formats.write(request.out / files["map"], scan, finding.heatmap, **about)
    if scan.format == "DICOM":
        try:
            capture = f"{name}-overlay.dcm"
            formats.write_pictures(request.out / capture, scan, _captures(scan, finding, request))
            files["capture"] = capture
        except ValueError as error:
            warnings.append(one_line(error))
    return files | ({"warning": "; ".join(dict.fromkeys(warnings))} if warnings else {})


def _captures(scan, finding, request) -> Iterator[np.ndarray]:
    """Yield the overlay of each slice, or of the one image."""
    values = scaled_heatmap(finding, request)
    if finding.image is not None:
        yield draw_overlay(finding.image, values, request)
        return
    options = same_for_all_slices(scan, scan_options(scan, request.picture))
    for index, heatmap in enumerate(fit_slices("heatmap", values, scan.shape[0])):
        picture = scan.picture(**options._asdict(), index=index)
        yield draw_overlay(picture, np.clip(heatmap, 0, 1), request)
