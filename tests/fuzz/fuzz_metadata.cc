// metadata.json: what is accepted can be written and read again, and says the same.
#include <string>

#include "services/core/formats/model_index.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto index = ParseModelIndex(text, "input");
  if (!index.ok()) return 0;
  for (const IndexedTensor& tensor : index->tensors) {
    Require(tensor.file.find('/') == std::string::npos, "an accepted file leads out");
    Require(tensor.file.empty() == (tensor.expert_layer >= 0), "a tensor in two places or none");
  }
  const auto once = EncodeModelIndex(*index);
  Require(once.ok(), "an accepted index cannot be written");
  const auto again = ParseModelIndex(*once, "again");
  Require(again.ok(), "an accepted index cannot be read again");
  const auto twice = EncodeModelIndex(*again);
  Require(twice.ok() && *twice == *once, "an accepted index came back changed");
  return 0;
}
