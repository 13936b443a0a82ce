// Abseil's locks, made visible to the thread sanitizer. Debian's Abseil is not built with it, so
// that without this every use of absl::Mutex would look like a race. Linked under the tsan preset
// alone, by --wrap: our calls come here and go on to the real ones.
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

extern "C" {

void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);

}  // extern "C"

namespace {

// Abseil evaluates the conditions of waiters on whichever thread unlocks, under the lock but where
// the sanitizer cannot see it.
struct IgnoreReads {
  IgnoreReads() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~IgnoreReads() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};

template <typename Call>
auto Acquiring(const void* lock, Call call) {
  struct Acquire {
    ~Acquire() { __tsan_acquire(const_cast<void*>(lock)); }
    const void* lock;
  } const acquire{lock};
  const IgnoreReads ignore;
  return call();
}

template <typename Call>
auto Releasing(const void* lock, Call call) {
  __tsan_release(const_cast<void*>(lock));
  const IgnoreReads ignore;
  return call();
}

template <typename Call>
auto Waiting(const void* lock, Call call) {
  __tsan_release(const_cast<void*>(lock));
  return Acquiring(lock, call);
}

}  // namespace

// ODMOE_WRAP(kind, result, mangled name, object, parameters, arguments)
#define ODMOE_WRAP(kind, result, name, object, parameters, arguments)  \
  extern "C" result __real_##name parameters;                          \
  extern "C" result __wrap_##name parameters {                         \
    return kind(object, [&]() -> result { return __real_##name arguments; }); \
  }

using absl::BlockingCounter;
using absl::CondVar;
using absl::Condition;
using absl::Duration;
using absl::Mutex;
using absl::Notification;
using absl::Time;

ODMOE_WRAP(Acquiring, void, _ZN4absl7debian35Mutex4LockEv, m, (Mutex * m), (m))
ODMOE_WRAP(Acquiring, void, _ZN4absl7debian35Mutex10ReaderLockEv, m, (Mutex * m), (m))
ODMOE_WRAP(Acquiring, bool, _ZN4absl7debian35Mutex7TryLockEv, m, (Mutex * m), (m))
ODMOE_WRAP(Releasing, void, _ZN4absl7debian35Mutex6UnlockEv, m, (Mutex * m), (m))
ODMOE_WRAP(Releasing, void, _ZN4absl7debian35Mutex12ReaderUnlockEv, m, (Mutex * m), (m))
ODMOE_WRAP(Acquiring, void, _ZN4absl7debian35Mutex8LockWhenERKNS0_9ConditionE, m,
           (Mutex * m, const Condition& c), (m, c))
ODMOE_WRAP(Waiting, void, _ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE, m,
           (Mutex * m, const Condition& c), (m, c))
ODMOE_WRAP(Waiting, bool, _ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE,
           m, (Mutex * m, const Condition& c, Duration d), (m, c, d))
ODMOE_WRAP(Waiting, bool, _ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE, m,
           (Mutex * m, const Condition& c, Time t), (m, c, t))
ODMOE_WRAP(Waiting, void, _ZN4absl7debian37CondVar4WaitEPNS0_5MutexE, m, (CondVar * v, Mutex* m),
           (v, m))
ODMOE_WRAP(Waiting, bool, _ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE, m,
           (CondVar * v, Mutex* m, Duration d), (v, m, d))
ODMOE_WRAP(Waiting, bool, _ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE, m,
           (CondVar * v, Mutex* m, Time t), (v, m, t))
ODMOE_WRAP(Releasing, void, _ZN4absl7debian312Notification6NotifyEv, n, (Notification * n), (n))
ODMOE_WRAP(Acquiring, void, _ZNK4absl7debian312Notification19WaitForNotificationEv, n,
           (const Notification* n), (n))
ODMOE_WRAP(Acquiring, bool,
           _ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE, n,
           (const Notification* n, Duration d), (n, d))
ODMOE_WRAP(Releasing, bool, _ZN4absl7debian315BlockingCounter14DecrementCountEv, c,
           (BlockingCounter * c), (c))
ODMOE_WRAP(Acquiring, void, _ZN4absl7debian315BlockingCounter4WaitEv, c, (BlockingCounter * c), (c))
