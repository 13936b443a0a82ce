// The settings of config.json that GGUF has for every architecture.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "converter/huggingface/checkpoint_config.h"
#include "services/core/formats/gguf.h"

namespace odmoe {

// Sets keys below an architecture's name, each in the type the reference converter gives it. Absent
// values set nothing.
class KeyWriter {
 public:
  // Refers to `metadata`.
  KeyWriter(absl::string_view architecture, GgufMetadata& metadata)
      : architecture_(architecture), metadata_(metadata) {}

  void Int(absl::string_view key, std::optional<int64_t> value);
  void Float(absl::string_view key, std::optional<double> value);
  void Bool(absl::string_view key, bool value);
  void Text(absl::string_view key, std::string value);
  void FileType(uint32_t file_type);  // general.file_type, which stands among them

 private:
  void Set(absl::string_view key, GgufValue value);

  const std::string architecture_;
  GgufMetadata& metadata_;
};

// Sets sizes, attention, rope and routing, and the file type after them, in the order the reference
// converter does. Zero counts are left out.
void AddConfigKeys(const CheckpointConfig& config, uint32_t file_type, KeyWriter& keys);

}  // namespace odmoe
