#include "services/core/rpc/status_codec.h"

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "services/core/base/utf8.h"

namespace odmoe {
namespace {

google::rpc::Status Rich(const grpc::Status& status) {
  google::rpc::Status rich;
  EXPECT_TRUE(rich.ParseFromString(status.error_details()));
  return rich;
}

template <typename Detail>
bool Has(const google::rpc::Status& status, Detail& detail) {
  for (const auto& any : status.details()) {
    if (any.UnpackTo(&detail)) return true;
  }
  return false;
}

TEST(StatusCodecTest, EveryCodeSurvivesTheRoundTrip) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    const absl::Status back = FromGrpcStatus(ToGrpcStatus(status));
    EXPECT_EQ(back.code(), status.code());
    EXPECT_EQ(back.message(), "why");
  }
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
}

TEST(StatusCodecTest, DetailsNameTheReason) {
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(Has(Rich(ToGrpcStatus(absl::DataLossError("bad bytes"))), info));
  EXPECT_EQ(info.reason(), "DATA_LOSS");
  EXPECT_EQ(info.domain(), "odmoe");
}

TEST(StatusCodecTest, AnInvalidFieldTravelsByName) {
  const absl::Status status = InvalidField("sampling.top_p", "must be in (0, 1]");
  EXPECT_EQ(status.message(), "sampling.top_p: must be in (0, 1]");
  google::rpc::BadRequest details;
  ASSERT_TRUE(Has(Rich(ToGrpcStatus(FromGrpcStatus(ToGrpcStatus(status)))), details));
  ASSERT_EQ(details.field_violations_size(), 1);
  EXPECT_EQ(details.field_violations(0).field(), "sampling.top_p");
}

TEST(StatusCodecTest, OnlyWhatMayPassSaysWhenToRetry) {
  google::rpc::RetryInfo retry;
  EXPECT_TRUE(Has(Rich(ToGrpcStatus(absl::UnavailableError("gone"))), retry));
  EXPECT_TRUE(Has(Rich(ToGrpcStatus(absl::ResourceExhaustedError("full"))), retry));
  EXPECT_FALSE(Has(Rich(ToGrpcStatus(absl::DataLossError("bad"))), retry));
}

TEST(StatusCodecTest, MessagesBecomeShortUtf8) {
  const std::string hostile = std::string("name \xff\xfe\x01 ") + std::string(100000, 'x');
  const grpc::Status status = ToGrpcStatus(absl::InvalidArgumentError(hostile));
  EXPECT_LE(status.error_message().size(), 4096u);
  EXPECT_EQ(status.error_message().substr(0, 13), "name \uFFFD\uFFFD? ");
  // Cut between characters, and never longer for what replaces bad bytes.
  for (const std::string& filler : {std::string("\xE2\x82\xAC"), std::string("\xFF")}) {
    std::string text = "x";
    for (int i = 0; i < 5000; ++i) text += filler;
    const std::string cut = ToGrpcStatus(absl::InternalError(text)).error_message();
    EXPECT_LE(cut.size(), 4096u);
    EXPECT_GE(cut.size(), 4094u);
    EXPECT_EQ(FirstInvalidUtf8(cut), cut.size());
  }
  EXPECT_EQ(ToGrpcStatus(absl::InternalError("Zürich — 1815")).error_message(), "Zürich — 1815");
}

}  // namespace
}  // namespace odmoe
