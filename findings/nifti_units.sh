#!/usr/bin/env bash
# NIfTI-1 says in xyzt_units whether lengths are metres, millimetres or micrometres. nibabel 5.4.2 leaves its affine in that
# unit, SimpleITK 2.5.7 returns millimetres: of a volume in metres or micrometres, positions differ by a factor of 1000.
# Without sform and qform (both codes 0) nibabel takes the axes for left, anterior, superior, and SimpleITK for left,
# posterior, superior: front and back change places.
# Seen for the voxel (1, 0, 0), whose neighbours are 0.002 away in metres: nibabel 0.012, SimpleITK 12.0. Without a place,
# the second axis leads to the front in nibabel, and to the back in SimpleITK.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 nibabel==5.4.2 simpleitk==2.5.7
cd "$folder"
venv/bin/python - <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK

affine = np.diag([0.002, 0.002, 0.002, 1.0])
affine[0, 3] = 0.010
for code in (1, 0):
    image = nibabel.Nifti1Image(np.zeros((3, 3, 3), np.uint8), affine)
    image.header.set_xyzt_units("meter")
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    nibabel.save(image, "volume.nii")
    by_nibabel = nibabel.load("volume.nii").affine
    volume = SimpleITK.ReadImage("volume.nii")
    # SimpleITK's coordinates lead to the left and to the back, nibabel's to the right and to the front.
    by_itk = np.array(volume.TransformIndexToPhysicalPoint((1, 0, 0))) * [-1, -1, 1]
    if code == 1:
        x = (by_nibabel @ [1, 0, 0, 1])[0]
        print(f"to the right of the origin: nibabel {x:.3f}, SimpleITK {by_itk[0]:.1f}")
        assert np.isclose(x, 0.012), "nibabel now returns millimetres"
        assert np.isclose(by_itk[0], 12.0), "SimpleITK no longer returns millimetres"
        continue
    axes = nibabel.aff2axcodes(by_nibabel)
    directions = np.array(volume.GetDirection()).reshape(3, 3)
    print(f"without a place: nibabel {''.join(axes)}, SimpleITK's directions {np.diag(directions)} in LPS")
    assert axes == ("L", "A", "S"), "nibabel takes other axes"
    assert np.array_equal(directions, np.eye(3)), "SimpleITK takes other axes"
PYTHON
