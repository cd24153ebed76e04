"""What a map costs in pytorch-grad-cam and torch-cam, in forward passes of PyTorch.

Measured as in ../overhead.py, in interleaved runs of one process: forward pass, map, forward pass, map... A
ratio is the median over its pairs. Methods that run the network for each channel run --slow times, without
a warm-up.

    python benchmarks/parity/speed.py [--runs 20] [--slow 1]
"""

import argparse
import contextlib
import io
import os
import platform
import statistics
import time

import networks
import pytorch_grad_cam
import torch
import torchcam.methods
import torchvision
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

FAST = {  # method -> its class in pytorch-grad-cam and in torch-cam
    "gradcam": ("GradCAM", "GradCAM"),
    "hirescam": ("HiResCAM", None),
    "layercam": ("LayerCAM", "LayerCAM"),
    "xgradcam": ("XGradCAM", "XGradCAM"),
    "gradcam_plus_plus": ("GradCAMPlusPlus", "GradCAMpp"),
    "smooth(gradcam_plus_plus, 4)": (None, "SmoothGradCAMpp"),
    "cam": (None, "CAM"),
    "finercam": ("FinerCAM", "FinerCAM"),
    "shapleycam": ("ShapleyCAM", None),
    "eigencam": ("EigenCAM", None),
    "eigengradcam": ("EigenGradCAM", None),
    "kpca_cam": ("KPCA_CAM", None),
    "fem": ("FEM", None),
    "fullgrad": ("FullGrad", None),
}
SLOW = {"ablationcam": ("AblationCAM", None), "scorecam": ("ScoreCAM", "ScoreCAM")}


def grad_cam(name, net, layer, images):
    """Return a function of no arguments that makes a heatmap, with what is done once done."""
    with contextlib.redirect_stdout(io.StringIO()):
        cam = getattr(pytorch_grad_cam, name)(net, [net.get_submodule(layer)])
    of_class = None if name == "FinerCAM" else [ClassifierOutputTarget(0)]

    def explain():
        with contextlib.redirect_stderr(io.StringIO()):  # tqdm's bars
            return cam(images, of_class)

    return explain


def torch_cam(name, net, layer, images):
    head = {"fc_layer": "fc"} if name == "CAM" else {}
    cam = getattr(torchcam.methods, name)(net, layer, **head)
    no_gradients = torch.no_grad if name in ("CAM", "ScoreCAM") else contextlib.nullcontext

    def explain():
        with no_gradients():
            return cam(0, net(images))

    return explain


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(make, name, build, layer, images, runs, warm_ups):
    """Return the median ratio of a map to a forward pass, and the median seconds of the latter."""
    net, hooked = build(), build()  # The forward pass has no hooks.
    explain = make(name, hooked, layer, images)

    def forward():
        with torch.no_grad():
            net(images)

    for _ in range(warm_ups):
        forward(), explain()
    forward()
    pairs = [(seconds(forward), seconds(explain)) for _ in range(runs)]
    return statistics.median(b / a for a, b in pairs), statistics.median(a for a, _ in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="interleaved runs of each method (default 20)")
    parser.add_argument(
        "--slow", type=int, default=1, help="of those that take minutes; 0 for none (default 1)"
    )
    args = parser.parse_args()
    models = {
        "EfficientNet-Lite0": (lambda: networks.lite0_net().eval(), "top"),
        "ResNet50": (lambda: torchvision.models.resnet50(weights=None).eval(), "layer4"),
    }
    print(
        f"PyTorch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}; {args.runs} interleaved runs\n"
    )
    print("| model | method | forward pass | pytorch-grad-cam | torch-cam |\n|---|---|---|---|---|")
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    for model, (build, layer) in models.items():
        for methods, runs, warm_ups in ((FAST, args.runs, 3), (SLOW, args.slow, 0)):
            for method, names in methods.items() if runs else ():
                found = [
                    name and measure(make, name, build, layer, images, runs, warm_ups)
                    for make, name in zip((grad_cam, torch_cam), names, strict=True)
                ]
                forward = statistics.median(each[1] for each in found if each)
                cells = [f"{each[0]:.2f}" if each else "" for each in found]
                row = [model, method, f"{1e3 * forward:.1f} ms", *cells]
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
