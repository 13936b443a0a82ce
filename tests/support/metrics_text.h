// Metrics of a service as a test reads them.
#pragma once

#include <string>

namespace odmoe {

// What a GET of "http://127.0.0.1:PORT/metrics" brings. The test fails where it is not answered as
// metrics are.
std::string FetchMetrics(const std::string& url);

// Every line is a comment or "name{labels} number", below its family's description; each family is
// described once, and no metric is there twice.
void ExpectMetricsText(const std::string& text);

}  // namespace odmoe
