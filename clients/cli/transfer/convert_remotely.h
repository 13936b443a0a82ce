// A conversion of local files on another host.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "clients/cli/transfer/transfer.h"
#include "services/core/jobs/job_queue.h"

namespace odmoe {

// Uploads `spec.source` and the other local files that `spec` names (of a base model, config.json
// alone), converts as a job of the service at `endpoint`, downloads the result to
// `spec.destination`, and removes what it left there. Interrupted, or cut off, the same command
// goes on where it was: files by their hashes, the job by its request id. CANCELLED: interrupted;
// the job goes on. And the job's own error.
absl::StatusOr<TransferResult> ConvertRemotely(const std::string& endpoint, ConvertSpec spec,
                                               const TransferView& view);

}  // namespace odmoe
