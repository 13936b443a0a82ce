// What a source of experts tells of itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace odmoe {

// One directory that experts are read from. Counted since the source was opened.
struct DiskStats {
  std::string directory;
  uint64_t reads = 0;            // experts, those that failed too
  uint64_t bytes_read = 0;       // of experts
  uint64_t failures = 0;         // reads that failed or delivered other bytes than they should
  uint64_t bytes_under_way = 0;  // now
};

// All zero and empty where a source has nothing to say.
struct SourceStats {
  std::string reader;                      // "io_uring", "pread", "mmap", "remote"
  bool past_page_cache = false;            // O_DIRECT
  uint32_t queue_depth = 0;                // requests under way at most, for each device
  uint64_t request_bytes = 0;              // the largest of them
  double measured_bytes_per_second = 0;    // when those two were chosen; 0: not measured
  uint64_t requests = 0;                   // to devices, since the source was opened
  uint64_t requests_under_way = 0;         // now
  uint64_t requests_stuck = 0;             // of these, for a second or longer
  uint64_t reads_waiting = 0;              // now, experts of which a part is not asked for yet
  uint64_t open_files = 0;                 // now
  uint64_t registered_bytes = 0;           // memory the kernel has been told of, so reads cost less
  uint64_t checksum_failures = 0;          // experts whose bytes were not those expected
  uint64_t answered_by_another_disk = 0;   // reads that failed on one disk and not on the next
  uint64_t open_retries = 0;               // for want of descriptors or memory
  std::vector<DiskStats> disks;
};

}  // namespace odmoe
