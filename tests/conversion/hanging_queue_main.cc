// A process with a job queue whose jobs never end, for tests that kill it.
// Usage: DATABASE SOURCE DESTINATION; without the last two it only works off the queue.
#include <unistd.h>

#include <cstdio>

#include "services/conversion/jobs/local_job_queue.h"
#include "tests/conversion/fake_conversion.h"

int main(int argc, char** argv) {
  if (argc != 2 && argc != 4) return 2;
  odmoe::FakeConversion conversion;
  conversion.Hold();
  odmoe::LocalJobQueueOptions options;
  options.database_path = argv[1];
  auto queue = odmoe::OpenLocalJobQueue(options, conversion.functions());
  if (!queue.ok()) {
    std::fprintf(stderr, "%s\n", queue.status().ToString().c_str());
    return 1;
  }
  if (argc == 4) {
    const auto job = (*queue)->Submit(odmoe::OneStep(argv[2], argv[3]), "");
    if (!job.ok()) {
      std::fprintf(stderr, "%s\n", job.status().ToString().c_str());
      return 1;
    }
    std::printf("submitted %s\n", job->id.c_str());
  }
  // Not amid a write to the database, whose lock a stopped process would keep.
  if (!conversion.WaitUntilHeld()) return 3;
  std::printf("running\n");
  std::fflush(stdout);
  ::pause();
}
