// The source contract over the sources of this process.
#include <memory>

#include "gtest/gtest.h"
#include "services/core/formats/model_directory.h"
#include "services/expert_storage/sources/direct_expert_source.h"
#include "services/expert_storage/sources/mapped_expert_source.h"
#include "tests/contract/expert_source_contract.h"
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
  return std::make_unique<MappedExpertSource>(ReadExpertRegistry(directory).value());
}

std::unique_ptr<ExpertSource> Direct(const std::string& directory, bool io_uring) {
  DirectExpertSource::Options options;
  options.io_uring = io_uring;
  return DirectExpertSource::Create(ReadExpertRegistry(directory).value(), options).value();
}

std::unique_ptr<ExpertSource> DirectByUring(const std::string& directory, const RandomOptions&,
                                            std::shared_ptr<void>&) {
  return Direct(directory, true);
}

std::unique_ptr<ExpertSource> DirectByPread(const std::string& directory, const RandomOptions&,
                                            std::shared_ptr<void>&) {
  return Direct(directory, false);
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
                                           SourceFactory{"Faulty", Faulty}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace odmoe
