#!/usr/bin/env bash
# FFmpeg (PyAV 18.1.0) tells the times of an AVI with B-frames in another order than it shows the frames.
# Seen: of H.264 with two B-frames, the decoder returns the pictures in the right order, with frame.pts 1 3 4 2 6 7 5 ...
# AVI stores no presentation times (Microsoft, "AVI RIFF File Reference"): those of B-frames are guessed from packets.
# An index by frame.pts, or a seek to one, finds wrong frames; of MPEG-4 in the same container the guess is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import av
import numpy as np

for codec in ("libx264", "mpeg4"):
    with av.open("clip.avi", "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "2", "sc_threshold": "0", "b_strategy": "0"})
        stream.height = stream.width = 64
        for number in range(12):  # each brighter than the one before
            picture = np.full((64, 64, 3), 10 + 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    with av.open("clip.avi") as container:
        frames = list(container.decode(video=0))
    times = [frame.pts for frame in frames]
    levels = [float(frame.to_ndarray(format="rgb24").mean()) for frame in frames]
    print(codec, "pts", *times)
    assert len(frames) == 12, "frames are lost"
    assert levels == sorted(levels), "the pictures are no longer in order"
    assert (times == sorted(times)) == (codec == "mpeg4"), "the times have changed their order"
PYTHON
