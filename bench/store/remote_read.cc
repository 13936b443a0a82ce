// What ReadExpert carries, beside a plain socket on the same path in the same minute.
//
//   remote_read                        both ends here, a process each, over loopback
//   remote_read --serve 10.77.0.1      the far end: prints its two addresses, serves until it is
//                                      killed or its input ends
//   remote_read --connect GRPC,SOCKET  the near end
//
// Both rivals put the bytes where an arena's slot would be. ReadExpert also hashes them. Beside the
// speeds it prints the processor's time a gigabyte, of both ends where both are here: a figure that
// other processes disturb less, and the bound of both where the processor is what is short.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "clients/cpp/remote_expert_source.h"
#include "services/core/experts/memory_expert_source.h"
#include "services/core/io/aligned_buffer.h"
#include "services/core/rpc/server.h"
#include "services/expert_storage/open_expert_store.h"
#include "services/expert_storage/service/expert_storage_service.h"

namespace odmoe {
namespace {

constexpr int kExperts = 8;
// f32 [ffn, dim] three times: 25.2 MB, as an expert of Kimi-K2 at 4.5 bits a weight.
constexpr int64_t kDim = 2048, kFfn = 1024;

struct Flags {
  std::string serve, connect;
  int rounds = 5;
  int experts = 24;  // read a round and rival
  std::vector<int> streams = {1, 4};
  size_t connections = 4;
  std::string rival = "both";
};

void DieUnless(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::exit(1);
}

void NoDelay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

// The rival's far end: one byte asks for an expert, whose bytes come back.
void ServeSocket(int fd, absl::Span<const std::byte> bytes) {
  char ask = 0;
  while (read(fd, &ask, 1) == 1) {
    for (size_t sent = 0; sent < bytes.size();) {
      const ssize_t n = write(fd, bytes.data() + sent, bytes.size() - sent);
      if (n <= 0) break;
      sent += static_cast<size_t>(n);
    }
  }
  close(fd);
}

int Listen(const std::string& host, std::string& address) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  inet_pton(AF_INET, host.c_str(), &name.sin_addr);
  DieUnless(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0, "bind");
  DieUnless(listen(fd, 64) == 0, "listen");
  socklen_t size = sizeof(name);
  getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size);
  address = absl::StrCat(host, ":", ntohs(name.sin_port));
  return fd;
}

void Serve(const std::string& host, FILE* announce, int until_eof) {
  MemoryExpertSource::RandomOptions shape;
  shape.layers = 1;
  shape.experts_per_layer = kExperts;
  shape.dim = kDim;
  shape.ffn = kFfn;
  auto source = MemoryExpertSource::Random(shape).value();
  const MemoryExpertSource& truth = *source;
  OpenStoreOptions options;
  options.budget = ParseBudget("100%").value();
  options.use_memfd = true;
  StoreHost models({});
  models.Serve("bench", MakeExpertStore(std::move(source), options, 1).value()).IgnoreError();
  const auto service = ExpertStorageServer::Create(models, {}).value();
  RpcServerOptions server_options;
  server_options.listen = host + ":0";
  server_options.services = {service->service()};
  const auto server = RpcServer::Start(server_options).value();
  std::string socket_address;
  const int listener = Listen(host, socket_address);
  std::thread([listener, &truth] {
    while (true) {
      const int fd = accept(listener, nullptr, nullptr);
      if (fd < 0) return;
      NoDelay(fd);
      std::thread([fd, &truth] { ServeSocket(fd, truth.Bytes({0, 0})); }).detach();
    }
  }).detach();
  std::fprintf(announce, "%s,%s\n", server->address().c_str(), socket_address.c_str());
  std::fflush(announce);
  char byte = 0;
  while (read(until_eof, &byte, 1) > 0) {
  }
  std::_Exit(0);
}

// One stream of the rival.
class PlainSocket {
 public:
  explicit PlainSocket(const std::string& address) {
    const std::vector<std::string> parts = absl::StrSplit(address, ':');
    sockaddr_in name = {};
    name.sin_family = AF_INET;
    name.sin_port = htons(static_cast<uint16_t>(std::stoi(parts[1])));
    inet_pton(AF_INET, parts[0].c_str(), &name.sin_addr);
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    DieUnless(connect(fd_, reinterpret_cast<sockaddr*>(&name), sizeof(name)) == 0, "connect");
    NoDelay(fd_);
  }
  ~PlainSocket() { close(fd_); }
  void Read(absl::Span<std::byte> into) {
    DieUnless(write(fd_, "x", 1) == 1, "write");
    for (size_t got = 0; got < into.size();) {
      const ssize_t n = read(fd_, into.data() + got, into.size() - got);
      DieUnless(n > 0, "read");
      got += static_cast<size_t>(n);
    }
  }

 private:
  int fd_;
};

double SecondsOf(clockid_t clock) {
  timespec time = {};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// What has been carried, by the clock and by the processor's.
struct Carried {
  double gigabytes_per_second = 0;
  double processor_seconds_per_gigabyte = 0;
};

// Times from construction on.
class Stopwatch {
 public:
  // `far`: the other end's process, where it is a child of this one.
  explicit Stopwatch(pid_t far) {
    if (far > 0) DieUnless(clock_getcpuclockid(far, &far_) == 0, "clock_getcpuclockid");
    processor_ = Processor();
  }
  Carried Took(uint64_t bytes) const {
    const double gigabytes = static_cast<double>(bytes) * 1e-9;
    return {gigabytes / absl::ToDoubleSeconds(absl::Now() - start_),
            (Processor() - processor_) / gigabytes};
  }

 private:
  double Processor() const {
    return SecondsOf(CLOCK_PROCESS_CPUTIME_ID) + (far_ != kNone ? SecondsOf(far_) : 0);
  }

  static constexpr clockid_t kNone = -1;
  clockid_t far_ = kNone;
  double processor_;
  absl::Time start_ = absl::Now();
};

struct Rivals {
  Rivals(const Flags& flags, const std::vector<std::string>& addresses, int streams, pid_t far)
      : far(far) {
    for (int i = 0; i < streams; ++i) {
      sockets.push_back(std::make_unique<PlainSocket>(addresses[1]));
    }
    RemoteSourceOptions options;
    options.streams = static_cast<size_t>(streams);
    options.connections = flags.connections;
    source = ConnectRemoteSource(addresses[0], "", options).value();
    bytes = source->catalog().max_expert_bytes();
    for (int i = 0; i < streams; ++i) {
      buffers.push_back(AlignedBuffer::Allocate(SlotBytes(bytes), 4096).value());
    }
  }

  Carried Socket(int experts) {
    return Time(experts, [this](size_t s, int) {
      sockets[s]->Read(buffers[s].span().first(bytes));
    });
  }

  Carried Grpc(int experts) {
    return Time(experts, [this](size_t s, int expert) {
      const absl::Status status = ReadAndWait(*source, {0, expert}, buffers[s].span());
      if (status.ok()) return;
      std::cerr << status << "\n";
      std::exit(1);
    });
  }

  // Has `read(stream, expert)` read so many, each stream's by a thread.
  template <typename Read>
  Carried Time(int experts, Read read) {
    const Stopwatch watch(far);
    std::vector<std::thread> threads;
    for (size_t s = 0; s < sockets.size(); ++s) {
      threads.emplace_back([&, s] {
        for (int i = static_cast<int>(s); i < experts; i += static_cast<int>(sockets.size())) {
          read(s, i % kExperts);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    return watch.Took(bytes * static_cast<uint64_t>(experts));
  }

  const pid_t far;  // the far end's process, 0: on another host
  uint64_t bytes = 0;
  std::vector<std::unique_ptr<PlainSocket>> sockets;
  std::vector<AlignedBuffer> buffers;
  std::unique_ptr<ExpertSource> source;
};

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// What one rival did, round by round.
struct Score {
  void Add(const Carried& carried) {
    speed.push_back(carried.gigabytes_per_second);
    processor.push_back(carried.processor_seconds_per_gigabyte);
  }
  void Print(const char* name) const {
    if (speed.empty()) return;
    std::printf("  %-12s %.2f GB/s, %.2f s of processor a GB (%.2f at best)\n", name, Median(speed),
                Median(processor), *std::min_element(processor.begin(), processor.end()));
  }
  std::vector<double> speed, processor;
};

void Compare(const Flags& flags, const std::string& addresses, pid_t far) {
  for (const int streams : flags.streams) {
    Rivals rivals(flags, absl::StrSplit(addresses, ','), streams, far);
    rivals.Grpc(kExperts);  // brings them into the far working set
    rivals.Socket(streams);
    Score socket, grpc;
    std::vector<double> ratio;
    for (int round = 0; round < flags.rounds; ++round) {
      if (flags.rival != "grpc") socket.Add(rivals.Socket(flags.experts));
      if (flags.rival != "socket") grpc.Add(rivals.Grpc(flags.experts));
      if (flags.rival == "both") ratio.push_back(grpc.speed.back() / socket.speed.back());
    }
    std::printf("%d streams of %.1f MB:\n", streams, static_cast<double>(rivals.bytes) * 1e-6);
    socket.Print("plain socket");
    grpc.Print("ReadExpert");
    if (!ratio.empty()) std::printf("  ratio        %.2f\n", Median(ratio));
    std::fflush(stdout);
  }
}

// Both ends on this host. The child is forked before any thread exists.
void CompareOverLoopback(const Flags& flags) {
  int announce[2], life[2];
  DieUnless(pipe(announce) == 0 && pipe(life) == 0, "pipe");
  const pid_t child = fork();
  DieUnless(child >= 0, "fork");
  if (child == 0) {
    close(life[1]);
    Serve("127.0.0.1", fdopen(announce[1], "w"), life[0]);
  }
  close(announce[1]);
  char line[256] = {};
  FILE* in = fdopen(announce[0], "r");
  DieUnless(std::fgets(line, sizeof(line), in) != nullptr, "the far end");
  std::string addresses(line);
  addresses.pop_back();
  Compare(flags, addresses, child);
  close(life[1]);
  waitpid(child, nullptr, 0);
}

int Main(int argc, char** argv) {
  CLI::App app("Compares ReadExpert with a plain socket on the same path");
  Flags flags;
  app.add_option("--serve", flags.serve, "Be the far end, on this address");
  app.add_option("--connect", flags.connect, "Be the near end: the line the far end printed");
  app.add_option("--rounds", flags.rounds, "Rounds of both; medians are printed")
      ->capture_default_str();
  app.add_option("--experts", flags.experts, "Experts read a round")->capture_default_str();
  app.add_option("--streams", flags.streams, "Experts read at once")->capture_default_str();
  app.add_option("--connections", flags.connections, "TCP connections ReadExpert may use")
      ->capture_default_str();
  app.add_option("--rival", flags.rival, "One alone: socket or grpc, for a profile of it")
      ->check(CLI::IsMember({"both", "socket", "grpc"}))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  signal(SIGPIPE, SIG_IGN);
  if (!flags.serve.empty()) {
    Serve(flags.serve, stdout, STDIN_FILENO);
  } else if (!flags.connect.empty()) {
    Compare(flags, flags.connect, 0);
  } else {
    CompareOverLoopback(flags);
  }
  return 0;
}

}  // namespace
}  // namespace odmoe

int main(int argc, char** argv) { return odmoe::Main(argc, argv); }
