// Parts of a piece of work on several threads: those of the host where it has a pool of them, else new ones.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define HWFAULT_HANDS_OVER(object) __tsan_release(object)
#define HWFAULT_TAKES_OVER(object) __tsan_acquire(object)
#else
#define HWFAULT_HANDS_OVER(object) (void)(object)
#define HWFAULT_TAKES_OVER(object) (void)(object)
#endif

namespace hwfault {

// The parts of one piece of work on threads of somebody else's pool, through whose C functions nothing may be thrown.
// The pool orders what its threads do before and after a part; ThreadSanitizer, which does not see into pools that were
// built without it, is told so here.
class Parts {
 public:
  Parts() { HWFAULT_HANDS_OVER(this); }
  Parts(const Parts&) = delete;

  template <class F>
  void run(F part) noexcept {
    HWFAULT_TAKES_OVER(this);
    try {
      part();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    HWFAULT_HANDS_OVER(this);
  }

  // To be called when all are done: throws what the first one to fail threw.
  void finish() {
    HWFAULT_TAKES_OVER(this);
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr failure_;
};

// Calls part(i) for each i in [0, parts), in any order and on any thread, and throws what one of them threw.
void run_parts(int64_t parts, const std::function<void(int64_t)>& part);

}  // namespace hwfault
