#include "services/expert_storage/restart/working_set_file.h"

#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"
#include "xxhash.h"

namespace odmoe {
namespace {

constexpr absl::string_view kMagicText = "ODMOEWS1";
constexpr size_t kHashBytes = 8;

void PutU32(std::string& out, uint64_t value) {
  for (int byte = 0; byte < 4; ++byte) out.push_back(static_cast<char>(value >> (8 * byte)));
}

void PutU64(std::string& out, uint64_t value) {
  PutU32(out, value & 0xffffffff);
  PutU32(out, value >> 32);
}

uint64_t LittleEndian(absl::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

// Takes what it is asked for from the front, or fails.
class SavedBytes {
 public:
  SavedBytes(absl::string_view bytes, absl::string_view name) : bytes_(bytes), name_(name) {}

  absl::StatusOr<absl::string_view> Take(uint64_t size) {
    if (size > bytes_.size()) {
      return Bad(absl::StrCat("ends ", size - bytes_.size(), " bytes early"));
    }
    const absl::string_view taken = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return taken;
  }
  absl::StatusOr<uint32_t> TakeU32() {
    ODMOE_ASSIGN_OR_RETURN(const absl::string_view bytes, Take(4));
    return static_cast<uint32_t>(LittleEndian(bytes));
  }
  size_t left() const { return bytes_.size(); }
  absl::Status Bad(absl::string_view why) const {
    return absl::DataLossError(absl::StrCat(name_, ": saved working set ", why));
  }

 private:
  absl::string_view bytes_;
  absl::string_view name_;
};

absl::Status DecodeBody(SavedBytes& bytes, SavedWorkingSet& saved) {
  ODMOE_ASSIGN_OR_RETURN(const uint32_t digest_bytes, bytes.TakeU32());
  ODMOE_ASSIGN_OR_RETURN(const uint32_t tenants, bytes.TakeU32());
  ODMOE_ASSIGN_OR_RETURN(const uint32_t experts, bytes.TakeU32());
  ODMOE_ASSIGN_OR_RETURN(const uint32_t policy_bytes, bytes.TakeU32());
  ODMOE_ASSIGN_OR_RETURN(const absl::string_view digest, bytes.Take(digest_bytes));
  saved.model_digest = std::string(digest);
  for (uint32_t i = 0; i < tenants; ++i) {
    ODMOE_ASSIGN_OR_RETURN(const uint32_t name_bytes, bytes.TakeU32());
    ODMOE_ASSIGN_OR_RETURN(const absl::string_view name, bytes.Take(name_bytes));
    saved.tenants.emplace_back(name);
  }
  if (experts > bytes.left() / 8) return bytes.Bad("ends within its experts");
  saved.experts.reserve(experts);
  for (uint32_t i = 0; i < experts; ++i) {
    ODMOE_ASSIGN_OR_RETURN(const uint32_t expert, bytes.TakeU32());
    ODMOE_ASSIGN_OR_RETURN(const uint32_t tenant, bytes.TakeU32());
    if (tenant >= tenants) return bytes.Bad(absl::StrCat("names tenant ", tenant, " of ", tenants));
    saved.experts.push_back({expert, tenant});
  }
  ODMOE_ASSIGN_OR_RETURN(const absl::string_view policy_state, bytes.Take(policy_bytes));
  saved.policy_state = std::string(policy_state);
  if (bytes.left() != 0) return bytes.Bad(absl::StrCat("has ", bytes.left(), " bytes too many"));
  return absl::OkStatus();
}

}  // namespace

std::string EncodeWorkingSet(const SavedWorkingSet& saved) {
  std::string out(kMagicText);
  PutU32(out, saved.model_digest.size());
  PutU32(out, saved.tenants.size());
  PutU32(out, saved.experts.size());
  PutU32(out, saved.policy_state.size());
  out += saved.model_digest;
  for (const std::string& tenant : saved.tenants) {
    PutU32(out, tenant.size());
    out += tenant;
  }
  for (const SavedWorkingSet::Expert& expert : saved.experts) {
    PutU32(out, static_cast<uint64_t>(expert.expert));
    PutU32(out, expert.tenant);
  }
  out += saved.policy_state;
  PutU64(out, XXH3_64bits(out.data(), out.size()));
  return out;
}

absl::StatusOr<SavedWorkingSet> DecodeWorkingSet(absl::string_view bytes, absl::string_view name) {
  SavedBytes all(bytes, name);
  if (bytes.substr(0, kMagicText.size()) != kMagicText ||
      bytes.size() < kMagicText.size() + kHashBytes) {
    return all.Bad(absl::StrCat("does not begin with ", kMagicText));
  }
  const absl::string_view hashed = bytes.substr(0, bytes.size() - kHashBytes);
  if (XXH3_64bits(hashed.data(), hashed.size()) != LittleEndian(bytes.substr(hashed.size()))) {
    return all.Bad("does not have the hash it ends with");
  }
  SavedBytes body(hashed.substr(kMagicText.size()), name);
  SavedWorkingSet saved;
  ODMOE_RETURN_IF_ERROR(DecodeBody(body, saved));
  return saved;
}

}  // namespace odmoe
