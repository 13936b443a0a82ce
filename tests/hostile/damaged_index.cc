#include "tests/hostile/damaged_files.h"
#include "tests/support/status_codes.h"

namespace odmoe {
namespace {

constexpr auto kNotFound = absl::StatusCode::kNotFound;

// The good one is {"weight_map":{"a":"part-1.safetensors","b":"part-2.safetensors"}}.
std::string Map(const std::string& entries) { return "{\"weight_map\":{" + entries + "}}"; }

const std::string kA = "\"a\":\"part-1.safetensors\"";
const std::string kB = "\"b\":\"part-2.safetensors\"";

}  // namespace

std::vector<DamagedFile> DamagedIndexes() {
  const std::string both = kA + "," + kB;
  constexpr char kInFolder[] = "a safetensors file in this folder";
  return {
      {"Empty", "", kInvalid, "JSON"},
      {"AnArray", "[]", kLoss, "should be an object"},
      {"NoMap", "{}", kLoss, "'weight_map'"},
      {"MapNotAnObject", "{\"weight_map\":[]}", kLoss, "'weight_map'"},
      {"Deep", std::string(1000, '['), kInvalid, "levels"},
      {"NameTwice", Map(kA + ",\"a\":\"part-2.safetensors\""), kInvalid, "there twice"},
      {"LeadsUp", Map(both + ",\"c\":\"../part-1.safetensors\""), kInvalid, kInFolder},
      {"LeadsUpFromWithin", Map(both + ",\"c\":\"x/../../part-1.safetensors\""), kInvalid,
       kInFolder},
      {"IsAbsolute", Map(both + ",\"c\":\"/etc/passwd\""), kInvalid, kInFolder},
      {"HasANul", Map(both + ",\"c\":\"part-1.safetensors\\u0000.safetensors\""), kInvalid,
       kInFolder},
      {"NotAString", Map(both + ",\"c\":7"), kInvalid, kInFolder},
      {"APickle", Map(both + ",\"c\":\"pytorch_model.bin\""), kInvalid, kInFolder},
      {"ShardMissing", Map(both + ",\"c\":\"part-3.safetensors\""), kNotFound,
       "part-3.safetensors"},
      {"TensorMissing", Map(both + ",\"c\":\"part-1.safetensors\""), kLoss, "'c' is missing"},
      {"TensorElsewhere", Map("\"a\":\"part-2.safetensors\",\"b\":\"part-1.safetensors\""), kLoss,
       "says it is in"},
      {"TensorNotListed", Map(kA + ",\"x\":\"part-2.safetensors\""), kLoss, "does not know it"},
  };
}

}  // namespace odmoe
