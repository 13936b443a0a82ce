// The contracts over what other processes see: a store in shared memory, a source over gRPC. The
// service runs in this process; tests/faults runs it in one of its own.
#include <memory>
#include <utility>

#include "clients/cpp/remote_expert_source.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "gtest/gtest.h"
#include "tests/contract/expert_source_contract.h"
#include "tests/contract/expert_store_contract.h"
#include "tests/support/expert_storage_server.h"

namespace odmoe {
namespace {

std::unique_ptr<CachingExpertStore> MakeStore(std::unique_ptr<ExpertSource> source, int64_t slots) {
  CachingExpertStore::Options options;
  options.budget_bytes = static_cast<uint64_t>(slots) *
                         SlotBytes(source->catalog().max_expert_bytes());
  options.shareable = true;
  return CachingExpertStore::Create(std::move(source), std::move(options)).value();
}

std::unique_ptr<ExpertStore> AnotherSession(const std::shared_ptr<void>& keep) {
  const auto& server = *static_cast<ExpertStorageTestServer*>(keep.get());
  auto store = ConnectSharedMemoryStore(server.endpoint, "model");
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

std::unique_ptr<ExpertStore> SharedMemory(std::unique_ptr<ExpertSource> source, int64_t slots,
                                          std::shared_ptr<void>& keep) {
  auto server = std::make_shared<ExpertStorageTestServer>();
  keep = server;
  EXPECT_TRUE(server->models.Serve("model", MakeStore(std::move(source), slots)).ok());
  return AnotherSession(keep);
}

INSTANTIATE_TEST_SUITE_P(Remote, ExpertStoreContractTest,
                         ::testing::Values(StoreFactory{"SharedMemory", SharedMemory,
                                                        AnotherSession}),
                         [](const auto& info) { return info.param.name; });

std::unique_ptr<ExpertSource> Remote(const std::string&,
                                     const MemoryExpertSource::RandomOptions& options,
                                     std::shared_ptr<void>& keep) {
  auto server = std::make_shared<ExpertStorageTestServer>();
  keep = server;
  auto source = MemoryExpertSource::Random(options).value();
  EXPECT_TRUE(server->models.Serve("model", MakeStore(std::move(source), 4)).ok());
  auto remote = ConnectRemoteSource(server->endpoint, "model");
  EXPECT_TRUE(remote.ok()) << remote.status();
  return remote.ok() ? *std::move(remote) : nullptr;
}

INSTANTIATE_TEST_SUITE_P(Remote, ExpertSourceContractTest,
                         ::testing::Values(SourceFactory{"Grpc", Remote}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace odmoe
