// How the words of a batch lie in a tensor: the attributes layout, axis, rows and inner of the fault ops (export/SPEC.md).
#pragma once

#include "inject.h"
#include "ort_op.h"

namespace hwfault::ort {

// The axis that holds the samples, how many rows each has on it, and how many of these lie together.
struct BatchAxis {
  // throws Error for numbers that say no such thing
  explicit BatchAxis(const NodeInfo& node);
  bool plain() const { return axis == 0 && rows == 1; }
  // how many samples a tensor holds; throws Error if its shape has no place for whole ones
  int64_t samples_in(const Shape& shape) const;
  // the shape of one of them
  Shape sample_shape(const Shape& shape) const;
  // how many words of a sample lie together in a tensor whose words are in order
  int64_t run(const Shape& shape) const;
  std::string text() const;

  int64_t axis, rows, inner;
};

// The order of a tensor's axes, and where the samples lie on them.
struct Order {
  // throws Error if the attributes say no such thing, or where samples lie that there are not
  explicit Order(const NodeInfo& node);
  bool batched;
  Shape layout;  // X's axes as axes of the tensor N whose words are numbered; empty if that is X
  BatchAxis batch;

  // the shape of N; throws Error if the layout is not one of X
  Shape numbered(const Shape& x) const;
  // the axis of N that an axis of X is
  size_t axis_of(size_t axis) const { return layout.empty() ? axis : static_cast<size_t>(layout[axis]); }
  // the samples and their words; throws Error if X does not hold them
  Units units(const Shape& x) const;
  // how many words of a sample share the index on an axis of N that holds no samples
  int64_t words_behind(const Shape& numbered, size_t axis) const;
  Permuted permuted(const Shape& x) const;
};

// Calls strike(where) with where the words lie in X; unless they are in order Y is a copy of X before.
template <class T, class F>
void in_order(const Context& context, const Order& order, const Units& units, const Tensor<const T>& x, T* y, F strike) {
  const int64_t run = order.batched ? order.batch.run(order.numbered(x.shape)) : units.words;
  if (order.layout.empty() && (run == units.words || units.batch == 1)) return strike(InOrder{});
  constexpr int64_t kPart = 64 * kBlock;
  if (y != x.data)
    context.share_out(x.size(), kPart, [&](int64_t first, int64_t last) { std::copy(x.data + first, x.data + last, y + first); });
  if (order.layout.empty()) return strike(InTurns{units, run});
  strike(order.permuted(x.shape));
}

}  // namespace hwfault::ort
