// A model in GGUF: one file, or the shards of a split one, seen as one.
//
// Shards are named <prefix>-00001-of-0000N.gguf. Each says which it is (split.no, from 0;
// split.count; split.tensors.count of all shards together); the first has all other keys.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/formats/gguf_reader.h"
#include "services/core/io/file.h"

namespace odmoe {

inline constexpr char kGgufSplitNumberKey[] = "split.no";
inline constexpr char kGgufSplitCountKey[] = "split.count";
inline constexpr char kGgufSplitTensorsKey[] = "split.tensors.count";
// More than any model has; a bound on the files a hostile name can make us open.
inline constexpr uint32_t kMaxGgufShards = 4096;

// A shard's name taken apart. `number` counts from 1, as in the name.
struct GgufShardName {
  std::string prefix;
  uint32_t number = 0;
  uint32_t count = 0;

  std::string path() const;  // "<prefix>-00001-of-00003.gguf"
};
// None: not a shard's name.
std::optional<GgufShardName> ParseGgufShardName(absl::string_view path);

// Immutable, thread-safe.
class GgufModel {
 public:
  // Opens the file, or where it is a shard, any of them, the whole set beside it.
  // NOT_FOUND: no such file, or a shard is missing. INVALID_ARGUMENT: not a GGUF file, or a shard
  // whose name does not tell the others'. DATA_LOSS: damaged, or shards that contradict their names
  // or each other.
  static absl::StatusOr<std::unique_ptr<GgufModel>> Open(FileSystem& fs, const std::string& path);
  // The same of one file that is open already.
  static absl::StatusOr<std::unique_ptr<GgufModel>> Open(FileSystem& fs,
                                                         std::unique_ptr<RandomAccessFile> file);

  // The path given to Open.
  const std::string& path() const { return path_; }
  const std::vector<std::unique_ptr<GgufReader>>& shards() const { return shards_; }
  // The first shard's keys; of a model in several shards, without the three above, as if it had
  // never been split.
  const GgufMetadata& metadata() const { return metadata_; }
  uint32_t version() const { return shards_[0]->version(); }
  uint32_t alignment() const { return shards_[0]->alignment(); }
  // Of all shards, in order. Their offsets are those in their own shards.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  // Null: no such tensor.
  const GgufTensor* Find(absl::string_view name) const;

  // Where a tensor's bytes lie: its shard's file, and the offset from that file's first byte.
  struct Place {
    const RandomAccessFile* file = nullptr;
    uint64_t offset = 0;
  };
  // `tensor` is one of tensors().
  Place PlaceOf(const GgufTensor& tensor) const;
  // Bytes [offset, offset + out.size()) of a tensor's data. OUT_OF_RANGE: past its end.
  absl::Status ReadTensor(const GgufTensor& tensor, uint64_t offset,
                          absl::Span<std::byte> out) const;

  // Bytes of all headers, padding included.
  uint64_t header_bytes() const;
  // The size of the model as one file: the file's own, or of shards, of a file with all their
  // tensors.
  absl::StatusOr<uint64_t> MergedBytes() const;
  // What lies between and behind the tensors of a single file and is not zero; nothing for shards,
  // whose padding ends with them. INVALID_ARGUMENT: more of it than we keep (1 MiB).
  absl::StatusOr<std::vector<GgufPadding>> ReadPadding() const;

 private:
  GgufModel() = default;
  absl::Status OpenShards(FileSystem& fs, std::unique_ptr<GgufReader> given);
  absl::Status GatherTensors();

  std::string path_;
  std::vector<std::unique_ptr<GgufReader>> shards_;
  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
  std::vector<size_t> shard_of_;  // by tensor
  absl::flat_hash_map<std::string, size_t> by_name_;
};

}  // namespace odmoe
