#include "tests/support/expert_directory.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/core/formats/model_directory.h"
#include "services/core/formats/model_index.h"
#include "services/core/formats/safetensors.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

SafetensorsTensor Stored(ExpertPart part, const ExpertTensor& tensor) {
  return StoreAs(std::string(ExpertPartName(part)), tensor.dtype, {tensor.columns, tensor.rows})
      .value()
      .tensor;
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

void CorruptExpert(const std::string& directory, ExpertId id) {
  const std::string path = ExpertPath(directory, id);
  std::string content = ReadFileOrDie(path);
  content[kExpertDataOffset + (content.size() - kExpertDataOffset) / 2] ^= 0x10;
  WriteFileOrDie(path, content);
}

}  // namespace odmoe
