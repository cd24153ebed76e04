"""Ask a model server for the heatmap of a photograph, by REST or gRPC, with any signature of export_gradcam.

    python serving_client.py cat.jpg --model cat
    python serving_client.py cat.jpg --model cat --signature gradcam_class --class-index 281 --grpc

It prints the class and its score, and writes the heatmap over the photograph to a file. REST does not need
TensorFlow; gRPC needs `pip install tensorflow-serving-api`.
"""

import argparse
import base64
import json
import pathlib
import urllib.error
import urllib.request

import cv2
import numpy as np

from tf_gradcam import load_image, serving


def rest(address: str, model: str, signature: str, inputs: dict) -> dict:
    """Return the outputs of `signature` as `{name: array}`, requested as JSON in columns."""
    columns = {name: _to_json(value) for name, value in inputs.items()}
    body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
    url = f"http://{address}/v1/models/{model}:predict"
    try:
        with urllib.request.urlopen(url, body, timeout=60) as response:
            return serving.answers(response.read())
    except urllib.error.HTTPError as error:
        return serving.answers(error.read())  # raises a ValueError that quotes the server


def _to_json(value: list | np.ndarray) -> list:
    if isinstance(value, list):
        return [{"b64": base64.b64encode(data).decode()} for data in value]
    return value.tolist()


def grpc(address: str, model: str, signature: str, inputs: dict) -> dict:
    """Return the outputs of `signature` as `{name: array}`."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        dtype = tf.string if isinstance(value, list) else value.dtype
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
    # By default gRPC refuses a response of more than 4 MB, 20 heatmaps of 224 x 224.
    with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            return serving.answers(stub.Predict(request, timeout=60))
        except grpc.RpcError as error:
            raise ValueError(error.details()) from error


def inputs_of(signature: str, photograph: bytes, size: int, class_index: int | None) -> dict:
    """Return the inputs of `signature` for one photograph: bytes in a list, numbers in an array."""
    if signature == "gradcam_bytes":
        return {"image_bytes": [photograph]}
    pixels = cv2.resize(load_image(photograph), (size, size), interpolation=cv2.INTER_AREA)
    inputs = {"images": pixels[None]}
    if signature == "gradcam_class":
        inputs["class_index"] = np.array([class_index], np.int32)
    return inputs


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photograph", type=pathlib.Path)
    parser.add_argument("--model", required=True, help="the model's name on the server")
    parser.add_argument("--signature", default="gradcam_bytes", help="(default gradcam_bytes)")
    parser.add_argument("--class-index", type=int, default=0, help="class for gradcam_class (default 0)")
    parser.add_argument("--size", type=int, default=224, help="height and width of `images` (default 224)")
    parser.add_argument("--grpc", action="store_true", help="over gRPC instead of REST")
    parser.add_argument("--address", help="(default localhost:8501, and localhost:8500 for gRPC)")
    parser.add_argument("--out", default="overlay.png", help="(default overlay.png)")
    options = parser.parse_args(arguments)

    photograph = options.photograph.read_bytes()
    request, default_address = (grpc, "localhost:8500") if options.grpc else (rest, "localhost:8501")
    inputs = inputs_of(options.signature, photograph, options.size, options.class_index)
    outputs = request(options.address or default_address, options.model, options.signature, inputs)
    scores = outputs["scores"][0]
    for index in np.ravel(outputs["class"][0]) if "class" in outputs else ():  # several with gradcam_top_k
        has_score = scores.ndim == 1 and index < len(
            scores
        )  # a single sigmoid unit has a score for side 1 only
        print(f"class {index}" + (f": {scores[index]:.4f}" if has_score else ""))
    overlay = serving.overlay(outputs, photograph)
    cv2.imwrite(options.out, cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
