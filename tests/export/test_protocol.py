"""The exported model over TensorFlow Serving's protocols, asked by the client of docs/serving.md."""

import base64
import json
import os
import pathlib
import runpy
import shutil
import socket
import subprocess
import sys
import types
import urllib.error
import urllib.request

import cv2
import doc_pages
import grpc
import numpy as np
import pytest
import tensorflow as tf
from conftest import CLASSES, SIDE, build, preprocess
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

from tf_gradcam import GradCAM, load_image, pretrained

ROOT = pathlib.Path(__file__).parents[2]
client = types.SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "serving_client.py")))

ALONE = """
import runpy, sys
sys.modules["tf_gradcam"] = sys.modules["keras"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(served):
    """A process that serves the small network, where Keras and this library are not, and its addresses."""
    command = [sys.executable, "-c", ALONE, ROOT / "tests" / "server" / "server.py", served]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        ports = json.loads(process.stdout.readline())
        yield {"grpc": f"localhost:{ports['port']}", "rest": f"localhost:{ports['rest_api_port']}"}
        assert process.poll() is None, "a request ended the server"
        process.terminate()


@pytest.fixture(params=["rest", "grpc"])
def ask(request, server):
    """Return a function of a signature's name and its inputs to its outputs, by each protocol."""
    ask = getattr(client, request.param)
    return lambda signature, **inputs: ask(server[request.param], "cat", signature, inputs)


@pytest.fixture(scope="module")
def cam():
    return GradCAM(build("functional"), preprocess=preprocess)


def test_gradcam_answers_what_the_explainer_answers(ask, cam, photographs):
    expected, answer = cam(photographs), ask("gradcam", images=photographs)
    np.testing.assert_allclose(answer["scores"], expected.outputs, atol=1e-5)
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.target)
    assert answer["label"].tolist() == [f"class {index}" for index in expected.target]


def test_gradcam_class_explains_the_class_that_is_asked_for(ask, cam, photographs):
    index = np.array([4, 0, 2], "int32")
    expected, answer = cam(photographs, index), ask("gradcam_class", images=photographs, class_index=index)
    np.testing.assert_allclose(answer["heatmap"], expected.heatmap, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], index)


def test_gradcam_top_k_explains_the_best_classes(ask, cam, photographs):
    answer = ask("gradcam_top_k", images=photographs)
    assert answer["heatmap"].shape == (3, 2, SIDE, SIDE)
    best = np.argsort(-answer["scores"], axis=1)[:, :2].astype("int32")
    np.testing.assert_array_equal(answer["class"], best)
    for rank in range(2):
        expected = cam(photographs, best[:, rank]).heatmap
        np.testing.assert_allclose(answer["heatmap"][:, rank], expected, atol=1e-5)


def png(pixels) -> bytes:
    return cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()


def pixels(data, flag=cv2.IMREAD_COLOR_RGB):
    return cv2.imdecode(np.frombuffer(data, np.uint8), flag)


def test_gradcam_bytes_takes_and_answers_files(ask, cam, photographs):
    wide = np.repeat(photographs[2], 2, axis=1)
    answer = ask("gradcam_bytes", image_bytes=[png(each) for each in (*photographs[:2], wide)])
    expected = cam(photographs[:2])
    np.testing.assert_allclose(answer["scores"][:2], expected.outputs, atol=1e-5)
    for data, heatmap in zip(answer["heatmap_png_bytes"], expected.heatmap.numpy(), strict=False):
        grey = pixels(data, cv2.IMREAD_UNCHANGED)
        assert grey.dtype == np.uint8
        np.testing.assert_allclose(grey / 255, heatmap, atol=0.5 / 255 + 1e-5)
    assert [pixels(each).shape for each in answer["overlay_png_bytes"]] == [
        (SIDE, SIDE, 3),
        (SIDE, SIDE, 3),
        (SIDE, 2 * SIDE, 3),
    ]


def test_gradcam_bytes_explains_the_values_of_a_png_of_16_bits(ask, cam, photographs):
    values = photographs.astype(np.uint16) * 2 + 7  # of 0 to 517, which 8 bits can't hold
    answer = ask("gradcam_bytes", image_bytes=[png(each) for each in values])
    expected = cam(values.astype("float32"))
    np.testing.assert_allclose(answer["scores"], expected.outputs, atol=1e-5)
    np.testing.assert_array_equal(answer["class"], expected.target)
    assert np.abs(expected.outputs - cam(values >> 8).outputs).max() > 0.01


def test_existing_clients_get_what_the_model_answers(ask, served, photographs):
    images = preprocess(photographs).numpy()
    signature = tf.saved_model.load(str(served / "1")).signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    (answer,) = ask("serving_default", **{name: images}).values()
    np.testing.assert_allclose(answer, build("functional")(images), atol=1e-5)


def test_no_files_are_answered_with_nothing(ask):
    answer = ask("gradcam_bytes", image_bytes=[])
    assert {name: len(each) for name, each in answer.items()} == dict.fromkeys(answer, 0)


def test_what_is_wrong_is_refused_with_a_sentence(ask, photographs):
    one = photographs[:1]
    with pytest.raises(ValueError, match="`class_index` must"):
        ask("gradcam_class", images=one, class_index=np.array([10**9], "int32"))
    for broken in (b"", b"no image at all", png(one[0])[:60]):
        with pytest.raises(ValueError, match="image"):
            ask("gradcam_bytes", image_bytes=[broken])
    with pytest.raises(ValueError, match="uint8"):
        ask("gradcam", images=one.astype("float64"))
    with pytest.raises(ValueError, match="images"):
        ask("gradcam", photographs=one)
    with pytest.raises(ValueError, match="nonsense"):
        ask("nonsense", images=one)
    assert ask("gradcam", images=one)["scores"].shape == (1, CLASSES)


# What docs/serving.md says, run as it stands but for what is the test's own


def blocks(language, word):
    """Return the page's examples in a language that have a word in them."""
    return [code for code in doc_pages.blocks("serving.md", language) if word in code]


@pytest.fixture
def here(server, photographs, tmp_path, monkeypatch):
    """Return a function that puts this server and this model into an example, beside a cat.jpg."""
    photograph = np.repeat(photographs[0], 2, axis=1)
    cv2.imwrite(str(tmp_path / "cat.jpg"), photograph[..., ::-1])
    monkeypatch.chdir(tmp_path)
    own = {"localhost:8500": server["grpc"], "localhost:8501": server["rest"]}
    own |= {"224, 224": f"{SIDE}, {SIDE}", "281": "3"}

    def here(code):
        for theirs, ours in own.items():
            code = code.replace(theirs, ours)
        return code

    return here


COMMANDS = "".join(blocks("sh", "docs/serving_client.py")).splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_client_script_writes_the_overlay(server, here, command, capsys):
    _, _, *arguments = here(command).split()
    address = server["grpc" if "--grpc" in arguments else "rest"]
    client.main([*arguments, "--address", address, "--size", str(SIDE)])
    assert load_image("overlay.png").shape == (SIDE, 2 * SIDE, 3)
    assert capsys.readouterr().out.count("class ") == (2 if "gradcam_top_k" in arguments else 1)


def test_the_python_examples_run(here, photographs, monkeypatch):
    monkeypatch.setattr(pretrained, "efficientnet_lite0", lambda: build("functional"))
    monkeypatch.setattr(pretrained, "labels", lambda: [f"class {index}" for index in range(CLASSES)])
    names = {"images": photographs}
    export, boxes, rest, grpc = blocks("python", "")
    for code in (export, rest, grpc, boxes):  # the boxes are those of a response
        exec(here(code), names)
    assert names["answer"].keys() >= {"class", "label", "overlay_png_bytes"}
    assert names["picture"].shape == (SIDE, 2 * SIDE, 3)
    np.testing.assert_allclose(names["heatmap"].max(), 1)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_curl_examples_run(here, monkeypatch):
    monkeypatch.setenv("PATH", str(pathlib.Path(sys.executable).parent), prepend=os.pathsep)
    _, numbers = (
        subprocess.run(["bash", "-c", here(code)], check=True, capture_output=True)
        for code in blocks("sh", "curl")
    )
    assert load_image("overlay.png").shape == (SIDE, 2 * SIDE, 3)
    assert json.loads(numbers.stdout)["outputs"]["class"] == [3]


# REST, as a client that isn't ours would write it


def post(server, body, path="/v1/models/cat:predict"):
    """Return the status and the answer to `body`, JSON or bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"http://{server['rest']}{path}", data, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def test_rows_are_answered_with_an_object_for_each(server, cam, photographs):
    rows = [{"images": each.tolist(), "class_index": 3} for each in photographs]
    status, answer = post(server, {"signature_name": "gradcam_class", "instances": rows})
    assert status == 200
    names = {"scores", "heatmap", "map", "score", "class", "label"}
    assert [set(each) for each in answer["predictions"]] == [names] * 3
    heatmaps = [each["heatmap"] for each in answer["predictions"]]
    np.testing.assert_allclose(heatmaps, cam(photographs, 3).heatmap, atol=1e-5)


def test_rows_of_a_single_input_need_no_name(server, photographs):
    files = [b64(png(each)) for each in photographs]
    for rows in (files, [{"image_bytes": each} for each in files]):
        status, answer = post(server, {"signature_name": "gradcam_bytes", "instances": rows})
        assert status == 200
        assert pixels(base64.b64decode(answer["predictions"][2]["overlay_png_bytes"]["b64"])).shape == (
            SIDE,
            SIDE,
            3,
        )


def test_a_single_output_comes_without_its_name(server, photographs):
    images = preprocess(photographs).numpy()
    expected = build("functional")(images)
    for version in ("", "/versions/1"):
        path = f"/v1/models/cat{version}:predict"
        status, answer = post(server, {"inputs": images.tolist()}, path)
        assert status == 200
        np.testing.assert_allclose(answer["outputs"], expected, atol=1e-5)
        status, answer = post(server, {"instances": images.tolist()}, path)
        np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)


def test_numbers_that_json_has_no_word_for_go_in(server, photographs):
    images = preprocess(photographs[:1]).numpy()
    images[0, 0, 0] = np.nan, np.inf, -np.inf
    status, answer = post(server, {"inputs": images.tolist()})
    assert (status, list(answer)) == (200, ["outputs"])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "JSON Parse error"),
        (b"[" * 100_000, "JSON Parse error"),
        (b'{"instances": [1, ', "JSON Parse error"),
        ([1], "Is not object"),
        ({}, "'inputs' or 'instances'"),
        ({"inputs": [], "instances": []}, "'inputs' or 'instances'"),
        ({"instances": []}, "at least one"),
        ({"instances": [[[[0.5]]]]}, "of shape"),
        ({"instances": "cat"}, "a list"),
        ({"signature_name": 3, "inputs": []}, "not found in signature def"),
        ({"signature_name": "gradcam", "inputs": [[[[0.5] * 3]]]}, "uint8"),
        ({"signature_name": "gradcam", "inputs": [[[[256] * 3]]]}, "uint8"),
        ({"signature_name": "gradcam", "inputs": [[[[1] * 3], [[1] * 2]]]}, "JSON Value"),
        ({"signature_name": "gradcam_class", "inputs": [1]}, "class_index"),
        ({"signature_name": "gradcam_class", "inputs": {"images": []}}, "class_index"),
        ({"signature_name": "gradcam_class", "instances": [{"images": []}]}, "class_index"),
        ({"signature_name": "gradcam_bytes", "inputs": [{"b64": "*"}]}, "JSON Value"),
        ({"signature_name": "gradcam_bytes", "inputs": [7]}, "string"),
    ],
)
def test_a_bad_body_is_answered_with_its_error(server, body, told):
    status, answer = post(server, body)
    assert (status, list(answer)) == (400, ["error"])
    assert told in answer["error"]


def test_what_is_not_there_is_not_found(server):
    assert post(server, {}, "/v1/models/dog:predict") == (
        404,
        {"error": "Servable not found for request: Latest(dog)"},
    )
    assert post(server, {}, "/v1/models/cat/versions/7:predict")[0] == 404
    assert post(server, {}, "/v1/elsewhere")[0] == 400


def test_status_and_metadata_are_told(server):
    about = f"http://{server['rest']}/v1/models/cat"
    with urllib.request.urlopen(about) as response:
        (version,) = json.load(response)["model_version_status"]
    assert (version["version"], version["state"]) == ("1", "AVAILABLE")
    with urllib.request.urlopen(f"{about}/metadata") as response:
        signatures = json.load(response)["metadata"]["signature_def"]["signature_def"]
    assert signatures["gradcam"]["inputs"]["images"]["dtype"] == "DT_UINT8"


def test_a_client_that_hangs_up_ends_nothing(server):
    host, port = server["rest"].split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/models/cat:predict HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{")
    assert post(server, {})[0] == 400


# gRPC


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server["grpc"]) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def test_metadata_is_told_over_grpc(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "cat"
    response = stub.GetModelMetadata(request, timeout=60)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["gradcam_bytes"].inputs["image_bytes"].dtype == tf.string.as_datatype_enum


@pytest.mark.parametrize(
    ("model", "signature", "tensor", "code"),
    [
        ("dog", "gradcam", tf.make_tensor_proto([1]), "NOT_FOUND"),
        ("cat", "nonsense", tf.make_tensor_proto([1]), "FAILED_PRECONDITION"),
        ("cat", "gradcam", tf.make_tensor_proto([1]), "INVALID_ARGUMENT"),
        ("cat", "gradcam", TensorProto(), "INVALID_ARGUMENT"),
        ("cat", "gradcam", TensorProto(dtype=4, tensor_content=b"too many for a scalar"), "INVALID_ARGUMENT"),
        ("cat", "gradcam_bytes", tf.make_tensor_proto([b"no image"]), "INVALID_ARGUMENT"),
    ],
)
def test_a_bad_request_is_refused_with_its_status(stub, model, signature, tensor, code):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.inputs["image_bytes" if signature == "gradcam_bytes" else "images"].CopyFrom(tensor)
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(request, timeout=60)
    assert error.value.code().name == code
