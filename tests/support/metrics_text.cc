#include "tests/support/metrics_text.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "tests/support/http_client.h"

namespace odmoe {

std::string FetchMetrics(const std::string& url) {
  absl::string_view rest = url;
  int port = 0;
  if (!absl::ConsumePrefix(&rest, "http://127.0.0.1:") ||
      !absl::ConsumeSuffix(&rest, "/metrics") || !absl::SimpleAtoi(rest, &port)) {
    ADD_FAILURE() << "no address of metrics: " << url;
    return "";
  }
  const auto reply = HttpFetch(port, "GET", "/metrics");
  EXPECT_TRUE(reply.ok()) << reply.status();
  if (!reply.ok()) return "";
  EXPECT_EQ(reply->status, 200);
  EXPECT_EQ(reply->headers.at("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  return reply->body;
}

void ExpectMetricsText(const std::string& text) {
  std::set<std::string> families;
  std::set<std::string> metrics;
  std::string family;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (absl::ConsumePrefix(&line, "# TYPE ")) {
      family = std::string(line.substr(0, line.find(' ')));
      EXPECT_TRUE(families.insert(family).second) << family << " is described twice";
    } else if (line[0] != '#') {
      const size_t end = line.rfind(' ');
      double value = 0.0;
      EXPECT_TRUE(absl::SimpleAtod(line.substr(end + 1), &value)) << line;
      EXPECT_TRUE(absl::StartsWith(line, family)) << line << " is below " << family;
      EXPECT_TRUE(metrics.emplace(line.substr(0, end)).second) << line << " is there twice";
    }
  }
  EXPECT_FALSE(metrics.empty());
}

}  // namespace odmoe
