// What a reader asks of its device next, without a device: the test answers the requests.
#include "services/expert_storage/sources/read_queue.h"

#include <cstring>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;
using Urgency = ReadControl::Urgency;

constexpr uint64_t kPage = kDirectIoAlignment;

class ReadQueueTest : public ::testing::Test {
 protected:
  static std::byte ByteAt(uint64_t offset) { return std::byte(offset * 7 + offset / 251); }

  // A read of the imaginary file from `offset` on, to `skew` bytes past a page boundary.
  struct Wanted {
    AlignedBuffer memory;
    absl::Span<std::byte> into;
    absl::Status status = absl::UnknownError("not over");
    uint64_t landed = 0;
  };

  std::unique_ptr<Wanted> Add(ReadQueue& queue, uint64_t offset, uint64_t bytes, uint64_t skew = 0,
                              std::shared_ptr<const ReadControl> control = nullptr,
                              bool direct = true) {
    auto wanted = std::make_unique<Wanted>();
    wanted->memory = AlignedBuffer::Allocate(RoundUp(skew + bytes, kPage) + kPage).value();
    wanted->into = wanted->memory.span().subspan(skew, bytes);
    BlockRead read;
    auto file = std::make_shared<OpenedFile>(OwnedFd(), "imaginary", 1, direct);
    const uint64_t room = skew == 0 ? RoundUp(bytes, kPage) : bytes;
    read.extents.push_back({std::move(file), offset, wanted->into, room});
    read.control = std::move(control);
    read.landed = [raw = wanted.get()](size_t, uint64_t begin, uint64_t end) {
      raw->landed += end - begin;
    };
    read.done = [raw = wanted.get()](absl::Status status) { raw->status = std::move(status); };
    queue.Add(std::move(read));
    return wanted;
  }

  // What a device would put there; `bytes` of it.
  static void Fill(const ReadQueue::Request& request, uint64_t bytes) {
    for (uint64_t i = 0; i < bytes; ++i) request.address()[i] = ByteAt(request.offset() + i);
  }

  static void Answer(ReadQueue& queue, ReadQueue::Request* request) {
    Fill(*request, request->bytes());
    EXPECT_FALSE(request->Take(static_cast<int64_t>(request->bytes())));
    End(queue, request);
  }

  static void End(ReadQueue& queue, ReadQueue::Request* request) {
    queue.Complete(request);
    Tell(queue);
  }

  static void Tell(ReadQueue& queue) {
    for (auto& finished : queue.TakeFinished()) finished.done(finished.status);
  }

  static void ExpectContent(const Wanted& wanted, uint64_t offset) {
    ASSERT_TRUE(wanted.status.ok()) << wanted.status;
    for (uint64_t i = 0; i < wanted.into.size(); ++i) {
      ASSERT_EQ(wanted.into[i], ByteAt(offset + i)) << i;
    }
    EXPECT_EQ(wanted.landed, wanted.into.size());
  }

  const absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
};

TEST_F(ReadQueueTest, EveryOffsetSizeAndAddressArrivesByAlignedRequests) {
  std::mt19937 random(3);
  const auto below = [&](uint64_t n) { return uint64_t{random()} % n; };
  for (int round = 0; round < 150; ++round) {
    ReadQueue queue({4, 4 * kPage});
    // Alike and not alike, aligned and not.
    const uint64_t skews[] = {0, 1, 32, kPage - 1, below(kPage)};
    const uint64_t skew = skews[below(5)];
    const uint64_t offset = kPage * below(9) + (below(2) == 0 ? skew : below(kPage));
    const uint64_t bytes = 1 + below(12 * kPage);
    const bool direct = below(4) != 0;
    auto wanted = Add(queue, offset, bytes, skew, nullptr, direct);
    const std::byte before = wanted->memory.data()[0];
    while (ReadQueue::Request* request = queue.Next(now_)) {
      if (direct) {
        EXPECT_EQ(request->offset() % kPage, 0);
        EXPECT_EQ(request->bytes() % kPage, 0);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(request->address()) % kPage, 0);
      }
      EXPECT_LE(request->bytes(), 4 * kPage);
      Answer(queue, request);
    }
    ExpectContent(*wanted, offset);
    if (skew > 0) {
      EXPECT_EQ(wanted->memory.data()[0], before);
    }
    EXPECT_TRUE(queue.idle());
  }
}

TEST_F(ReadQueueTest, AnAlignedReadIsNotCopied) {
  ReadQueue queue({16, 4 * kPage});
  const auto wanted = Add(queue, 8 * kPage, 10 * kPage + 5);
  while (ReadQueue::Request* request = queue.Next(now_)) {
    EXPECT_GE(request->address(), wanted->into.data());
    EXPECT_LT(request->address(), wanted->into.data() + wanted->into.size());
    Answer(queue, request);
  }
  EXPECT_TRUE(queue.buffers().empty());
  ExpectContent(*wanted, 8 * kPage);
}

TEST_F(ReadQueueTest, ShortReadsGoOnAndTheFilesEndIsDataLoss) {
  ReadQueue queue({1, 4 * kPage});
  auto wanted = Add(queue, 0, 4 * kPage);
  ReadQueue::Request* request = queue.Next(now_);
  EXPECT_TRUE(request->Take(-EINTR));
  Fill(*request, kPage);
  EXPECT_TRUE(request->Take(kPage));
  EXPECT_EQ(request->offset(), kPage);
  Answer(queue, request);
  ExpectContent(*wanted, 0);

  for (const int64_t got : {int64_t{0}, int64_t{100}}) {
    wanted = Add(queue, 0, 2 * kPage);
    request = queue.Next(now_);
    EXPECT_FALSE(request->Take(got));
    End(queue, request);
    EXPECT_TRUE(absl::IsDataLoss(wanted->status)) << wanted->status;
    EXPECT_THAT(wanted->status.message(), HasSubstr("imaginary: ends at offset"));
  }
  // Behind what is wanted the file may end.
  wanted = Add(queue, 0, kPage + 100);
  request = queue.Next(now_);
  Fill(*request, kPage + 100);
  EXPECT_FALSE(request->Take(kPage + 100));
  End(queue, request);
  ExpectContent(*wanted, 0);
}

TEST_F(ReadQueueTest, ADevicesErrorFailsTheOneRead) {
  ReadQueue queue({4, kPage});
  const auto bad = Add(queue, 0, 8 * kPage), good = Add(queue, 0, kPage);
  const auto starved = Add(queue, 0, kPage);
  ReadQueue::Request* failed = queue.Next(now_);
  EXPECT_FALSE(failed->Take(-EIO));
  ReadQueue::Request* other = queue.Next(now_);  // of the same read, under way meanwhile
  queue.Complete(failed);
  EXPECT_TRUE(queue.TakeFinished().empty());
  Answer(queue, queue.Next(now_));               // no more of the one that failed
  ExpectContent(*good, 0);
  Answer(queue, other);
  EXPECT_TRUE(absl::IsDataLoss(bad->status)) << bad->status;
  EXPECT_THAT(bad->status.message(), HasSubstr("read at offset 0 failed: Input/output error"));
  ReadQueue::Request* no_memory = queue.Next(now_);
  EXPECT_FALSE(no_memory->Take(-ENOMEM));
  End(queue, no_memory);
  EXPECT_TRUE(absl::IsResourceExhausted(starved->status)) << starved->status;
  EXPECT_TRUE(queue.idle());
}

TEST_F(ReadQueueTest, APrefetchHasOneRequestAndNoneWhileADemandIsAbout) {
  ReadQueue queue({4, kPage});
  const auto control = std::make_shared<ReadControl>(Urgency::kPrefetch);
  const auto background = Add(queue, 0, kPage, 0,
                              std::make_shared<ReadControl>(Urgency::kBackground));
  const auto prefetch = Add(queue, 0, 3 * kPage, 0, control);
  ReadQueue::Request* first = queue.Next(now_);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(queue.Next(now_), nullptr);
  const auto demand = Add(queue, kPage, 2 * kPage);
  ReadQueue::Request* demanded = queue.Next(now_);
  ReadQueue::Request* demanded_too = queue.Next(now_);
  EXPECT_EQ(demanded->offset(), kPage);
  EXPECT_EQ(queue.Next(now_), nullptr);
  Answer(queue, first);
  EXPECT_EQ(queue.Next(now_), nullptr) << "a demand is under way";
  Answer(queue, demanded);
  Answer(queue, demanded_too);
  ExpectContent(*demand, kPage);
  // Before the background read, though it came after it.
  for (int i = 1; i < 3; ++i) {
    ReadQueue::Request* request = queue.Next(now_);
    EXPECT_EQ(request->offset(), i * kPage);
    Answer(queue, request);
  }
  ExpectContent(*prefetch, 0);
  Answer(queue, queue.Next(now_));
  ExpectContent(*background, 0);
}

TEST_F(ReadQueueTest, ARaisedPrefetchIsADemandFromTheNextRequestOn) {
  ReadQueue queue({3, kPage});
  const auto control = std::make_shared<ReadControl>(Urgency::kPrefetch);
  const auto wanted = Add(queue, 0, 4 * kPage, 0, control);
  const auto demand = Add(queue, 0, kPage);
  ReadQueue::Request* demanded = queue.Next(now_);
  EXPECT_EQ(queue.Next(now_), nullptr);
  control->Raise();
  ReadQueue::Request* a = queue.Next(now_);
  ReadQueue::Request* b = queue.Next(now_);
  ASSERT_NE(b, nullptr);
  for (ReadQueue::Request* request : {demanded, a, b}) Answer(queue, request);
  Answer(queue, queue.Next(now_));
  Answer(queue, queue.Next(now_));
  ExpectContent(*wanted, 0);
  ExpectContent(*demand, 0);
}

TEST_F(ReadQueueTest, WhatIsCancelledEndsBetweenRequests) {
  ReadQueue queue({4, kPage});
  for (const Urgency urgency : {Urgency::kPrefetch, Urgency::kDemand}) {
    const auto control = std::make_shared<ReadControl>(urgency);
    const auto waiting_control = std::make_shared<ReadControl>(urgency);
    const auto begun = Add(queue, 0, 9 * kPage, 0, control);
    const auto waiting = Add(queue, 0, kPage, 0, waiting_control);
    ReadQueue::Request* request = queue.Next(now_);
    control->Cancel();
    waiting_control->Cancel();
    EXPECT_EQ(queue.Next(now_), nullptr);
    Tell(queue);
    EXPECT_TRUE(absl::IsCancelled(waiting->status)) << waiting->status;
    EXPECT_FALSE(absl::IsCancelled(begun->status)) << "a request still writes to its memory";
    Answer(queue, request);
    EXPECT_TRUE(absl::IsCancelled(begun->status)) << begun->status;
    EXPECT_TRUE(queue.idle());
  }
}

TEST_F(ReadQueueTest, AFileThatHangsTakesOthersNothing) {
  ReadQueue queue({4, kPage});
  std::vector<std::unique_ptr<Wanted>> hung;
  std::vector<ReadQueue::Request*> stuck;
  // Larger than the queue, and through buffers of its own.
  for (int i = 0; i < 3; ++i) {
    hung.push_back(Add(queue, 7, 16 * kPage, 32));
    while (ReadQueue::Request* request = queue.Next(now_)) stuck.push_back(request);
    EXPECT_EQ(stuck.size(), 4 * (i + 1));
    queue.NoteStuck(now_ + absl::Milliseconds(900));
    EXPECT_EQ(queue.stuck(), 4 * i);
    queue.NoteStuck(now_ + absl::Seconds(1));
    EXPECT_EQ(queue.stuck(), stuck.size());
    EXPECT_EQ(queue.gauges().requests_stuck, stuck.size());
  }
  const absl::Time later = now_ + absl::Seconds(1);
  const auto demand = Add(queue, 5, 8 * kPage, 1);
  const auto prefetch = Add(queue, 0, kPage, 0, std::make_shared<ReadControl>(Urgency::kPrefetch));
  while (ReadQueue::Request* request = queue.Next(later)) Answer(queue, request);
  ExpectContent(*demand, 5);
  ExpectContent(*prefetch, 0);
  // They come back after all.
  for (ReadQueue::Request* request : stuck) Answer(queue, request);
  EXPECT_EQ(queue.stuck(), 0);
  while (ReadQueue::Request* request = queue.Next(later)) Answer(queue, request);
  for (const auto& wanted : hung) ExpectContent(*wanted, 7);
  EXPECT_TRUE(queue.idle());
}

}  // namespace
}  // namespace odmoe
