#!/usr/bin/env bash
# Guided backpropagation of captum and of pytorch-grad-cam is the plain gradient in a network of ReLU6, such as MobileNet:
# both look for nn.ReLU, which ReLU6 is not. Neither warns. pytorch-grad-cam moreover leaves one shared ReLU in the place of
# all of the user's ReLU layers, so that what is hooked on one of them afterwards sees the output of the last.
# Seen with captum 0.9.0 and grad-cam 1.5.7, torch 2.14.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    captum==0.9.0 grad-cam==1.5.7 torch==2.14.1 torchvision==0.29.1
cd "$folder"
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import torch
from captum.attr import GuidedBackprop
from pytorch_grad_cam import GuidedBackpropReLUModel
from torch import nn


def network(relu):
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
    return nn.Sequential(first, relu(), second, relu(), nn.Flatten(), nn.Linear(1152, 1)).eval()


image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
for relu in (nn.ReLU, nn.ReLU6):
    model = network(relu)
    before = image.clone().requires_grad_()
    plain = torch.autograd.grad(model(before).sum(), before)[0].numpy()
    by_captum = GuidedBackprop(model).attribute(before, target=0).detach().numpy()
    by_grad_cam = GuidedBackpropReLUModel(model)(image.clone(), 0).transpose(2, 0, 1)[None]
    captum, grad_cam = (np.abs(each - plain).max() / np.abs(plain).max() for each in (by_captum, by_grad_cam))
    print(f"{relu.__name__}: {captum:.2f} (captum), {grad_cam:.2f} (pytorch-grad-cam) from the plain gradient")
    if relu is nn.ReLU:
        assert min(captum, grad_cam) > 0.1
        print("ReLU layers afterwards:", len({id(layer) for layer in model if isinstance(layer, nn.ReLU)}))
        assert model[1] is model[3], "pytorch-grad-cam now leaves the layers of the user's model"
assert max(captum, grad_cam) < 1e-5, "ReLU6 is guided now"
PYTHON
