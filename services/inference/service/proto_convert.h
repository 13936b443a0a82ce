// Inference's messages to and from what services/core/generation/language_model.h calls them. What
// comes in is checked here and nowhere else in the service: a value that a function of this file
// has returned is within its bounds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "odmoe/inference/v1/inference_service.pb.h"
#include "services/core/generation/language_model.h"
#include "services/inference/service/request_counters.h"

namespace odmoe {

// INVALID_ARGUMENT, with the field as a BadRequest detail, where a bound of the contract is broken.
absl::Status CheckRequest(const inference::v1::LoadModelRequest& message);
absl::StatusOr<TokenizeOptions> FromProto(const inference::v1::TokenizeRequest& message);
absl::StatusOr<std::vector<TokenId>> FromProto(const inference::v1::DetokenizeRequest& message,
                                               const ModelInfo& model);
absl::StatusOr<GenerateRequest> FromProto(const inference::v1::GenerateRequest& message,
                                          const ModelInfo& model);
absl::StatusOr<ScoreRequest> FromProto(const inference::v1::ScoreRequest& message,
                                       const ModelInfo& model);

// Text that is not UTF-8, as a file's may not be, is replaced: protobuf carries no other.
inference::v1::Model ToProto(const ModelInfo& info);
inference::v1::GeneratedToken ToProto(const TokenEvent& event);
inference::v1::GenerateSummary ToProto(const GenerateSummary& summary);
inference::v1::ScoreResponse ToProto(const ScoreResult& result);
inference::v1::ExpertUse ToProto(const ExpertUse& use);

}  // namespace odmoe
