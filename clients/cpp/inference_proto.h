// Between inference's messages and the library's types, as its clients need them; the inverse is
// services/inference/service/proto_convert.h.
#pragma once

#include "absl/status/statusor.h"
#include "clients/cpp/remote_language_model.h"
#include "odmoe/inference/v1/inference_service.pb.h"
#include "services/core/generation/language_model.h"

namespace odmoe::inference_client {

inference::v1::Prompt ToProto(const Prompt& prompt);
inference::v1::Sampling ToProto(const Sampling& sampling);
inference::v1::GenerateRequest ToProto(const GenerateRequest& request);

// A service is not trusted either: negative counts become 0, and what contradicts the contract is
// INTERNAL.
ModelInfo FromProto(const inference::v1::Model& model);
TokenEvent FromProto(const inference::v1::GeneratedToken& token);
absl::StatusOr<GenerateSummary> FromProto(const inference::v1::GenerateSummary& summary);
absl::StatusOr<ScoreResult> FromProto(const inference::v1::ScoreResponse& response);
InferenceStats FromProto(const inference::v1::StatsResponse& stats);

}  // namespace odmoe::inference_client
