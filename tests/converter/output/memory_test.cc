// Conversions of models with as many tensors as Kimi-K2, in bounded memory.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "converter/convert.h"
#include "converter/split/split.h"
#include "services/core/base/cancellation.h"
#include "services/core/base/process_memory.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_writer.h"
#include "tests/support/sanitized.h"
#include "tests/support/temporary_directory.h"

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

// Reads what is on the disk, and writes nothing.
class DiscardingFileSystem : public FileSystem {
 public:
  uint64_t bytes() const { return bytes_; }
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(const std::string& path) override {
    return PosixFileSystem().OpenForRead(path);
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
  absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) override {
    return PosixFileSystem().ListDirectory(path).value_or(std::vector<std::string>());
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
  header.tensors.push_back(
      {.name = "token_embd.weight", .dtype = DType::kF32, .ne = {7168, 16384}});
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

// Kimi-K2's weights by name and shape, in one sparse file on the disk: 70,000 of them, 2 TB, all
// zeros.
class SparseCheckpoint {
 public:
  SparseCheckpoint() {
    Add("model.embed_tokens.weight", {163840, kDim});
    Add("model.norm.weight", {kDim});
    Add("lm_head.weight", {163840, kDim});
    for (int layer = 0; layer < kLayers; ++layer)
      AddLayer(absl::StrCat("model.layers.", layer, "."));
    header_ += "}";
    header_.resize(RoundUp(header_.size(), 8), ' ');
    std::string file(8, '\0');
    const uint64_t header_bytes = header_.size();
    std::memcpy(file.data(), &header_bytes, sizeof(header_bytes));
    WriteFileOrDie(folder_ / "model.safetensors", file + header_);
    std::filesystem::resize_file(folder_ / "model.safetensors", 8 + header_bytes + data_bytes_);
    WriteFileOrDie(folder_ / "config.json", kConfig);
    WriteFileOrDie(folder_ / "tiktoken.model", "YQ== 0\nYg== 1\nYWI= 2\n");
  }

  const std::string& path() const { return folder_.path(); }
  uint64_t data_bytes() const { return data_bytes_; }

 private:
  static constexpr int64_t kDim = 7168, kFfn = 2048, kDenseFfn = 18432;
  static constexpr char kConfig[] = R"({"architectures": ["DeepseekV3ForCausalLM"],
      "vocab_size": 163840, "hidden_size": 7168, "intermediate_size": 18432,
      "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 64,
      "num_key_value_heads": 64, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
      "rope_theta": 50000.0, "hidden_act": "silu", "tie_word_embeddings": false,
      "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
      "v_head_dim": 128, "n_routed_experts": 384, "num_experts_per_tok": 8, "n_shared_experts": 1,
      "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_group": 1, "topk_group": 1,
      "routed_scaling_factor": 2.827, "norm_topk_prob": true, "scoring_func": "sigmoid",
      "topk_method": "noaux_tc"})";

  void Add(const std::string& name, const std::vector<int64_t>& shape) {
    uint64_t bytes = 2;
    for (const int64_t size : shape) bytes *= static_cast<uint64_t>(size);
    absl::StrAppend(&header_, header_.empty() ? "{" : ",", "\"", name,
                    R"(":{"dtype":"BF16","shape":[)", absl::StrJoin(shape, ","),
                    R"(],"data_offsets":[)", data_bytes_, ",", data_bytes_ + bytes, "]}");
    data_bytes_ += bytes;
  }
  void AddMlp(const std::string& prefix, int64_t ffn) {
    Add(prefix + "gate_proj.weight", {ffn, kDim});
    Add(prefix + "up_proj.weight", {ffn, kDim});
    Add(prefix + "down_proj.weight", {kDim, ffn});
  }
  void AddLayer(const std::string& prefix) {
    const std::string attention = prefix + "self_attn.", mlp = prefix + "mlp.";
    Add(prefix + "input_layernorm.weight", {kDim});
    Add(prefix + "post_attention_layernorm.weight", {kDim});
    Add(attention + "q_a_proj.weight", {1536, kDim});
    Add(attention + "q_a_layernorm.weight", {1536});
    Add(attention + "q_b_proj.weight", {64 * 192, 1536});
    Add(attention + "kv_a_proj_with_mqa.weight", {576, kDim});
    Add(attention + "kv_a_layernorm.weight", {512});
    Add(attention + "kv_b_proj.weight", {64 * 256, 512});
    Add(attention + "o_proj.weight", {kDim, 64 * 128});
    if (prefix == "model.layers.0.") return AddMlp(mlp, kDenseFfn);
    Add(mlp + "gate.weight", {kExperts, kDim});
    Add(mlp + "gate.e_score_correction_bias", {kExperts});
    AddMlp(mlp + "shared_experts.", kFfn);
    for (int e = 0; e < kExperts; ++e) AddMlp(absl::StrCat(mlp, "experts.", e, "."), kFfn);
  }

  TemporaryDirectory folder_;
  std::string header_;
  uint64_t data_bytes_ = 0;
};

TEST(CheckpointMemoryTest, StaysBelow512MiBWithKimisShape) {
  // Its memory would count too, and it takes 20 to 60 s.
  if (kSanitized) GTEST_SKIP() << "no measure under a sanitizer; the release build runs it";
  const SparseCheckpoint checkpoint;
  ASSERT_GT(checkpoint.data_bytes(), uint64_t{2'000'000'000'000});
  for (const std::string destination : {"model.gguf", "model"}) {
    DiscardingFileSystem fs;
    const auto plan = PlanConversion({.source = checkpoint.path(),
                                      .destination = destination,
                                      .outtype = "q8_0",
                                      .concurrency = 4,
                                      .file_system = &fs});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_GT(plan->disk_bytes, uint64_t{1'000'000'000'000});
    Cancellation cancellation;
    const absl::Status stopped =
        RunConversion(*plan, &cancellation, [&](const ConvertProgress& progress) {
          if (progress.done_bytes > 32 * kMiB) cancellation.Cancel();
        });
    EXPECT_EQ(stopped.code(), absl::StatusCode::kCancelled) << stopped;
    EXPECT_GT(fs.bytes(), 32 * kMiB);
  }
  EXPECT_LT(PeakRssBytes(), 512 * kMiB);
}

}  // namespace
}  // namespace odmoe
