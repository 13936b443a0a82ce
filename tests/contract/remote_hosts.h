// A store that computes, a second host's client of it, and a path between them that breaks.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "clients/cpp/expert_stream.h"
#include "clients/cpp/remote_expert_executor.h"
#include "clients/cpp/remote_expert_source.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/core/io/aligned_buffer.h"
#include "services/core/kernels/expert_mlp.h"
#include "services/core/rpc/channel.h"
#include "services/core/rpc/server.h"
#include "services/core/rpc/server_stream.h"
#include "tests/support/expert_storage_server.h"
#include "tests/support/faulty_expert_source.h"
#include "xxhash.h"

namespace odmoe {

// A TCP relay that breaks the second connection, or spoils a byte of it, after so many bytes from
// the server. A source's first connection asks what there is, its second reads.
class BadPath {
 public:
  // `cut` bytes pass; byte number `spoil` is flipped. 0: neither.
  BadPath(const std::string& to, int64_t cut, int64_t spoil)
      : to_port_(static_cast<uint16_t>(std::stoi(to.substr(to.rfind(':') + 1)))),
        cut_(cut), spoil_(spoil), listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in name = Loopback(0);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
    EXPECT_EQ(listen(listener_, 16), 0);
    socklen_t size = sizeof(name);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&name), &size);
    endpoint_ = absl::StrCat("127.0.0.1:", ntohs(name.sin_port));
    accepting_ = std::thread([this] { Accept(); });
  }
  ~BadPath() {
    stop_ = true;
    accepting_.join();
    for (std::thread& relay : relays_) relay.join();
    close(listener_);
  }

  const std::string& endpoint() const { return endpoint_; }
  // From the server, over all connections.
  int64_t passed() const { return passed_; }
  int connections() const { return connections_; }

 private:
  static constexpr int kPollMs = 10;

  static sockaddr_in Loopback(uint16_t port) {
    sockaddr_in name = {};
    name.sin_family = AF_INET;
    name.sin_port = htons(port);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return name;
  }

  void Accept() {
    pollfd wait = {listener_, POLLIN, 0};
    while (!stop_) {
      if (poll(&wait, 1, kPollMs) <= 0) continue;
      const int near = accept(listener_, nullptr, nullptr);
      const int far = socket(AF_INET, SOCK_STREAM, 0);
      const sockaddr_in name = Loopback(to_port_);
      EXPECT_EQ(connect(far, reinterpret_cast<const sockaddr*>(&name), sizeof(name)), 0);
      const bool bad = connections_++ == 1;
      relays_.emplace_back([this, near, far, bad] {
        Relay(near, far, bad ? cut_ : 0, bad ? spoil_ : 0);
        close(near);
        close(far);
      });
    }
  }

  void Relay(int near, int far, int64_t cut, int64_t spoil) {
    std::vector<char> bytes(1 << 16);
    int64_t here = 0;
    pollfd waits[] = {{near, POLLIN, 0}, {far, POLLIN, 0}};
    while (!stop_) {
      if (poll(waits, 2, kPollMs) <= 0) continue;
      for (const bool from_server : {false, true}) {
        if (waits[from_server ? 1 : 0].revents == 0) continue;
        size_t room = bytes.size();
        if (from_server && cut > 0) room = std::min<size_t>(room, cut - here);
        const ssize_t got = read(from_server ? far : near, bytes.data(), room);
        if (got <= 0) return;
        if (from_server) {
          if (spoil >= here && spoil < here + got && spoil > 0) bytes[spoil - here] ^= 1;
          here += got;
          passed_ += got;
        }
        for (ssize_t sent = 0; sent < got;) {
          const ssize_t n = send(from_server ? near : far, bytes.data() + sent, got - sent,
                                 MSG_NOSIGNAL);
          if (n <= 0) return;
          sent += n;
        }
        if (from_server && cut > 0 && here == cut) {
          End(near);
          return;
        }
      }
    }
  }

  // The near end receives all that has passed, and then the end: were what it still sends not read,
  // it would be reset, and lose what it has not read yet.
  void End(int near) {
    shutdown(near, SHUT_WR);
    pollfd wait = {near, POLLIN, 0};
    for (char bytes[4096]; !stop_;) {
      if (poll(&wait, 1, kPollMs) > 0 && read(near, bytes, sizeof(bytes)) <= 0) return;
    }
  }

  const uint16_t to_port_;
  const int64_t cut_, spoil_;
  const int listener_;
  std::string endpoint_;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> passed_{0};
  std::atomic<int> connections_{0};
  std::thread accepting_;
  std::vector<std::thread> relays_;  // the accepting thread's
};

// Small numbers, so that products stay finite.
inline std::unique_ptr<MemoryExpertSource> Experts(int64_t dim, int64_t ffn,
                                                   const std::string& digest = "0123") {
  LayerExperts layer;
  layer.layer = 3;
  layer.expert_count = 6;
  layer.layout = MakeExpertLayout(DType::kF32, DType::kF32, DType::kF32, dim, ffn).value();
  std::vector<std::vector<std::byte>> experts(layer.expert_count);
  uint32_t state = 7;
  for (auto& bytes : experts) {
    bytes.resize(layer.layout.bytes);
    for (size_t i = 0; i < bytes.size(); i += sizeof(float)) {
      state = state * 1664525u + 1013904223u;
      const float value = static_cast<float>(state >> 8) / static_cast<float>(1 << 24) - 0.5f;
      std::memcpy(bytes.data() + i, &value, sizeof(value));
    }
  }
  for (const auto& bytes : experts) layer.xxh3.push_back(XXH3_64bits(bytes.data(), bytes.size()));
  auto catalog = ExpertCatalog::Create(digest, {layer}).value();
  return MemoryExpertSource::Create(std::move(catalog), std::move(experts)).value();
}

class RemoteHostsTest : public ::testing::Test {
 protected:
  void Serve(int64_t dim, int64_t ffn, int compute_threads, int64_t slots = 6,
             absl::Duration stream_patience = absl::Seconds(30)) {
    truth_ = Experts(dim, ffn);
    server_ = std::make_unique<ExpertStorageTestServer>(StoreHost::Options(), compute_threads,
                                                        stream_patience);
    ServeModel(Experts(dim, ffn), slots);
  }

  void ServeModel(std::unique_ptr<MemoryExpertSource> experts, int64_t slots) {
    auto source = std::make_unique<FaultyExpertSource>(std::move(experts), faults_);
    CachingExpertStore::Options options;
    options.budget_bytes = slots * SlotBytes(source->catalog().max_expert_bytes());
    options.shareable = true;
    ASSERT_TRUE(server_->models
                    .Serve("model", CachingExpertStore::Create(std::move(source),
                                                               std::move(options)).value())
                    .ok());
  }

  // Reads one expert through a bad path.
  absl::Status Read(const BadPath& path, std::shared_ptr<const ReadControl> control = nullptr) {
    const auto source = ConnectRemoteSource(path.endpoint(), "model", OneStream()).value();
    return Read(*source, std::move(control));
  }

  static RemoteSourceOptions OneStream() {
    RemoteSourceOptions options;
    options.streams = 1;
    return options;
  }

  absl::Status Read(ExpertSource& from, std::shared_ptr<const ReadControl> control = nullptr) {
    AlignedBuffer buffer = AlignedBuffer::Allocate(
        SlotBytes(from.catalog().max_expert_bytes())).value();
    absl::Status result;
    absl::Notification done;
    from.Read({3, 1}, buffer.span(), std::move(control), [&](absl::Status status) {
      result = std::move(status);
      done.Notify();
    });
    done.WaitForNotification();
    const auto expected = truth_->Bytes({3, 1});
    if (result.ok()) {
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), buffer.span().begin()));
    }
    return result;
  }

  // What this process computes.
  std::vector<float> Expected(int32_t expert, absl::Span<const float> hidden, int64_t tokens,
                              absl::Span<const int32_t> chosen) {
    const ExpertLayout& layout = truth_->catalog().layers()[0].layout;
    Activations x;
    x.Set(hidden.data(), tokens, layout.w1.columns, layout.w1.columns);
    std::vector<float> output(chosen.size() * layout.w2.rows);
    const ExpertWork work = {truth_->Bytes({3, expert}).data(), expert, chosen, output.data()};
    ComputePool pool(1);
    ExpertMlp().Run(pool, layout, {}, x, {&work, 1});
    return output;
  }

  std::shared_ptr<ReadFaults> faults_ = std::make_shared<ReadFaults>();
  std::unique_ptr<MemoryExpertSource> truth_;
  std::unique_ptr<ExpertStorageTestServer> server_;
};

inline constexpr int64_t kChunk = 2 << 20;

}  // namespace odmoe
