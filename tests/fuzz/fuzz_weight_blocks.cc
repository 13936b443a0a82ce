// Weights in any format: a byte that chooses it, then blocks of any bytes. They decode, within
// their bytes; what is finite is encoded again, and decodes again.
#include <algorithm>
#include <cmath>
#include <vector>

#include "converter/quantize/encode.h"
#include "services/core/tensor/check_values.h"
#include "services/core/tensor/convert.h"
#include "services/core/tensor/dtype.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  if (size == 0) return 0;
  const DTypeInfo& info = AllDTypes()[data[0] % AllDTypes().size()];
  const size_t blocks = std::min<size_t>((size - 1) / info.block_bytes, 64);
  // Copied, so that a read past the last block is seen.
  const auto* begin = reinterpret_cast<const std::byte*>(data) + 1;
  const std::vector<std::byte> bytes(begin, begin + blocks * info.block_bytes);
  std::vector<float> values(blocks * info.block_elements);
  FindNotFinite(info.dtype, bytes);
  if (!DecodeRow(info.dtype, bytes.data(), absl::MakeSpan(values)).ok()) {
    Require(!CanEncode(info.dtype), "a format is written that cannot be read");
    return 0;
  }
  if (!CanEncode(info.dtype) || blocks == 0) return 0;
  const bool finite = std::all_of(values.begin(), values.end(),
                                  [](float v) { return std::isfinite(v); });
  std::vector<float> importance(values.size());
  for (size_t i = 0; i < importance.size(); ++i) {
    importance[i] = static_cast<float>(data[1 + i % (size - 1)] / 3);
  }
  const auto columns = static_cast<int64_t>(values.size());
  std::vector<std::byte> again(bytes.size());
  for (const auto weights : {absl::Span<const float>(), absl::MakeConstSpan(importance)}) {
    const bool encoded = EncodeRows(info.dtype, values, columns, weights, again.data()).ok();
    Require(encoded == finite, "encoded what is not finite, or refused what is");
    if (!encoded) continue;
    std::vector<float> decoded(values.size());
    Require(DecodeRow(info.dtype, again.data(), absl::MakeSpan(decoded)).ok(), "does not decode");
  }
  return 0;
}
