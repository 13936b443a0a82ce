#include "services/gateway/openai/json_members.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "services/gateway/openai/api_error.h"

namespace odmoe {
JsonMembers::JsonMembers(const nlohmann::json& object) : object_(object) {
  if (!object.is_object()) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("the body is a JSON ", object.type_name(), ", expected an object"));
  }
}

const nlohmann::json* JsonMembers::Any(const char* name) {
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonMembers::WrongType(const char* name, absl::string_view expected,
                            const nlohmann::json& got) {
  Fail(InvalidParam(name, absl::StrCat("is a ", got.type_name(), ", expected ", expected)));
}

std::string JsonMembers::String(const char* name, std::string value) {
  const nlohmann::json* member = Any(name);
  if (member == nullptr) return value;
  if (const auto* text = member->get_ptr<const std::string*>()) return *text;
  WrongType(name, "a string", *member);
  return value;
}

bool JsonMembers::Bool(const char* name, bool value) {
  const nlohmann::json* member = Any(name);
  if (member == nullptr) return value;
  if (member->is_boolean()) return member->get<bool>();
  WrongType(name, "true or false", *member);
  return value;
}

int64_t JsonMembers::Integer(const char* name, int64_t value, int64_t minimum, int64_t maximum) {
  const nlohmann::json* member = Any(name);
  if (member == nullptr) return value;
  if (!member->is_number_integer()) {
    WrongType(name, "an integer", *member);
    return value;
  }
  // An unsigned value beyond int64 is beyond any maximum too.
  const bool too_large =
      member->is_number_unsigned() &&
      member->get<uint64_t>() > uint64_t(std::numeric_limits<int64_t>::max());
  const int64_t given = too_large ? maximum : member->get<int64_t>();
  if (too_large || given < minimum || given > maximum) {
    Fail(InvalidParam(name, absl::StrCat(member->dump(), " is not between ", minimum, " and ",
                                         maximum)));
    return value;
  }
  return given;
}

double JsonMembers::Number(const char* name, double value, double minimum, double maximum) {
  const nlohmann::json* member = Any(name);
  if (member == nullptr) return value;
  if (!member->is_number()) {
    WrongType(name, "a number", *member);
    return value;
  }
  const double given = member->get<double>();
  if (!(given >= minimum && given <= maximum)) {
    Fail(InvalidParam(name, absl::StrCat(member->dump(), " is not between ", minimum, " and ",
                                         maximum)));
    return value;
  }
  return given;
}

}  // namespace odmoe
