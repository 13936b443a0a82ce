#include "services/core/experts/expert_source.h"

#include <utility>

#include "absl/synchronization/notification.h"

namespace odmoe {

absl::Status ReadAndWait(ExpertSource& source, ExpertId id, absl::Span<std::byte> destination) {
  absl::Status result;
  absl::Notification finished;
  source.Read(id, destination, [&](absl::Status status) {
    result = std::move(status);
    finished.Notify();
  });
  finished.WaitForNotification();
  return result;
}

}  // namespace odmoe
