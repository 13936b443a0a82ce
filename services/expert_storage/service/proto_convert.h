// Between the contract's messages and the library's types, as the service needs them; the inverse
// is clients/cpp/expert_storage_proto.h.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "odmoe/expert_storage/v1/expert_storage_service.pb.h"
#include "services/core/experts/budget.h"
#include "services/core/experts/expert_catalog.h"
#include "services/core/experts/expert_store.h"
#include "services/core/experts/source_kind.h"

namespace odmoe {

namespace expert_storage_proto = expert_storage::v1;

// Requests are hostile: every field is checked, and an error names it (InvalidField).

inline constexpr int kMaxExpertsPerRequest = 65536;
inline constexpr size_t kMaxPathBytes = 4096;
inline constexpr size_t kMaxNameBytes = 128;

expert_storage_proto::ExpertId ToProto(ExpertId id);
ExpertId FromProto(const expert_storage_proto::ExpertId& id);

expert_storage_proto::LayerExperts ToProto(const LayerExperts& layer);

// Absent: automatic.
absl::StatusOr<Budget> FromProto(const expert_storage_proto::Budget& budget);

expert_storage_proto::SourceKind ToProto(SourceKind kind);
absl::StatusOr<SourceKind> FromProto(expert_storage_proto::SourceKind kind);

expert_storage_proto::StatsResponse ToProto(const StoreStats& stats);

// "path": absolute, no NUL, at most kMaxPathBytes.
absl::Status CheckOpenModel(const expert_storage_proto::OpenModelRequest& request);
// Model and client names: at most kMaxNameBytes, valid UTF-8 (the wire's own check).
absl::Status CheckName(absl::string_view field, absl::string_view name);

// The distinct experts of a request, as catalog indices. INVALID_ARGUMENT: none, too many.
// NOT_FOUND: an expert the model does not have.
absl::StatusOr<std::vector<int64_t>> ExpertIndices(
    const google::protobuf::RepeatedPtrField<expert_storage_proto::ExpertId>& experts,
    const ExpertCatalog& catalog);

// > 0; an hour at most is granted. INVALID_ARGUMENT: absent, not positive, out of range.
absl::StatusOr<absl::Duration> TimeoutFromProto(absl::string_view field,
                                                const google::protobuf::Duration& timeout);

// 50 ms to an hour; a second where it is absent. INVALID_ARGUMENT: out of range.
absl::StatusOr<absl::Duration> WatchIntervalFromProto(
    const expert_storage_proto::WatchStatsRequest& request);

google::protobuf::Duration ToProto(absl::Duration duration);

}  // namespace odmoe
