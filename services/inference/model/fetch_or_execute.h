// Experts that are not resident here: brought here, or computed where they are?
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/experts/remote_mode.h"

namespace odmoe {

// Decides by what each way has cost: the time from asking for a layer's absent experts to having
// the last of them, a mean that forgets. Execution is told apart by how many tokens an expert gets,
// since hidden states grow with them and experts do not. The dearer way is tried again now and
// then, so seldom that it takes a twentieth of the time.
//
// An expert that is brought stays, and one that is executed is paid for each time. So an executed
// expert is brought beside as soon as its executions have cost what bringing it does: whatever
// comes, that is at most twice the cost of having known (ski rental; Karlin et al., "Competitive
// Snoopy Caching", 1988).
//
// Not thread-safe.
class FetchOrExecute {
 public:
  FetchOrExecute(RemoteMode mode, const ExpertCatalog& catalog);

  // Whether a layer's `experts` absent experts, chosen by `rows` tokens between them, shall be
  // executed. With kExecute always, but after failures.
  bool Execute(int64_t experts, int64_t rows, absl::Time now);

  // What came of it. `taken` is from asking to the last.
  void Fetched(int64_t experts, absl::Duration taken);
  void Executed(int64_t experts, int64_t rows, absl::Duration taken);
  // None is executed for a while, and a longer one after each further failure.
  void Failed(absl::Time now);

  // The expert has been executed for `rows` tokens. True: bring it here, beside.
  bool WorthBringing(ExpertId id, int64_t rows);

 private:
  // A mean of milliseconds an expert.
  struct Cost {
    double ms = 0.0;
    bool known = false;
    void Add(double sample);
  };
  static constexpr int kWidths = 13;  // tokens an expert: 1, 2 to 3, 4 to 7, ... 4096 and more

  static int WidthOf(int64_t experts, int64_t rows);

  const RemoteMode mode_;
  const ExpertCatalog& catalog_;
  Cost fetch_;
  Cost execute_[kWidths];
  double spent_ms_ = 0.0;     // on the cheaper way, since the dearer was tried
  std::vector<float> rent_;   // ms, by expert: since it was last brought
  absl::Time not_before_ = absl::InfinitePast();
  absl::Duration back_off_ = absl::ZeroDuration();
};

}  // namespace odmoe
