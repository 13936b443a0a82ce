#include "services/core/experts/miss_board.h"

#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/core/experts/shared_bytes.h"

namespace odmoe {
namespace {

class MissBoardTest : public ::testing::Test {
 protected:
  SharedBytes memory_{PinPage::BytesFor(4)};
  PinPage page_ = PinPage::Format(memory_.span(), 1, 4);
};

TEST_F(MissBoardTest, AWaiterGetsWhatIsDelivered) {
  MissBoard board(page_, 2);
  std::thread server([&] {
    page_.Pin(3);
    board.Deliver(1, 3u);
  });
  const auto outcome = board.Await(1, absl::InfiniteFuture());
  server.join();
  ASSERT_TRUE(outcome.has_value() && outcome->ok());
  EXPECT_EQ(**outcome, 3u);
  EXPECT_TRUE(board.Ready(1));
  EXPECT_FALSE(board.Ready(0));
  EXPECT_FALSE(board.Await(0, absl::Now()).has_value());
}

TEST_F(MissBoardTest, AbandonDropsPinsNowAndLater) {
  MissBoard board(page_, 2);
  page_.Pin(0);
  board.Deliver(0, 0u);
  EXPECT_TRUE(board.Abandon());
  EXPECT_FALSE(page_.Pinned(0));
  page_.Pin(1);
  board.Deliver(1, 1u);
  EXPECT_FALSE(page_.Pinned(1));
}

TEST_F(MissBoardTest, ASecondAnswerIsDroppedWithItsPin) {
  MissBoard board(page_, 1);
  board.Deliver(0, absl::DataLossError("x"));
  page_.Pin(2);
  board.Deliver(0, 2u);
  EXPECT_FALSE(page_.Pinned(2));
  EXPECT_TRUE(absl::IsDataLoss(board.Await(0, absl::Now())->status()));
  EXPECT_FALSE(board.Abandon());
}

TEST_F(MissBoardTest, FailRestLeavesWhatIsAnswered) {
  MissBoard board(page_, 2);
  page_.Pin(2);
  board.Deliver(0, 2u);
  board.FailRest(absl::UnavailableError("gone"));
  EXPECT_TRUE(board.Await(0, absl::Now())->ok());
  EXPECT_TRUE(absl::IsUnavailable(board.Await(1, absl::Now())->status()));
}

}  // namespace
}  // namespace odmoe
