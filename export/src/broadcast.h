// NumPy broadcasting of small tensors (scale, zero point) over a large one, as runs of words.
#pragma once

#include <array>
#include <cstdint>

#include "ort_op.h"

namespace hwfault::ort {

// How N tensors lie over a shape: within each run of `inner` consecutive words tensor t goes on by steps()[t], which is
// 0 wherever possible; if a tensor varies along the last axis that axis is the run.
template <size_t N>
class Runs {
 public:
  // Throws Error unless each of `small` broadcasts to `shape` without enlarging it; `names` are for the message.
  Runs(const Shape& shape, const std::array<const Shape*, N>& small, const std::array<const char*, N>& names)
      : shape_(shape) {
    for (size_t t = 0; t < N; ++t) strides_[t] = strides(*small[t], names[t]);
    for (outer_rank_ = shape.size(); outer_rank_ > 0 && constant_along(outer_rank_ - 1); --outer_rank_)
      inner_ *= shape[outer_rank_ - 1];
    if (inner_ > 1 || outer_rank_ == 0) return;
    inner_ = shape[--outer_rank_];
    for (size_t t = 0; t < N; ++t) steps_[t] = strides_[t][outer_rank_];
  }

  int64_t inner() const { return inner_; }
  const std::array<int64_t, N>& steps() const { return steps_; }
  bool constant() const { return steps_ == std::array<int64_t, N>{}; }
  // whether every run has the values of the first
  bool alike() const {
    for (size_t axis = 0; axis < outer_rank_; ++axis)
      if (!constant_along(axis)) return false;
    return true;
  }

  // where each tensor's value for word `word` of run `run` lies
  std::array<int64_t, N> offsets(int64_t run, int64_t word) const {
    std::array<int64_t, N> at{};
    for (size_t t = 0; t < N; ++t) at[t] = word * steps_[t];
    for (size_t axis = outer_rank_; axis-- > 0; run /= shape_[axis])
      for (size_t t = 0; t < N; ++t) at[t] += run % shape_[axis] * strides_[t][axis];
    return at;
  }

 private:
  bool constant_along(size_t axis) const {
    for (const auto& strides : strides_)
      if (strides[axis]) return false;
    return true;
  }

  Shape strides(const Shape& small, const char* name) const {
    Shape result(shape_.size(), 0);
    int64_t stride = 1;
    for (size_t i = 0; i < small.size(); ++i) {
      const int64_t length = small[small.size() - 1 - i];
      const bool fits = i < shape_.size() ? length == 1 || length == shape_[shape_.size() - 1 - i] : length == 1;
      if (!fits)
        throw Error(std::string(name) + " of shape " + text_of(small) + " does not broadcast to values of shape " +
                    text_of(shape_));
      if (length > 1) result[shape_.size() - 1 - i] = stride;
      stride *= length;
    }
    return result;
  }

  const Shape& shape_;
  std::array<Shape, N> strides_;
  std::array<int64_t, N> steps_{};
  size_t outer_rank_ = 0;
  int64_t inner_ = 1;
};

}  // namespace hwfault::ort
