#include "services/expert_storage/service/proto_convert.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "services/core/rpc/status_codec.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage_proto;

constexpr absl::Duration kMaxTimeout = absl::Hours(1);
constexpr absl::Duration kMinWatchInterval = absl::Milliseconds(50);

v1::ExpertTensor TensorToProto(const ExpertTensor& tensor) {
  v1::ExpertTensor proto;
  proto.set_dtype(static_cast<uint32_t>(tensor.dtype));
  proto.set_rows(tensor.rows);
  proto.set_columns(tensor.columns);
  proto.set_offset_bytes(static_cast<int64_t>(tensor.offset));
  proto.set_size_bytes(static_cast<int64_t>(tensor.bytes));
  return proto;
}

}  // namespace

v1::ExpertId ToProto(ExpertId id) {
  v1::ExpertId proto;
  proto.set_layer(id.layer);
  proto.set_expert(id.expert);
  return proto;
}

ExpertId FromProto(const v1::ExpertId& id) { return {id.layer(), id.expert()}; }

v1::LayerExperts ToProto(const LayerExperts& layer) {
  v1::LayerExperts proto;
  proto.set_layer(layer.layer);
  proto.set_expert_count(layer.expert_count);
  *proto.mutable_w1() = TensorToProto(layer.layout.w1);
  *proto.mutable_w2() = TensorToProto(layer.layout.w2);
  *proto.mutable_w3() = TensorToProto(layer.layout.w3);
  if (layer.layout.w1_bias.bytes > 0)
    *proto.mutable_w1_bias() = TensorToProto(layer.layout.w1_bias);
  if (layer.layout.w2_bias.bytes > 0)
    *proto.mutable_w2_bias() = TensorToProto(layer.layout.w2_bias);
  if (layer.layout.w3_bias.bytes > 0)
    *proto.mutable_w3_bias() = TensorToProto(layer.layout.w3_bias);
  proto.set_expert_bytes(static_cast<int64_t>(layer.layout.bytes));
  proto.mutable_xxh3()->Add(layer.xxh3.begin(), layer.xxh3.end());
  return proto;
}

absl::StatusOr<Budget> FromProto(const v1::Budget& proto) {
  Budget budget;
  if (proto.limit_case() == v1::Budget::kBytes) {
    if (proto.bytes() <= 0) {
      return InvalidField("budget.bytes", absl::StrCat(proto.bytes(), ", expected above 0"));
    }
    budget.kind = Budget::Kind::kBytes;
    budget.bytes = static_cast<uint64_t>(proto.bytes());
  } else if (proto.limit_case() == v1::Budget::kPercent) {
    if (!(proto.percent() > 0.0 && proto.percent() <= 100.0)) {
      return InvalidField("budget.percent",
                          absl::StrCat(proto.percent(), ", expected above 0 and at most 100"));
    }
    budget.kind = Budget::Kind::kPercent;
    budget.percent = proto.percent();
  }
  return budget;
}

v1::SourceKind ToProto(SourceKind kind) {
  switch (kind) {
    case SourceKind::kDirect:
      return v1::SOURCE_KIND_DIRECT;
    case SourceKind::kMapped:
      return v1::SOURCE_KIND_MAPPED;
    case SourceKind::kAuto:
      break;
  }
  return v1::SOURCE_KIND_UNSPECIFIED;
}

absl::StatusOr<SourceKind> FromProto(v1::SourceKind kind) {
  switch (kind) {
    case v1::SOURCE_KIND_UNSPECIFIED:
      return SourceKind::kAuto;
    case v1::SOURCE_KIND_DIRECT:
      return SourceKind::kDirect;
    case v1::SOURCE_KIND_MAPPED:
      return SourceKind::kMapped;
    default:
      return InvalidField("source", absl::StrCat("no source kind ", static_cast<int>(kind)));
  }
}

v1::StatsResponse ToProto(const StoreStats& stats) {
  v1::StatsResponse proto;
  proto.set_budget_bytes(static_cast<int64_t>(stats.budget_bytes));
  proto.set_slot_bytes(static_cast<int64_t>(stats.slot_bytes));
  proto.set_slot_count(static_cast<int64_t>(stats.slot_count));
  proto.set_resident_experts(static_cast<int64_t>(stats.resident_experts));
  proto.set_resident_bytes(static_cast<int64_t>(stats.resident_bytes));
  proto.set_pinned_experts(static_cast<int64_t>(stats.pinned_experts));
  proto.set_clients(static_cast<int64_t>(stats.clients));
  proto.set_huge_page_bytes(static_cast<int64_t>(stats.huge_page_bytes));
  proto.set_locked_bytes(static_cast<int64_t>(stats.locked_bytes));
  proto.set_hits(static_cast<int64_t>(stats.hits));
  proto.set_misses(static_cast<int64_t>(stats.misses));
  proto.set_shared_misses(static_cast<int64_t>(stats.shared_misses));
  proto.set_evictions(static_cast<int64_t>(stats.evictions));
  proto.set_reads(static_cast<int64_t>(stats.reads));
  proto.set_bytes_read(static_cast<int64_t>(stats.bytes_read));
  proto.set_read_failures(static_cast<int64_t>(stats.read_failures));
  proto.set_checksum_failures(static_cast<int64_t>(stats.checksum_failures));
  *proto.mutable_stall() = ToProto(absl::Nanoseconds(static_cast<int64_t>(stats.stall_ns)));
  proto.set_prefetches(static_cast<int64_t>(stats.prefetches));
  proto.set_prefetch_reads(static_cast<int64_t>(stats.prefetch_reads));
  proto.set_prefetch_useful(static_cast<int64_t>(stats.prefetch_useful));
  proto.set_prefetch_wasted(static_cast<int64_t>(stats.prefetch_wasted));
  proto.set_prefetch_dropped(static_cast<int64_t>(stats.prefetch_dropped));
  return proto;
}

absl::Status CheckOpenModel(const v1::OpenModelRequest& request) {
  const std::string& path = request.path();
  if (path.empty() || path[0] != '/') return InvalidField("path", "expected an absolute path");
  if (path.size() > kMaxPathBytes) {
    return InvalidField("path", absl::StrCat(path.size(), " bytes, at most ", kMaxPathBytes));
  }
  if (path.find('\0') != std::string::npos) return InvalidField("path", "has a NUL byte");
  return absl::OkStatus();
}

absl::Status CheckName(absl::string_view field, absl::string_view name) {
  if (name.size() <= kMaxNameBytes) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(name.size(), " bytes, at most ", kMaxNameBytes));
}

absl::StatusOr<std::vector<int64_t>> ExpertIndices(
    const google::protobuf::RepeatedPtrField<v1::ExpertId>& experts, const ExpertCatalog& catalog) {
  if (experts.empty() || experts.size() > kMaxExpertsPerRequest) {
    return InvalidField("experts", absl::StrCat(experts.size(), " experts, expected 1 to ",
                                                kMaxExpertsPerRequest));
  }
  std::vector<int64_t> indices;
  indices.reserve(experts.size());
  absl::flat_hash_set<int64_t> seen;
  for (const v1::ExpertId& proto : experts) {
    const int64_t index = catalog.IndexOf(FromProto(proto));
    if (index < 0) {
      return absl::NotFoundError(
          absl::StrCat("no expert ", ExpertName(FromProto(proto)), " in this model"));
    }
    if (seen.insert(index).second) indices.push_back(index);
  }
  return indices;
}

absl::StatusOr<absl::Duration> TimeoutFromProto(absl::string_view field,
                                                const google::protobuf::Duration& proto) {
  const absl::Duration timeout = absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
  if (proto.nanos() < 0 || proto.nanos() > 999'999'999 || timeout <= absl::ZeroDuration()) {
    return InvalidField(field, "expected a duration above 0");
  }
  return std::min(timeout, kMaxTimeout);
}

absl::StatusOr<absl::Duration> WatchIntervalFromProto(const v1::WatchStatsRequest& request) {
  if (!request.has_interval()) return absl::Seconds(1);
  const google::protobuf::Duration& proto = request.interval();
  const absl::Duration interval = absl::Seconds(proto.seconds()) + absl::Nanoseconds(proto.nanos());
  if (proto.nanos() < 0 || proto.nanos() > 999'999'999 || interval < kMinWatchInterval ||
      interval > kMaxTimeout) {
    return InvalidField("interval", "expected 0.05 seconds to an hour");
  }
  return interval;
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(
      static_cast<int32_t>(absl::IDivDuration(duration, absl::Nanoseconds(1), &duration)));
  return proto;
}

}  // namespace odmoe
