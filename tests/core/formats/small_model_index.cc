#include "tests/core/formats/small_model_index.h"

namespace odmoe {

ExpertCatalog SmallCatalog() {
  const ExpertLayout layout =
      MakeExpertLayout(DType::kBF16, DType::kQ8_0, DType::kF16, 64, 32).value();
  std::vector<LayerExperts> layers = {
      {.layer = 1, .expert_count = 2, .layout = layout, .xxh3 = {1, 0xfedcba9876543210}},
      {.layer = 7, .expert_count = 1, .layout = layout, .xxh3 = {3}}};
  return ExpertCatalog::Create(ModelDigest(layers), layers).value();
}

std::vector<ExpertFile> SmallFiles(const ExpertCatalog& catalog) {
  std::vector<ExpertFile> files;
  for (int64_t i = 0; i < catalog.expert_count(); ++i) {
    files.push_back({.file_bytes = 4096 + catalog.max_expert_bytes(), .data_offset = 4096});
  }
  return files;
}

std::string SmallRegistry() {
  return EncodeExpertRegistry(SmallCatalog(), SmallFiles(SmallCatalog()));
}

ModelIndex SmallIndex() {
  ModelIndex index;
  index.metadata.Set("general.architecture", GgufValue::String("deepseek2"));
  index.gguf_version = 2;
  index.gguf_alignment = 64;
  index.gguf_bytes = 12345;
  index.model_digest = "abc";
  index.tensors = {{.name = "blk.1.ffn_up_exps.weight",
                    .dtype = DType::kQ8_0,
                    .ne = {64, 32, 2},
                    .expert_layer = 1,
                    .expert_parts = {ExpertPart::kW3}},
                   {.name = "output.weight",
                    .dtype = DType::kF16,
                    .ne = {64, 3},
                    .file = "lm_head.safetensors",
                    .offset = 4096}};
  return index;
}

}  // namespace odmoe
