#include "converter/verify/verify.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "converter/split/split.h"
#include "converter/toy/toy_model.h"
#include "services/core/formats/model_directory.h"
#include "services/core/formats/model_index.h"
#include "tests/converter/gguf_maker.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

VerifyReport Verify(const std::string& path, int concurrency = 2) {
  const auto report = VerifyModel({.path = path, .concurrency = concurrency}, nullptr, nullptr);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.value_or(VerifyReport());
}

std::vector<std::string> Items(const VerifyReport& report) {
  std::vector<std::string> items;
  for (const Damage& damage : report.damages) items.push_back(damage.item);
  return items;
}

void FlipBit(const std::string& path, size_t at) {
  std::string bytes = ReadFileOrDie(path);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  WriteFileOrDie(path, bytes);
}

class VerifyDirectoryTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(WriteToyModel({.layers = 3}, folder_ / "toy.gguf"), absl::OkStatus());
    const auto gguf = GgufModel::Open(PosixFileSystem(), folder_ / "toy.gguf");
    ASSERT_TRUE(gguf.ok()) << gguf.status();
    const auto plan = PlanSplit(**gguf);
    ASSERT_TRUE(plan.ok()) << plan.status();
    StepProgress progress;
    ASSERT_EQ(SplitGguf(**gguf, *plan, model_, PosixFileSystem(), {}, progress), absl::OkStatus());
  }
  TemporaryDirectory folder_;
  const std::string model_ = folder_ / "model";
};

TEST_F(VerifyDirectoryTest, AnIntactOneIsHashedWhole) {
  for (int concurrency : {1, 3, 100}) {
    const VerifyReport report = Verify(model_, concurrency);
    EXPECT_THAT(Items(report), IsEmpty());
    EXPECT_TRUE(report.intact());
    EXPECT_EQ(report.kind, "model directory");
    EXPECT_EQ(report.expert_count, 8);
    EXPECT_GT(report.tensor_count, 10);
    EXPECT_EQ(report.hashed_count, report.expert_count + report.tensor_count);
  }
}

TEST_F(VerifyDirectoryTest, NamesEachDamagedExpert) {
  CorruptExpert(model_, {1, 2});
  CorruptExpert(model_, {2, 0});
  const VerifyReport report = Verify(model_);
  EXPECT_THAT(Items(report), ElementsAre("layer_01_expert_002", "layer_02_expert_000"));
  EXPECT_EQ(report.damages[0].status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(report.damages[0].status.message()),
              HasSubstr("layer_01_expert_002.safetensors: the XXH3"));
}

TEST_F(VerifyDirectoryTest, FindsAnExpertThatIsMissingCutOrSaysOtherwise) {
  std::filesystem::remove(ExpertPath(model_, {1, 0}));
  const std::string cut = ExpertPath(model_, {1, 1});
  std::filesystem::resize_file(cut, std::filesystem::file_size(cut) - 1);
  const std::string renamed = ExpertPath(model_, {1, 3});
  std::string bytes = ReadFileOrDie(renamed);
  bytes[bytes.find("w1.weight")] = 'v';
  WriteFileOrDie(renamed, bytes);
  const VerifyReport report = Verify(model_);
  ASSERT_THAT(Items(report), ElementsAre("layer_01_expert_000", "layer_01_expert_001",
                                         "layer_01_expert_003"));
  EXPECT_THAT(std::string(report.damages[0].status.message()), HasSubstr("is missing"));
  EXPECT_THAT(std::string(report.damages[1].status.message()), HasSubstr("registry.json says"));
  EXPECT_THAT(std::string(report.damages[2].status.message()),
              HasSubstr("tensor 'w1.weight' is missing"));
}

TEST_F(VerifyDirectoryTest, NamesADamagedBaseTensor) {
  const auto index = ReadModelIndex(PosixFileSystem(), model_);
  ASSERT_TRUE(index.ok()) << index.status();
  for (const IndexedTensor& tensor : index->tensors) {
    if (tensor.name == "output_norm.weight") {
      FlipBit(model_ + "/base_model/" + tensor.file, tensor.offset + 5);
    }
  }
  EXPECT_THAT(Items(Verify(model_)), ElementsAre("output_norm.weight"));
}

TEST_F(VerifyDirectoryTest, RegistryAndMetadataMustAgree) {
  const std::string registry = model_ + "/experts/registry.json";
  std::string text = ReadFileOrDie(registry);
  // Another digest, of the right form.
  const size_t at = text.find("model_digest") + 15;
  text[at] = text[at] == '0' ? '1' : '0';
  WriteFileOrDie(registry, text);
  EXPECT_THAT(Items(Verify(model_)), ElementsAre("structure", "structure"));
  WriteFileOrDie(registry, "{}");
  EXPECT_THAT(Items(Verify(model_)), ElementsAre("structure"));
}

TEST_F(VerifyDirectoryTest, ExpertsAreCheckedWithoutTheBaseModel) {
  std::filesystem::remove(model_ + "/base_model/norms.safetensors");
  CorruptExpert(model_, {2, 1});
  EXPECT_THAT(Items(Verify(model_)), ElementsAre("structure", "layer_02_expert_001"));
}

TEST_F(VerifyDirectoryTest, CancellingEndsIt) {
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(VerifyModel({.path = model_}, &cancellation, nullptr).status().code(),
            absl::StatusCode::kCancelled);
}

TEST_F(VerifyDirectoryTest, ProgressEndsAtTheTotalEvenWithDamage) {
  CorruptExpert(model_, {1, 0});
  std::filesystem::remove(ExpertPath(model_, {1, 1}));
  ConvertProgress last;
  const auto report = VerifyModel({.path = model_}, nullptr, [&](const ConvertProgress& progress) {
    EXPECT_GE(progress.done_bytes, last.done_bytes);
    last = progress;
  });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(last.done_bytes, report->checked_bytes);
  EXPECT_EQ(last.total_bytes, report->checked_bytes);
  EXPECT_EQ(last.step, "verify");
}

TEST_F(VerifyDirectoryTest, AGgufFileWithAnInfiniteScaleNamesTensorAndOffset) {
  EXPECT_TRUE(Verify(folder_ / "toy.gguf").intact());
  const auto gguf = GgufModel::Open(PosixFileSystem(), folder_ / "toy.gguf");
  ASSERT_TRUE(gguf.ok());
  const GgufTensor& tensor = *(*gguf)->Find("blk.1.attn_norm.weight");
  const uint64_t at = (*gguf)->PlaceOf(tensor).offset + 12;
  std::string bytes = ReadFileOrDie(folder_ / "toy.gguf");
  bytes.replace(at, 4, std::string("\0\0\x80\x7f", 4));
  WriteFileOrDie(folder_ / "toy.gguf", bytes);
  const VerifyReport report = Verify(folder_ / "toy.gguf");
  ASSERT_THAT(Items(report), ElementsAre("blk.1.attn_norm.weight"));
  EXPECT_THAT(std::string(report.damages[0].status.message()),
              HasSubstr(std::to_string(at) + ": f32 element 3 is NaN or infinite"));
}

TEST_F(VerifyDirectoryTest, ATruncatedGgufFileIsDamaged) {
  std::filesystem::resize_file(folder_ / "toy.gguf", 100000);
  const VerifyReport report = Verify(folder_ / "toy.gguf");
  ASSERT_THAT(Items(report), ElementsAre("structure"));
  EXPECT_THAT(std::string(report.damages[0].status.message()), HasSubstr("the file has 100000"));
}

TEST(VerifyGgufTest, ChecksTheVocabularyAndTheExperts) {
  TemporaryDirectory folder;
  const auto check = [&](const std::function<void(GgufHeader&)>& edit) {
    GgufHeader header{.version = 3};
    header.metadata.Set("general.architecture", GgufValue::String("qwen3moe"));
    header.metadata.Set("qwen3moe.expert_count", GgufValue::U32(2));
    header.metadata.Set("tokenizer.ggml.tokens", GgufValue::Strings({"a", "b"}));
    header.metadata.Set("tokenizer.ggml.scores", GgufValue::F32s({0, 0}));
    header.metadata.Set("tokenizer.ggml.token_type", GgufValue::I32s({1, 1}));
    for (const char* name : {"gate", "down", "up"}) {
      header.tensors.push_back({.name = std::string("blk.0.ffn_") + name + "_exps.weight",
                                .dtype = DType::kI8,
                                .ne = {4, 4, 2}});
    }
    edit(header);
    WriteFileOrDie(folder / "m.gguf", EncodeGguf(header, {}));
    return Verify(folder / "m.gguf");
  };
  EXPECT_TRUE(check([](GgufHeader&) {}).intact());
  const std::function<void(GgufHeader&)> edits[] = {
      [](GgufHeader& h) { h.metadata.Set("tokenizer.ggml.scores", GgufValue::I32s({0, 0})); },
      [](GgufHeader& h) { h.metadata.Set("tokenizer.ggml.scores", GgufValue::F32s({0})); },
      [](GgufHeader& h) { h.metadata.Set("tokenizer.ggml.token_type", GgufValue::U32(1)); },
      [](GgufHeader& h) { h.metadata.Set("tokenizer.ggml.tokens", GgufValue::U32(1)); },
      [](GgufHeader& h) { h.metadata.Set("qwen3moe.expert_count", GgufValue::U32(1u << 31)); },
      [](GgufHeader& h) { h.tensors[0].name = "blk.0.ffn_gat_exps.weight"; },
  };
  for (const auto& edit : edits) EXPECT_THAT(Items(check(edit)), ElementsAre("structure"));
}

TEST(VerifyOthersTest, ChecksSafetensorsAndCheckpoints) {
  const std::string checkpoint = ODMOE_TEST_DATA "/tiny-kimi";
  EXPECT_TRUE(Verify(checkpoint).intact());
  const VerifyReport report = Verify(checkpoint + "/model.safetensors");
  EXPECT_TRUE(report.intact());
  EXPECT_EQ(report.kind, "safetensors");
  EXPECT_GT(report.tensor_count, 10);
}

TEST(VerifyOthersTest, RefusesWhatIsNoModel) {
  TemporaryDirectory folder;
  EXPECT_EQ(VerifyModel({.path = folder / "none"}, nullptr, nullptr).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(VerifyModel({.path = folder.path()}, nullptr, nullptr).status().code(),
            absl::StatusCode::kInvalidArgument);
  WriteFileOrDie(folder / "x", "version https://git-lfs.github.com/spec/v1\n");
  const absl::Status status = VerifyModel({.path = folder / "x"}, nullptr, nullptr).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("Git LFS pointer"));
}

}  // namespace
}  // namespace odmoe
