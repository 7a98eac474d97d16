#include "ort_fault_op.h"

#include <cmath>

namespace hwfault::ort {
namespace {

Refresh refresh_named(const std::string& name) {
  if (name == "inference") return Refresh::inference;
  if (name == "batch") return Refresh::batch;
  if (name == "held") return Refresh::held;
  throw Error("refresh is '" + name + "', expected inference, batch or held");
}

Activity activity_of(const NodeInfo& node, int64_t threshold, int64_t site) {
  return {threshold, static_cast<uint32_t>(in_range(site, "site", UINT32_MAX)),
          refresh_named(node.text("refresh", "inference"))};
}

std::vector<uint32_t> masks(const Tensor<const int64_t>& numbers, const char* what) {
  std::vector<uint32_t> result;
  for (const int64_t number : std::vector<int64_t>(numbers.data, numbers.data + numbers.size())) {
    if (number < 0 || number > int64_t{UINT32_MAX})
      throw Error(std::string(what) + " has the value " + std::to_string(number) + ", expected 0 to 2^32 - 1");
    result.push_back(static_cast<uint32_t>(number));
  }
  return result;
}

}  // namespace

int64_t in_range(int64_t value, const char* attribute, int64_t most) {
  if (value < 0 || value > most)
    throw Error(std::string("the attribute ") + attribute + " is " + std::to_string(value) + ", expected 0 to " +
                std::to_string(most));
  return value;
}

Target::Target(const NodeInfo& node)
    : bit_width(static_cast<int32_t>(std::clamp<int64_t>(node.integer("bit_width"), -1, 64))),
      is_signed(node.integer("signed") != 0),
      representation(static_cast<int32_t>(
          in_range(node.integer("representation", HWFAULT_TWOS_COMPLEMENT), "representation", HWFAULT_SIGN_MAGNITUDE))),
      order(node) {
  if (bit_width < 1 || bit_width > 32)
    throw Error("bit_width is " + std::to_string(node.integer("bit_width")) + ", expected 1 to 32");
}

Activity Activity::required(const NodeInfo& node) {
  const int64_t threshold = node.integer("threshold");
  if (threshold != kSampled) in_range(threshold, "threshold", kAlways);
  return activity_of(node, threshold, node.integer("site"));
}

Activity Activity::optional(const NodeInfo& node) {
  const int64_t threshold = in_range(node.integer("threshold", kAlways), "threshold", kAlways);
  return activity_of(node, threshold, node.integer("site", 0));
}

template <class T>
Axis along_axis(const Tensor<const T>& small, const Shape& x, const Target& target, const char* what) {
  const Order& order = target.order;
  Axis axis{Few<double>(static_cast<size_t>(small.size())), 1};
  std::copy(small.data, small.data + small.size(), axis.values.data());
  if (axis.values.size() == 1) return axis;
  const Shape numbered = order.numbered(x);
  const char* where = !order.batched ? "" : order.batch.plain() ? " after the batch" : " that holds no samples";
  const auto refuse = [&] {
    throw Error(std::string("the ") + what + " has shape " + text_of(small.shape) + " for values of shape " + text_of(x) +
                ", expected one value, or one for each index of one axis" + where);
  };
  if (axis.values.size() == 0 || small.shape.size() > x.size()) refuse();
  const size_t shift = x.size() - small.shape.size();
  for (size_t i = 0; i < small.shape.size(); ++i) {
    if (small.shape[i] == 1) continue;
    const size_t own = order.axis_of(i + shift);
    const bool of_samples = order.batched && own == static_cast<size_t>(order.batch.axis);
    if (small.shape[i] != small.size() || small.shape[i] != x[i + shift] || of_samples) refuse();
    axis.inner = order.words_behind(numbered, own);
  }
  return axis;
}

template <class T>
Run<T>::Run(const Context& context, const Target& target)
    : context(context),
      x(context.input<T>(0)),
      units(target.order.units(x.shape)),
      target_(target),
      scale_(along_axis(context.input<T>(1), x.shape, target, "scale")),
      zero_point_(along_axis(context.input<T>(2), x.shape, target, "zero point")) {}

template <class T>
hwfault_format Run<T>::format() const {
  for (const double value : scale_.values)
    if (!std::isfinite(value) || value == 0)
      throw Error("the scale holds " + std::to_string(value) + ", expected numbers that are finite and not 0");
  for (const double value : zero_point_.values)
    if (!std::isfinite(value))
      throw Error("the zero point holds " + std::to_string(value) + ", expected finite numbers");
  return {scale_.values.data(),      static_cast<int64_t>(scale_.values.size()),      scale_.inner,
          zero_point_.values.data(), static_cast<int64_t>(zero_point_.values.size()), zero_point_.inner,
          target_.bit_width,         target_.is_signed,                               target_.representation};
}

template <class T>
uint64_t Run<T>::seed(size_t place) const {
  return static_cast<uint64_t>(context.scalar<int64_t>(place, "the seed"));
}

template <class T>
Few<int64_t> Run<T>::samples(size_t place) const {
  return numbers(place, target_.order.batched ? Refresh::inference : Refresh::held);
}

template <class T>
Few<int64_t> Run<T>::periods(size_t place, Refresh refresh) const {
  return numbers(place, refresh);
}

template <class T>
Few<int64_t> Run<T>::numbers(size_t place, Refresh refresh) const {
  const auto first_sample = context.scalar<int64_t>(place, "the first sample number");
  const bool batched = target_.order.batched;
  const int64_t last = batched && units.batch > 0 ? units.batch - 1 : 0;
  if (first_sample < 0 || first_sample > int64_t{UINT32_MAX} - last)
    throw Error("the first sample number is " + std::to_string(first_sample) + " for a batch of " +
                std::to_string(last + 1) + ", expected numbers from 0 to 2^32 - 1");
  // a batch of samples without words may have any length
  Few<int64_t> found(static_cast<size_t>(units.words ? units.batch : 0), refresh == Refresh::held ? 0 : first_sample);
  if (batched && refresh == Refresh::inference)
    for (size_t i = 0; i < found.size(); ++i) found.data()[i] = first_sample + static_cast<int64_t>(i);
  return found;
}

Rows::Rows(const Context& context, size_t place, const Units& units)
    : word_(context.input<int64_t>(place)),
      and_mask_(masks(context.input<int64_t>(place + 1), "and_mask")),
      xor_mask_(masks(context.input<int64_t>(place + 2), "xor_mask")) {
  const auto rows = static_cast<size_t>(word_.size());
  if (and_mask_.size() != rows || xor_mask_.size() != rows)
    throw Error("word, and_mask and xor_mask have " + std::to_string(rows) + ", " + std::to_string(and_mask_.size()) +
                " and " + std::to_string(xor_mask_.size()) + " rows, expected the same number");
  map = {units.batch, units.words, word_.data, and_mask_.data(), xor_mask_.data(), word_.size(), kAlways, 0, 0, nullptr};
}

template class Run<float>;
template class Run<double>;

}  // namespace hwfault::ort
