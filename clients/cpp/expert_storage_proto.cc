#include "clients/cpp/expert_storage_proto.h"

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe::expert_storage_client {
namespace {

namespace v1 = expert_storage::v1;

bool Matches(const v1::ExpertTensor& proto, const ExpertTensor& tensor) {
  return proto.rows() == tensor.rows && proto.columns() == tensor.columns &&
         proto.offset_bytes() == static_cast<int64_t>(tensor.offset) &&
         proto.size_bytes() == static_cast<int64_t>(tensor.bytes);
}

uint64_t Unsigned(int64_t value) { return value < 0 ? 0 : static_cast<uint64_t>(value); }

}  // namespace

v1::ExpertId ToProto(ExpertId id) {
  v1::ExpertId proto;
  proto.set_layer(id.layer);
  proto.set_expert(id.expert);
  return proto;
}

ExpertId FromProto(const v1::ExpertId& id) { return {id.layer(), id.expert()}; }

v1::Budget ToProto(const Budget& budget) {
  v1::Budget proto;
  switch (budget.kind) {
    case Budget::Kind::kAuto:
      proto.set_automatic(true);
      break;
    case Budget::Kind::kBytes:
      proto.set_bytes(static_cast<int64_t>(budget.bytes));
      break;
    case Budget::Kind::kPercent:
      proto.set_percent(budget.percent);
      break;
  }
  return proto;
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
      return absl::InvalidArgumentError(
          absl::StrCat("no source kind ", static_cast<int>(kind)));
  }
}

namespace {

absl::StatusOr<std::optional<DType>> BiasFormat(bool there, const v1::ExpertTensor& proto) {
  if (!there) return std::nullopt;
  ODMOE_ASSIGN_OR_RETURN(const DTypeInfo info, FindDType(proto.dtype()));
  return info.dtype;
}

}  // namespace

absl::StatusOr<LayerExperts> FromProto(const v1::LayerExperts& proto) {
  ODMOE_ASSIGN_OR_RETURN(const DTypeInfo w1, FindDType(proto.w1().dtype()));
  ODMOE_ASSIGN_OR_RETURN(const DTypeInfo w2, FindDType(proto.w2().dtype()));
  ODMOE_ASSIGN_OR_RETURN(const DTypeInfo w3, FindDType(proto.w3().dtype()));
  ExpertBiases biases;
  ODMOE_ASSIGN_OR_RETURN(biases.w1, BiasFormat(proto.has_w1_bias(), proto.w1_bias()));
  ODMOE_ASSIGN_OR_RETURN(biases.w2, BiasFormat(proto.has_w2_bias(), proto.w2_bias()));
  ODMOE_ASSIGN_OR_RETURN(biases.w3, BiasFormat(proto.has_w3_bias(), proto.w3_bias()));
  LayerExperts layer;
  layer.layer = proto.layer();
  layer.expert_count = proto.expert_count();
  ODMOE_ASSIGN_OR_RETURN(layer.layout,
                         MakeExpertLayout(w1.dtype, w2.dtype, w3.dtype, proto.w1().columns(),
                                          proto.w1().rows(), biases));
  if (!Matches(proto.w1(), layer.layout.w1) || !Matches(proto.w2(), layer.layout.w2) ||
      !Matches(proto.w3(), layer.layout.w3) ||
      !Matches(proto.w1_bias(), layer.layout.w1_bias) ||
      !Matches(proto.w2_bias(), layer.layout.w2_bias) ||
      !Matches(proto.w3_bias(), layer.layout.w3_bias) ||
      proto.expert_bytes() != static_cast<int64_t>(layer.layout.bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", proto.layer(), ": matrices do not lie back to back"));
  }
  layer.xxh3.assign(proto.xxh3().begin(), proto.xxh3().end());
  return layer;
}

StoreStats FromProto(const v1::StatsResponse& proto) {
  StoreStats stats;
  stats.budget_bytes = Unsigned(proto.budget_bytes());
  stats.slot_bytes = Unsigned(proto.slot_bytes());
  stats.slot_count = Unsigned(proto.slot_count());
  stats.huge_page_bytes = Unsigned(proto.huge_page_bytes());
  stats.locked_bytes = Unsigned(proto.locked_bytes());
  stats.resident_experts = Unsigned(proto.resident_experts());
  stats.resident_bytes = Unsigned(proto.resident_bytes());
  stats.pinned_experts = Unsigned(proto.pinned_experts());
  stats.clients = Unsigned(proto.clients());
  stats.hits = Unsigned(proto.hits());
  stats.misses = Unsigned(proto.misses());
  stats.shared_misses = Unsigned(proto.shared_misses());
  stats.evictions = Unsigned(proto.evictions());
  stats.reads = Unsigned(proto.reads());
  stats.bytes_read = Unsigned(proto.bytes_read());
  stats.read_failures = Unsigned(proto.read_failures());
  stats.checksum_failures = Unsigned(proto.checksum_failures());
  stats.stall_ns = Unsigned(absl::ToInt64Nanoseconds(FromProto(proto.stall())));
  stats.prefetches = Unsigned(proto.prefetches());
  stats.prefetch_reads = Unsigned(proto.prefetch_reads());
  stats.prefetch_useful = Unsigned(proto.prefetch_useful());
  stats.prefetch_wasted = Unsigned(proto.prefetch_wasted());
  stats.prefetch_dropped = Unsigned(proto.prefetch_dropped());
  return stats;
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(
      static_cast<int32_t>(absl::IDivDuration(duration, absl::Nanoseconds(1), &duration)));
  return proto;
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace odmoe::expert_storage_client
