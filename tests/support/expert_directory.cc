#include "tests/support/expert_directory.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/core/formats/gguf_model.h"
#include "services/core/formats/gguf_writer.h"
#include "services/core/formats/model_directory.h"
#include "services/core/formats/model_index.h"
#include "services/core/formats/safetensors.h"
#include "services/core/io/file.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

SafetensorsTensor Stored(ExpertPart part, const ExpertTensor& tensor) {
  return StoreAs(std::string(ExpertPartName(part)), tensor.dtype, {tensor.columns, tensor.rows})
      .value()
      .tensor;
}

void DieUnlessOk(const absl::Status& status) {
  // As StatusOr::value() does.
  if (!status.ok()) absl::StatusOr<int>(status).value();
}

std::string ExpertFileContent(const ExpertLayout& layout, absl::Span<const std::byte> bytes) {
  std::vector<SafetensorsTensor> tensors = {Stored(ExpertPart::kW1, layout.w1),
                                            Stored(ExpertPart::kW2, layout.w2),
                                            Stored(ExpertPart::kW3, layout.w3)};
  std::string content = EncodeSafetensorsHeader(tensors, {}, kExpertDataOffset).value();
  content.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return content;
}

}  // namespace

std::string ExpertPath(const std::string& directory, ExpertId id) {
  return absl::StrCat(directory, "/experts/", ExpertName(id), ".safetensors");
}

std::unique_ptr<MemoryExpertSource> WriteRandomExperts(
    const std::string& directory, const MemoryExpertSource::RandomOptions& options) {
  auto random = MemoryExpertSource::Random(options).value();
  // The directory's digest is that of its experts.
  std::vector<LayerExperts> layers = random->catalog().layers();
  std::vector<std::vector<std::byte>> experts;
  std::filesystem::create_directories(absl::StrCat(directory, "/experts"));
  std::vector<ExpertFile> files;
  for (int64_t index = 0; index < random->catalog().expert_count(); ++index) {
    const ExpertId id = random->catalog().IdOf(index);
    const auto bytes = random->Bytes(id);
    experts.emplace_back(bytes.begin(), bytes.end());
    const std::string content =
        ExpertFileContent(random->catalog().FindLayer(id.layer)->layout, bytes);
    WriteFileOrDie(ExpertPath(directory, id), content);
    files.push_back({"", content.size(), kExpertDataOffset});
  }
  ExpertCatalog catalog = ExpertCatalog::Create(ModelDigest(layers), std::move(layers)).value();
  WriteFileOrDie(absl::StrCat(directory, "/", kRegistryFile), EncodeExpertRegistry(catalog, files));
  return MemoryExpertSource::Create(std::move(catalog), std::move(experts)).value();
}

void MoveExperts(const std::string& from, const std::string& to,
                 const std::function<bool(ExpertId)>& which) {
  std::filesystem::create_directories(absl::StrCat(to, "/experts"));
  const ExpertCatalog catalog = ReadExpertRegistry(from).value().catalog;
  for (int64_t index = 0; index < catalog.expert_count(); ++index) {
    const ExpertId id = catalog.IdOf(index);
    if (which(id)) std::filesystem::rename(ExpertPath(from, id), ExpertPath(to, id));
  }
}

std::string WriteGgufExperts(const std::string& directory, const MemoryExpertSource& experts,
                             int shards) {
  const std::vector<LayerExperts>& layers = experts.catalog().layers();
  // A tensor in front, so that the first expert does not happen to lie aligned.
  std::vector<std::pair<GgufTensor, std::string>> tensors;
  tensors.push_back({{.name = "token_embd.weight", .ne = {8}}, std::string(32, 'e')});
  for (const LayerExperts& layer : layers) {
    const std::pair<const char*, ExpertTensor> parts[] = {{"gate", layer.layout.w1},
                                                          {"up", layer.layout.w3},
                                                          {"down", layer.layout.w2}};
    for (const auto& [kind, part] : parts) {
      std::string stack;
      for (int32_t expert = 0; expert < layer.expert_count; ++expert) {
        const auto bytes = experts.Bytes({layer.layer, expert}).subspan(part.offset, part.bytes);
        stack.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      }
      tensors.push_back({{.name = absl::StrCat("blk.", layer.layer, ".ffn_", kind, "_exps.weight"),
                          .dtype = part.dtype,
                          .ne = {part.columns, part.rows, layer.expert_count}},
                         std::move(stack)});
    }
  }
  const size_t each = (tensors.size() + shards - 1) / shards;
  for (int shard = 0; shard < shards; ++shard) {
    GgufHeader header;
    if (shard == 0) {
      header.metadata.Set("general.architecture", GgufValue::String("deepseek2"));
      header.metadata.Set("deepseek2.expert_count", GgufValue::U32(layers[0].expert_count));
    }
    if (shards > 1) {
      header.metadata.Set(kGgufSplitNumberKey, GgufValue::U32(shard));
      header.metadata.Set(kGgufSplitCountKey, GgufValue::U32(shards));
      header.metadata.Set(kGgufSplitTensorsKey, GgufValue::I32(int32_t(tensors.size())));
    }
    const size_t first = shard * each, last = std::min(tensors.size(), first + each);
    for (size_t i = first; i < last; ++i) header.tensors.push_back(tensors[i].first);
    const std::string path =
        shards == 1 ? absl::StrCat(directory, "/experts.gguf")
                    : GgufShardName{absl::StrCat(directory, "/experts"), uint32_t(shard) + 1,
                                    uint32_t(shards)}
                          .path();
    auto file = PosixFileSystem().OpenForWrite(path).value();
    LayOutGgufTensors(header).IgnoreError();
    auto writer = GgufWriter::Create(*file, std::move(header)).value();
    for (size_t i = first; i < last; ++i) {
      const std::string& bytes = tensors[i].second;
      DieUnlessOk(writer->Append(
          absl::MakeConstSpan(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size())));
    }
    DieUnlessOk(writer->Finish());
    DieUnlessOk(file->Close());
  }
  return shards == 1
             ? absl::StrCat(directory, "/experts.gguf")
             : GgufShardName{absl::StrCat(directory, "/experts"), 1, uint32_t(shards)}.path();
}

void CorruptExpert(const std::string& directory, ExpertId id) {
  const std::string path = ExpertPath(directory, id);
  std::string content = ReadFileOrDie(path);
  content[kExpertDataOffset + (content.size() - kExpertDataOffset) / 2] ^= 0x10;
  WriteFileOrDie(path, content);
}

}  // namespace odmoe
