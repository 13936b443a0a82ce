// kernel_config.ini comes from whoever tuned it, and tiles from whoever wrote the file: an .ini, a
// zero byte, tiles of its first shape. Whatever they hold, they are read or refused.
#include <algorithm>
#include <vector>

#include "absl/strings/string_view.h"
#include "converter/bitnet/kernel_shape.h"
#include "converter/bitnet/tiles.h"
#include "services/core/tensor/i2_s.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  constexpr int64_t kMostWeights = 1 << 20;
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(text.find('\0'), size);
  const absl::string_view bytes = text.substr(std::min(end + 1, size));
  const auto tiles =
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
  for (const DType dtype : {DType::kTL1, DType::kTL2}) {
    const auto config = ParseKernelIni(dtype, text.substr(0, end), "kernels.ini");
    if (!config.ok()) continue;
    const auto again = ParseKernelIni(dtype, EncodeKernelIni(*config), "again");
    Require(again.ok() && again->shapes == config->shapes, "an .ini does not come back");
    const KernelShape& shape = config->shapes[0];
    if (shape.columns > kMostWeights / shape.rows) continue;
    const auto codes = DecodeTiles(dtype, shape, tiles);
    if (!codes.ok()) continue;
    const auto encoded = EncodeTiles(dtype, shape, *codes);
    Require(encoded.ok(), "decoded weights are not encoded");
    Require(*DecodeTiles(dtype, shape, *encoded) == *codes, "weights do not come back");
  }
  std::vector<int8_t> row(tiles.size() / kI2_SBlockBytes * kI2_SBlock);
  if (DecodeI2_SRow(tiles.data(), absl::MakeSpan(row))) {
    std::vector<std::byte> encoded(row.size() / 4);
    EncodeI2_SRow(row, encoded.data());
    Require(std::equal(encoded.begin(), encoded.end(), tiles.begin()), "a row does not come back");
  }
  return 0;
}
