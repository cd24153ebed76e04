#!/usr/bin/env bash
# Neither torch-cam nor pytorch-grad-cam has the weights of Grad-CAM++ for ordinary gradients. torch-cam divides a copy,
# `alpha[idx][mask].div_(...)`, so alpha stays the square of the gradient. pytorch-grad-cam adds 1e-6 to a denominator of the
# size of that square: of gradients of 1e-3, as after average pooling, the map is another, and it changes with the score's unit.
# Seen with torchcam 0.5.0 and grad-cam 1.5.7, torch 2.14.1: 0.34 and 0.16 from the paper's weights, as a share of the largest.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    grad-cam==1.5.7 torch==2.14.1 torchcam==0.5.0 torchvision==0.29.1
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import torch
from pytorch_grad_cam import GradCAMPlusPlus
from torch import nn
from torchcam.methods import GradCAMpp

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
)
model = model.eval()
image = torch.rand(1, 3, 14, 14, generator=torch.Generator().manual_seed(1))
activations = model[1](model[0](image))
gradients = torch.autograd.grad(model[2:](activations)[0, 0], activations)[0].numpy()
activations = activations.detach().numpy()
alpha = 1 / (2 + activations.sum((2, 3), keepdims=True) * gradients)  # equation 19, divided by the square
weights = (alpha * np.maximum(gradients, 0)).sum((2, 3))[0]  # equation 5

with GradCAMpp(model, model[1]) as cam:
    score = model(image)
    of_torchcam = cam._get_weights(0, score)[0][0].detach().numpy()
with GradCAMPlusPlus(model, [model[1]]) as cam:
    of_grad_cam = cam.get_cam_weights(image, model[1], None, activations, gradients)[0]


def off(found):
    """Largest difference of weights, whose unit is arbitrary, as a share of the largest weight."""
    return np.abs(found / found.max() - weights / weights.max()).max()


print("gradients:", np.abs(gradients).max(axis=(2, 3)).round(5))
print(f"from the weights of the paper: torch-cam {off(of_torchcam):.2f}, pytorch-grad-cam {off(of_grad_cam):.2f}")
assert off(of_torchcam) > 0.1, "torch-cam divides alpha now"
assert off(of_grad_cam) > 0.1, "pytorch-grad-cam's epsilon no longer counts"
PYTHON
