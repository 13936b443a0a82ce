// A store as a process of its own, to be killed, and what is seen of it from outside.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "clients/cpp/shared_memory_expert_store.h"
#include "gtest/gtest.h"
#include "services/core/experts/memory_expert_source.h"
#include "tests/support/expert_directory.h"
#include "tests/support/subprocess.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {

inline constexpr absl::Duration kPatience = absl::Minutes(1);

class StoreProcessTest : public ::testing::Test {
 protected:
  static constexpr int32_t kExperts = 16;

  explicit StoreProcessTest(std::string budget = "25%") : budget_(std::move(budget)) {
    MemoryExpertSource::RandomOptions shape;
    shape.layers = 2;
    shape.experts_per_layer = kExperts;
    shape.dim = 128;
    shape.ffn = 256;
    truth_ = WriteRandomExperts(directory_ / "models/model", shape);
    StartStore();
  }

  // The first time on any port, then on the same.
  void StartStore(std::vector<std::string> more = {}) {
    Subprocess::Options options;
    options.arguments = {absl::StrCat(ODMOE_BIN_DIR, "/odmoe-expert-storage"),
                         "--listen", endpoint_.empty() ? "127.0.0.1:0" : endpoint_,
                         "--model", directory_ / "models/model",
                         "--expert-budget", budget_,
                         "--socket-dir", directory_.path()};
    options.arguments.insert(options.arguments.end(), more.begin(), more.end());
    auto process = Subprocess::Start(options);
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
    const auto line = process_->WaitForLine("listening on ", kPatience);
    ASSERT_TRUE(line.ok()) << line.status();
    endpoint_ = line->substr(line->rfind(' ') + 1);
  }

  std::unique_ptr<ExpertStore> Connect() {
    auto store = ConnectSharedMemoryStore(endpoint_, "model");
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  bool BytesAreRight(const ExpertView& view, ExpertId id) const {
    const auto expected = truth_->Bytes(id);
    return std::equal(expected.begin(), expected.end(), view.data);
  }

  // Acquires until it works; a minute at most.
  void AwaitService(ExpertStore& store) {
    absl::Status last;
    for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;
         std::this_thread::yield()) {
      const auto batch = store.Acquire({{1, 1}}, absl::Now() + absl::Seconds(5));
      last = batch.status();
      if (!batch.ok()) continue;
      const auto view = (*batch)->Wait(0);
      last = view.status();
      if (view.ok()) {
        EXPECT_TRUE(BytesAreRight(*view, {1, 1}));
        return;
      }
    }
    ADD_FAILURE() << "the store never came back: " << last;
  }

  // Polls the store's counters; a minute at most.
  StoreStats AwaitStats(const std::function<bool(const StoreStats&)>& condition) {
    const auto admin = ExpertStorageAdmin::Connect(endpoint_).value();
    StoreStats stats;
    for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;
         std::this_thread::yield()) {
      stats = admin->Stats("")->store;
      if (condition(stats)) return stats;
    }
    ADD_FAILURE() << "the statistics never got there: clients " << stats.clients << ", pinned "
                  << stats.pinned_experts;
    return stats;
  }

  // Of a process: its open descriptors, and its mappings of the store's memory.
  static size_t OpenDescriptors(pid_t pid) {
    std::error_code error;
    const auto all = std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/fd"), error);
    return error ? 0 : static_cast<size_t>(std::distance(begin(all), end(all)));
  }
  static size_t Mappings(pid_t pid) {
    std::ifstream in(absl::StrCat("/proc/", pid, "/maps"));
    size_t count = 0;
    for (std::string line; std::getline(in, line);) {
      count += absl::StrContains(line, "memfd:odmoe-") ? 1 : 0;
    }
    return count;
  }
  // Polls; a minute at most.
  static bool Await(const std::function<bool()>& condition) {
    for (const absl::Time end = absl::Now() + kPatience; absl::Now() < end;
         std::this_thread::yield()) {
      if (condition()) return true;
    }
    return condition();
  }

  const std::string budget_;
  TemporaryDirectory directory_;
  std::unique_ptr<MemoryExpertSource> truth_;
  std::string endpoint_;
  std::unique_ptr<Subprocess> process_;
};

}  // namespace odmoe
