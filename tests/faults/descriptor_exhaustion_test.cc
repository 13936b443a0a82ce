// Every service with few descriptors and a crowd of connections: those open before go on, and once
// the crowd has left it serves new ones. (Debian's gRPC, left to accept by itself, would not.)
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "odmoe/conversion/v1/conversion_service.grpc.pb.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "odmoe/inference/v1/inference_service.grpc.pb.h"
#include "services/core/io/owned_fd.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/status_codec.h"
#include "tests/support/http_client.h"
#include "tests/support/subprocess.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

constexpr absl::Duration kLongest = absl::Minutes(1);
constexpr int kDescriptors = 64;
constexpr int kCrowd = 200;

// One call over a connection made once.
using Probe = std::function<absl::Status()>;

template <typename Service, typename Request, typename Response>
Probe CallOf(const std::string& endpoint,
             grpc::Status (Service::Stub::*method)(grpc::ClientContext*, const Request&,
                                                   Response*)) {
  std::shared_ptr<typename Service::Stub> stub = Service::NewStub(MakeChannel(endpoint).value());
  return [stub, method] {
    grpc::ClientContext context;
    SetDeadline(context, absl::Now() + kLongest);
    Response response;
    return FromGrpcStatus(((*stub).*method)(&context, Request(), &response));
  };
}

int PortOf(const std::string& endpoint) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(endpoint.substr(endpoint.rfind(':') + 1), &port)) << endpoint;
  return port;
}

Probe GetOf(const std::string& url) {
  std::shared_ptr<HttpClient> client = HttpClient::Connect(PortOf(url));
  return [client] {
    if (client == nullptr || !client->Request("GET", "/metrics")) {
      return absl::UnavailableError("no connection");
    }
    return client->ReadReply().status();
  };
}

struct Program {
  std::string name;
  std::function<std::vector<std::string>(const std::string& directory)> arguments;
  std::function<Probe(const std::string& endpoint)> dial;
};

std::vector<Program> Programs() {
  namespace store_v1 = expert_storage::v1;
  namespace inference_v1 = inference::v1;
  namespace conversion_v1 = conversion::v1;
  const auto root = [](const std::string& d) { return std::vector<std::string>{"--root", d}; };
  return {
      {"odmoe-expert-storage", root,
       [](const std::string& endpoint) {
         return CallOf<store_v1::ExpertStorageService>(
             endpoint, &store_v1::ExpertStorageService::Stub::ListModels);
       }},
      {"odmoe-inference", root,
       [](const std::string& endpoint) {
         return CallOf<inference_v1::InferenceService>(
             endpoint, &inference_v1::InferenceService::Stub::Stats);
       }},
      {"odmoe-conversion",
       [](const std::string& d) {
         return std::vector<std::string>{"--root", d, "--database", d + "/jobs.db"};
       },
       [](const std::string& endpoint) {
         return CallOf<conversion_v1::ConversionService>(
             endpoint, &conversion_v1::ConversionService::Stub::ListJobs);
       }},
      {"odmoe-gateway",
       [](const std::string&) { return std::vector<std::string>{"--inference", "127.0.0.1:1"}; },
       GetOf},
  };
}

class DescriptorExhaustionTest : public ::testing::TestWithParam<Program> {
 protected:
  void Start() {
    Subprocess::Options options;
    options.arguments = {"/bin/sh", "-c",
                         absl::StrCat("ulimit -n ", kDescriptors, "; exec ", ODMOE_BIN_DIR, "/",
                                      GetParam().name, " --listen 127.0.0.1:0 ",
                                      absl::StrJoin(GetParam().arguments(directory_.path()), " "))};
    process_ = Subprocess::Start(options).value();
    const auto line = process_->WaitForLine("listening on ", kLongest);
    ASSERT_TRUE(line.ok()) << line.status();
    endpoint_ = line->substr(line->rfind(' ') + 1);
  }

  int OpenNow() const {
    std::error_code error;
    const auto all = std::filesystem::directory_iterator(
        absl::StrCat("/proc/", process_->pid(), "/fd"), error);
    return error ? 0 : static_cast<int>(std::distance(begin(all), end(all)));
  }

  OwnedFd Knock() const {
    OwnedFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(PortOf(endpoint_)));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }

  static bool Await(const std::function<bool()>& condition) {
    for (const absl::Time end = absl::Now() + kLongest; absl::Now() < end;
         std::this_thread::yield()) {
      if (condition()) return true;
    }
    return false;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Subprocess> process_;
  std::string endpoint_;
};

TEST_P(DescriptorExhaustionTest, ItServesOnAndAgain) {
  Start();
  if (HasFatalFailure()) return;
  const Probe before = GetParam().dial(endpoint_);
  ASSERT_TRUE(before().ok());
  for (int round = 0; round < 2; ++round) {
    std::vector<OwnedFd> crowd;
    for (int i = 0; i < kCrowd; ++i) crowd.push_back(Knock());
    // A quarter is kept back for the work of those who are in.
    EXPECT_TRUE(Await([&] { return OpenNow() >= kDescriptors - kDescriptors / 4; })) << OpenNow();
    EXPECT_TRUE(before().ok()) << before();
    crowd.clear();
    absl::Status last;
    EXPECT_TRUE(Await([&] {
      last = GetParam().dial(endpoint_)();
      return last.ok();
    })) << last;
  }
}

INSTANTIATE_TEST_SUITE_P(Services, DescriptorExhaustionTest, ::testing::ValuesIn(Programs()),
                         [](const auto& info) {
                           return info.param.name.substr(info.param.name.rfind('-') + 1);
                         });

}  // namespace
}  // namespace odmoe
