#include "services/inference/model/fetch_or_execute.h"

#include <algorithm>

namespace odmoe {
namespace {

constexpr double kWeight = 0.2;        // of a new sample
constexpr double kTrialShare = 0.05;   // of the time, for the dearer way
constexpr absl::Duration kFirstBackOff = absl::Milliseconds(500);
constexpr absl::Duration kLongestBackOff = absl::Seconds(30);

}  // namespace

void FetchOrExecute::Cost::Add(double sample) {
  ms = known ? ms + kWeight * (sample - ms) : sample;
  known = true;
}

FetchOrExecute::FetchOrExecute(RemoteMode mode, const ExpertCatalog& catalog)
    : mode_(mode), catalog_(catalog) {
  if (mode == RemoteMode::kAuto) rent_.resize(catalog.expert_count());
}

int FetchOrExecute::WidthOf(int64_t experts, int64_t rows) {
  int width = 0;
  for (int64_t each = rows / std::max<int64_t>(1, experts); each > 1; each /= 2) ++width;
  return std::min(width, kWidths - 1);
}

bool FetchOrExecute::Execute(int64_t experts, int64_t rows, absl::Time now) {
  if (mode_ == RemoteMode::kFetch || now < not_before_) return false;
  if (mode_ == RemoteMode::kExecute) return true;
  const Cost& execute = execute_[WidthOf(experts, rows)];
  if (!fetch_.known || !execute.known) return fetch_.known;
  const bool cheaper = execute.ms < fetch_.ms;
  const double dearer_ms = static_cast<double>(experts) * std::max(execute.ms, fetch_.ms);
  if (spent_ms_ * kTrialShare >= dearer_ms) {
    spent_ms_ = 0.0;
    return !cheaper;
  }
  return cheaper;
}

void FetchOrExecute::Fetched(int64_t experts, absl::Duration taken) {
  const double ms = absl::ToDoubleMilliseconds(taken);
  spent_ms_ += ms;
  fetch_.Add(ms / static_cast<double>(experts));
}

void FetchOrExecute::Executed(int64_t experts, int64_t rows, absl::Duration taken) {
  const double ms = absl::ToDoubleMilliseconds(taken);
  spent_ms_ += ms;
  execute_[WidthOf(experts, rows)].Add(ms / static_cast<double>(experts));
  back_off_ = absl::ZeroDuration();
}

void FetchOrExecute::Failed(absl::Time now) {
  back_off_ = std::clamp(2 * back_off_, kFirstBackOff, kLongestBackOff);
  not_before_ = now + back_off_;
}

bool FetchOrExecute::WorthBringing(ExpertId id, int64_t rows) {
  const int64_t expert = catalog_.IndexOf(id);
  if (rent_.empty() || expert < 0) return false;
  const Cost& execute = execute_[WidthOf(1, rows)];
  rent_[expert] += static_cast<float>(execute.ms);
  if (!fetch_.known || rent_[expert] < fetch_.ms) return false;
  rent_[expert] = 0.0f;
  return true;
}

}  // namespace odmoe
