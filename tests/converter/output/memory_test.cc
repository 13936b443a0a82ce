// A split of a model with as many experts as Kimi-K2, in bounded memory.
#include <algorithm>
#include <atomic>
#include <cstring>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "converter/split/split.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_writer.h"

namespace odmoe {
namespace {

constexpr int kLayers = 61;  // the first is dense
constexpr int kExperts = 384;

// A GGUF file of which only the header is there; the weights are a hole.
class SparseGguf : public RandomAccessFile {
 public:
  explicit SparseGguf(const GgufHeader& header)
      : header_(EncodeGgufHeader(header).value()),
        size_(header_.size() + header.tensors.back().offset + header.tensors.back().bytes) {}

  absl::Status ReadAt(uint64_t offset, absl::Span<std::byte> out) const override {
    std::fill(out.begin(), out.end(), std::byte{0});
    if (offset < header_.size()) {
      std::memcpy(out.data(), header_.data() + offset,
                  std::min<uint64_t>(out.size(), header_.size() - offset));
    }
    return absl::OkStatus();
  }
  uint64_t size() const override { return size_; }
  const std::string& path() const override { return path_; }

 private:
  const std::string header_;
  const uint64_t size_;
  const std::string path_ = "sparse.gguf";
};

// Takes everything and keeps nothing.
class DiscardedFile : public WritableFile {
 public:
  DiscardedFile(std::string path, std::atomic<uint64_t>& bytes)
      : path_(std::move(path)), bytes_(bytes) {}
  using WritableFile::Append;
  absl::Status Append(absl::Span<const std::byte> data) override { return WriteAt(0, data); }
  absl::Status WriteAt(uint64_t offset, absl::Span<const std::byte> data) override {
    bytes_ += data.size();
    return absl::OkStatus();
  }
  absl::Status Resize(uint64_t bytes) override { return absl::OkStatus(); }
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::Status Close() override { return absl::OkStatus(); }
  uint64_t offset() const override { return 0; }
  const std::string& path() const override { return path_; }

 private:
  const std::string path_;
  std::atomic<uint64_t>& bytes_;
};

class DiscardingFileSystem : public FileSystem {
 public:
  uint64_t bytes() const { return bytes_; }
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(const std::string& path) override {
    return absl::NotFoundError(path);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForWrite(const std::string& path) override {
    return std::make_unique<DiscardedFile>(path, bytes_);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> OpenForUpdate(const std::string& path) override {
    return OpenForWrite(path);
  }
  absl::Status Rename(const std::string&, const std::string&) override { return absl::OkStatus(); }
  absl::Status Remove(const std::string&) override { return absl::OkStatus(); }
  absl::Status SyncDirectory(const std::string&) override { return absl::OkStatus(); }
  absl::Status SyncFileSystem(const std::string&) override { return absl::OkStatus(); }
  absl::Status CreateDirectories(const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string&) override {
    return std::vector<std::string>();
  }
  absl::StatusOr<uint64_t> FreeBytes(const std::string&) override { return ~uint64_t{0}; }

 private:
  std::atomic<uint64_t> bytes_ = 0;
};

GgufHeader ManyExperts() {
  GgufHeader header;
  header.metadata.Set("general.architecture", GgufValue::String("deepseek2"));
  header.metadata.Set("deepseek2.expert_count", GgufValue::U32(kExperts));
  header.metadata.Set("deepseek2.leading_dense_block_count", GgufValue::U32(1));
  // Large ones too: a tensor must not be in memory as a whole.
  header.tensors.push_back({.name = "token_embd.weight", .dtype = DType::kF32, .ne = {7168, 16384}});
  header.tensors.push_back({.name = "blk.0.attn_norm.weight", .dtype = DType::kF32, .ne = {64}});
  for (int layer = 1; layer < kLayers; ++layer) {
    const std::string prefix = absl::StrCat("blk.", layer, ".ffn_");
    header.tensors.push_back(
        {.name = prefix + "gate_inp.weight", .dtype = DType::kF32, .ne = {64, kExperts}});
    for (const char* kind : {"gate", "up"}) {
      header.tensors.push_back({.name = absl::StrCat(prefix, kind, "_exps.weight"),
                                .dtype = DType::kF32, .ne = {64, 16, kExperts}});
    }
    header.tensors.push_back({.name = absl::StrCat(prefix, "down_exps.weight"),
                              .dtype = DType::kF32, .ne = {16, 64, kExperts}});
  }
  EXPECT_EQ(LayOutGgufTensors(header), absl::OkStatus());
  return header;
}

TEST(SplitMemoryTest, StaysBelow512MiBWithAsManyExpertsAsKimi) {
  const GgufHeader header = ManyExperts();
  DiscardingFileSystem fs;
  const auto model = GgufModel::Open(fs, std::make_unique<SparseGguf>(header));
  ASSERT_TRUE(model.ok()) << model.status();
  const auto split = PlanSplit(**model);
  ASSERT_TRUE(split.ok()) << split.status();
  StepProgress progress;
  ASSERT_EQ(SplitGguf(**model, *split, "model", fs, {.concurrency = 4}, progress),
            absl::OkStatus());
  EXPECT_GT(fs.bytes(), split->data_bytes);
  EXPECT_GT(split->data_bytes, 512 * kMiB);
  EXPECT_LT(PeakRssBytes(), 512 * kMiB);
}

}  // namespace
}  // namespace odmoe
