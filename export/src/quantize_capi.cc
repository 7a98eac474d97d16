// The C functions of the fake quantizer.
#include <string>

#include "calls.h"
#include "hwfault.h"
#include "program.h"
#include "quantize.h"

namespace {

using namespace hwfault;

void check_rows(const float* x, int64_t rows, int64_t length) {
  if (rows < 0 || length < 0 || (rows && length > INT64_MAX / rows))
    throw Error(std::to_string(rows) + " rows of " + std::to_string(length) +
                " values, expected 0 or more of each, and no more than can be counted");
  if (rows && length && !x) throw Error("a pointer to values is null");
}

}  // namespace

extern "C" {

int64_t hwfault_quantize(const float* x, float* out, const hwfault_quantizer* quantizer, int32_t threads) {
  return guarded([&] {
    const Quantizer grid(*quantizer);
    if (grid.count() > 0 && !(x && out)) throw Error("a pointer to values is null");
    return share_out(grid.pieces(), threads, [&](int64_t first, int64_t last) {
      return grid.quantize(x, out, first, last), int64_t{0};
    }, grid.pieces_per_thread());
  });
}

int64_t hwfault_quantize_gradient(const float* x, const float* gradient, float* x_gradient, double* scale_gradient,
                                  const hwfault_quantizer* quantizer, int32_t threads) {
  return guarded([&] {
    const Quantizer grid(*quantizer);
    if (grid.count() > 0 && !(x && gradient)) throw Error("a pointer to values is null");
    if (gradient && x_gradient == gradient) throw Error("the gradient of x needs memory of its own");
    if (!scale_gradient)
      return share_out(x_gradient ? grid.pieces() : 0, threads, [&](int64_t first, int64_t last) {
        return grid.pass(x, gradient, x_gradient, first, last), int64_t{0};
      }, grid.pieces_per_thread());
    std::vector<double> sums = grid.room_for_sums();
    share_out(grid.sums(), threads, [&](int64_t first, int64_t last) {
      return grid.differentiate(x, gradient, x_gradient, scale_gradient, sums.data(), first, last), int64_t{0};
    }, grid.sums_per_thread());
    grid.add_up(sums, scale_gradient);
    return int64_t{0};
  });
}

int64_t hwfault_largest(const float* x, int64_t rows, int64_t length, float* largest) {
  return guarded([&] {
    check_rows(x, rows, length);
    if (rows && !largest) throw Error("the pointer to the largest magnitudes is null");
    return largest_magnitudes(x, rows, length, largest), int64_t{0};
  });
}

int64_t hwfault_largest_gradient(const float* x, int64_t rows, int64_t length, const float* largest,
                                 const float* gradient, int32_t first_only, float* x_gradient) {
  return guarded([&] {
    check_rows(x, rows, length);
    if (rows && !(largest && gradient && x_gradient)) throw Error("a pointer to magnitudes or gradients is null");
    return add_to_largest(x, rows, length, largest, gradient, first_only, x_gradient), int64_t{0};
  });
}

}  // extern "C"
