// What an operator asks of an expert-storage service.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/core/base/cancellation.h"
#include "services/core/experts/budget.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/experts/expert_store.h"
#include "services/core/experts/source_kind.h"
#include "services/core/experts/store_telemetry.h"

namespace odmoe {

// A model open in the service.
struct RemoteModel {
  std::string name;
  std::string model_digest;
  int64_t epoch = 0;          // changes with every start of the store and every opening
  uint64_t budget_bytes = 0;  // the hard bound
  uint64_t slot_bytes = 0;
  uint64_t slot_count = 0;
  uint64_t expert_count = 0;
  uint64_t expert_bytes = 0;  // of all experts
  uint64_t max_batch = 0;     // experts one client can hold at once
  SourceKind source = SourceKind::kAuto;
};

// The store's counters and its process's.
struct RemoteStoreStats {
  std::string model;
  int64_t epoch = 0;
  StoreStats store;
  StoreTelemetry telemetry;  // each expert's heat only where asked for
  uint64_t peak_rss_bytes = 0;
  absl::Duration uptime;
};

// Calls to one service. Every call takes `timeout` at most and fails with the contract's codes,
// with UNAVAILABLE where nobody answers. Thread-safe.
class ExpertStorageAdmin {
 public:
  // INVALID_ARGUMENT: an endpoint that is none. Connects at the first call.
  static absl::StatusOr<std::unique_ptr<ExpertStorageAdmin>> Connect(
      const std::string& endpoint, absl::Duration timeout = absl::Minutes(1));
  virtual ~ExpertStorageAdmin() = default;

  virtual absl::StatusOr<RemoteModel> OpenModel(const std::string& path, const Budget& budget,
                                                SourceKind source) = 0;
  // An empty `model` names the only one open, here and below.
  virtual absl::Status CloseModel(const std::string& model) = 0;
  // Another budget for a model, or for all of them together; waits up to `timeout` for pins.
  // Returns all models.
  virtual absl::StatusOr<std::vector<RemoteModel>> ResizeBudget(const std::string& model,
                                                                const Budget& budget,
                                                                absl::Duration timeout) = 0;
  virtual absl::StatusOr<std::vector<RemoteModel>> ResizeTotalBudget(const Budget& budget,
                                                                     absl::Duration timeout) = 0;
  virtual absl::StatusOr<std::vector<RemoteModel>> ListModels() = 0;
  struct Description {
    RemoteModel model;
    ExpertCatalog catalog;
    uint64_t demand = 0;         // experts of a layer that one token asks for; 0: not known
    uint64_t compute_threads = 0;  // of Execute; 0: there is none
    std::string kernel_target;   // what Execute computes with
  };
  virtual absl::StatusOr<Description> DescribeModel(const std::string& model) = 0;
  virtual absl::StatusOr<RemoteStoreStats> Stats(const std::string& model,
                                                 bool with_experts = false) = 0;
  // Calls `on_stats` at once and then each `interval` (50 ms to an hour), on this thread, until it
  // returns false or the cancellation, which may be null, is set: OK. An empty `model` here names
  // all that are open. Where `on_stats` takes longer than the interval, fewer come, each of the
  // moment. Errors: the call's, NOT_FOUND once the model named is closed. Has no time limit.
  using OnStats = std::function<bool(std::vector<RemoteStoreStats> models)>;
  virtual absl::Status WatchStats(const std::string& model, absl::Duration interval,
                                  bool with_experts, const Cancellation* cancellation,
                                  const OnStats& on_stats) = 0;
};

}  // namespace odmoe
