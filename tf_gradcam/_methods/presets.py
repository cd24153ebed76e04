"""Presets, methods of several layers under one name: `locate`. `registry` looks them up."""

from tf_gradcam._methods.formulas import gradcam, gradcam_elementwise
from tf_gradcam._methods.protocol import Preset

locate = Preset((gradcam_elementwise, gradcam), "refinecam", ("gaussian", 0.8))

PRESETS = {"locate": locate}
