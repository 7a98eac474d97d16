#include "ort_array.h"

#include "accumulate.h"

namespace hwfault::ort {
namespace {

constexpr int64_t kWordsPerPart = 1 << 16;

bool saturates(const std::string& overflow) {
  if (overflow != "wrap" && overflow != "saturate")
    throw Error("the attribute overflow is '" + overflow + "', expected 'wrap' or 'saturate'");
  return overflow == "saturate";
}

// What the shapes of accumulators, inputs and weights say of a layer; axes_ is pointed to by layer.
struct Geometry {
  hwfault_layer layer;
  std::vector<int64_t> axes;
};

Shape shape_in(const Shape& shape, size_t first, size_t last) { return Shape(shape.begin() + first, shape.begin() + last); }

Geometry linear(const Shape& acc, const Shape& x, const Shape& w, int64_t groups, const BatchAxis& batch) {
  const bool fits = w.size() == 2 && groups == 1 && acc.size() >= 2 && acc.size() == x.size() && acc.back() == w[0] &&
                    x.back() == w[1] && shape_in(acc, 0, acc.size() - 1) == shape_in(x, 0, x.size() - 1);
  if (!fits)
    throw Error("accumulators of shape " + text_of(acc) + " for inputs " + text_of(x) + " and weights " + text_of(w) +
                ", expected those of a linear layer: (..., n), (..., k) and (n, k)");
  const Shape rows = shape_in(acc, 0, acc.size() - 1);
  const int64_t positions = element_count(batch.sample_shape(rows));
  return {{batch.samples_in(rows), w[0], 1, w[1], nullptr, 1, 1}, {positions, positions, 1, 1, 0, 1}};
}

}  // namespace

template <class T>
ArrayFaults<T>::ArrayFaults(const NodeInfo& node)
    : strides_(node.integers("strides")),
      pads_(node.integers("pads")),
      dilations_(node.integers("dilations")),
      order_(node.integers("order")),
      events_(node.integers("events")),
      groups_(node.integer("group", 1)),
      step_(node.integer("step", 1)),
      pass_steps_(node.integer("pass_steps", 0)),
      width_(static_cast<int32_t>(std::clamp<int64_t>(node.integer("width"), -1, 64))),
      saturate_(saturates(node.text("overflow", "wrap"))),
      recompute_(node.integer("recompute", 0) != 0),
      channels_last_(node.integer("channels_last", 0) != 0),
      batch_(node) {
  if (!channels_last_ && !batch_.plain())
    throw Error("the attributes axis, rows and inner say " + batch_.text() +
                ", but each row of a convolution is added up on its own; expected none of them");
  if (events_.size() % 8)
    throw Error("the attribute events has " + std::to_string(events_.size()) + " integers, expected 8 for each event");
  if (strides_.size() != dilations_.size() || pads_.size() != 2 * strides_.size())
    throw Error("strides, pads and dilations have " + std::to_string(strides_.size()) + ", " +
                std::to_string(pads_.size()) + " and " + std::to_string(dilations_.size()) +
                " integers, expected one, two and one for each spatial axis");
  if (groups_ < 1) throw Error("the attribute group is " + std::to_string(groups_) + ", expected 1 or more");
}

template <class T>
void ArrayFaults<T>::compute(const Context& context) const {
  const auto acc = context.input<T>(0);
  const auto x = context.input<float>(1), w = context.input<float>(2);
  Geometry g;
  if (channels_last_) {
    g = linear(acc.shape, x.shape, w.shape, groups_, batch_);
  } else {
    const size_t rank = strides_.size();
    const bool fits = acc.shape.size() == rank + 2 && x.shape.size() == rank + 2 && w.shape.size() == rank + 2 &&
                      acc.shape[0] == x.shape[0] && acc.shape[1] == w.shape[0] && x.shape[1] % groups_ == 0 &&
                      x.shape[1] / groups_ == w.shape[1];
    if (!fits)
      throw Error("accumulators of shape " + text_of(acc.shape) + " for inputs " + text_of(x.shape) + " and weights " +
                  text_of(w.shape) + ", expected those of a convolution over " + std::to_string(rank) + " axes in " +
                  std::to_string(groups_) + " groups");
    g.layer = {acc.shape[0], w.shape[0], groups_, w.shape[1], nullptr, static_cast<int32_t>(rank), 0};
    for (size_t a = 0; a < rank; ++a)
      for (const int64_t n : {x.shape[a + 2], acc.shape[a + 2], w.shape[a + 2], strides_[a], pads_[a], dilations_[a]})
        g.axes.push_back(n);
  }
  g.layer.axes = g.axes.data();
  const int64_t products = w.size() / std::max<int64_t>(w.shape[0], 1);
  if (!order_.empty() && static_cast<int64_t>(order_.size()) != products)
    throw Error("the attribute order has " + std::to_string(order_.size()) + " integers, expected one for each of " +
                std::to_string(products) + " products, or none");
  Accumulation sums(g.layer, {order_.empty() ? nullptr : order_.data(), step_, pass_steps_, events_.data(),
                              static_cast<int64_t>(events_.size()) / 8, width_, saturate_, recompute_},
                    channels_last_ ? batch_.run(shape_in(acc.shape, 0, acc.shape.size() - 1)) : 0);
  sums.choose(x.data, w.data);
  T* y = context.output<T>(acc.shape);
  context.share_out(sums.words(), kWordsPerPart,
                    [&](int64_t first, int64_t last) { sums.keep(acc.data, y, first, last); });
  if (!sums.any_chosen()) return;
  const int64_t part = sums.items_per_part();
  context.share_out(sums.items(), part, [&](int64_t first, int64_t last) { sums.add_up(x.data, w.data, y, first, last); });
}

template class ArrayFaults<float>;
template class ArrayFaults<double>;

}  // namespace hwfault::ort
