#include "services/core/http/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "services/core/http/metric_families.h"
#include "services/core/http/metrics_server.h"
#include "tests/support/http_client.h"
#include "tests/support/metrics_text.h"

namespace odmoe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

HttpResponse Text(int status, const std::string& body) {
  HttpResponse response;
  response.status = status;
  response.content_type = "text/plain";
  response.body = body;
  return response;
}

// Echoes the method, path and body; "/hold" is answered by the test.
class HttpServerTest : public ::testing::Test {
 protected:
  void Start(HttpServerOptions options = {}) {
    auto server = HttpServer::Start(
        options, [this](std::shared_ptr<HttpExchange> exchange) { Handle(std::move(exchange)); },
        [](int status, const std::string& message) { return Text(status, message); });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void Handle(std::shared_ptr<HttpExchange> exchange) {
    const HttpRequest& request = exchange->request();
    if (request.path == "/hold") {
      absl::MutexLock lock(&mutex_);
      held_ = std::move(exchange);
      return;
    }
    exchange->Send(Text(200, absl::StrCat(request.method, " ", request.path, " ", request.body)));
  }

  std::shared_ptr<HttpExchange> WaitForHeld() {
    absl::MutexLock lock(&mutex_);
    const auto there = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return held_ != nullptr; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&there), HttpClient::kPatience));
    return std::exchange(held_, nullptr);
  }

  static bool WaitUntilGone(const HttpExchange& exchange) {
    absl::Mutex mutex;
    absl::MutexLock lock(&mutex);
    const auto gone = [&] { return exchange.cancellation().cancelled(); };
    const absl::Time deadline = absl::Now() + HttpClient::kPatience;
    while (!gone() && absl::Now() < deadline) {
      // Nobody signals this mutex: the timeout is the poll's interval.
      mutex.AwaitWithTimeout(absl::Condition(&gone), absl::Milliseconds(5));
    }
    return gone();
  }

  std::unique_ptr<HttpClient> Connect() { return HttpClient::Connect(server_->port()); }

  absl::Mutex mutex_;
  std::shared_ptr<HttpExchange> held_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersManyRequestsOnOneConnection) {
  Start();
  const auto client = Connect();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(client->Request("POST", absl::StrCat("/a", i, "?x=1"), "body"));
    const auto reply = client->ReadReply();
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->status, 200);
    EXPECT_EQ(reply->body, absl::StrCat("POST /a", i, " body"));
  }
}

TEST_F(HttpServerTest, AnswersRequestsSentAhead) {
  Start();
  const auto client = Connect();
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    absl::StrAppend(&requests, "GET /", i, " HTTP/1.1\r\nHost: a\r\n\r\n");
  }
  ASSERT_TRUE(client->Send(requests));
  for (int i = 0; i < 50; ++i) EXPECT_EQ(client->ReadReply()->body, absl::StrCat("GET /", i, " "));
}

TEST_F(HttpServerTest, AnswersHeadWithoutABody) {
  Start();
  const auto client = Connect();
  ASSERT_TRUE(client->Request("HEAD", "/a"));
  const auto reply = client->ReadReply(true);
  EXPECT_EQ(reply->headers.at("content-length"), "8");
  ASSERT_TRUE(client->Request("GET", "/b"));
  EXPECT_EQ(client->ReadReply()->body, "GET /b ");
}

TEST_F(HttpServerTest, ClosesWhereAsked) {
  Start();
  for (const char* request : {"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                              "GET /a HTTP/1.0\r\n\r\n"}) {
    const auto client = Connect();
    ASSERT_TRUE(client->Send(request));
    EXPECT_EQ(client->ReadReply()->body, "GET /a ");
    EXPECT_TRUE(client->ReadToClose());
  }
}

TEST_F(HttpServerTest, ReadsChunkedBodies) {
  Start();
  const auto client = Connect();
  ASSERT_TRUE(client->Send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                           "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"));
  EXPECT_EQ(client->ReadReply()->body, "POST /a abcde");
}

TEST_F(HttpServerTest, AsksForTheBodyOfAClientThatWaits) {
  Start();
  const auto client = Connect();
  ASSERT_TRUE(client->Send(
      "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
  ASSERT_TRUE(client->ReadUntil("HTTP/1.1 100 Continue\r\n\r\n").ok());
  ASSERT_TRUE(client->Send("ok"));
  EXPECT_EQ(client->ReadReply()->body, "POST /a ok");
}

TEST_F(HttpServerTest, RefusesWhatIsTooLarge) {
  HttpServerOptions options;
  options.max_header_bytes = 1024;
  options.max_body_bytes = 1000;
  Start(options);
  const auto expect_refusal = [this](const std::string& request, int status) {
    const auto client = Connect();
    client->Send(request);  // the server may close amid it
    const auto reply = client->ReadReply();
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->status, status);
    EXPECT_TRUE(client->ReadToClose());
  };
  const std::string start = "POST /a HTTP/1.1\r\nHost: a\r\n";
  expect_refusal(start + "X: " + std::string(100'000, 'x') + "\r\n\r\n", 431);
  expect_refusal("GET /" + std::string(100'000, 'x') + " HTTP/1.1\r\n\r\n", 431);
  expect_refusal(start + "Content-Length: 1001\r\n\r\n" + std::string(1001, 'b'), 413);
  expect_refusal(start + "Content-Length: 99999999999999\r\n\r\n", 413);
  expect_refusal(start + "Transfer-Encoding: chunked\r\n\r\n800\r\n" + std::string(2048, 'b'), 413);
}

TEST_F(HttpServerTest, RefusesWhatIsNoRequest) {
  Start();
  for (const std::string& bytes :
       {std::string("garbage\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("GET /\r\n\r\n"), std::string("G@T / HTTP/1.1\r\n\r\n"),
        std::string("GET / HTTP/1.1\r\nno colon\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls hello\r\n\r\n", 25)}) {
    const auto client = Connect();
    ASSERT_TRUE(client->Send(bytes));
    const auto reply = client->ReadReply();
    ASSERT_TRUE(reply.ok()) << bytes << reply.status();
    EXPECT_EQ(reply->status, 400) << bytes;
    EXPECT_TRUE(client->ReadToClose());
  }
}

TEST_F(HttpServerTest, DropsClientsWhoseHeaderIsSlow) {
  HttpServerOptions options;
  options.header_timeout = absl::Milliseconds(50);
  Start(options);
  EXPECT_TRUE(Connect()->ReadToClose());  // says nothing
  const auto client = Connect();
  client->Send("GET / HTTP/1.1\r\nX");
  EXPECT_TRUE(client->ReadToClose());
}

TEST_F(HttpServerTest, DropsClientsWhoseBodyIsSlow) {
  HttpServerOptions options;
  options.body_timeout = absl::Milliseconds(50);
  Start(options);
  const auto client = Connect();
  ASSERT_TRUE(client->Send("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nab"));
  EXPECT_TRUE(client->ReadToClose());
}

TEST_F(HttpServerTest, DropsClientsThatAreIdle) {
  HttpServerOptions options;
  options.idle_timeout = absl::Milliseconds(50);
  Start(options);
  const auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/a"));
  EXPECT_EQ(client->ReadReply()->status, 200);
  EXPECT_TRUE(client->ReadToClose());
}

// A drip of bytes does not restart the limit: it is for the header as a whole.
TEST_F(HttpServerTest, DropsADrippingHeader) {
  HttpServerOptions options;
  options.header_timeout = absl::Milliseconds(100);
  options.max_header_bytes = 1 << 30;  // time is to run out, not room
  Start(options);
  const auto client = Connect();
  client->Send("GET / HTTP/1.1\r\n");
  std::thread drip([&] {
    while (client->Send("X: y\r\n")) std::this_thread::yield();
  });
  EXPECT_TRUE(client->ReadToClose());
  drip.join();
}

TEST_F(HttpServerTest, AClientThatDoesNotReadIsDropped) {
  HttpServerOptions options;
  options.write_timeout = absl::Milliseconds(100);
  Start(options);
  const auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/hold"));
  const auto exchange = WaitForHeld();
  exchange->OpenStream("text/plain", "");
  const std::string block(64 << 10, 'x');
  size_t written = 0;
  while (exchange->Write(block)) written += block.size();
  EXPECT_TRUE(exchange->cancellation().cancelled());
  EXPECT_LT(written, size_t{64} << 20);  // bounded by what the socket and we hold for it
}

TEST_F(HttpServerTest, StreamsInChunks) {
  Start();
  const auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/hold"));
  const auto exchange = WaitForHeld();
  exchange->OpenStream("text/event-stream", ": beat\n\n");
  ASSERT_TRUE(exchange->Write("data: one\n\n"));
  ASSERT_TRUE(client->ReadUntil("data: one\n\n").ok());  // it is there before the stream ends
  EXPECT_FALSE(exchange->Send(Text(500, "too late")));
  ASSERT_TRUE(exchange->Write("data: two\n\n"));
  exchange->Finish();
  EXPECT_THAT(*client->ReadUntil("0\r\n\r\n"), HasSubstr("data: two\n\n"));
  ASSERT_TRUE(client->Request("GET", "/next"));  // the connection goes on
  EXPECT_EQ(client->ReadReply()->body, "GET /next ");
}

TEST_F(HttpServerTest, StreamsToOldClientsUntilItCloses) {
  Start();
  const auto client = Connect();
  ASSERT_TRUE(client->Send("GET /hold HTTP/1.0\r\n\r\n"));
  const auto exchange = WaitForHeld();
  exchange->OpenStream("text/event-stream", "");
  exchange->Write("plain");
  exchange->Finish();
  EXPECT_EQ(client->ReadReply()->body, "plain");
}

TEST_F(HttpServerTest, AQuietStreamHasHeartbeats) {
  HttpServerOptions options;
  options.heartbeat_interval = absl::Milliseconds(20);
  Start(options);
  const auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/hold"));
  const auto exchange = WaitForHeld();
  exchange->OpenStream("text/event-stream", ": beat\n\n");
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(client->ReadUntil(": beat\n\n").ok());
  EXPECT_FALSE(exchange->Send(Text(400, "the header has left")));
  exchange->Finish();
  EXPECT_TRUE(client->ReadUntil("0\r\n\r\n").ok());
}

TEST_F(HttpServerTest, AStreamThatHasNotBegunCanStillBeAnAnswer) {
  Start();
  const auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/hold"));
  const auto exchange = WaitForHeld();
  exchange->OpenStream("text/event-stream", ": beat\n\n");
  EXPECT_TRUE(exchange->Send(Text(400, "no")));
  EXPECT_EQ(client->ReadReply()->status, 400);
}

TEST_F(HttpServerTest, NoticesThatAClientHasGone) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/hold"));
  const auto exchange = WaitForHeld();
  EXPECT_FALSE(exchange->cancellation().cancelled());
  client->Close();
  EXPECT_TRUE(WaitUntilGone(*exchange));
  EXPECT_FALSE(exchange->Send(Text(200, "nobody")));
}

TEST_F(HttpServerTest, BoundsItsConnections) {
  HttpServerOptions options;
  options.max_connections = 2;
  Start(options);
  auto first = Connect();
  auto second = Connect();
  for (const auto& client : {first.get(), second.get()}) {
    ASSERT_TRUE(client->Request("GET", "/a"));
    EXPECT_EQ(client->ReadReply()->status, 200);
  }
  const auto third = Connect();
  EXPECT_EQ(third->ReadReply()->status, 503);
  EXPECT_TRUE(third->ReadToClose());
  first->Close();
  // There is room again, once the server has seen the first one go.
  int status = 503;
  for (int i = 0; i < 10'000 && status == 503; ++i) {
    const auto next = Connect();
    next->Request("GET", "/a");  // the server may refuse before it is sent
    const auto reply = next->ReadReply();
    if (reply.ok()) status = reply->status;
  }
  EXPECT_EQ(status, 200);
}

TEST_F(HttpServerTest, AcceptsAgainAfterRunningOutOfDescriptors) {
  Start();
  std::vector<int> sockets;
  for (int i = 0; i < 40; ++i) sockets.push_back(HttpClient::MakeSocket());
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  // Newcomers do not get the last quarter: of what is left the clients leave some six.
  few.rlim_cur = (rlim_t(sockets.back()) + 6) * 4 / 3;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (const int fd : sockets) clients.push_back(HttpClient::Connect(server_->port(), fd));
  ASSERT_TRUE(clients.front()->Request("GET", "/a"));
  EXPECT_EQ(clients.front()->ReadReply()->status, 200);  // those that were accepted are served
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(HttpFetch(server_->port(), "GET", "/a")->status, 200);
}

TEST_F(HttpServerTest, DrainLetsAnswersEnd) {
  Start();
  const auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/hold"));
  const auto exchange = WaitForHeld();
  exchange->OpenStream("text/plain", "");
  ASSERT_TRUE(exchange->Write("begun "));
  ASSERT_TRUE(client->ReadUntil("begun ").ok());
  absl::Notification drained;
  std::thread drain([&] {
    server_->Drain(absl::Now() + HttpClient::kPatience);
    drained.Notify();
  });
  EXPECT_FALSE(drained.HasBeenNotified());
  // Requests are still taken meanwhile, and their connections closed.
  const auto late = HttpFetch(server_->port(), "GET", "/late");
  EXPECT_EQ(late->body, "GET /late ");
  EXPECT_TRUE(exchange->Write("and ended"));
  exchange->Finish();
  drain.join();
  EXPECT_THAT(*client->ReadUntil("0\r\n\r\n"), HasSubstr("and ended"));
  EXPECT_EQ(Connect(), nullptr);
}

TEST_F(HttpServerTest, DrainEndsAtItsDeadline) {
  Start();
  const auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/hold"));
  const auto exchange = WaitForHeld();
  const auto idle = Connect();
  server_->Drain(absl::Now());
  EXPECT_TRUE(exchange->cancellation().cancelled());
  EXPECT_TRUE(client->ReadToClose());
  EXPECT_TRUE(idle->ReadToClose());
}

TEST_F(HttpServerTest, RefusesBadAddresses) {
  const auto start = [](const std::string& listen) {
    HttpServerOptions options;
    options.listen = listen;
    return HttpServer::Start(options, [](auto) {}, [](int, const std::string&) {
      return HttpResponse();
    }).status().code();
  };
  for (const char* listen : {"", "8080", "host.example:80", "127.0.0.1", "127.0.0.1:",
                             "127.0.0.1:65536", "127.0.0.1:-1", "[::1:80", "1.2.3:80"}) {
    EXPECT_EQ(start(listen), absl::StatusCode::kInvalidArgument) << listen;
  }
  Start();
  EXPECT_EQ(start(absl::StrCat("127.0.0.1:", server_->port())), absl::StatusCode::kUnavailable);
}

TEST(MetricsServerTest, ServesWhatIsCollectedAndNothingElse) {
  int collected = 0;
  const auto server = MetricsServer::Start("127.0.0.1:0", [&] {
    MetricFamilies families("test_");
    families.Begin(MetricFamilies::Type::Counter, "things_total", "Things");
    families.Add({{"name", "a\"b\xff"}}, ++collected);
    LogHistogram histogram;
    for (const uint64_t us : {1, 3, 1000}) histogram.Add(us);
    families.Begin(MetricFamilies::Type::Histogram, "wait_seconds", "Waits");
    families.Add({}, histogram, 1e-6, /*every=*/1);
    return families.Text() + ProcessMetricsText();
  });
  ASSERT_TRUE(server.ok()) << server.status();
  FetchMetrics((*server)->url());
  const std::string text = FetchMetrics((*server)->url());
  ExpectMetricsText(text);
  for (const char* line :
       {"test_things_total{name=\"a\\\"b\uFFFD\"} 2", "test_wait_seconds_bucket{le=\"2e-06\"} 1",
        "test_wait_seconds_bucket{le=\"4e-06\"} 2", "test_wait_seconds_bucket{le=\"+Inf\"} 3",
        "test_wait_seconds_count 3", "test_wait_seconds_sum 0.001004"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("\n", line, "\n")));
  }
  for (const char* name : {"open_fds", "resident_memory_bytes", "start_time_seconds"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("\nprocess_", name, " ")));
  }
  int port = 0;
  ASSERT_TRUE(absl::SimpleAtoi(
      absl::StripSuffix(absl::StripPrefix((*server)->url(), "http://127.0.0.1:"), "/metrics"),
      &port));
  EXPECT_EQ(HttpFetch(port, "GET", "/")->status, 404);
  EXPECT_EQ(HttpFetch(port, "POST", "/metrics")->status, 405);
}

}  // namespace
}  // namespace odmoe
