// Items that are made together, into two files, killed at every call.
#include <atomic>

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "converter/output/write_output.h"
#include "tests/support/simulated_disk.h"

namespace odmoe {
namespace {

constexpr int kGroups = 8;

// Two files of eight items, the second's twice as long, made in pairs out of one pass.
class PairedFiles {
 public:
  PairedFiles() {
    plan_ = {.destination = "out", .journal_path = "out/conversion.journal"};
    for (const uint64_t bytes : {100, 200}) {
      OutputFile file{.path = absl::StrCat("out/file", bytes), .bytes = kGroups * bytes};
      for (int i = 0; i < kGroups; ++i) {
        file.items.push_back({.name = absl::StrCat("tensor", i),
                              .offset = static_cast<uint64_t>(i) * bytes,
                              .parts = {{.bytes = bytes}}});
      }
      plan_.files.push_back(std::move(file));
    }
    for (uint32_t i = 0; i < kGroups; ++i) {
      plan_.groups.push_back({{i, i + kGroups}, [this, i](absl::Span<const ByteSink> sinks) {
                                ++passes_;
                                return Make(i, sinks);
                              }});
    }
    EXPECT_EQ(SetFingerprint(plan_, "", {}), absl::OkStatus());
  }

  absl::Status Write(FileSystem& disk, int concurrency) {
    StepProgress progress;
    return WriteOutput(plan_, disk, {.concurrency = concurrency}, progress);
  }
  int passes() const { return passes_.load(); }
  int sinks() const { return sinks_.load(); }
  bool cut_short = false;  // a pass forgets the end of the second file's item

 private:
  absl::Status Make(uint32_t i, absl::Span<const ByteSink> sinks) {
    const std::string data(100, static_cast<char>('a' + i));
    const auto bytes = absl::MakeConstSpan(reinterpret_cast<const std::byte*>(data.data()), 100);
    for (size_t s = 0; s < 2; ++s) {
      if (!sinks[s]) continue;
      ++sinks_;
      for (size_t times = 0; times < s + 1 - (s == 1 && cut_short); ++times) {
        const absl::Status taken = sinks[s](bytes);
        if (!taken.ok()) return taken;
      }
    }
    return absl::OkStatus();
  }

  OutputPlan plan_;
  std::atomic<int> passes_ = 0, sinks_ = 0;
};

TEST(OutputGroupsTest, AreMadeInOnePassEachAndGoOnWhereverTheyWereKilled) {
  std::string expected;
  for (int i = 0; i < kGroups; ++i) expected += std::string(200, static_cast<char>('a' + i));
  for (const int concurrency : {1, 3}) {
    for (int64_t at = 0;; ++at) {
      SimulatedDisk disk;
      PairedFiles pair;
      disk.FailAt(at, absl::UnavailableError("killed"), /*for_good=*/true);
      const bool finished = pair.Write(disk, concurrency).ok();
      disk.Restart();
      if (!finished) ASSERT_EQ(pair.Write(disk, concurrency), absl::OkStatus()) << at;
      ASSERT_EQ(disk.Files().at("out/file200"), expected) << at;
      ASSERT_EQ(disk.Files().at("out/file100").substr(700), std::string(100, 'h')) << at;
      ASSERT_EQ(disk.Files().size(), 2u) << at;
      // What was recorded is not made again.
      ASSERT_LE(pair.passes(), kGroups + concurrency) << at;
      ASSERT_LE(pair.sinks(), 2 * (kGroups + concurrency)) << at;
      if (finished) break;
    }
  }
}

TEST(OutputGroupsTest, AnItemThatGetsTooFewBytesIsOurError) {
  SimulatedDisk disk;
  PairedFiles pair;
  pair.cut_short = true;
  EXPECT_EQ(pair.Write(disk, 1).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace odmoe
