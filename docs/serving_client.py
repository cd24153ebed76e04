"""Ask a served Grad-CAM about a photograph, over REST or gRPC, by any of its signatures.

    python serving_client.py cat.jpg --model cat
    python serving_client.py cat.jpg --model cat --signature gradcam_class --class-index 281 --grpc

It prints the class and its score, and writes the photograph under its heatmap. REST takes NumPy and OpenCV;
gRPC also `pip install tensorflow-serving-api`.
"""

import argparse
import base64
import json
import pathlib
import urllib.error
import urllib.request

import cv2
import numpy as np


def rest(address: str, model: str, signature: str, inputs: dict) -> dict:
    """Return the outputs of a signature as `{name: array}`, asked for as JSON in columns."""
    body = {"signature_name": signature, "inputs": {name: _to_json(value) for name, value in inputs.items()}}
    url = f"http://{address}/v1/models/{model}:predict"
    try:
        with urllib.request.urlopen(url, json.dumps(body).encode()) as response:
            outputs = json.load(response)["outputs"]
    except urllib.error.HTTPError as error:
        raise ValueError(json.load(error)["error"]) from error
    # A single output comes without its name.
    outputs = outputs if isinstance(outputs, dict) else {"output": outputs}
    return {name: _from_json(name, value) for name, value in outputs.items()}


def _to_json(value):
    if isinstance(value, list):
        return [{"b64": base64.b64encode(each).decode()} for each in value]
    return value.tolist()


def _from_json(name, value) -> np.ndarray:
    # The name's ending says what is bytes: JSON knows none.
    if name.endswith("_bytes"):
        return np.array([base64.b64decode(each["b64"]) for each in value], object)
    return np.array(value)


def grpc(address: str, model: str, signature: str, inputs: dict) -> dict:
    """Return the outputs of a signature as `{name: array}`; text is bytes."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        dtype = tf.string if isinstance(value, list) else value.dtype
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
    # As it comes, an answer of more than 4 MB is refused: 20 heatmaps of 224 x 224.
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            outputs = stub.Predict(request, timeout=60).outputs
        except grpc.RpcError as error:
            raise ValueError(error.details()) from error
    return {name: tf.make_ndarray(proto) for name, proto in outputs.items()}


def inputs_for(signature: str, photograph: bytes, size: int, class_index: int | None) -> dict:
    """Return what a signature takes for one photograph."""
    if signature == "gradcam_bytes":
        return {"image_bytes": [photograph]}
    pixels = cv2.cvtColor(_decode(photograph), cv2.COLOR_BGR2RGB)
    inputs = {"images": cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)[None]}
    if signature == "gradcam_class":
        inputs["class_index"] = np.array([class_index], np.int32)
    return inputs


def overlay_of(outputs: dict, photograph: bytes) -> bytes:
    """Return the photograph under its heatmap as a PNG file: the server's, or drawn here."""
    if "overlay_png_bytes" in outputs:
        return outputs["overlay_png_bytes"][0]
    pixels = _decode(photograph)
    heatmap = outputs["heatmap"][0].astype(np.float32)
    heatmap = heatmap[0] if heatmap.ndim == 3 else heatmap  # of several classes, the best
    heatmap = cv2.resize(heatmap, pixels.shape[1::-1])
    colors = cv2.applyColorMap(np.uint8(np.round(255 * heatmap)), cv2.COLORMAP_JET)
    return cv2.imencode(".png", cv2.addWeighted(colors, 0.4, pixels, 0.6, 0))[1].tobytes()


def _decode(photograph):
    return cv2.imdecode(np.frombuffer(photograph, np.uint8), cv2.IMREAD_COLOR)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photograph", type=pathlib.Path)
    parser.add_argument("--model", required=True, help="the model's name on the server")
    parser.add_argument("--signature", default="gradcam_bytes", help="(default gradcam_bytes)")
    parser.add_argument("--class-index", type=int, help="what gradcam_class explains")
    parser.add_argument("--size", type=int, default=224, help="of the model's images (default 224)")
    parser.add_argument("--grpc", action="store_true", help="over gRPC instead of REST")
    parser.add_argument("--address", help="(default localhost:8501, for gRPC localhost:8500)")
    parser.add_argument("--out", type=pathlib.Path, default="overlay.png", help="(default overlay.png)")
    asked = parser.parse_args(arguments)

    photograph = asked.photograph.read_bytes()
    inputs = inputs_for(asked.signature, photograph, asked.size, asked.class_index)
    ask, address = (grpc, "localhost:8500") if asked.grpc else (rest, "localhost:8501")
    outputs = ask(asked.address or address, asked.model, asked.signature, inputs)
    for index, score in _explained(outputs):
        print(f"class {index}: {score:.4f}")
    asked.out.write_bytes(overlay_of(outputs, photograph))


def _explained(outputs):
    """Yield each class that has a heatmap, and its score."""
    for index in outputs["class"].reshape(-1):
        yield index, outputs["scores"][0][index]


if __name__ == "__main__":
    main()
