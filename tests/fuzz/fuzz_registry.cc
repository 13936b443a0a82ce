// registry.json: experts of an accepted one lie inside their files, and those inside the directory;
// it can be written and read again.
#include <string>

#include "services/core/formats/model_index.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto registry = ParseExpertRegistry(text, "model", "input");
  if (!registry.ok()) return 0;
  const ExpertCatalog& catalog = registry->catalog;
  Require(registry->files.size() == static_cast<size_t>(catalog.expert_count()),
          "an accepted registry has experts without files");
  for (int64_t i = 0; i < catalog.expert_count(); ++i) {
    const ExpertFile& file = registry->files[static_cast<size_t>(i)];
    const ExpertLayout& layout = catalog.FindLayer(catalog.IdOf(i).layer)->layout;
    Require(file.data_offset % kExpertDataAlignment == 0 && file.data_offset <= file.file_bytes &&
                layout.bytes <= file.file_bytes - file.data_offset,
            "an accepted expert lies outside its file");
    Require(file.path.find("/../") == std::string::npos, "an accepted path leads out");
    uint64_t end = 0;
    for (ExpertPart part : kExpertParts) {
      if (!layout.has(part)) continue;
      Require(layout.part(part).offset == end, "accepted parts leave a gap or overlap");
      end += layout.part(part).bytes;
    }
    Require(end == layout.bytes, "accepted parts do not fill the expert");
  }
  const auto again =
      ParseExpertRegistry(EncodeExpertRegistry(catalog, registry->files), "model", "again");
  Require(again.ok(), "an accepted registry cannot be read again");
  Require(ModelDigest(again->catalog.layers()) == ModelDigest(catalog.layers()),
          "an accepted registry came back with other experts");
  return 0;
}
