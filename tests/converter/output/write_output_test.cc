// The output engine on a simulated disk: killed, without power, and failing at every call.
#include "converter/output/write_output.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "converter/output/journal.h"
#include "tests/support/simulated_disk.h"

namespace odmoe {
namespace {

using testing::HasSubstr;

constexpr uint64_t kExpertBytes = 300;
constexpr int kWrittenExperts = 12;
constexpr char kRegistry[] = "out/experts/registry.json";

// A small model directory: a base file of made items with gaps between, experts copied from a
// source in two parts each, and two texts with the hashes in them.
class Example {
 public:
  explicit Example(SimulatedDisk& disk, std::string options = "") : disk_(disk) {
    std::string bytes;
    for (int i = 0; i < 2 * kWrittenExperts * static_cast<int>(kExpertBytes); ++i) {
      bytes += static_cast<char>(i * 31 + i / 256);
    }
    if (!disk.OpenForRead("source").ok()) disk.Write("source", bytes);
    source_ = disk.OpenForRead("source").value();
    plan_ = {.destination = "out", .journal_path = "out/conversion.journal",
             .folders = {"out", "out/base", "out/experts"}};
    AddBaseFile();
    for (int expert = 0; expert < kWrittenExperts; ++expert) AddExpert(expert);
    plan_.texts = [](absl::Span<const uint64_t> hashes) -> absl::StatusOr<std::vector<OutputText>> {
      std::string text;
      for (uint64_t hash : hashes) absl::StrAppend(&text, hash, "\n");
      return std::vector<OutputText>{{"out/base/metadata.json", text + "metadata"},
                                     {kRegistry, text + "registry"}};
    };
    EXPECT_EQ(SetFingerprint(plan_, options, {source_.get()}), absl::OkStatus());
  }

  const OutputPlan& plan() const { return plan_; }
  // Items whose bytes were made, so far.
  int made() const { return made_.load(); }

  absl::Status Write(int concurrency, EarlierWork earlier = EarlierWork::kGoOn,
                     std::string* digest = nullptr) {
    StepProgress progress;
    // Experts are copied in several pieces.
    return WriteOutput(plan_, disk_,
                       {.concurrency = concurrency, .piece_bytes = 70, .earlier = earlier},
                       progress, digest);
  }

 private:
  void AddBaseFile() {
    OutputFile file{.path = "out/base/weights", .bytes = 4000};
    file.header = std::make_shared<const std::string>(100, 'h');
    for (int i = 0; i < 6; ++i) {
      const uint64_t bytes = 200 + 50 * static_cast<uint64_t>(i);
      file.items.push_back({.name = absl::StrCat("tensor", i), .offset = 128 + 600 * uint64_t(i)});
      file.items.back().parts.push_back(
          {.bytes = bytes, .make = [this, i, bytes](const ByteSink& sink) -> absl::Status {
             ++made_;
             const std::string data(bytes / 2, static_cast<char>('a' + i));
             const auto half = absl::MakeConstSpan(
                 reinterpret_cast<const std::byte*>(data.data()), data.size());
             const absl::Status first = sink(half);
             return first.ok() ? sink(half) : first;
           }});
    }
    plan_.files.push_back(std::move(file));
  }

  void AddExpert(int expert) {
    OutputFile file{.path = absl::StrCat("out/experts/expert", expert), .bytes = 64 + kExpertBytes};
    file.header = std::make_shared<const std::string>(64, 'e');
    OutputItem item{.name = absl::StrCat("expert", expert), .offset = 64};
    const uint64_t at = static_cast<uint64_t>(expert) * kExpertBytes;
    item.parts.push_back({.bytes = 100, .file = source_.get(), .offset = at});
    item.parts.push_back({.bytes = kExpertBytes - 100, .file = source_.get(), .offset = 2 * at});
    file.items.push_back(std::move(item));
    plan_.files.push_back(std::move(file));
  }

  SimulatedDisk& disk_;
  std::unique_ptr<RandomAccessFile> source_;
  OutputPlan plan_;
  std::atomic<int> made_ = 0;
};

using Files = std::map<std::string, std::string>;

Files Expected() {
  SimulatedDisk disk;
  EXPECT_EQ(Example(disk).Write(1), absl::OkStatus());
  return disk.Files();
}

// Where the registry is, everything is; and files that are not complete do not bear their names.
void ExpectNothingHalfDone(const Files& files, const Files& expected, int64_t at) {
  const bool complete = files.count(kRegistry) > 0;
  for (const auto& [path, bytes] : expected) {
    const auto found = files.find(path);
    ASSERT_TRUE(!complete || found != files.end()) << path << ", call " << at;
    ASSERT_TRUE(found == files.end() || found->second == bytes) << path << ", call " << at;
  }
}

TEST(WriteOutputTest, GivesTheSameBytesForAnyNumberOfWorkers) {
  const Files expected = Expected();
  ASSERT_EQ(expected.size(), size_t{kWrittenExperts + 4});
  EXPECT_EQ(expected.at("out/base/weights").substr(128, 200), std::string(200, 'a'));
  EXPECT_EQ(expected.at("out/base/weights").substr(328, 400), std::string(400, '\0'));
  for (int concurrency : {1, 2, 7}) {
    SimulatedDisk disk;
    ASSERT_EQ(Example(disk).Write(concurrency), absl::OkStatus());
    EXPECT_TRUE(disk.Files() == expected) << concurrency;
  }
}

TEST(WriteOutputTest, ReportsBytesOfAllWorkersInGrowingOrder) {
  SimulatedDisk disk;
  Example example(disk);
  uint64_t last = 0;
  const StepProgress::Callback callback = [&](const ConvertProgress& now) {
    EXPECT_GT(now.done_bytes, last);
    last = now.done_bytes;
  };
  StepProgress progress({.total_bytes = example.plan().data_bytes()}, nullptr, &callback);
  ASSERT_EQ(WriteOutput(example.plan(), disk, {.concurrency = 7}, progress), absl::OkStatus());
  EXPECT_EQ(last, example.plan().data_bytes());
}

// How often each byte of the items has been written.
class ByteCounts {
 public:
  ByteCounts(const OutputPlan& plan, SimulatedDisk& disk) {
    disk.WatchWrites([this, &plan](const std::string& path, uint64_t offset, uint64_t bytes) {
      for (const OutputFile& file : plan.files) {
        for (const OutputItem& item : file.items) {
          if (path != file.path + ".partial" || offset < item.offset) continue;
          if (offset + bytes > item.offset + item.bytes()) continue;
          std::vector<int>& counts = counts_[&item];
          counts.resize(item.bytes());
          for (uint64_t i = 0; i < bytes; ++i) ++counts[offset - item.offset + i];
        }
      }
    });
  }

  // Items of which something was written twice, and how much that was.
  std::pair<int, int> Repeated() const {
    int items = 0, bytes = 0;
    for (const auto& [item, counts] : counts_) {
      const auto twice = std::count_if(counts.begin(), counts.end(), [](int n) { return n > 1; });
      bytes += static_cast<int>(twice);
      items += twice > 0;
    }
    return {items, bytes};
  }

 private:
  std::map<const OutputItem*, std::vector<int>> counts_;
};

// kill -9 at every call that changes the disk: what was written stays, and no more follows.
TEST(WriteOutputTest, KilledAtAnyCallItGoesOnAndRepeatsOneItemAtMost) {
  const Files expected = Expected();
  for (int concurrency : {1, 7}) {
    int64_t at = 0;
    for (bool reached = true; reached && !HasFailure(); ++at) {
      SimulatedDisk disk;
      Example example(disk);
      const ByteCounts counts(example.plan(), disk);
      disk.FailAt(at, absl::UnavailableError("killed"), /*for_good=*/true);
      const absl::Status status = example.Write(concurrency);
      reached = disk.calls() > at;
      if (!reached) break;
      ASSERT_EQ(status.code(), absl::StatusCode::kUnavailable) << "call " << at;
      disk.Restart();
      ExpectNothingHalfDone(disk.Files(), expected, at);
      ASSERT_EQ(example.Write(concurrency), absl::OkStatus()) << "call " << at;
      ASSERT_TRUE(disk.Files() == expected) << "call " << at;
      const auto [items, bytes] = counts.Repeated();
      ASSERT_LE(items, 1) << "call " << at << " of " << concurrency << " workers";
      ASSERT_LE(bytes, 225) << "call " << at;  // the largest piece: half of the last tensor
      // What was made and not recorded was in a worker's hands.
      ASSERT_LE(example.made(), 6 + concurrency) << "call " << at;
    }
    EXPECT_GT(at, 90);
  }
}

TEST(WriteOutputTest, ALossOfPowerAtAnyCallLosesNothingThatCounts) {
  const Files expected = Expected();
  int64_t at = 0;
  for (bool reached = true; reached && !HasFailure(); ++at) {
    for (uint64_t seed = 0; seed < 4 && reached; ++seed) {
      SimulatedDisk disk;
      Example example(disk);
      disk.FailAt(at, absl::UnavailableError("no power"), /*for_good=*/true);
      static_cast<void>(example.Write(1 + static_cast<int>(seed % 2)));
      reached = disk.calls() > at;
      disk.LosePower(seed * 1000 + static_cast<uint64_t>(at));
      ExpectNothingHalfDone(disk.Files(), expected, at);
      ASSERT_EQ(example.Write(1), absl::OkStatus()) << "call " << at << ", seed " << seed;
      ASSERT_TRUE(disk.Files() == expected) << "call " << at << ", seed " << seed;
    }
  }
}

TEST(WriteOutputTest, AFailureAtAnyCallIsToldAndGoneOnFrom) {
  const Files expected = Expected();
  for (const absl::Status& failure : {absl::ResourceExhaustedError("no space left on device"),
                                      absl::DataLossError("input/output error")}) {
    int64_t at = 0;
    for (bool reached = true; reached && !HasFailure(); ++at) {
      SimulatedDisk disk;
      Example example(disk);
      disk.FailAt(at, failure, /*for_good=*/at % 2 == 0);
      const absl::Status status = example.Write(2);
      reached = disk.calls() > at;
      if (!reached) break;
      ASSERT_EQ(status.code(), failure.code()) << "call " << at << ": " << status;
      if (absl::IsResourceExhausted(failure)) {
        ASSERT_THAT(std::string(status.message()), HasSubstr("still needed for out, 1.00 MiB"));
      }
      // A sync that failed may have lost bytes that still read well: power shows it.
      disk.LosePower(static_cast<uint64_t>(at));
      ExpectNothingHalfDone(disk.Files(), expected, at);
      ASSERT_EQ(example.Write(2), absl::OkStatus()) << "call " << at;
      ASSERT_TRUE(disk.Files() == expected) << "call " << at;
    }
    EXPECT_GT(at, 90);
  }
}

// Interrupted again and again, it still comes to its end: a run has to get past the check of what
// the one before wrote and did not sync.
TEST(WriteOutputTest, ComesToItsEndThroughManyInterruptions) {
  const Files expected = Expected();
  SimulatedDisk disk;
  Example example(disk);
  int runs = 0;
  for (; runs < 1000; ++runs) {
    disk.FailAt(80, absl::UnavailableError("killed"), /*for_good=*/true);
    if (example.Write(1).ok()) break;
    disk.Restart();
  }
  EXPECT_LT(runs, 10);
  EXPECT_GT(runs, 1);
  disk.Restart();
  EXPECT_TRUE(disk.Files() == expected);
}

// Writes half of it and dies.
void LeaveHalf(SimulatedDisk& disk, Example& example) {
  disk.FailAt(50, absl::UnavailableError("killed"), /*for_good=*/true);
  EXPECT_FALSE(example.Write(1).ok());
  disk.Restart();
}

TEST(WriteOutputTest, RefusesAnotherConversionsWorkUnlessToldToRestart) {
  SimulatedDisk disk;
  Example first(disk), other(disk, "other options");
  LeaveHalf(disk, first);
  const Files before = disk.Files();
  const absl::Status refused = other.Write(1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--restart"));
  EXPECT_EQ(FindUnfinishedOutput(other.plan(), disk).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(disk.Files() == before);
  EXPECT_EQ(FindUnfinishedOutput(other.plan(), disk, EarlierWork::kDrop)->done_bytes, 0u);
  EXPECT_EQ(other.Write(1, EarlierWork::kDrop), absl::OkStatus());
  EXPECT_TRUE(disk.Files() == Expected());
}

TEST(WriteOutputTest, ReplacesAnotherConversionsWorkAndGoesOnWithItsOwn) {
  SimulatedDisk disk;
  Example first(disk), other(disk, "other options");
  LeaveHalf(disk, first);
  EXPECT_EQ(FindUnfinishedOutput(other.plan(), disk, EarlierWork::kReplaceOther)->done_bytes, 0u);
  disk.FailAt(50, absl::UnavailableError("killed"), /*for_good=*/true);
  EXPECT_FALSE(other.Write(1, EarlierWork::kReplaceOther).ok());
  disk.Restart();
  const int made = other.made();
  ASSERT_GT(made, 0);
  EXPECT_GT(FindUnfinishedOutput(other.plan(), disk, EarlierWork::kReplaceOther)->done_bytes, 0u);
  EXPECT_EQ(other.Write(1, EarlierWork::kReplaceOther), absl::OkStatus());
  EXPECT_TRUE(disk.Files() == Expected());
  Example whole(disk, "other options");
  EXPECT_EQ(whole.Write(1), absl::OkStatus());
  EXPECT_LT(other.made() - made, whole.made()) << "it began anew";
}

TEST(WriteOutputTest, TheDigestNamesTheBytesHoweverTheyCame) {
  SimulatedDisk disk;
  Example example(disk);
  std::string whole, resumed;
  EXPECT_EQ(example.Write(1, EarlierWork::kGoOn, &whole), absl::OkStatus());
  EXPECT_EQ(whole.size(), 16u);
  LeaveHalf(disk, example);
  EXPECT_EQ(example.Write(7, EarlierWork::kGoOn, &resumed), absl::OkStatus());
  EXPECT_EQ(resumed, whole);
  std::string bytes = disk.Files().at("source");
  bytes[7] = static_cast<char>(bytes[7] + 1);
  disk.Write("source", bytes);
  Example changed(disk);
  EXPECT_EQ(changed.Write(1, EarlierWork::kGoOn, &resumed), absl::OkStatus());
  EXPECT_NE(resumed, whole);
}

TEST(WriteOutputTest, ASourceThatChangedIsAnotherConversion) {
  SimulatedDisk disk;
  Example first(disk);
  LeaveHalf(disk, first);
  std::string bytes = disk.Files().at("source");
  bytes[7] = static_cast<char>(bytes[7] + 1);
  disk.Write("source", bytes);
  Example changed(disk);
  EXPECT_EQ(changed.Write(1).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(WriteOutputTest, KnowsWhatIsDoneBeforeItGoesOn) {
  SimulatedDisk disk;
  Example example(disk);
  EXPECT_EQ(FindUnfinishedOutput(example.plan(), disk)->done_bytes, 0u);
  LeaveHalf(disk, example);
  const auto unfinished = FindUnfinishedOutput(example.plan(), disk);
  ASSERT_TRUE(unfinished.ok()) << unfinished.status();
  EXPECT_GT(unfinished->done_bytes, 1000u);
  EXPECT_LT(unfinished->done_bytes, example.plan().data_bytes());
  EXPECT_GE(unfinished->disk_bytes, unfinished->done_bytes);
}

TEST(WriteOutputTest, ADamagedJournalCostsWorkAndNothingElse) {
  const Files expected = Expected();
  SimulatedDisk whole;
  Example first(whole);
  LeaveHalf(whole, first);
  const Files half = whole.Files();
  const std::string journal = half.at("out/conversion.journal");
  for (size_t at = 0; at < journal.size(); at += 5) {
    SimulatedDisk disk;
    for (const auto& [path, bytes] : half) disk.Write(path, bytes);
    std::string damaged = journal;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    disk.Write("out/conversion.journal", at % 2 == 0 ? damaged : journal.substr(0, at));
    ASSERT_EQ(Example(disk).Write(1), absl::OkStatus()) << at;
    ASSERT_TRUE(disk.Files() == expected) << at;
  }
}

TEST(WriteOutputTest, FilesThatWereRemovedOrCutAreMadeAgain) {
  const Files expected = Expected();
  for (const char* path : {"out/base/weights.partial", "out/experts/expert0.partial"}) {
    for (const bool cut : {false, true}) {
      SimulatedDisk disk;
      Example example(disk);
      LeaveHalf(disk, example);
      ASSERT_EQ(disk.Files().count(path), 1u) << path;
      if (cut) {
        disk.Write(path, "short");
      } else {
        ASSERT_EQ(disk.Remove(path), absl::OkStatus());
      }
      ASSERT_EQ(example.Write(1), absl::OkStatus());
      EXPECT_TRUE(disk.Files() == expected) << path;
    }
  }
}

TEST(WriteOutputTest, TwoProcessesDoNotWriteTheSameOutput) {
  SimulatedDisk disk;
  Example example(disk);
  const auto held = Journal::Open(disk, example.plan());
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_EQ(example.Write(1).code(), absl::StatusCode::kFailedPrecondition);
}

TEST(WriteOutputTest, CancelledItLeavesNothingOrTheWork) {
  for (const bool keep : {false, true}) {
    SimulatedDisk disk;
    Example example(disk);
    Cancellation cancellation;
    const StepProgress::Callback callback = [&](const ConvertProgress& now) {
      if (now.done_bytes < 2000) return;
      keep ? cancellation.CancelAndKeepWork() : cancellation.Cancel();
    };
    StepProgress progress({}, &cancellation, &callback);
    EXPECT_EQ(WriteOutput(example.plan(), disk, {.concurrency = 7}, progress).code(),
              absl::StatusCode::kCancelled);
    EXPECT_TRUE(keep || disk.Files().size() == 1);  // the source
    EXPECT_EQ(FindUnfinishedOutput(example.plan(), disk)->done_bytes > 0, keep);
  }
}

TEST(WriteOutputTest, APartThatMakesTheWrongNumberOfBytesIsOurError) {
  for (const uint64_t said : {199, 201}) {
    SimulatedDisk disk;
    Example example(disk);
    OutputPlan plan = example.plan();
    plan.files[0].items[0].parts[0].bytes = said;
    StepProgress progress;
    EXPECT_EQ(WriteOutput(plan, disk, {.concurrency = 1}, progress).code(),
              absl::StatusCode::kInternal);
  }
}

}  // namespace
}  // namespace odmoe
