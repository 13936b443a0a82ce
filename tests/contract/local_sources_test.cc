// The source contract over the sources of this process.
#include <memory>

#include "gtest/gtest.h"
#include "services/expert_storage/sources/direct_expert_source.h"
#include "services/expert_storage/sources/open_expert_source.h"
#include "tests/contract/expert_source_contract.h"
#include "tests/support/expert_directory.h"
#include "tests/support/faulty_expert_source.h"

namespace odmoe {
namespace {

using RandomOptions = MemoryExpertSource::RandomOptions;

std::unique_ptr<ExpertSource> Memory(const std::string&, const RandomOptions& options,
                                     std::shared_ptr<void>&) {
  return MemoryExpertSource::Random(options).value();
}

std::unique_ptr<ExpertSource> Mapped(const std::string& directory, const RandomOptions&,
                                     std::shared_ptr<void>&) {
  return OpenExpertSource(directory, SourceKind::kMapped).value();
}

std::unique_ptr<ExpertSource> Direct(const std::string& directory, bool io_uring) {
  DirectExpertSource::Options options;
  options.directories = {directory};
  options.io_uring = io_uring;
  // Some of these experts take several requests.
  options.request_bytes = 256 << 10;
  return DirectExpertSource::Create(std::move(FindPlaces(directory).value().places), options)
      .value();
}

std::unique_ptr<ExpertSource> DirectByUring(const std::string& directory, const RandomOptions&,
                                            std::shared_ptr<void>&) {
  return Direct(directory, true);
}

std::unique_ptr<ExpertSource> DirectByPread(const std::string& directory, const RandomOptions&,
                                            std::shared_ptr<void>&) {
  return Direct(directory, false);
}

// The same experts in one GGUF file, or several, read in place.
std::unique_ptr<ExpertSource> Gguf(const std::string& directory, const RandomOptions& options,
                                   SourceKind kind, int shards) {
  const auto truth = MemoryExpertSource::Random(options).value();
  const std::string path = WriteGgufExperts(directory, *truth, shards);
  SourceOptions source = kind;
  source.request_bytes = 64 << 10;
  return OpenExpertSource(path, source).value();
}

std::unique_ptr<ExpertSource> GgufInPlace(const std::string& directory,
                                          const RandomOptions& options, std::shared_ptr<void>&) {
  return Gguf(directory, options, SourceKind::kDirect, 1);
}

std::unique_ptr<ExpertSource> GgufSplit(const std::string& directory,
                                        const RandomOptions& options, std::shared_ptr<void>&) {
  return Gguf(directory, options, SourceKind::kDirect, 3);
}

std::unique_ptr<ExpertSource> GgufMapped(const std::string& directory,
                                         const RandomOptions& options, std::shared_ptr<void>&) {
  return Gguf(directory, options, SourceKind::kMapped, 2);
}

// Every other file in a second directory.
std::unique_ptr<ExpertSource> Striped(const std::string& directory, const RandomOptions&,
                                      std::shared_ptr<void>&) {
  const std::string other = directory + "/other";
  MoveExperts(directory, other, [](ExpertId id) { return id.expert % 2 == 0; });
  SourceOptions options = SourceKind::kDirect;
  options.also = {other};
  return OpenExpertSource(directory, options).value();
}

std::unique_ptr<ExpertSource> Faulty(const std::string& directory, const RandomOptions& options,
                                     std::shared_ptr<void>& keep) {
  return std::make_unique<FaultyExpertSource>(Mapped(directory, options, keep),
                                              std::make_shared<ReadFaults>());
}

INSTANTIATE_TEST_SUITE_P(Local, ExpertSourceContractTest,
                         ::testing::Values(SourceFactory{"Memory", Memory},
                                           SourceFactory{"Mapped", Mapped},
                                           SourceFactory{"DirectByUring", DirectByUring},
                                           SourceFactory{"DirectByPread", DirectByPread},
                                           SourceFactory{"GgufInPlace", GgufInPlace},
                                           SourceFactory{"GgufSplit", GgufSplit},
                                           SourceFactory{"GgufMapped", GgufMapped},
                                           SourceFactory{"Striped", Striped},
                                           SourceFactory{"Faulty", Faulty}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace odmoe
