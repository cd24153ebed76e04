"""Let `keras.models.load_model` find the layer of a saved sub-model, in any process that imports tf_gradcam.

Keras looks up a layer by the name that it was registered with. To register the layer itself would import
Keras, which `import tf_gradcam` does not do. So a stand-in is registered as soon as Keras is loaded, which
imports the layer when a saved sub-model is loaded. Called by the front door.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

REGISTERED_NAME = "tf_gradcam>Probe"


class _Probe:
    """Stands for the layer of a sub-model until one is loaded."""

    @classmethod
    def from_config(cls, config: dict) -> Any:
        from tf_gradcam._submodel import Probe

        return Probe.from_config(config)


def register_submodel_layer() -> None:
    """Register the stand-in with Keras: now, if Keras is loaded, or else when it is."""
    if "keras" in sys.modules:
        _register(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _WhenKerasLoads())


def _register(keras: ModuleType) -> None:
    if hasattr(keras, "saving"):  # not while Keras is still being imported
        keras.saving.get_custom_objects().setdefault(REGISTERED_NAME, _Probe)


class _WhenKerasLoads(importlib.abc.MetaPathFinder):
    """Finds Keras as the other finders do, with a loader that registers the stand-in after it has loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "keras":
            return None
        others = (each for each in sys.meta_path if each is not self)
        spec = next(filter(None, (each.find_spec(name, path, target) for each in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _LoadAndRegister(spec.loader, self)
        return spec


class _LoadAndRegister(importlib.abc.Loader):
    """Loads Keras as its own loader does, and registers the stand-in."""

    def __init__(self, loader: Any, finder: _WhenKerasLoads):
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _register(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)

    def __getattr__(self, name: str) -> Any:  # what else a loader can do, as find resources
        return getattr(self._loader, name)
