// The C++ header that BitNet's runtime is compiled with: kernels for given matrix shapes.
#pragma once

#include <string>

#include "converter/bitnet/kernel_shape.h"

namespace odmoe {

// bitnet-lut-kernels.h for config's shapes: what src/ggml-bitnet-lut.cpp of bitnet.cpp includes,
// its functions under the names and with the arguments that include/ggml-bitnet.h declares. The
// kernels are ours, plain C++ without intrinsics, and read weights as EncodeTiles writes them:
// right on every machine, and not the fastest. A comment names the tilings (KernelHash).
std::string MakeKernelHeader(const KernelConfig& config);

}  // namespace odmoe
