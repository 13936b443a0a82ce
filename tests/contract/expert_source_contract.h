// What every ExpertSource is held to.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {

// A source over a directory that WriteRandomExperts wrote, or over the same experts in memory.
// `keep` takes what must live as long as the source, a server say.
struct SourceFactory {
  std::string name;
  std::function<std::unique_ptr<ExpertSource>(const std::string& directory,
                                              const MemoryExpertSource::RandomOptions& options,
                                              std::shared_ptr<void>& keep)>
      make;
};

// gtest prints parameters.
inline std::ostream& operator<<(std::ostream& out, const SourceFactory& factory) {
  return out << factory.name;
}

class ExpertSourceContractTest : public ::testing::TestWithParam<SourceFactory> {
 protected:
  static constexpr int32_t kLayers = 3;
  static constexpr int32_t kExperts = 7;

  void SetUp() override;

  TemporaryDirectory directory_;
  std::unique_ptr<MemoryExpertSource> truth_;
  std::shared_ptr<void> keep_;
  std::unique_ptr<ExpertSource> source_;
};

}  // namespace odmoe
