#include "services/core/formats/gguf_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/core/base/status_macros.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_writer.h"

namespace odmoe {
namespace {

constexpr uint64_t kMaxPaddingKept = kMiB;
// Bytes behind the last tensor. Writers pad to the alignment; a disk image may add some more.
constexpr uint64_t kMaxTrailingBytes = 16 * kMiB;

// What a file says of the set it belongs to.
struct SplitKeys {
  uint32_t number = 0;  // from 0
  uint32_t count = 1;
  std::optional<uint32_t> tensors;  // of all shards
};

absl::StatusOr<SplitKeys> ReadSplitKeys(const GgufReader& reader) {
  const GgufMetadata& metadata = reader.metadata();
  const auto read = [&]() -> absl::StatusOr<SplitKeys> {
    SplitKeys keys;
    ODMOE_ASSIGN_OR_RETURN(keys.count, metadata.GetU32Or(kGgufSplitCountKey, 1));
    ODMOE_ASSIGN_OR_RETURN(keys.number, metadata.GetU32Or(kGgufSplitNumberKey, 0));
    if (metadata.Find(kGgufSplitTensorsKey) != nullptr) {
      ODMOE_ASSIGN_OR_RETURN(keys.tensors, metadata.GetU32(kGgufSplitTensorsKey));
    }
    return keys;
  };
  auto keys = read();
  if (!keys.ok()) {
    return absl::DataLossError(absl::StrCat(reader.file().path(), ": ", keys.status().message()));
  }
  return keys;
}

absl::Status CheckShard(const GgufReader& reader, const GgufShardName& name,
                        const SplitKeys& first) {
  const std::string& path = reader.file().path();
  ODMOE_ASSIGN_OR_RETURN(const SplitKeys keys, ReadSplitKeys(reader));
  if (keys.number != name.number - 1 || keys.count != name.count) {
    return absl::DataLossError(absl::StrCat(
        path, ": its name says shard ", name.number, " of ", name.count, ", its keys split.no ",
        keys.number, " and split.count ", keys.count, ", expected ", name.number - 1, " and ",
        name.count));
  }
  if (keys.tensors && first.tensors && *keys.tensors != *first.tensors) {
    return absl::DataLossError(absl::StrCat(path, ": split.tensors.count is ", *keys.tensors,
                                            ", another shard says ", *first.tensors));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GgufReader>> OpenShard(FileSystem& fs, const GgufShardName& name) {
  auto file = fs.OpenForRead(name.path());
  if (absl::IsNotFound(file.status())) {
    return absl::NotFoundError(absl::StrCat("shard ", name.number, " of ", name.count,
                                            " is missing: ", name.path(),
                                            "; all shards must lie in one folder"));
  }
  ODMOE_RETURN_IF_ERROR(file.status());
  return GgufReader::Open(*std::move(file));
}

// Appends the bytes of [begin, end) from the first to the last that is not zero.
absl::Status AddPadding(const RandomAccessFile& file, uint64_t begin, uint64_t end,
                        std::vector<GgufPadding>& padding, uint64_t& kept) {
  if (begin >= end) return absl::OkStatus();
  if (end - begin > kMaxTrailingBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": ", end - begin, " bytes at offset ", begin,
        " belong to no tensor; at most ", kMaxTrailingBytes, " are carried along"));
  }
  std::string bytes(end - begin, '\0');
  ODMOE_RETURN_IF_ERROR(file.ReadAt(
      begin, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()), bytes.size())));
  const size_t first = bytes.find_first_not_of('\0');
  if (first == std::string::npos) return absl::OkStatus();
  const size_t last = bytes.find_last_not_of('\0');
  bytes = bytes.substr(first, last - first + 1);
  kept += bytes.size();
  if (kept > kMaxPaddingKept) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": at offset ", begin + first, ": more than ", kMaxPaddingKept,
        " bytes that are not zero belong to no tensor"));
  }
  padding.push_back({.offset = begin + first, .bytes = std::move(bytes)});
  return absl::OkStatus();
}

}  // namespace

std::string GgufShardName::path() const {
  return absl::StrFormat("%s-%05d-of-%05d.gguf", prefix, number, count);
}

std::optional<GgufShardName> ParseGgufShardName(absl::string_view path) {
  // "-00001-of-00003.gguf"
  constexpr size_t kSuffixBytes = 20, kDigits = 5;
  if (path.size() <= kSuffixBytes) return std::nullopt;
  const absl::string_view suffix = path.substr(path.size() - kSuffixBytes);
  const absl::string_view number = suffix.substr(1, kDigits), count = suffix.substr(10, kDigits);
  const auto digits = [](absl::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); });
  };
  if (suffix[0] != '-' || suffix.substr(6, 4) != "-of-" || suffix.substr(15) != ".gguf" ||
      !digits(number) || !digits(count)) {
    return std::nullopt;
  }
  GgufShardName name;
  name.prefix = std::string(path.substr(0, path.size() - kSuffixBytes));
  if (!absl::SimpleAtoi(number, &name.number) || !absl::SimpleAtoi(count, &name.count)) {
    return std::nullopt;
  }
  return name;
}

absl::StatusOr<std::unique_ptr<GgufModel>> GgufModel::Open(FileSystem& fs,
                                                           const std::string& path) {
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<RandomAccessFile> file, fs.OpenForRead(path));
  return Open(fs, std::move(file));
}

absl::StatusOr<std::unique_ptr<GgufModel>> GgufModel::Open(FileSystem& fs,
                                                           std::unique_ptr<RandomAccessFile> file) {
  std::unique_ptr<GgufModel> model(new GgufModel);
  model->path_ = file->path();
  ODMOE_ASSIGN_OR_RETURN(std::unique_ptr<GgufReader> reader, GgufReader::Open(std::move(file)));
  ODMOE_ASSIGN_OR_RETURN(const SplitKeys keys, ReadSplitKeys(*reader));
  if (keys.count > 1) {
    ODMOE_RETURN_IF_ERROR(model->OpenShards(fs, std::move(reader)));
  } else {
    model->metadata_ = reader->metadata();
    model->shards_.push_back(std::move(reader));
  }
  ODMOE_RETURN_IF_ERROR(model->GatherTensors());
  return model;
}

absl::Status GgufModel::OpenShards(FileSystem& fs, std::unique_ptr<GgufReader> given) {
  ODMOE_ASSIGN_OR_RETURN(const SplitKeys keys, ReadSplitKeys(*given));
  const std::optional<GgufShardName> given_name = ParseGgufShardName(path_);
  if (!given_name) {
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": is shard ", uint64_t{keys.number} + 1, " of ", keys.count,
        " of a model, and the others cannot be found: the name should end in ",
        GgufShardName{"", keys.number + 1, keys.count}.path()));
  }
  if (keys.count > kMaxGgufShards) {
    return absl::DataLossError(absl::StrCat(path_, ": split.count is ", keys.count, ", at most ",
                                            kMaxGgufShards, " shards are read"));
  }
  ODMOE_RETURN_IF_ERROR(CheckShard(*given, *given_name, keys));
  uint64_t header_bytes = 0;
  for (uint32_t number = 1; number <= keys.count; ++number) {
    const GgufShardName name = {given_name->prefix, number, keys.count};
    std::unique_ptr<GgufReader> reader;
    if (number == given_name->number) {
      reader = std::move(given);
    } else {
      ODMOE_ASSIGN_OR_RETURN(reader, OpenShard(fs, name));
      ODMOE_RETURN_IF_ERROR(CheckShard(*reader, name, keys));
    }
    header_bytes += reader->data_offset();
    if (header_bytes > 2 * kMaxGgufHeaderBytes) {
      return absl::DataLossError(absl::StrCat(reader->file().path(),
                                              ": the headers of the shards so far take ",
                                              header_bytes, " bytes, more than we read"));
    }
    shards_.push_back(std::move(reader));
  }
  for (const auto& [key, value] : shards_[0]->metadata().entries()) {
    if (key == kGgufSplitNumberKey || key == kGgufSplitCountKey || key == kGgufSplitTensorsKey) {
      continue;
    }
    metadata_.Append(key, value);
  }
  return absl::OkStatus();
}

absl::Status GgufModel::GatherTensors() {
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    for (const GgufTensor& tensor : shards_[shard]->tensors()) {
      if (!by_name_.emplace(tensor.name, tensors_.size()).second) {
        return absl::DataLossError(absl::StrCat(shards_[shard]->file().path(), ": tensor '",
                                                tensor.name, "' is in another shard too"));
      }
      tensors_.push_back(tensor);
      shard_of_.push_back(shard);
    }
  }
  ODMOE_ASSIGN_OR_RETURN(const SplitKeys keys, ReadSplitKeys(*shards_[0]));
  if (shards_.size() > 1 && keys.tensors && *keys.tensors != tensors_.size()) {
    return absl::DataLossError(absl::StrCat(shards_[0]->file().path(), ": split.tensors.count is ",
                                            *keys.tensors, ", the ", shards_.size(),
                                            " shards have ", tensors_.size(), " tensors"));
  }
  return absl::OkStatus();
}

const GgufTensor* GgufModel::Find(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

GgufModel::Place GgufModel::PlaceOf(const GgufTensor& tensor) const {
  const GgufReader& shard = *shards_[shard_of_[by_name_.at(tensor.name)]];
  return {&shard.file(), shard.data_offset() + tensor.offset};
}

absl::Status GgufModel::ReadTensor(const GgufTensor& tensor, uint64_t offset,
                                   absl::Span<std::byte> out) const {
  return shards_[shard_of_[by_name_.at(tensor.name)]]->ReadTensor(tensor, offset, out);
}

uint64_t GgufModel::header_bytes() const {
  uint64_t bytes = 0;
  for (const auto& shard : shards_) bytes += shard->data_offset();
  return bytes;
}

absl::StatusOr<uint64_t> GgufModel::MergedBytes() const {
  if (shards_.size() == 1) return shards_[0]->file().size();
  GgufHeader header{.metadata = metadata_, .tensors = tensors_, .version = version()};
  ODMOE_RETURN_IF_ERROR(LayOutGgufTensors(header));
  ODMOE_ASSIGN_OR_RETURN(const std::string text, EncodeGgufHeader(header));
  if (header.tensors.empty()) return text.size();
  const GgufTensor& last = header.tensors.back();
  return text.size() + RoundUp(last.offset + last.bytes, alignment());
}

absl::StatusOr<std::vector<GgufPadding>> GgufModel::ReadPadding() const {
  std::vector<GgufPadding> padding;
  if (shards_.size() > 1) return padding;
  const GgufReader& reader = *shards_[0];
  const RandomAccessFile& file = reader.file();
  uint64_t end = reader.header_bytes(), kept = 0;
  for (const GgufTensor& tensor : reader.tensors()) {
    const uint64_t begin = reader.data_offset() + tensor.offset;
    ODMOE_RETURN_IF_ERROR(AddPadding(file, end, begin, padding, kept));
    end = begin + tensor.bytes;
  }
  ODMOE_RETURN_IF_ERROR(AddPadding(file, end, file.size(), padding, kept));
  return padding;
}

}  // namespace odmoe
