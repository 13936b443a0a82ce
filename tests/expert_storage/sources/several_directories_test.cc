// The file sources where things go wrong or are large: copies that fail, descriptors that run out,
// files written to, reads given up, tens of thousands of experts.
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <iterator>
#include <memory>
#include <random>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/base/units.h"
#include "services/core/formats/model_index.h"
#include "services/core/io/aligned_buffer.h"
#include "services/expert_storage/sources/direct_expert_source.h"
#include "services/expert_storage/sources/open_expert_source.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;

class SeveralDirectoriesTest : public ::testing::Test {
 protected:
  SeveralDirectoriesTest() {
    MemoryExpertSource::RandomOptions options;
    options.dim = 160;
    options.ffn = 160;
    truth_ = WriteRandomExperts(first_, options);
    buffer_ = AlignedBuffer::Allocate(
                  RoundUp(truth_->catalog().max_expert_bytes(), kDirectIoAlignment))
                  .value();
  }

  // A copy of everything in `second_`.
  void Mirror() {
    std::filesystem::copy(first_, second_, std::filesystem::copy_options::recursive);
  }

  std::unique_ptr<DirectExpertSource> Open(DirectExpertSource::Options options = {}) {
    if (options.directories.empty()) options.directories = {first_, second_};
    return DirectExpertSource::Create(std::move(FindPlaces(first_).value().places),
                                      std::move(options))
        .value();
  }

  absl::Status ReadIt(ExpertSource& source, ExpertId id) {
    const absl::Status status = ReadAndWait(source, id, buffer_.span());
    if (status.ok()) {
      EXPECT_TRUE(std::ranges::equal(truth_->Bytes(id),
                                     buffer_.span().first(truth_->Bytes(id).size())));
    }
    return status;
  }

  TemporaryDirectory directory_;
  const std::string first_ = directory_ / "first";
  const std::string second_ = directory_ / "second";
  std::unique_ptr<MemoryExpertSource> truth_;
  AlignedBuffer buffer_;
};

TEST_F(SeveralDirectoriesTest, ACopyThatFailsIsAnsweredByTheOther) {
  Mirror();
  std::filesystem::remove(ExpertPath(first_, {0, 0}));
  CorruptExpert(first_, {0, 1});
  std::filesystem::resize_file(ExpertPath(second_, {0, 2}), 5000);
  CorruptExpert(second_, {0, 3});
  const auto source = Open();
  for (int round = 0; round < 2; ++round) {
    for (int64_t i = 0; i < source->catalog().expert_count(); ++i) {
      const absl::Status status = ReadIt(*source, source->catalog().IdOf(i));
      EXPECT_TRUE(status.ok()) << status;
    }
  }
  SourceStats stats = source->Stats();
  // Which copy is asked first depends on the number: 0 and 2 begin at the first, 1 and 3 at the
  // second. What was not found is not looked for again.
  EXPECT_EQ(stats.disks[0].failures, 1);
  EXPECT_EQ(stats.disks[1].failures, 2);
  EXPECT_EQ(stats.answered_by_another_disk, 2);
  EXPECT_EQ(stats.checksum_failures, 2);
  EXPECT_GT(stats.disks[0].bytes_read, 0);
  EXPECT_GT(stats.disks[1].bytes_read, 0);
  // In both, and it is lost after all; the first failure is told.
  CorruptExpert(second_, {0, 1});
  const absl::Status lost = ReadIt(*source, {0, 1});
  EXPECT_TRUE(absl::IsDataLoss(lost));
  EXPECT_THAT(lost.message(), HasSubstr("is corrupt"));
}

TEST_F(SeveralDirectoriesTest, ReadsGoWhereTheLeastIsUnderWay) {
  Mirror();
  // All reads are held, so that what is under way only grows.
  struct Held final : BlockReader {
    Held(absl::Mutex& its_mutex, std::vector<BlockRead>& its_reads)
        : mutex(its_mutex), reads(its_reads) {}
    void Read(BlockRead read) override {
      absl::MutexLock lock(&mutex);
      reads.push_back(std::move(read));
    }
    Gauges gauges() const override { return {}; }
    absl::Mutex& mutex;
    std::vector<BlockRead>& reads;
  };
  absl::Mutex mutex;
  std::vector<BlockRead> reads;
  DirectExpertSource::Options options;
  options.make_reader = [&](IoShape) { return std::make_unique<Held>(mutex, reads); };
  const auto source = Open(std::move(options));
  std::vector<AlignedBuffer> buffers;
  absl::Notification over[8];
  for (int i = 0; i < 8; ++i) {
    buffers.push_back(AlignedBuffer::Allocate(buffer_.size()).value());
    source->Read({0, 0}, buffers.back().span(), [&, i](absl::Status) { over[i].Notify(); });
  }
  const SourceStats stats = source->Stats();
  EXPECT_EQ(stats.disks[0].reads, 4);
  EXPECT_EQ(stats.disks[1].reads, 4);
  EXPECT_EQ(stats.disks[0].bytes_under_way, stats.disks[1].bytes_under_way);
  std::vector<BlockRead> held;
  while (held.size() < 8) {
    absl::MutexLock lock(&mutex);
    std::move(reads.begin(), reads.end(), std::back_inserter(held));
    reads.clear();
  }
  for (BlockRead& read : held) read.done(absl::CancelledError("held"));
  for (auto& each : over) each.WaitForNotification();
}

// Takes all descriptors this process may have until it goes.
class NoDescriptors {
 public:
  NoDescriptors() {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &limit_), 0);
    const rlimit small = {256, limit_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &small), 0);
    for (int fd = 0; fd >= 0;) {
      fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
      taken_.emplace_back(fd);
    }
  }
  ~NoDescriptors() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit_), 0); }

 private:
  rlimit limit_ = {};
  std::vector<OwnedFd> taken_;
};

TEST_F(SeveralDirectoriesTest, WithoutDescriptorsAnOpenWaitsAndThenFailsAndOpenFilesAreRead) {
  DirectExpertSource::Options options;
  options.directories = {first_};
  options.open_patience = absl::Milliseconds(30);
  const auto impatient = Open(options);
  const auto has_one_open = Open(options);
  ASSERT_TRUE(ReadIt(*has_one_open, {0, 1}).ok());
  options.open_patience = absl::Minutes(2);
  const auto patient = Open(options);
  auto room = AlignedBuffer::Allocate(buffer_.size()).value();
  absl::Status result;
  absl::Notification over;
  {
    const NoDescriptors none;
    const absl::Status status = ReadIt(*impatient, {0, 0});
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_GT(impatient->Stats().open_retries, 0);
    EXPECT_TRUE(ReadIt(*has_one_open, {0, 1}).ok());
    // It gives up a file nobody reads from for another.
    EXPECT_TRUE(ReadIt(*has_one_open, {0, 2}).ok());
    patient->Read({0, 0}, room.span(), [&](absl::Status s) {
      result = std::move(s);
      over.Notify();
    });
    while (patient->Stats().open_retries == 0) std::this_thread::yield();
  }
  over.WaitForNotification();
  EXPECT_TRUE(result.ok()) << result;
}

TEST_F(SeveralDirectoriesTest, WhatIsCancelledBeforeItsFileIsOpenIsGivenUp) {
  Mirror();
  const auto source = Open();
  const auto control = std::make_shared<ReadControl>(ReadControl::Urgency::kPrefetch);
  control->Cancel();
  absl::Status result;
  absl::Notification over;
  source->Read({0, 0}, buffer_.span(), control, [&](absl::Status status) {
    result = std::move(status);
    over.Notify();
  });
  over.WaitForNotification();
  EXPECT_TRUE(absl::IsCancelled(result)) << result;
  EXPECT_EQ(source->Stats().disks[0].failures, 0);
}

TEST_F(SeveralDirectoriesTest, OptionsNobodyCanWantAreRefused) {
  const auto refusal = [&](auto change) {
    SourceOptions options = SourceKind::kDirect;
    change(options);
    return OpenExpertSource(first_, options).status();
  };
  EXPECT_TRUE(absl::IsInvalidArgument(refusal([](auto& o) { o.depth = 0; })));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal([](auto& o) { o.depth = 100'000; })));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal([](auto& o) { o.request_bytes = 5000; })));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal([](auto& o) { o.request_bytes = 1 << 30; })));
  EXPECT_TRUE(absl::IsNotFound(refusal([](auto& o) { o.also = {"/nowhere"}; })));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal([](auto& o) { o.also.resize(20, "/tmp"); })));
  EXPECT_TRUE(absl::IsInvalidArgument(refusal([](auto& o) {
    o.kind = SourceKind::kMapped;
    o.also = {"/tmp"};
  })));
  SourceOptions given = SourceKind::kDirect;
  given.depth = 3;
  given.request_bytes = 8192;
  const auto source = OpenExpertSource(first_, given);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->Stats().queue_depth, 3);
  EXPECT_EQ((*source)->Stats().request_bytes, 8192);
  EXPECT_EQ((*source)->desired_bytes_under_way(),
            3 * 8192 + 2 * (*source)->catalog().max_expert_bytes());
}

class GgufFaultsTest : public SeveralDirectoriesTest {
 protected:
  GgufFaultsTest() { path_ = WriteGgufExperts(first_, *truth_, 1); }
  std::string path_;
};

TEST_F(GgufFaultsTest, BytesAreKnownAfterTheFirstReadAndTheFileByItsStamp) {
  for (const SourceKind kind : {SourceKind::kDirect, SourceKind::kMapped}) {
    path_ = WriteGgufExperts(first_, *truth_, 1);
    const auto source = OpenExpertSource(path_, kind).value();
    EXPECT_TRUE(ReadIt(*source, {0, 0}).ok());
    // Bits that rot leave no other trace.
    const auto modified = std::filesystem::last_write_time(path_);
    const int64_t size = static_cast<int64_t>(std::filesystem::file_size(path_));
    std::string content = ReadFileOrDie(path_);
    content[content.find(std::string(reinterpret_cast<const char*>(truth_->Bytes({0, 0}).data()),
                                     64))] ^= 1;
    {
      OwnedFd fd(open(path_.c_str(), O_WRONLY | O_CLOEXEC));
      ASSERT_EQ(pwrite(fd.get(), content.data(), content.size(), 0), size);
    }
    std::filesystem::last_write_time(path_, modified);
    const absl::Status rotten = ReadIt(*source, {0, 0});
    EXPECT_TRUE(absl::IsDataLoss(rotten)) << rotten;
    EXPECT_THAT(rotten.message(), HasSubstr("at the first read it was"));
    EXPECT_TRUE(ReadIt(*source, {0, 1}).ok());
    // Written to openly, nothing of it is trusted.
    std::filesystem::last_write_time(path_, modified + std::chrono::seconds(1));
    const absl::Status written = ReadIt(*source, {0, 1});
    EXPECT_TRUE(absl::IsDataLoss(written)) << written;
    EXPECT_THAT(written.message(), HasSubstr("open it again"));
    std::filesystem::resize_file(path_, static_cast<uintmax_t>(size) - 1);
    EXPECT_TRUE(absl::IsDataLoss(ReadIt(*source, {1, 3})));
  }
}

// As `cp` makes one, its time is that of the copying.
TEST_F(GgufFaultsTest, ACopyHasATimeOfItsOwnAndItsBytesAreChecked) {
  std::filesystem::create_directory(second_);
  const std::string copy = second_ + path_.substr(path_.rfind('/'));
  std::filesystem::copy_file(path_, copy);
  const auto modified = std::filesystem::last_write_time(path_) + std::chrono::hours(1);
  std::filesystem::last_write_time(copy, modified);
  SourceOptions options = SourceKind::kDirect;
  options.also = {second_};
  const auto source = OpenExpertSource(path_, options).value();
  for (int64_t i = 0; i < source->catalog().expert_count(); ++i) {
    EXPECT_TRUE(ReadIt(*source, source->catalog().IdOf(i)).ok());
  }
  EXPECT_EQ(source->Stats().disks[1].failures, 0);
  EXPECT_GT(source->Stats().disks[1].bytes_read, 0);
  EXPECT_EQ(source->Stats().answered_by_another_disk, 0);
  // Written to since, it is trusted no more; the other answers.
  std::filesystem::last_write_time(copy, modified + std::chrono::seconds(1));
  for (int64_t i = 0; i < source->catalog().expert_count(); ++i) {
    EXPECT_TRUE(ReadIt(*source, source->catalog().IdOf(i)).ok());
  }
  EXPECT_GT(source->Stats().disks[1].failures, 0);
  // And a copy of another size never is.
  std::filesystem::resize_file(copy, std::filesystem::file_size(copy) + 1);
  const auto later = OpenExpertSource(path_, options).value();
  EXPECT_TRUE(ReadIt(*later, {0, 1}).ok());
  EXPECT_EQ(later->Stats().disks[1].bytes_read, 0);
}

TEST_F(GgufFaultsTest, DigestsNameTheBytes) {
  const std::string digest = OpenExpertSource(path_, {}).value()->catalog().model_digest();
  EXPECT_EQ(digest.size(), 32);
  const std::string copy = directory_ / "copy.gguf";
  std::filesystem::copy(path_, copy);
  EXPECT_EQ(OpenExpertSource(copy, {}).value()->catalog().model_digest(), digest);
  std::string content = ReadFileOrDie(copy);
  content[content.find(std::string(reinterpret_cast<const char*>(truth_->Bytes({1, 0}).data()),
                                   64))] ^= 1;
  WriteFileOrDie(copy, content);
  EXPECT_NE(OpenExpertSource(copy, {}).value()->catalog().model_digest(), digest);
}

TEST_F(SeveralDirectoriesTest, TruncationAnywhereAndFlippedBitsAreDataLossForTheOne) {
  DirectExpertSource::Options options;
  options.directories = {first_};
  const auto source = Open(std::move(options));
  const std::string path = ExpertPath(first_, {0, 1});
  const std::string good = ReadFileOrDie(path);
  std::mt19937_64 random(11);
  std::vector<uint64_t> sizes = {0, 1, 4095, 4096, 4097, good.size() - 4096, good.size() - 1};
  for (int i = 0; i < 20; ++i) sizes.push_back(random() % good.size());
  for (const uint64_t size : sizes) {
    WriteFileOrDie(path, good.substr(0, size));
    EXPECT_TRUE(absl::IsDataLoss(ReadIt(*source, {0, 1}))) << size;
  }
  for (int i = 0; i < 20; ++i) {
    std::string flipped = good;
    flipped[kExpertDataOffset + random() % (good.size() - kExpertDataOffset)] ^=
        char(1 << random() % 8);
    WriteFileOrDie(path, flipped);
    EXPECT_TRUE(absl::IsDataLoss(ReadIt(*source, {0, 1})));
    EXPECT_TRUE(ReadIt(*source, {0, 2}).ok());
  }
  WriteFileOrDie(path, good);
  EXPECT_TRUE(ReadIt(*source, {0, 1}).ok());
}

// A model of Kimi-K2's size in experts, its files sparse; only a few of them exist.
TEST(ManyExpertsTest, TensOfThousandsTakeFewBytesEach) {
  constexpr int32_t kLayers = 60, kExperts = 384;
  const TemporaryDirectory directory;
  const ExpertLayout layout =
      MakeExpertLayout(DType::kF16, DType::kF16, DType::kF16, 7168, 2048).value();
  std::vector<LayerExperts> layers;
  std::vector<ExpertFile> files;
  for (int32_t layer = 1; layer <= kLayers; ++layer) {
    layers.push_back({layer, kExperts, layout, std::vector<uint64_t>(kExperts, 7)});
  }
  files.resize(kLayers * kExperts, {"", layout.bytes + 4096, 4096});
  const ExpertCatalog catalog =
      ExpertCatalog::Create(ModelDigest(layers), std::move(layers)).value();
  std::filesystem::create_directories(directory / "experts");
  WriteFileOrDie(directory / kRegistryFile, EncodeExpertRegistry(catalog, files));
  for (const ExpertId id : {ExpertId{1, 0}, ExpertId{60, 383}}) {
    const std::string path = ExpertPath(directory.path(), id);
    WriteFileOrDie(path, "");
    std::filesystem::resize_file(path, layout.bytes + 4096);
  }
  SourceOptions options = SourceKind::kDirect;
  options.depth = 4;  // nothing is measured
  options.request_bytes = 1 << 20;
  const auto source = OpenExpertSource(directory.path(), options);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ((*source)->catalog().expert_count(), 23'040);
  auto buffer = AlignedBuffer::Allocate(RoundUp(layout.bytes, 4096)).value();
  // Zeros, so another hash than the registry's; what is not there is lost, and that alone.
  for (const ExpertId id : {ExpertId{1, 0}, ExpertId{60, 383}}) {
    const absl::Status status = ReadAndWait(**source, id, buffer.span());
    EXPECT_THAT(status.message(), HasSubstr("is corrupt")) << status;
  }
  EXPECT_THAT(ReadAndWait(**source, {30, 200}, buffer.span()).message(), HasSubstr("cannot open"));
  EXPECT_EQ((*source)->Stats().open_files, 0) << "all three failed, and are opened anew";
}

}  // namespace
}  // namespace odmoe
