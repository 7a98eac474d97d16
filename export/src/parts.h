// Parts of a piece of work on several threads: those of the host where it has a pool of them, else new ones.
#pragma once

#include <cstdint>
#include <functional>

namespace hwfault {

// Calls part(i) for each i in [0, parts), in any order and on any thread; part must not throw.
void run_parts(int64_t parts, const std::function<void(int64_t)>& part);

}  // namespace hwfault
