// Between expert storage's messages and the library's types, as its clients need them; the inverse
// is services/expert_storage/service/proto_convert.h.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "odmoe/expert_storage/v1/expert_storage_service.pb.h"
#include "services/core/experts/budget.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/experts/expert_store.h"
#include "services/core/experts/source_kind.h"

namespace odmoe::expert_storage_client {

// A service is not trusted either: sizes are checked, negative counts become 0.

expert_storage::v1::ExpertId ToProto(ExpertId id);
ExpertId FromProto(const expert_storage::v1::ExpertId& id);

expert_storage::v1::Budget ToProto(const Budget& budget);

expert_storage::v1::SourceKind ToProto(SourceKind kind);
// INVALID_ARGUMENT: a kind this client does not know.
absl::StatusOr<SourceKind> FromProto(expert_storage::v1::SourceKind kind);

// INVALID_ARGUMENT: a matrix whose place is not the one MakeExpertLayout gives it.
absl::StatusOr<LayerExperts> FromProto(const expert_storage::v1::LayerExperts& layer);

StoreStats FromProto(const expert_storage::v1::StatsResponse& stats);

google::protobuf::Duration ToProto(absl::Duration duration);
absl::Duration FromProto(const google::protobuf::Duration& duration);

}  // namespace odmoe::expert_storage_client
