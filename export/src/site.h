// A site whose program was parsed and checked once: what hwfault.h calls hwfault_site.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "hwfault.h"
#include "inject.h"
#include "program.h"

// Never changed once it is made, so that any number of threads may strike with it.
struct hwfault_site {
  hwfault_site(const int64_t* program, int64_t length, int32_t bit_width, int32_t is_signed, int32_t representation);
  hwfault_site(const hwfault_site&) = delete;
  hwfault_site& operator=(const hwfault_site&) = delete;

  const int32_t bit_width, is_signed, representation;
  const std::vector<int64_t> numbers;  // a copy of the program
  const hwfault::Program program;      // points into it
  const bool reads_stored, reads_others;
};

namespace hwfault {

// A site's format with the scale and zero point of a tensor, read from numbers of their own types.
class SiteFormat {
 public:
  SiteFormat(const hwfault_site& site, const hwfault_shape& shape, const void* scale, const void* zero_point);
  // where no value is encoded or decoded
  explicit SiteFormat(const hwfault_site& site);
  SiteFormat(const SiteFormat&) = delete;
  SiteFormat& operator=(const SiteFormat&) = delete;

  const hwfault_format& get() const { return format_; }

 private:
  std::array<double, 2> one_{1.0, 0.0};  // of a tensor that has one of each, as most have
  std::vector<double> scales_, zero_points_;
  hwfault_format format_;
};

// Which faults strike a tensor of a site. Throws Error for shapes that are impossible, or not what the program counts on.
hwfault_draw site_draw(const hwfault_site& site, const hwfault_shape& shape, uint64_t seed, const int64_t* sample);

}  // namespace hwfault
