// Fields that metadata.json and registry.json have in common.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/formats/json.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

inline constexpr char kModelFormatName[] = "odmoe-model";
inline constexpr int64_t kModelFormatVersion = 1;
inline constexpr int64_t kMaxModelLayers = 1 << 16;

// GGUF order to row-major and back.
std::vector<int64_t> ReversedShape(const std::vector<int64_t>& shape);
// Letters, digits and a few signs, so that it can stand in JSON and in a path as it is.
bool IsPlainName(absl::string_view name);

// DATA_LOSS, all of them: the member is missing or is something else.
absl::StatusOr<std::vector<int64_t>> ReadShape(const JsonObject& object);
absl::StatusOr<DType> ReadDType(const JsonObject& object);
absl::StatusOr<std::string> ReadModelDigest(const JsonObject& object);
absl::StatusOr<uint64_t> ReadXxh3(const JsonObject& object);
absl::Status CheckModelVersion(const JsonObject& object);

}  // namespace odmoe
