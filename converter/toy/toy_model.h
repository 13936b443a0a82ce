// Toy models: random weights in the structure of Kimi-K2, for tests and for trying things out.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "converter/quantize/outtype.h"
#include "services/core/base/cancellation.h"
#include "services/core/io/file.h"

namespace odmoe {

// What to make. The same options give the same bytes, on every machine.
struct ToyOptions {
  int32_t layers = 2;      // all of them; the first is dense, so at least 2
  int32_t experts = 4;     // a layer's, besides one shared
  int32_t top_k = 2;       // experts a token uses, at most `experts`
  int32_t dim = 64;        // width of the hidden state
  int32_t ffn_dim = 128;   // width of an expert; the dense layer's is four times that
  uint64_t seed = 0;
  OutType outtype = OutType::kF32;
  const Cancellation* cancellation = nullptr;  // may be null
};

// Writes a deepseek2 GGUF file: latent attention with a query rank, sigmoid routing with a
// selection bias, YaRN, and a byte-level vocabulary that has a token for every byte.
// INVALID_ARGUMENT: an option is out of range (at most 1024 layers, 4096 experts, widths of 65536),
// or outtype is kAuto. CANCELLED: as asked, within a row of weights. Otherwise the file system's
// error. Nothing is left behind where it fails.
absl::Status WriteToyModel(const ToyOptions& options, const std::string& path,
                           FileSystem& fs = PosixFileSystem());

}  // namespace odmoe
