#include "parts.h"

#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace hwfault {
namespace {

// Parts taken one after the other by whichever thread is free.
struct Job {
  const std::function<void(int64_t)>& part;
  const int64_t parts;
  std::atomic<int64_t> next{0};
  Parts done{};

  void run() {
    done.run([&] {
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < parts;) part(i);
    });
  }
};

// OpenMP's pool, if the host has loaded one as torch does. Its threads spin for a while after each of the host's own
// loops, so that new threads beside them would wait for a core for longer than the work takes.
using Pool = void (*)(void (*run)(void*), void* job, unsigned threads, unsigned flags);
Pool host_pool() {
#if defined(__linux__)
  static const auto pool = reinterpret_cast<Pool>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return pool;
#else
  return nullptr;
#endif
}

void run_on_new_threads(Job& job) {
  std::vector<std::thread> threads;
  threads.reserve(job.parts - 1);
  try {
    while (static_cast<int64_t>(threads.size()) < job.parts - 1) threads.emplace_back([&] { job.run(); });
  } catch (const std::system_error&) {
    // no more threads to be had: those that there are do the rest
  }
  job.run();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

void run_parts(int64_t parts, const std::function<void(int64_t)>& part) {
  Job job{part, parts};
  if (const Pool pool = host_pool())
    pool([](void* data) { static_cast<Job*>(data)->run(); }, &job, static_cast<unsigned>(parts), 0);
  else
    run_on_new_threads(job);
  job.done.finish();
}

}  // namespace hwfault
