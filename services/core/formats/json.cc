#include "services/core/formats/json.h"

#include <limits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/core/base/status_macros.h"

namespace odmoe {
namespace {

constexpr size_t kMaxDepth = 64;

// Goes through a document for what the library's parser lets pass: an object's keys that come
// twice, of which it keeps the last, and nesting without bound. A pass of its own: the library's
// parser with a callback walks all siblings after each value.
class DocumentCheck : public nlohmann::json_sax<nlohmann::json> {
 public:
  const std::string& complaint() const { return complaint_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_array(size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }
  bool start_object(size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }

  bool key(string_t& key) override {
    if (keys_.back().insert(key).second) return true;
    complaint_ = absl::StrCat("key '", key, "' is there twice");
    return false;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& error) override {
    complaint_ = error.what();
    return false;
  }

 private:
  bool Enter() {
    keys_.emplace_back();
    if (keys_.size() <= kMaxDepth) return true;
    complaint_ = absl::StrCat("nested deeper than ", kMaxDepth, " levels");
    return false;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  std::vector<absl::flat_hash_set<std::string>> keys_;  // by level; an array's stays empty
  std::string complaint_;
};

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text, const std::string& source) {
  const auto refused = [&](absl::string_view complaint) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": not valid JSON: ", complaint));
  };
  try {
    DocumentCheck check;
    if (!nlohmann::json::sax_parse(text.begin(), text.end(), &check)) {
      return refused(check.complaint());
    }
    return nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& error) {
    return refused(error.what());
  }
}

absl::StatusOr<nlohmann::json> ReadJsonFile(FileSystem& fs, const std::string& path,
                                            uint64_t limit_bytes) {
  ODMOE_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(fs, path, limit_bytes));
  return ParseJson(text, path);
}

absl::StatusOr<std::string> JsonQuote(absl::string_view text) {
  try {
    return nlohmann::json(std::string(text)).dump();
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError(absl::StrCat("'", absl::CHexEscape(text), "' is not UTF-8"));
  }
}

absl::StatusOr<JsonObject> JsonObject::From(const nlohmann::json& value, std::string where) {
  if (!value.is_object()) {
    return absl::DataLossError(
        absl::StrCat(where, ": should be an object and is ", value.type_name()));
  }
  return JsonObject(value, std::move(where));
}

absl::Status JsonObject::Wrong(const char* key, absl::string_view expected) const {
  const auto found = value_->find(key);
  std::string got = "missing";
  if (found != value_->end()) {
    got = found->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (got.size() > 80) got = absl::StrCat(got.substr(0, 80), "...");
  }
  return absl::DataLossError(
      absl::StrCat(where_, ": '", key, "' should be ", expected, " and is ", got));
}

bool JsonObject::Has(const char* key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

absl::StatusOr<const nlohmann::json*> JsonObject::Member(const char* key) const {
  const auto found = value_->find(key);
  if (found == value_->end()) return Wrong(key, "there");
  return &*found;
}

absl::StatusOr<JsonObject> JsonObject::Object(const char* key) const {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* member, Member(key));
  return From(*member, absl::StrCat(where_, ": '", key, "'"));
}

absl::StatusOr<const nlohmann::json*> JsonObject::Array(const char* key) const {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* member, Member(key));
  if (!member->is_array()) return Wrong(key, "an array");
  return member;
}

absl::StatusOr<std::string> JsonObject::String(const char* key) const {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* member, Member(key));
  if (!member->is_string()) return Wrong(key, "a string");
  return member->get<std::string>();
}

absl::StatusOr<int64_t> JsonObject::Int(const char* key, int64_t least, int64_t most) const {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* member, Member(key));
  const std::string range = absl::StrCat("an integer from ", least, " to ", most);
  if (!member->is_number_integer()) return Wrong(key, range);
  if (member->is_number_unsigned() &&
      member->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Wrong(key, range);
  }
  const int64_t value = member->get<int64_t>();
  if (value < least || value > most) return Wrong(key, range);
  return value;
}

absl::StatusOr<double> JsonObject::Double(const char* key) const {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* member, Member(key));
  if (!member->is_number()) return Wrong(key, "a number");
  return member->get<double>();
}

absl::StatusOr<bool> JsonObject::Bool(const char* key) const {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* member, Member(key));
  if (!member->is_boolean()) return Wrong(key, "true or false");
  return member->get<bool>();
}

absl::StatusOr<uint64_t> JsonObject::U64(const char* key) const {
  ODMOE_ASSIGN_OR_RETURN(const nlohmann::json* member, Member(key));
  if (!member->is_number_unsigned()) return Wrong(key, "an unsigned integer");
  return member->get<uint64_t>();
}

}  // namespace odmoe
