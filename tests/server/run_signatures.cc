// Runs signatures of a SavedModel as TensorFlow Serving does: with the C++ loader, and by their names alone.
//
//     run_signatures DIR < REQUESTS
//
// A request is a line "SIGNATURE OUT NAME=FILE...". Each FILE holds a serialized TensorProto, and each output is
// written as one to OUT/NAME.pb. A request is answered by a line: "OK" and the seconds that the model took, or
// "CODE: message". The exit status is 1 where the model can't be loaded.

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"

namespace {

using Names = std::vector<std::string>;
using Feeds = std::vector<std::pair<std::string, tensorflow::Tensor>>;

absl::StatusOr<tensorflow::Tensor> Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  tensorflow::TensorProto proto;
  tensorflow::Tensor tensor;
  if (!file || !proto.ParseFromString(bytes) || !tensor.FromProto(proto)) {
    return absl::NotFoundError("no TensorProto in " + path);
  }
  return tensor;
}

absl::Status Write(const tensorflow::Tensor& tensor, const std::string& path) {
  tensorflow::TensorProto proto;
  tensor.AsProtoField(&proto);
  std::ofstream file(path, std::ios::binary);
  file << proto.SerializeAsString();
  return file.flush() ? absl::OkStatus() : absl::NotFoundError("can't write " + path);
}

absl::StatusOr<Feeds> ReadInputs(const tensorflow::SignatureDef& signature, std::istream& given) {
  Feeds feeds;
  for (std::string each; given >> each;) {
    const size_t equals = each.find('=');
    const auto input = signature.inputs().find(each.substr(0, equals));
    if (equals == std::string::npos || input == signature.inputs().end()) {
      return absl::NotFoundError("no input " + each);
    }
    absl::StatusOr<tensorflow::Tensor> tensor = Read(each.substr(equals + 1));
    if (!tensor.ok()) return tensor.status();
    feeds.emplace_back(input->second.name(), *std::move(tensor));
  }
  return feeds;
}

// Returns the seconds that the model took.
absl::StatusOr<double> Answer(const tensorflow::SavedModelBundleLite& bundle, std::istream& request) {
  std::string name, out;
  request >> name >> out;
  const auto found = bundle.GetSignatures().find(name);
  if (found == bundle.GetSignatures().end()) return absl::NotFoundError("no signature " + name);
  const absl::StatusOr<Feeds> feeds = ReadInputs(found->second, request);
  if (!feeds.ok()) return feeds.status();

  Names outputs, fetches;
  for (const auto& [output, tensor] : found->second.outputs()) {
    outputs.push_back(output);
    fetches.push_back(tensor.name());
  }
  std::vector<tensorflow::Tensor> answers;
  const auto start = std::chrono::steady_clock::now();
  absl::Status status = bundle.GetSession()->Run(*feeds, fetches, {}, &answers);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  for (size_t i = 0; status.ok() && i < answers.size(); ++i) {
    status = Write(answers[i], out + "/" + outputs[i] + ".pb");
  }
  if (!status.ok()) return status;
  return taken.count();
}

}  // namespace

int main(int argc, char* argv[]) {
  tensorflow::SavedModelBundleLite bundle;
  const std::string directory = argc > 1 ? argv[1] : "";
  const absl::Status loaded = tensorflow::LoadSavedModel({}, {}, directory, {"serve"}, &bundle);
  if (!loaded.ok()) {
    std::cout << loaded.ToString() << std::endl;
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream request(line);
    const absl::StatusOr<double> seconds = Answer(bundle, request);
    std::string told = seconds.ok() ? "OK " + std::to_string(*seconds) : seconds.status().ToString();
    std::replace(told.begin(), told.end(), '\n', ' ');
    std::cout << told << std::endl;
  }
}
