// Copying memory on the way to striking it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hwfault {

constexpr int64_t kPastCaches = 32 << 20;  // bytes that a processor's caches rarely hold twice

// Copies bytes that do not overlap, line by line: a library's memcpy is slow at meeting pages for the first time.
void copy_lines(void* to, const void* from, size_t bytes);
// The same without reading into the caches what is written over; end_copies_past_caches() comes before another thread
// may read it.
void copy_past_caches(void* to, const void* from, size_t bytes);
void end_copies_past_caches();

}  // namespace hwfault
