// What is in a model file: a GGUF file, a safetensors file, a Hugging Face directory or a model
// directory, in one structure that prints as text and as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/core/io/file.h"

namespace odmoe {

struct InspectedKey {
  std::string key;
  std::string type;    // "u32", "string"; of an array's elements; "json" for what has no such type
  bool is_array = false;
  size_t count = 1;    // elements
  std::string json;    // the value
  std::string brief;   // the value, a long array or text shortened
};

struct InspectedTensor {
  std::string name;
  std::string format;          // "q8_0", "BF16"
  std::vector<int64_t> shape;  // row-major, outermost dimension first
  uint64_t bytes = 0;
  std::string file;            // inside a directory; else empty
};

// The routed experts of one layer.
struct InspectedExperts {
  int32_t layer = 0;
  int32_t count = 0;
  std::string format;          // "bf16", or "q4_K, q6_K, q4_K" for gate, down, up
  int64_t dim = 0;
  int64_t ffn = 0;
  uint64_t expert_bytes = 0;   // of one
};

struct Inspection {
  std::string path;
  std::string kind;            // "gguf", "safetensors", "hugging face directory", "model directory"
  std::string architecture;    // "" where nothing tells
  uint64_t tensor_bytes = 0;   // all tensors, experts too
  uint64_t parameter_count = 0;
  std::vector<InspectedKey> keys;
  std::vector<InspectedTensor> tensors;   // a model directory's experts are not listed one by one
  std::vector<InspectedExperts> experts;  // by layer; empty where the file has no routed experts

  uint64_t expert_bytes() const;
};

// Reads headers only. NOT_FOUND: nothing there. INVALID_ARGUMENT: none of the four kinds.
// DATA_LOSS: damaged.
absl::StatusOr<Inspection> InspectModel(const std::string& path,
                                        FileSystem& fs = PosixFileSystem());

// For people: a summary, the keys, the tensors.
std::string InspectionText(const Inspection& inspection);

// For programs: {"path","kind","architecture","tensor_bytes","parameter_count","metadata":{..},
// "tensors":[..],"experts":[..]}, ending with a newline.
std::string InspectionJson(const Inspection& inspection);

}  // namespace odmoe
