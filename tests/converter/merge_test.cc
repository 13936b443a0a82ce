#include "converter/merge/merge.h"

#include <filesystem>
#include <ostream>
#include <random>
#include <tuple>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "converter/split/split.h"
#include "converter/toy/toy_model.h"
#include "services/core/formats/model_directory.h"
#include "tests/converter/gguf_maker.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

absl::Status Split(const std::string& gguf, const std::string& directory) {
  const auto model = GgufModel::Open(PosixFileSystem(), gguf);
  if (!model.ok()) return model.status();
  const auto plan = PlanSplit(**model);
  if (!plan.ok()) return plan.status();
  StepProgress progress;
  return SplitGguf(**model, *plan, directory, PosixFileSystem(), {}, progress);
}

absl::Status Merge(const std::string& directory, const std::string& gguf) {
  return MergeModel({.directory = directory, .destination = gguf}, nullptr, nullptr).status();
}

// Splits `bytes` and merges the parts.
std::string ThereAndBack(const std::string& bytes) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "in.gguf", bytes);
  EXPECT_EQ(Split(folder / "in.gguf", folder / "model"), absl::OkStatus());
  EXPECT_EQ(Merge(folder / "model", folder / "out.gguf"), absl::OkStatus());
  return ReadFileOrDie(folder / "out.gguf");
}

// Random bytes: weights that cannot be are carried like all others.
TEST(MergeTest, EveryTypeComesBackByteForByte) {
  for (const DTypeInfo& info : AllDTypes()) {
    if (IsBitnetDType(info.dtype)) continue;  // of no expert
    const std::string bytes =
        MakeGguf({.w1 = info.dtype, .w2 = DType::kQ6_K, .moe_layers = 1, .experts = 2});
    EXPECT_TRUE(ThereAndBack(bytes) == bytes) << info.name;
  }
}

// Forms, versions, alignments and file endings, every pair of choices met by some seed.
TEST(MergeTest, ModelsOfRandomFormsComeBackByteForByte) {
  std::mt19937 random(7);
  const auto one_of = [&](auto... choices) {
    const std::common_type_t<decltype(choices)...> all[] = {choices...};
    return all[random() % sizeof...(choices)];
  };
  for (uint32_t seed = 0; seed < 24; ++seed) {
    const GgufMakerOptions options = {
        .seed = seed,
        .version = one_of(2u, 3u),
        .alignment = one_of(0u, 1u, 2u, 8u, 64u, 4096u),
        .form = one_of(ExpertForm::kStacked, ExpertForm::kFused, ExpertForm::kSingle),
        .w1 = one_of(DType::kQ4_K, DType::kMXFP4, DType::kIQ1_M, DType::kF32, DType::kBF16),
        .w2 = one_of(DType::kQ6_K, DType::kTQ1_0, DType::kI8, DType::kNVFP4),
        .biases = one_of(false, true),
        .tied = one_of(false, true),
        .dense_layers = one_of(0, 1),
        .moe_layers = 1,
        .experts = one_of(1, 2, 3),
        .tail = one_of(0, 1, 2),
        .dirty_padding = one_of(false, true)};
    const std::string bytes = MakeGguf(options);
    EXPECT_TRUE(ThereAndBack(bytes) == bytes) << "seed " << seed;
  }
}

TEST(MergeTest, BiasesLieInTheExpertsFiles) {
  TemporaryDirectory folder;
  WriteFileOrDie(folder / "in.gguf", MakeGguf({.form = ExpertForm::kFused, .biases = true}));
  ASSERT_EQ(Split(folder / "in.gguf", folder / "model"), absl::OkStatus());
  const auto registry = ReadExpertRegistry(folder / "model");
  ASSERT_TRUE(registry.ok()) << registry.status();
  const ExpertLayout& layout = registry->catalog.layers()[0].layout;
  EXPECT_EQ(layout.w1_bias.columns, 512);
  EXPECT_EQ(layout.w2_bias.columns, 256);
  EXPECT_EQ(layout.w3_bias.offset + layout.w3_bias.bytes, layout.bytes);
  const auto reader =
      SafetensorsReader::Open(*PosixFileSystem().OpenForRead(registry->files[0].path));
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->Find("w3.bias")->dtype, "F32");
}

TEST(MergeTest, ShardsMergeToTheFileTheyWereSplitFrom) {
  const GgufMakerOptions options = {.biases = true, .tail = 1};
  const std::string whole = MakeGguf(options);
  for (const auto& [shards, empty_first] : {std::pair{1, false}, std::pair{3, false},
                                            std::pair{4, true}}) {
    TemporaryDirectory folder;
    const std::vector<std::string> files = MakeGgufShards(options, shards, empty_first);
    std::vector<std::string> paths;
    for (int i = 0; i < shards; ++i) {
      paths.push_back(folder / GgufShardName{"m", static_cast<uint32_t>(i + 1),
                                             static_cast<uint32_t>(shards)}.path());
      WriteFileOrDie(paths.back(), files[static_cast<size_t>(i)]);
    }
    // Any shard opens the set.
    ASSERT_EQ(Split(paths.back(), folder / "model"), absl::OkStatus());
    ASSERT_EQ(Merge(folder / "model", folder / "out.gguf"), absl::OkStatus());
    // A set of one keeps its keys: it is a file like any other.
    EXPECT_TRUE(ReadFileOrDie(folder / "out.gguf") == (shards == 1 ? files[0] : whole)) << shards;
  }
}

class DamagedDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(WriteToyModel({}, folder_ / "toy.gguf"), absl::OkStatus());
    ASSERT_EQ(Split(folder_ / "toy.gguf", folder_ / "model"), absl::OkStatus());
  }
  absl::Status AfterEdit(const std::string& file, const std::string& from, const std::string& to) {
    const std::string path = folder_ / "model" + "/" + file;
    const std::string text = ReadFileOrDie(path);
    const std::string edited = absl::StrReplaceAll(text, {{from, to}});
    EXPECT_NE(edited, text) << from;
    WriteFileOrDie(path, edited);
    const absl::Status status = Merge(folder_ / "model", folder_ / "out.gguf");
    WriteFileOrDie(path, text);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out.gguf"));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out.gguf.partial"));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out.gguf.journal"));
    return status;
  }
  TemporaryDirectory folder_;
};

TEST_F(DamagedDirectoryTest, MetadataThatContradictsTheFilesIsRefused) {
  for (const auto& [from, to, message] :
       {std::tuple{"\"experts_of_layer\":1", "\"experts_of_layer\":2", "does not have"},
        std::tuple{"\"shape\":[4,128,64]", "\"shape\":[4,64,128]", "experts of layer 1"},
        std::tuple{"\"parts\":[\"w2.weight\"]", "\"parts\":[\"w2.bias\"]", "no such w2.bias"},
        std::tuple{"\"bytes\":", "\"bytes\":9", "its tensors end at"},
        std::tuple{"\"alignment\":32,\"bytes\"",
                   "\"alignment\":32,\"padding\":[{\"offset\":0,\"hex\":\"00\"}],\"bytes\"",
                   "lies over a tensor"},
        std::tuple{"\"model_digest\":\"", "\"model_digest\":\"0", "model_digest"}}) {
    const absl::Status status = AfterEdit(kMetadataFile, from, to);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST_F(DamagedDirectoryTest, AnExpertWithAWrongHashIsNamed) {
  CorruptExpert(folder_ / "model", {1, 2});
  const absl::Status status = Merge(folder_ / "model", folder_ / "out.gguf");
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("(1 found): layer_01_expert_002: "));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.gguf"));
  EXPECT_TRUE(MergeModel({.directory = folder_ / "model",
                          .destination = folder_ / "out.gguf",
                          .verify = false},
                         nullptr, nullptr)
                  .ok());
}

TEST_F(DamagedDirectoryTest, ADirectoryThatIsNotCompleteIsRefused) {
  std::filesystem::remove(folder_ / "model/experts/registry.json");
  EXPECT_EQ(Merge(folder_ / "model", folder_ / "out.gguf").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Merge(folder_ / "nothing", folder_ / "out.gguf").code(), absl::StatusCode::kNotFound);
}

TEST_F(DamagedDirectoryTest, CancellingLeavesNothing) {
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(MergeModel({.directory = folder_ / "model", .destination = folder_ / "out.gguf"},
                       &cancellation, nullptr)
                .status()
                .code(),
            absl::StatusCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.gguf"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.gguf.partial"));
}

TEST_F(DamagedDirectoryTest, AnInterruptedMergeGoesOn) {
  Cancellation cancellation;
  const MergeOptions options = {.directory = folder_ / "model",
                                .destination = folder_ / "out.gguf",
                                .verify = false,
                                .concurrency = 1};
  const auto stop_halfway = [&](const ConvertProgress& progress) {
    if (2 * progress.done_bytes > progress.total_bytes) cancellation.CancelAndKeepWork();
  };
  EXPECT_EQ(MergeModel(options, &cancellation, stop_halfway).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(options.destination));
  EXPECT_TRUE(std::filesystem::exists(options.destination + ".partial"));
  ASSERT_TRUE(MergeModel(options, nullptr, nullptr).ok());
  EXPECT_TRUE(ReadFileOrDie(options.destination) == ReadFileOrDie(folder_ / "toy.gguf"));
}

}  // namespace
}  // namespace odmoe
