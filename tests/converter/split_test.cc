#include "converter/split/split.h"

#include <filesystem>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include "converter/toy/toy_model.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/formats/model_directory.h"
#include "services/core/formats/model_path.h"
#include "services/core/formats/safetensors.h"
#include "tests/converter/open_gguf.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

absl::Status Split(const GgufModel& reader, const std::string& directory) {
  const auto plan = PlanSplit(reader);
  if (!plan.ok()) return plan.status();
  StepProgress progress;
  return SplitGguf(reader, *plan, directory, PosixFileSystem(), {}, progress);
}

std::string TensorBytes(const GgufModel& reader, const GgufTensor& tensor) {
  std::string bytes(tensor.bytes, '\0');
  EXPECT_EQ(reader.ReadTensor(tensor, 0, absl::MakeSpan(reinterpret_cast<std::byte*>(bytes.data()),
                                                        bytes.size())),
            absl::OkStatus());
  return bytes;
}

class SplitFormatTest : public testing::TestWithParam<OutType> {};

TEST_P(SplitFormatTest, WritesEachExpertAsOneAlignedHashedExtent) {
  TemporaryDirectory folder;
  ASSERT_EQ(WriteToyModel({.outtype = GetParam()}, folder / "toy.gguf"), absl::OkStatus());
  const auto reader = OpenGguf(folder / "toy.gguf");
  ASSERT_EQ(Split(*reader, folder / "model"), absl::OkStatus());
  const auto registry = ReadExpertRegistry(folder / "model");
  ASSERT_TRUE(registry.ok()) << registry.status();
  const LayerExperts& layer = registry->catalog.layers()[0];
  const std::string gate = TensorBytes(*reader, *reader->Find("blk.1.ffn_gate_exps.weight"));
  const std::string down = TensorBytes(*reader, *reader->Find("blk.1.ffn_down_exps.weight"));
  const std::string up = TensorBytes(*reader, *reader->Find("blk.1.ffn_up_exps.weight"));
  for (int32_t expert = 0; expert < 4; ++expert) {
    const ExpertFile& file = registry->files[expert];
    EXPECT_EQ(file.data_offset % 4096, 0u);
    EXPECT_EQ(file.file_bytes, std::filesystem::file_size(file.path));
    const std::string bytes = ReadFileOrDie(file.path).substr(file.data_offset);
    const size_t part = gate.size() / 4;
    EXPECT_TRUE(bytes == gate.substr(expert * part, part) + down.substr(expert * part, part) +
                             up.substr(expert * part, part));
    EXPECT_EQ(XXH3_64bits(bytes.data(), bytes.size()), layer.xxh3[expert]);
    const auto tensors =
        SafetensorsReader::Open(*PosixFileSystem().OpenForRead(file.path));
    ASSERT_TRUE(tensors.ok()) << tensors.status();
    const SafetensorsTensor* w2 = (*tensors)->Find("w2.weight");
    ASSERT_NE(w2, nullptr);
    EXPECT_EQ(w2->offset, file.data_offset + layer.layout.w2.offset);
    EXPECT_EQ(w2->shape[0], 64);
    if (GetParam() == OutType::kQ8_0) {
      EXPECT_EQ(w2->dtype, "U8");
      EXPECT_EQ((*tensors)->metadata().at("w2.weight.ggml_type"), "q8_0");
      EXPECT_EQ((*tensors)->metadata().at("w2.weight.shape"), "[64,128]");
    } else {
      EXPECT_EQ(w2->shape[1], 128);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SplitFormatTest,
                         testing::Values(OutType::kF32, OutType::kF16, OutType::kBF16,
                                         OutType::kQ8_0));

TEST(SplitTest, PutsTensorsWhereTheirNamesBelong) {
  TemporaryDirectory folder;
  ASSERT_EQ(WriteToyModel({}, folder / "toy.gguf"), absl::OkStatus());
  ASSERT_EQ(Split(*OpenGguf(folder / "toy.gguf"), folder / "model"), absl::OkStatus());
  const auto index = ReadModelIndex(PosixFileSystem(), folder / "model");
  ASSERT_TRUE(index.ok()) << index.status();
  for (const IndexedTensor& tensor : index->tensors) {
    const bool norm = testing::Matches(HasSubstr("_norm."))(tensor.name);
    const std::string expected = tensor.name == "token_embd.weight" ? "embeddings.safetensors"
                                 : tensor.name == "output.weight"   ? "lm_head.safetensors"
                                 : tensor.expert_layer >= 0         ? ""
                                 : norm                             ? "norms.safetensors"
                                        : "attention_layers.safetensors";
    EXPECT_EQ(tensor.file, expected) << tensor.name;
  }
}

TEST(SplitTest, ABaseModelIsTheSameFromTheGgufFileInPlace) {
  TemporaryDirectory folder;
  ASSERT_EQ(WriteToyModel({}, folder / "toy.gguf"), absl::OkStatus());
  ASSERT_EQ(Split(*OpenGguf(folder / "toy.gguf"), folder / "model"), absl::OkStatus());
  const auto split = BaseModel::Open(folder / "model");
  ASSERT_TRUE(split.ok()) << split.status();
  const auto whole = BaseModel::Open(folder / "toy.gguf");
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ((*whole)->metadata().entries(), (*split)->metadata().entries());
  EXPECT_EQ((*whole)->total_bytes(), (*split)->total_bytes());
  ASSERT_EQ((*whole)->tensors().size(), (*split)->tensors().size());
  for (const BaseTensor& tensor : (*split)->tensors()) {
    const BaseTensor* found = (*whole)->Find(tensor.name);
    ASSERT_NE(found, nullptr) << tensor.name;
    EXPECT_EQ(found->dtype, tensor.dtype);
    EXPECT_EQ(found->ne, tensor.ne);
    EXPECT_TRUE(found->data == tensor.data) << tensor.name;
  }
  EXPECT_EQ((*whole)->Find("blk.1.ffn_up_exps.weight"), nullptr);
  EXPECT_EQ(ReadModelMetadata(folder / "toy.gguf")->entries(), (*split)->metadata().entries());
  EXPECT_FALSE(ReadDenseRegistry(folder / "toy.gguf")->has_value());
  // A file that has been cut, and one that is no model.
  std::filesystem::resize_file(folder / "toy.gguf", 4000);
  EXPECT_EQ(BaseModel::Open(folder / "toy.gguf").status().code(), absl::StatusCode::kDataLoss);
  WriteFileOrDie(folder / "text.gguf", "no model");
  EXPECT_EQ(BaseModel::Open(folder / "text.gguf").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SplitTest, AModelIsNamedByItsPathsLastComponent) {
  EXPECT_EQ(ModelNameOf("/models/kimi"), "kimi");
  EXPECT_EQ(ModelNameOf("kimi//"), "kimi");
  EXPECT_EQ(ModelNameOf("/models/kimi.q4.gguf"), "kimi.q4");
  EXPECT_EQ(ModelNameOf("/models/kimi-00002-of-00003.gguf"), "kimi");
  EXPECT_EQ(ModelNameOf("/"), "");
  EXPECT_EQ(ModelNameOf(""), "");
}

// A toy's header with `edit` made to it, all weights zero.
std::string Edited(const TemporaryDirectory& folder, const std::function<void(GgufHeader&)>& edit) {
  EXPECT_EQ(WriteToyModel({}, folder / "toy.gguf"), absl::OkStatus());
  const auto reader = OpenGguf(folder / "toy.gguf");
  GgufHeader header{.metadata = reader->metadata(), .tensors = reader->tensors()};
  edit(header);
  EXPECT_EQ(LayOutGgufTensors(header), absl::OkStatus());
  std::string bytes = EncodeGgufHeader(header).value();
  if (!header.tensors.empty()) {
    bytes.resize(bytes.size() + header.tensors.back().offset + header.tensors.back().bytes);
  }
  WriteFileOrDie(folder / "edited.gguf", bytes);
  return folder / "edited.gguf";
}

GgufTensor& TensorOf(GgufHeader& header, absl::string_view name) {
  for (GgufTensor& tensor : header.tensors) {
    if (tensor.name == name) return tensor;
  }
  ADD_FAILURE() << name;
  return header.tensors[0];
}

absl::Status RefusalOf(const std::function<void(GgufHeader&)>& edit) {
  TemporaryDirectory folder;
  return PlanSplit(*OpenGguf(Edited(folder, edit))).status();
}

TEST(PlanSplitTest, NamesMissingExpertsAndTheNearestFound) {
  const absl::Status status = RefusalOf([](GgufHeader& header) {
    TensorOf(header, "blk.1.ffn_gate_exps.weight").name = "blk.1.ffn_gate_exp.weight";
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("'blk.1.ffn_gate_exps.weight' (nearest found: "
                        "'blk.1.ffn_gate_exp.weight')"));
}

TEST(PlanSplitTest, LooksForExpertsWhereTheMetadataCountsThem) {
  const absl::Status status = RefusalOf([](GgufHeader& header) {
    for (GgufTensor& tensor : header.tensors) {
      const std::string prefix = "blk.1.ffn_";
      if (tensor.name.rfind(prefix, 0) == 0 && tensor.name.find("norm") == std::string::npos) {
        tensor.name = "other." + tensor.name.substr(prefix.size());
      }
    }
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  for (const char* kind : {"gate", "down", "up"}) {
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(std::string("'blk.1.ffn_") + kind + "_exps.weight'"));
  }
}

TEST(PlanSplitTest, RefusesModelsItCannotSplit) {
  const auto only_dense_layers = [](GgufHeader& header) {
    header.metadata = {};
    header.metadata.Set("general.architecture", GgufValue::String("llama"));
    std::erase_if(header.tensors, [](const GgufTensor& tensor) {
      return tensor.name.rfind("blk.1.", 0) == 0;
    });
  };
  EXPECT_EQ(RefusalOf(only_dense_layers), absl::OkStatus());  // a dense model has no experts
  EXPECT_EQ(RefusalOf([](GgufHeader& header) {
              header.metadata = {};
              header.metadata.Set("general.architecture", GgufValue::String("llama"));
              header.tensors.clear();
            }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](GgufHeader& header) { header.metadata = {}; }).code(),
            absl::StatusCode::kNotFound);
}

TEST(PlanSplitTest, RefusesShapesThatContradictTheMetadataOrEachOther) {
  const std::function<void(GgufHeader&)> edits[] = {
      [](GgufHeader& header) {
        header.metadata.Set("deepseek2.expert_count", GgufValue::U32(5));
      },
      [](GgufHeader& header) {
        header.metadata.Set("deepseek2.expert_count", GgufValue::U32(1u << 31));
      },
      [](GgufHeader& header) { TensorOf(header, "blk.1.ffn_down_exps.weight").ne = {64, 128, 4}; },
      [](GgufHeader& header) { TensorOf(header, "blk.1.ffn_up_exps.weight").ne = {64, 127, 4}; },
      [](GgufHeader& header) { TensorOf(header, "blk.1.ffn_gate_exps.weight").ne = {64, 512}; },
      [](GgufHeader& header) {
        TensorOf(header, "blk.1.exp_probs_b.bias").name = "blk.1.ffn_up_exps.bias";
      },
      [](GgufHeader& header) {
        TensorOf(header, "blk.1.ffn_up_exps.weight").name = "blk.1.ffn_gate_up_exps.weight";
      },
      // A second form of what is there already would be lost.
      [](GgufHeader& header) {
        TensorOf(header, "blk.0.ffn_gate.weight").name = "blk.1.ffn_gate.0.weight";
      },
  };
  for (const auto& edit : edits) {
    EXPECT_EQ(RefusalOf(edit).code(), absl::StatusCode::kDataLoss);
  }
}

TEST(BaseModelTest, RefusesAFileThatIsNotWhatTheIndexSays) {
  TemporaryDirectory folder;
  ASSERT_EQ(WriteToyModel({}, folder / "toy.gguf"), absl::OkStatus());
  ASSERT_EQ(Split(*OpenGguf(folder / "toy.gguf"), folder / "model"), absl::OkStatus());
  ASSERT_TRUE(BaseModel::Open(folder / "model").ok());
  const std::string norms = folder / "model/base_model/norms.safetensors";
  const std::string bytes = ReadFileOrDie(norms);
  WriteFileOrDie(norms, bytes.substr(0, bytes.size() - 1));
  EXPECT_EQ(BaseModel::Open(folder / "model").status().code(), absl::StatusCode::kDataLoss);
  WriteFileOrDie(norms, ReadFileOrDie(folder / "model/base_model/lm_head.safetensors"));
  EXPECT_EQ(BaseModel::Open(folder / "model").status().code(), absl::StatusCode::kDataLoss);
  std::filesystem::remove(norms);
  EXPECT_EQ(BaseModel::Open(folder / "model").status().code(), absl::StatusCode::kNotFound);
  std::filesystem::remove(folder / "model/experts/registry.json");
  EXPECT_EQ(ReadModelMetadata(folder / "model").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace odmoe
