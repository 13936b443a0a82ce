#include "tests/conversion/fake_conversion.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace odmoe {
namespace {

std::string Read(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

}  // namespace

JobSpec OneStep(const std::string& source, const std::string& destination) {
  JobSpec spec;
  spec.steps = {ConvertSpec{.source = source, .destination = destination}};
  return spec;
}

ConversionFunctions FakeConversion::functions() {
  return {[this](const ConvertOptions& options) { return Plan(options); },
          [this](const ConvertPlan& plan, const Cancellation* cancellation,
                 const std::function<void(const ConvertProgress&)>& on_progress,
                 std::string*) { return Run(plan, cancellation, on_progress); }};
}

void FakeConversion::Hold() {
  absl::MutexLock lock(&mutex_);
  held_ = true;
}

void FakeConversion::Release() {
  absl::MutexLock lock(&mutex_);
  held_ = false;
}

void FakeConversion::set_reports(int reports) {
  absl::MutexLock lock(&mutex_);
  reports_ = reports;
}

void FakeConversion::set_outcome(absl::Status outcome) {
  absl::MutexLock lock(&mutex_);
  outcome_ = outcome;
}

int FakeConversion::runs() {
  absl::MutexLock lock(&mutex_);
  return runs_;
}

int FakeConversion::resumed_runs() {
  absl::MutexLock lock(&mutex_);
  return resumed_runs_;
}

bool FakeConversion::WaitForRuns(int count) {
  absl::MutexLock lock(&mutex_);
  const auto enough = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return runs_ >= count;
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(10));
}

bool FakeConversion::WaitUntilHeld() {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&holding_), absl::Seconds(10));
}

absl::StatusOr<ConvertPlan> FakeConversion::Plan(const ConvertOptions& options) {
  if (!std::filesystem::exists(options.source)) {
    return absl::NotFoundError(absl::StrCat(options.source, ": no such file"));
  }
  const std::string content = Read(options.source);
  if (!absl::StartsWith(content, "MODEL")) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.source, ": offset 0: not a model, expected MODEL"));
  }
  ConvertPlan plan;
  plan.options = options;
  plan.architecture = "fake";
  plan.outputs = {options.destination};
  plan.steps = {"read", "write"};
  plan.step_bytes = {content.size(), content.size()};
  plan.disk_bytes = content.size();
  return plan;
}

// Polls the cancellation, as a conversion does between its chunks.
bool FakeConversion::WaitWhileHeld(const Cancellation& cancellation) {
  absl::MutexLock lock(&mutex_);
  const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !held_; };
  holding_ = held_;
  while (!mutex_.AwaitWithTimeout(absl::Condition(&free), absl::Milliseconds(5))) {
    if (cancellation.cancelled()) return false;
  }
  return !cancellation.cancelled();
}

absl::Status FakeConversion::Run(
    const ConvertPlan& plan, const Cancellation* cancellation,
    const std::function<void(const ConvertProgress&)>& on_progress) {
  absl::Status outcome;
  int reports;
  {
    absl::MutexLock lock(&mutex_);
    outcome = outcome_;
    reports = reports_;
  }
  const std::string content = Read(plan.options.source);
  const std::string partial = plan.options.destination + ".partial";
  const bool resumed = std::filesystem::exists(partial);
  std::ofstream(partial, std::ios::binary) << content.substr(0, content.size() / 2);
  {
    absl::MutexLock lock(&mutex_);
    ++runs_;
    if (resumed) ++resumed_runs_;
  }
  for (int step = 1; step <= 2; ++step) {
    for (int i = 1; i <= reports; ++i) {
      on_progress({plan.steps[step - 1], step, 2, content.size() * i / reports, content.size(), 0,
                   absl::StrCat("tensor ", i)});
    }
    if (!WaitWhileHeld(*cancellation)) outcome = absl::CancelledError("asked to stop");
    if (!outcome.ok()) {
      if (!cancellation->keeps_work()) std::filesystem::remove(partial);
      return outcome;
    }
  }
  std::ofstream(partial, std::ios::binary) << content;
  std::filesystem::rename(partial, plan.options.destination);
  return absl::OkStatus();
}

}  // namespace odmoe
