// registry.json and metadata.json: the input is tried as both. What is accepted must keep its
// promises, and come back the same when written again.
#include <string>

#include "services/core/formats/model_index.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto registry = ParseExpertRegistry(text, "model", "input"); registry.ok()) {
    const ExpertCatalog& catalog = registry->catalog;
    Require(registry->files.size() == static_cast<size_t>(catalog.expert_count()),
            "an accepted registry has experts without files");
    for (int64_t i = 0; i < catalog.expert_count(); ++i) {
      const ExpertFile& file = registry->files[static_cast<size_t>(i)];
      const uint64_t bytes = catalog.FindLayer(catalog.IdOf(i).layer)->layout.bytes;
      Require(file.data_offset % kExpertDataAlignment == 0 &&
                  file.data_offset <= file.file_bytes &&
                  bytes <= file.file_bytes - file.data_offset,
              "an accepted expert lies outside its file");
      Require(file.path.find("/../") == std::string::npos, "an accepted path leads out");
    }
    Require(ParseExpertRegistry(EncodeExpertRegistry(catalog, registry->files), "model", "again")
                .ok(),
            "an accepted registry cannot be read again");
  }
  if (const auto index = ParseModelIndex(text, "input"); index.ok()) {
    const auto again = EncodeModelIndex(*index);
    Require(again.ok(), "an accepted index cannot be written");
    Require(ParseModelIndex(*again, "again").ok(), "an accepted index cannot be read again");
  }
  return 0;
}
