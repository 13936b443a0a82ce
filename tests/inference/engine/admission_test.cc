#include "absl/time/clock.h"
#include "services/inference/engine/admission.h"

#include <optional>
#include <thread>

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(AdmissionTest, CountsWhatItGrants) {
  Admission admission(100, 4);
  {
    const auto a = admission.Admit(60, {});
    const auto b = admission.Admit(40, {});
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_EQ(admission.used_bytes(), 100u);
  }
  EXPECT_EQ(admission.used_bytes(), 0u);
}

TEST(AdmissionTest, MoreThanTheBudgetIsRefusedAtOnce) {
  Admission admission(100, 4);
  EXPECT_EQ(admission.Admit(101, {}).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(AdmissionTest, WaitsUntilThereIsRoom) {
  Admission admission(100, 4);
  std::optional<absl::StatusOr<Admission::Grant>> first(admission.Admit(80, {}));
  ASSERT_TRUE(first->ok());
  std::thread waiter([&] {
    EXPECT_TRUE(admission.Admit(50, {}).ok());
  });
  while (admission.waiting() == 0) std::this_thread::yield();
  first.reset();
  waiter.join();
  EXPECT_EQ(admission.used_bytes(), 0u);
}

TEST(AdmissionTest, ASmallOneDoesNotOvertakeOneThatWaits) {
  Admission admission(100, 4);
  std::optional<absl::StatusOr<Admission::Grant>> first(admission.Admit(80, {}));
  std::thread large([&] { EXPECT_TRUE(admission.Admit(50, {}).ok()); });
  while (admission.waiting() == 0) std::this_thread::yield();
  CallOptions call;
  call.deadline = absl::Now() + absl::Milliseconds(5);
  EXPECT_EQ(admission.Admit(10, call).status().code(), absl::StatusCode::kDeadlineExceeded);
  first.reset();
  large.join();
}

TEST(AdmissionTest, NoMoreMayWaitThanItAllows) {
  Admission admission(100, 1);
  std::optional<absl::StatusOr<Admission::Grant>> first(admission.Admit(100, {}));
  Cancellation cancellation;
  std::thread waiter([&] {
    CallOptions call;
    call.cancellation = &cancellation;
    EXPECT_EQ(admission.Admit(10, call).status().code(), absl::StatusCode::kCancelled);
  });
  while (admission.waiting() == 0) std::this_thread::yield();
  EXPECT_EQ(admission.Admit(10, {}).status().code(), absl::StatusCode::kResourceExhausted);
  cancellation.Cancel();
  waiter.join();
  EXPECT_EQ(admission.waiting(), 0);
}

}  // namespace
}  // namespace odmoe
