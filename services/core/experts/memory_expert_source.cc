#include "services/core/experts/memory_expert_source.h"

#include <cstring>
#include <random>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "xxhash.h"

namespace odmoe {
namespace {

std::vector<std::byte> RandomBytes(std::mt19937_64& random, uint64_t size) {
  std::vector<std::byte> bytes(size);
  for (uint64_t at = 0; at < size; at += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, std::min<uint64_t>(sizeof(word), size - at));
  }
  return bytes;
}

}  // namespace

MemoryExpertSource::MemoryExpertSource(ExpertCatalog catalog,
                                       std::vector<std::vector<std::byte>> experts)
    : catalog_(std::move(catalog)), experts_(std::move(experts)) {}

absl::StatusOr<std::unique_ptr<MemoryExpertSource>> MemoryExpertSource::Create(
    ExpertCatalog catalog, std::vector<std::vector<std::byte>> experts) {
  if (experts.size() != static_cast<size_t>(catalog.expert_count())) {
    return absl::InvalidArgumentError(absl::StrCat("bytes of ", experts.size(), " experts for a ",
                                                   "catalog of ", catalog.expert_count()));
  }
  for (int64_t index = 0; index < catalog.expert_count(); ++index) {
    const ExpertId id = catalog.IdOf(index);
    const uint64_t expected = catalog.FindLayer(id.layer)->layout.bytes;
    if (experts[index].size() != expected) {
      return absl::InvalidArgumentError(absl::StrCat(ExpertName(id), " has ",
                                                     experts[index].size(), " bytes, expected ",
                                                     expected));
    }
  }
  return absl::WrapUnique(new MemoryExpertSource(std::move(catalog), std::move(experts)));
}

absl::StatusOr<std::unique_ptr<MemoryExpertSource>> MemoryExpertSource::Random(
    const RandomOptions& options) {
  ODMOE_ASSIGN_OR_RETURN(const ExpertLayout layout,
                         MakeExpertLayout(options.dtype, options.dtype, options.dtype, options.dim,
                                          options.ffn));
  std::mt19937_64 random(options.seed);
  std::vector<LayerExperts> layers;
  std::vector<std::vector<std::byte>> experts;
  for (int32_t l = 0; l < options.layers; ++l) {
    LayerExperts layer{options.first_layer + l, options.experts_per_layer, layout, {}};
    for (int32_t e = 0; e < options.experts_per_layer; ++e) {
      experts.push_back(RandomBytes(random, layout.bytes));
      layer.xxh3.push_back(XXH3_64bits(experts.back().data(), experts.back().size()));
    }
    layers.push_back(std::move(layer));
  }
  const std::string digest = absl::StrCat(absl::Hex(random(), absl::kZeroPad16));
  ODMOE_ASSIGN_OR_RETURN(ExpertCatalog catalog, ExpertCatalog::Create(digest, std::move(layers)));
  return Create(std::move(catalog), std::move(experts));
}

void MemoryExpertSource::Read(ExpertId id, absl::Span<std::byte> destination,
                              std::shared_ptr<const ReadControl>, Done done) {
  const int64_t index = catalog_.IndexOf(id);
  if (index < 0) {
    done(absl::NotFoundError(absl::StrCat("no expert ", ExpertName(id), " in this model")));
    return;
  }
  const std::vector<std::byte>& bytes = experts_[index];
  if (destination.size() < bytes.size()) {
    done(absl::InvalidArgumentError(absl::StrCat("room for ", destination.size(), " bytes, ",
                                                 ExpertName(id), " has ", bytes.size())));
    return;
  }
  std::memcpy(destination.data(), bytes.data(), bytes.size());
  done(absl::OkStatus());
}

absl::Span<const std::byte> MemoryExpertSource::Bytes(ExpertId id) const {
  return experts_[catalog_.IndexOf(id)];
}

}  // namespace odmoe
