"""Which processor and GPU are taken for one with half precision."""

import pytest
import tensorflow as tf

from tf_gradcam._freezing import half_hardware
from tf_gradcam._freezing.half_hardware import check_precision, is_faster_on_cpu


@pytest.fixture(autouse=True)
def forget():
    is_faster_on_cpu.cache_clear()
    yield
    is_faster_on_cpu.cache_clear()


@pytest.mark.parametrize(("factor", "expected"), [(0.5, True), (1.0, False), (2.5, False)])
def test_a_processor_is_measured_by_the_shortest_of_many_runs(factor, expected, monkeypatch):
    noise = iter([9.0, 30.0, 1.0, 1.0] * 50)  # Of float32 and half in turn.

    def seconds(images, kernel):
        return (1.0 if images.dtype == tf.float32 else factor) * next(noise)

    monkeypatch.setattr(half_hardware, "_seconds", seconds)
    assert is_faster_on_cpu("bfloat16") is expected


def test_an_operation_that_tensorflow_lacks_is_no_half_precision(monkeypatch):
    def fail(images, kernel):
        raise tf.errors.NotFoundError(None, None, "no kernel")

    monkeypatch.setattr(half_hardware, "_seconds", fail)
    assert not is_faster_on_cpu("bfloat16")


def test_a_measurement_takes_no_second_and_is_made_once():
    assert is_faster_on_cpu("bfloat16") in (True, False)
    before = is_faster_on_cpu.cache_info()
    is_faster_on_cpu("bfloat16")
    assert is_faster_on_cpu.cache_info().hits == before.hits + 1


@pytest.mark.parametrize(
    ("capability", "precision", "received"),
    [
        ((8, 0), "bfloat16", None),
        ((9, 0), "float16", None),
        ((7, 5), "float16", None),
        ((7, 5), "bfloat16", "needs the compute capability 8.0. Received: 7.5"),
        ((6, 1), "float16", "needs the compute capability 7.0. Received: 6.1"),
        (None, "bfloat16", "Received: an unknown one"),
    ],
)
def test_a_gpu_is_known_by_its_compute_capability(capability, precision, received, monkeypatch):
    details = {} if capability is None else {"compute_capability": capability}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    if received is None:
        check_precision(precision)
        return
    with pytest.raises(ValueError, match=received):
        check_precision(precision)
