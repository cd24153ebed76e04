"""A small stand-in for TensorFlow Serving: its two protocols, around the newest version of one model.

It answers Predict and GetModelMetadata over gRPC, and predict, metadata and status over REST, as the
documentation of TensorFlow Serving has them. There is no batching, no watching for new versions, no classify
and no regress.

    python tests/server/server.py models/cat [--port 8500] [--rest-api-port 8501]
"""

import argparse
import base64
import contextlib
import http.server
import json
import os
import pathlib
import re
from concurrent import futures

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2, prediction_service_pb2_grpc

DEFAULT = "serving_default"
PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d{1,18}))?(:predict|/metadata)?", re.IGNORECASE)
HTTP_STATUS = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "NOT_FOUND": 404}  # others are 500
# The field of a TensorProto for each kind of number. TensorFlow Serving fills these, not `tensor_content`.
FIELDS = {"float32": "float_val", "float64": "double_val", "int64": "int64_val", "bool": "bool_val"}


class Refused(Exception):
    """What a request is answered with instead: a status, by its name, and a sentence."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def refusing():
    """Turn whatever goes wrong into `Refused`: no request ends the server."""
    try:
        yield
    except Refused:
        raise
    except tf.errors.OpError as error:
        (code,) = [each.name for each in grpc.StatusCode if each.value[0] == error.error_code]
        # Without the stack that only Python knows.
        raise Refused(code, error.message.rpartition("<stack traces unavailable>\n")[2]) from error
    except Exception as error:
        raise Refused("INTERNAL", f"{type(error).__name__}: {error}") from error


class Servable:
    """The newest version of a model: its signatures, called by name with tensors by name."""

    def __init__(self, folder: pathlib.Path):
        self.name = folder.name
        self.version = max(int(each.name) for each in folder.iterdir() if each.name.isdecimal())
        path = folder / str(self.version)
        self._model = tf.saved_model.load(str(path))
        self.signatures = (
            SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].signature_def
        )

    def check(self, name: str, version: int | None) -> None:
        if name != self.name or version not in (None, self.version):
            asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise Refused("NOT_FOUND", f"Servable not found for request: {asked}")

    def predict(self, signature: str, inputs: dict, only=()) -> dict:
        """Return the outputs of `signature`, those named in `only` or all, as `{name: array}`."""
        about = self.signatures[signature]
        if set(inputs) != set(about.inputs):
            raise Refused(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {sorted(inputs)} for {sorted(about.inputs)}",
            )
        for name, tensor in inputs.items():
            spec = tf.TensorSpec(about.inputs[name].tensor_shape, about.inputs[name].dtype)
            if not spec.is_compatible_with(tensor):
                raise Refused(
                    "INVALID_ARGUMENT",
                    f"Expects {name} to be {spec.dtype.name} of shape {spec.shape}, but "
                    f"{tensor.dtype.name} of shape {tensor.shape} is provided",
                )
        if not set(only) <= set(about.outputs):
            raise Refused("INVALID_ARGUMENT", f"output tensor alias not found in signature: {sorted(only)}")
        answer = self._model.signatures[signature](**inputs)
        return {name: answer[name].numpy() for name in sorted(only or answer)}

    def metadata(self) -> get_model_metadata_pb2.GetModelMetadataResponse:
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = self.name, self.version
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, each in self.signatures.items():
            signatures.signature_def[name].CopyFrom(each)
        response.metadata["signature_def"].Pack(signatures)
        return response


# Over gRPC


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The service of `tensorflow_serving/apis/prediction_service.proto`."""

    def __init__(self, servable: Servable):
        self._servable = servable

    def Predict(self, request, context):
        with _aborting(context), refusing():
            self._check(request.model_spec)
            name = request.model_spec.signature_name or DEFAULT
            if name not in self._servable.signatures:
                raise Refused("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
            inputs = {key: _tensor(key, proto) for key, proto in request.inputs.items()}
            response = predict_pb2.PredictResponse()
            for key, array in self._servable.predict(name, inputs, request.output_filter).items():
                response.outputs[key].CopyFrom(_proto(array))
            spec = response.model_spec
            spec.name, spec.signature_name, spec.version.value = (
                self._servable.name,
                name,
                self._servable.version,
            )
            return response

    def GetModelMetadata(self, request, context):
        with _aborting(context), refusing():
            self._check(request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                raise Refused("INVALID_ARGUMENT", f"Metadata field {request.metadata_field} is not supported")
            return self._servable.metadata()

    def _check(self, spec):
        self._servable.check(spec.name, spec.version.value if spec.HasField("version") else None)


@contextlib.contextmanager
def _aborting(context):
    try:
        yield
    except Refused as refused:
        context.abort(grpc.StatusCode[refused.code], str(refused))


def _tensor(name, proto) -> tf.Tensor:
    try:
        return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))
    except (TypeError, tf.errors.InvalidArgumentError) as error:
        raise Refused("INVALID_ARGUMENT", f"tensor parsing error: {name}") from error


def _proto(array) -> TensorProto:
    dtype = tf.as_dtype(array.dtype)
    field = "string_val" if dtype == tf.string else FIELDS.get(dtype.name, "int_val")
    shape = tf.TensorShape(array.shape).as_proto()
    return TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape, **{field: array.ravel()})


# Over REST


class Rest(http.server.BaseHTTPRequestHandler):
    """The paths under `/v1/models`. A subclass knows the model."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds for a body that doesn't come
    servable: Servable

    def do_GET(self):
        self._answer(lambda verb: self._metadata() if verb else self._status())

    def do_POST(self):
        self._answer(
            lambda verb: predict_json(self.servable, self.rfile.read(int(self.headers["Content-Length"])))
        )

    def _answer(self, answer):
        status = 200
        try:
            with refusing():
                found = PATH.fullmatch(self.path)
                if found is None or (self.command == "POST") != ((found[3] or "").lower() == ":predict"):
                    raise Refused("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path}")
                self.servable.check(found[1], found[2] and int(found[2]))
                told = answer(found[3])
        except Refused as refused:
            status, told = HTTP_STATUS.get(refused.code, 500), {"error": str(refused)}
            self.close_connection = True  # the body may not have been read
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _metadata(self):
        told = json_format.MessageToDict(self.servable.metadata(), preserving_proto_field_name=True)
        del told["metadata"]["signature_def"]["@type"]
        return told

    def _status(self):
        fine = {"error_code": "OK", "error_message": ""}
        version = {"version": str(self.servable.version), "state": "AVAILABLE", "status": fine}
        return {"model_version_status": [version]}

    def log_message(self, *_):
        """Keep silent."""


def predict_json(servable: Servable, body: bytes) -> dict:
    """Answer the body of a predict request: columns with `outputs`, rows with `predictions`."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise Refused("INVALID_ARGUMENT", f"JSON Value: {request!r:.80} Is not object")
    name = request.get("signature_name", DEFAULT)
    if not isinstance(name, str) or name not in servable.signatures:
        raise Refused("INVALID_ARGUMENT", f'Serving signature name: "{name}" not found in signature def')
    as_rows = "instances" in request
    if as_rows == ("inputs" in request):
        raise Refused("INVALID_ARGUMENT", "Expecting one of 'inputs' or 'instances' keys to exist")
    about = servable.signatures[name]
    given = columns(about, request["instances"]) if as_rows else request["inputs"]
    answer = servable.predict(name, from_json(about, given))
    if as_rows:
        return {"predictions": rows(answer)}
    told = {name: _as_json(name, array) for name, array in answer.items()}
    return {"outputs": told if len(told) > 1 else next(iter(told.values()))}


def _is_bytes(value) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def columns(about: SignatureDef, instances) -> dict:
    """Return `instances`, a value or an object for each row, as one value for each input."""
    if not isinstance(instances, list) or not instances:
        raise Refused("INVALID_ARGUMENT", "Expecting 'instances' to be a list of at least one value")
    names = set(about.inputs)
    are_objects = [isinstance(each, dict) and not _is_bytes(each) for each in instances]
    if len(names) == 1 and not any(are_objects):
        return dict.fromkeys(names, instances)
    if not all(are_objects) or any(set(each) != names for each in instances):
        raise Refused("INVALID_ARGUMENT", f"Each of 'instances' must be an object of keys: {sorted(names)}")
    return {name: [each[name] for each in instances] for name in names}


def from_json(about: SignatureDef, given) -> dict:
    """Return `{name: tensor}`, of the types that the signature wants."""
    if not isinstance(given, dict) or _is_bytes(given):
        if len(about.inputs) > 1:
            raise Refused("INVALID_ARGUMENT", f"'inputs' must be an object of keys: {sorted(about.inputs)}")
        given = dict.fromkeys(about.inputs, given)
    missing = sorted(set(about.inputs) - set(given))
    if missing:
        raise Refused("INVALID_ARGUMENT", f"Missing named input: {missing} in 'inputs' object")
    try:
        return {name: _parsed(given[name], tf.as_dtype(info.dtype)) for name, info in about.inputs.items()}
    except (TypeError, ValueError, RecursionError) as error:
        raise Refused("INVALID_ARGUMENT", f"JSON Value: {error}") from error


def _parsed(value, dtype) -> tf.Tensor:
    if dtype == tf.string:
        return tf.constant(_strings(value), tf.string)
    array = np.asarray(value)
    kinds = "iuf" if dtype.is_floating else "b" if dtype == tf.bool else "iu"
    if array.size and array.dtype.kind not in kinds:
        raise TypeError(f"{value!r:.80} is not of expected type: {dtype.name}")
    if array.size and dtype.is_integer and not dtype.min <= array.min() <= array.max() <= dtype.max:
        raise ValueError(f"{value!r:.80} is out of the range of {dtype.name}")
    return tf.constant(array.astype(dtype.as_numpy_dtype))


def _strings(value):
    if isinstance(value, list):
        return [_strings(each) for each in value]
    if _is_bytes(value):
        return base64.b64decode(value["b64"], validate=True)
    if isinstance(value, str):
        return value.encode()
    raise TypeError(f"{value!r:.80} is not of expected type: string")


def _as_json(name, array):
    """Return an output as JSON: text as it is, and bytes, which only the name tells, in base64."""
    if array.dtype != object:
        return array.tolist()
    if name.endswith("_bytes"):
        values = [{"b64": base64.b64encode(each).decode()} for each in array.ravel()]
    else:
        values = [each.decode() for each in array.ravel()]
    return np.array(values, object).reshape(array.shape).tolist()


def rows(answer: dict) -> list:
    """Return a value for each row, or an object where there are several outputs."""
    counts = {len(array) if array.ndim else 0 for array in answer.values()}
    if len(counts) > 1 or 0 in counts:
        raise Refused(
            "INVALID_ARGUMENT", f"Outputs have invalid or inconsistent batch sizes: {sorted(counts)}"
        )
    told = {name: _as_json(name, array) for name, array in answer.items()}
    if len(told) == 1:
        return next(iter(told.values()))
    return [dict(zip(told, row, strict=True)) for row in zip(*told.values(), strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "folder", type=pathlib.Path, help="the model's folder, with its versions; its name is the model's"
    )
    parser.add_argument("--port", type=int, default=0, help="for gRPC (default: one that is free)")
    parser.add_argument("--rest-api-port", type=int, default=0, help="for REST (default: one that is free)")
    arguments = parser.parse_args()
    servable = Servable(arguments.folder)
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(8), options=unlimited)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(servable), server)
    port = server.add_insecure_port(f"localhost:{arguments.port}")
    server.start()
    handler = type("Handler", (Rest,), {"servable": servable})
    rest = http.server.ThreadingHTTPServer(("localhost", arguments.rest_api_port), handler)
    print(json.dumps({"port": port, "rest_api_port": rest.server_port}), flush=True)
    rest.serve_forever()


if __name__ == "__main__":
    main()
