#include "services/core/base/thread_pool.h"

#include <utility>

namespace odmoe {

ThreadPool::ThreadPool(size_t max_threads) : max_threads_(max_threads) {}

ThreadPool::~ThreadPool() {
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void ThreadPool::Schedule(std::function<void()> task) {
  absl::MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
  if (idle_ < tasks_.size() && threads_.size() < max_threads_ && !stopping_) {
    threads_.emplace_back([this] { RunTasks(); });
  }
}

void ThreadPool::RunTasks() {
  for (;;) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mutex_);
      ++idle_;
      mutex_.Await(absl::Condition(this, &ThreadPool::TaskOrStop));
      --idle_;
      if (tasks_.empty()) return;  // stopping, and nothing left
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace odmoe
