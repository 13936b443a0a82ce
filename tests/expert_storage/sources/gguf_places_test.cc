// Where experts lie in a GGUF file, in every form it may have them: against the file's own tensors.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/base/units.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/io/aligned_buffer.h"
#include "services/expert_storage/sources/open_expert_source.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

constexpr int64_t kDim = 64, kFfn = 96, kExperts = 3;

class GgufPlacesTest : public ::testing::Test {
 protected:
  // Bytes that tell the tensor and the place in it.
  static std::string Content(size_t tensor, uint64_t bytes) {
    std::string content(bytes, '\0');
    for (uint64_t i = 0; i < bytes; ++i) content[i] = char(i * 31 + i / 256 + 97 * tensor);
    return content;
  }

  void Add(std::string name, std::vector<int64_t> ne) {
    header_.tensors.push_back({.name = std::move(name), .ne = std::move(ne)});
  }

  std::unique_ptr<ExpertSource> Open() {
    header_.metadata.Set("general.architecture", GgufValue::String("deepseek2"));
    header_.metadata.Set("deepseek2.expert_count", GgufValue::U32(kExperts));
    const std::string path = directory_ / "m.gguf";
    auto file = PosixFileSystem().OpenForWrite(path).value();
    EXPECT_TRUE(LayOutGgufTensors(header_).ok());
    auto writer = GgufWriter::Create(*file, header_).value();
    for (size_t i = 0; i < header_.tensors.size(); ++i) {
      const std::string content = Content(i, header_.tensors[i].bytes);
      EXPECT_TRUE(writer
                      ->Append(absl::MakeConstSpan(
                          reinterpret_cast<const std::byte*>(content.data()), content.size()))
                      .ok());
    }
    EXPECT_TRUE(writer->Finish().ok() && file->Close().ok());
    return OpenExpertSource(path, SourceKind::kDirect).value();
  }

  // Bytes [offset, offset + bytes) of a tensor.
  std::string Part(absl::string_view name, uint64_t offset, uint64_t bytes) {
    for (size_t i = 0; i < header_.tensors.size(); ++i) {
      if (header_.tensors[i].name == name) {
        return Content(i, header_.tensors[i].bytes).substr(offset, bytes);
      }
    }
    ADD_FAILURE() << name;
    return "";
  }

  std::string ReadExpert(ExpertSource& source, ExpertId id) {
    const uint64_t bytes = source.catalog().FindLayer(id.layer)->layout.bytes;
    auto room = AlignedBuffer::Allocate(RoundUp(bytes, kDirectIoAlignment)).value();
    const absl::Status status = ReadAndWait(source, id, room.span());
    EXPECT_TRUE(status.ok()) << status;
    return {reinterpret_cast<const char*>(room.data()), bytes};
  }

  TemporaryDirectory directory_;
  GgufHeader header_;
};

TEST_F(GgufPlacesTest, StackedFusedAndSingleTensorsWithTheirBiases) {
  constexpr uint64_t kMatrix = kDim * kFfn * 4, kIn = kFfn * 4, kOut = kDim * 4;
  // Layer 1: stacks with biases.
  for (const char* kind : {"up", "gate"}) {
    Add(absl::StrCat("blk.1.ffn_", kind, "_exps.weight"), {kDim, kFfn, kExperts});
    Add(absl::StrCat("blk.1.ffn_", kind, "_exps.bias"), {kFfn, kExperts});
  }
  Add("blk.1.ffn_down_exps.weight", {kFfn, kDim, kExperts});
  Add("blk.1.ffn_down_exps.bias", {kDim, kExperts});
  // Layer 2: gate and up behind one another.
  Add("blk.2.ffn_gate_up_exps.weight", {kDim, 2 * kFfn, kExperts});
  Add("blk.2.ffn_down_exps.weight", {kFfn, kDim, kExperts});
  // Layer 4: a tensor an expert.
  for (int expert = kExperts - 1; expert >= 0; --expert) {
    Add(absl::StrCat("blk.4.ffn_gate.", expert, ".weight"), {kDim, kFfn});
    Add(absl::StrCat("blk.4.ffn_down.", expert, ".weight"), {kFfn, kDim});
    Add(absl::StrCat("blk.4.ffn_up.", expert, ".weight"), {kDim, kFfn});
  }
  const auto source = Open();
  ASSERT_EQ(source->catalog().expert_count(), 3 * kExperts);
  EXPECT_TRUE(source->catalog().FindLayer(1)->layout.has_biases());
  for (int32_t e = 0; e < kExperts; ++e) {
    EXPECT_EQ(ReadExpert(*source, {1, e}),
              Part("blk.1.ffn_gate_exps.weight", e * kMatrix, kMatrix) +
                  Part("blk.1.ffn_down_exps.weight", e * kMatrix, kMatrix) +
                  Part("blk.1.ffn_up_exps.weight", e * kMatrix, kMatrix) +
                  Part("blk.1.ffn_gate_exps.bias", e * kIn, kIn) +
                  Part("blk.1.ffn_down_exps.bias", e * kOut, kOut) +
                  Part("blk.1.ffn_up_exps.bias", e * kIn, kIn));
    EXPECT_EQ(ReadExpert(*source, {2, e}),
              Part("blk.2.ffn_gate_up_exps.weight", 2 * e * kMatrix, kMatrix) +
                  Part("blk.2.ffn_down_exps.weight", e * kMatrix, kMatrix) +
                  Part("blk.2.ffn_gate_up_exps.weight", (2 * e + 1) * kMatrix, kMatrix));
    EXPECT_EQ(ReadExpert(*source, {4, e}),
              Part(absl::StrCat("blk.4.ffn_gate.", e, ".weight"), 0, kMatrix) +
                  Part(absl::StrCat("blk.4.ffn_down.", e, ".weight"), 0, kMatrix) +
                  Part(absl::StrCat("blk.4.ffn_up.", e, ".weight"), 0, kMatrix));
  }
}

TEST_F(GgufPlacesTest, AModelWithoutRoutedExpertsHasNothingToServe) {
  Add("blk.0.ffn_down.weight", {kFfn, kDim});
  header_.metadata.Set("general.architecture", GgufValue::String("llama"));
  const std::string path = directory_ / "dense.gguf";
  auto file = PosixFileSystem().OpenForWrite(path).value();
  ASSERT_TRUE(LayOutGgufTensors(header_).ok());
  auto writer = GgufWriter::Create(*file, header_).value();
  ASSERT_TRUE(writer->Append(std::vector<std::byte>(kFfn * kDim * 4)).ok());
  ASSERT_TRUE(writer->Finish().ok() && file->Close().ok());
  const auto source = OpenExpertSource(path, SourceKind::kDirect);
  EXPECT_TRUE(absl::IsInvalidArgument(source.status())) << source.status();
  WriteFileOrDie(path, "not a model at all");
  EXPECT_FALSE(OpenExpertSource(path, SourceKind::kDirect).ok());
}

}  // namespace
}  // namespace odmoe
