// GGUF: the single-file model format of the ggml family. Version 3 is written; 2 and 3 are read.
// Layout: magic, version, tensor count, key count, the keys, the tensor infos, padding, the data.
// Numbers are little-endian; a tensor's data starts at a multiple of general.alignment (default
// 32).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "services/core/tensor/dtype.h"

namespace odmoe {

enum class GgufType : int32_t {
  kU8 = 0, kI8 = 1, kU16 = 2, kI16 = 3, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7,
  kString = 8, kArray = 9, kU64 = 10, kI64 = 11, kF64 = 12,
};

// One typed value, or an array of them. Arrays do not nest.
struct GgufValue {
  // Integers and bool are held as 64 bits, by sign; `type` says how they are stored.
  using Scalar = std::variant<uint64_t, int64_t, double, std::string>;

  GgufType type = GgufType::kU32;          // of the value, or of an array's elements
  bool is_array = false;
  Scalar scalar = uint64_t{0};
  std::variant<std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>,
               std::vector<std::string>>
      array;

  static GgufValue U32(uint32_t v);
  static GgufValue I32(int32_t v);
  static GgufValue U64(uint64_t v);
  static GgufValue F32(float v);
  static GgufValue Bool(bool v);
  static GgufValue String(std::string v);
  static GgufValue Strings(std::vector<std::string> v);
  static GgufValue I32s(std::vector<int64_t> v);
  static GgufValue F32s(std::vector<double> v);

  // Elements of an array, 1 for a lone value.
  size_t size() const;

  // NaN differs from itself, as floats do.
  friend bool operator==(const GgufValue&, const GgufValue&) = default;
};

// Keys and values in file order, found by name. Not thread-safe while written.
class GgufMetadata {
 public:
  // Null: no such key.
  const GgufValue* Find(absl::string_view key) const;
  // Appends, or replaces in place.
  void Set(std::string key, GgufValue value);
  // Appends a key that is known to be new.
  void Append(std::string key, GgufValue value) {
    entries_.emplace_back(std::move(key), std::move(value));
  }
  const std::vector<std::pair<std::string, GgufValue>>& entries() const { return entries_; }

  // Typed reads. NOT_FOUND: no such key. INVALID_ARGUMENT: another type, or out of range.
  absl::StatusOr<uint32_t> GetU32(absl::string_view key) const;   // any integer type that fits
  absl::StatusOr<float> GetF32(absl::string_view key) const;      // f32 or f64
  absl::StatusOr<bool> GetBool(absl::string_view key) const;
  absl::StatusOr<std::string> GetString(absl::string_view key) const;
  absl::StatusOr<const std::vector<std::string>*> GetStrings(absl::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetInts(absl::string_view key) const;
  absl::StatusOr<std::vector<float>> GetFloats(absl::string_view key) const;
  // The value, or `fallback` where the key is absent; a wrong type is still an error.
  absl::StatusOr<uint32_t> GetU32Or(absl::string_view key, uint32_t fallback) const;
  absl::StatusOr<float> GetF32Or(absl::string_view key, float fallback) const;
  absl::StatusOr<bool> GetBoolOr(absl::string_view key, bool fallback) const;
  absl::StatusOr<std::string> GetStringOr(absl::string_view key, std::string fallback) const;

 private:
  std::vector<std::pair<std::string, GgufValue>> entries_;
};

// Limits we read by, beside those of the format (names below 64 bytes, four dimensions): more than
// any real model has, and small enough that a hostile header cannot make us allocate much.
inline constexpr uint64_t kMaxGgufHeaderBytes = uint64_t{64} << 20;
inline constexpr uint32_t kMaxGgufAlignment = uint32_t{1} << 16;
inline constexpr uint32_t kDefaultGgufAlignment = 32;
inline constexpr size_t kMaxGgufNameBytes = 63;
inline constexpr char kGgufAlignmentKey[] = "general.alignment";

// A tensor as GGUF names it: ne[0] is the contiguous dimension (a row's columns).
struct GgufTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> ne;   // 1 to 4 dimensions, innermost first
  uint64_t offset = 0;       // from the start of the data section
  uint64_t bytes = 0;

  int64_t columns() const { return ne.empty() ? 0 : ne[0]; }
  // Product of the other dimensions.
  int64_t rows() const;
};

// Bytes of a file that belong to no tensor and are not zero.
struct GgufPadding {
  uint64_t offset = 0;  // from the file's first byte
  std::string bytes;
};

// Bytes a tensor of this format and shape takes. INVALID_ARGUMENT: no or more than four dimensions,
// one below 1, rows that are not whole blocks, 2^63 bytes or more.
absl::StatusOr<uint64_t> GgufTensorBytes(DType dtype, const std::vector<int64_t>& ne);

// A float as the double that GgufValue holds, and back, bit for bit: a NaN keeps its payload, which
// the machine's own conversion does not promise.
double WidenF32(uint32_t bits);
uint32_t NarrowToF32Bits(double value);

// "u32", "string"; for messages and metadata.json.
absl::string_view GgufTypeName(GgufType type);
// INVALID_ARGUMENT: no such type.
absl::StatusOr<GgufType> FindGgufType(absl::string_view name);
// Bytes of one stored value; 0 for strings and arrays, whose length varies.
size_t GgufTypeBytes(GgufType type);

}  // namespace odmoe
