#include "ort_faults.h"

#include <cmath>

#include "inject.h"

namespace hwfault::ort {

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

hwfault_format format_of(const Target& target, const Axis& scale, const Axis& zero_point) {
  for (const double value : scale.values)
    if (!std::isfinite(value) || value == 0)
      throw Error("the scale holds " + std::to_string(value) + ", expected numbers that are finite and not 0");
  for (const double value : zero_point.values)
    if (!std::isfinite(value))
      throw Error("the zero point holds " + std::to_string(value) + ", expected finite numbers");
  return {scale.values.data(),      static_cast<int64_t>(scale.values.size()),      scale.inner,
          zero_point.values.data(), static_cast<int64_t>(zero_point.values.size()), zero_point.inner,
          target.bit_width,         target.is_signed,                               target.representation};
}

static std::vector<uint32_t> masks(const Tensor<const int64_t>& numbers, const char* what) {
  std::vector<uint32_t> result;
  for (const int64_t number : std::vector<int64_t>(numbers.data, numbers.data + numbers.size())) {
    if (number < 0 || number > int64_t{UINT32_MAX})
      throw Error(std::string(what) + " has the value " + std::to_string(number) + ", expected 0 to 2^32 - 1");
    result.push_back(static_cast<uint32_t>(number));
  }
  return result;
}

int64_t in_range(int64_t value, const char* attribute, int64_t most) {
  if (value < 0 || value > most)
    throw Error(std::string("the attribute ") + attribute + " is " + std::to_string(value) + ", expected 0 to " +
                std::to_string(most));
  return value;
}

Refresh refresh_named(const std::string& name) {
  if (name == "inference") return Refresh::inference;
  if (name == "batch") return Refresh::batch;
  if (name == "held") return Refresh::held;
  throw Error("refresh is '" + name + "', expected inference, batch or held");
}

Few<int64_t> numbers_of(const Units& units, bool batched, int64_t first_sample, Refresh refresh) {
  const int64_t last = batched && units.batch > 0 ? units.batch - 1 : 0;
  if (first_sample < 0 || first_sample > int64_t{UINT32_MAX} - last)
    throw Error("the first sample number is " + std::to_string(first_sample) + " for a batch of " +
                std::to_string(last + 1) + ", expected numbers from 0 to 2^32 - 1");
  // a batch of samples without words may have any length
  Few<int64_t> numbers(static_cast<size_t>(units.words ? units.batch : 0), refresh == Refresh::held ? 0 : first_sample);
  if (batched && refresh == Refresh::inference)
    for (size_t i = 0; i < numbers.size(); ++i)
      numbers.data()[i] = first_sample + static_cast<int64_t>(i);
  return numbers;
}

Rows::Rows(const Context& context, const Units& units)
    : word_(context.input<int64_t>(3)),
      and_mask_(masks(context.input<int64_t>(4), "and_mask")),
      xor_mask_(masks(context.input<int64_t>(5), "xor_mask")) {
  const auto rows = static_cast<size_t>(word_.size());
  if (and_mask_.size() != rows || xor_mask_.size() != rows)
    throw Error("word, and_mask and xor_mask have " + std::to_string(rows) + ", " + std::to_string(and_mask_.size()) +
                " and " + std::to_string(xor_mask_.size()) + " rows, expected the same number");
  map = {units.batch, units.words, word_.data, and_mask_.data(), xor_mask_.data(), word_.size(), kAlways, 0, 0, nullptr};
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

template <class T>
TransientFaults<T>::TransientFaults(const NodeInfo& node)
    : target_(node),
      numbers_(node.integers("program")),
      program_(parse_program(numbers_.data(), static_cast<int64_t>(numbers_.size()), target_.bit_width)) {}

template <class T>
void TransientFaults<T>::compute(const Context& context) const {
  const auto x = context.input<T>(0);
  const Axis scale = along_axis(context.input<T>(1), x.shape, target_, "scale");
  const Axis zero_point = along_axis(context.input<T>(2), x.shape, target_, "zero point");
  const auto seed = static_cast<uint64_t>(context.scalar<int64_t>(3, "the seed"));
  const auto first_sample = context.scalar<int64_t>(4, "the first sample number");
  T* y = context.output<T>(x.shape);
  const Units units = target_.order.units(x.shape);
  program_.check_words(units.words);
  const bool batched = target_.order.batched;
  const auto samples = numbers_of(units, batched, first_sample, batched ? Refresh::inference : Refresh::held);
  const hwfault_draw draw{seed, samples.data(), units.batch, units.words, nullptr, 0};
  const hwfault_format format = format_of(target_, scale, zero_point);
  const Codec<T> codec(format);
  // late bits are those of words that may have been struck in place
  const bool keep = y == x.data && program_.reads_others();
  const std::vector<T> kept(x.data, x.data + (keep ? x.size() : 0));
  const T* from = keep ? kept.data() : x.data;
  in_order(context, target_.order, units, x, y, [&](const auto& where) {
    check_codes_known(x, units, format, where);
    context.share_out(units.count(), kUnitsPerPart, [&](int64_t first, int64_t last) {
      inject_units(from, y, program_, draw, codec, units, first, last, where);
    });
  });
}

template <class T>
void FaultMap<T>::compute(const Context& context) const {
  const auto x = context.input<T>(0);
  const Axis scale = along_axis(context.input<T>(1), x.shape, target_, "scale");
  const Axis zero_point = along_axis(context.input<T>(2), x.shape, target_, "zero point");
  const Units units = target_.order.units(x.shape);
  const Rows rows(context, units);
  check_map(rows.map, target_.bit_width);
  T* y = context.output<T>(x.shape);
  const hwfault_format format = format_of(target_, scale, zero_point);
  const Codec<T> codec(format);
  in_order(context, target_.order, units, x, y, [&](const auto& where) {
    check_codes_known(x, units, format, where);
    context.share_out(units.count(), kUnitsPerPart, [&](int64_t first, int64_t last) {
      apply_map_units(x.data, y, rows.map, codec, units, first, last, where);
    });
  });
}

template <class T>
IntermittentFaults<T>::IntermittentFaults(const NodeInfo& node)
    : target_(node),
      threshold_(in_range(node.integer("threshold"), "threshold", kAlways)),
      site_(static_cast<uint32_t>(in_range(node.integer("site"), "site", UINT32_MAX))),
      refresh_(refresh_named(node.text("refresh", "inference"))) {}

template <class T>
void IntermittentFaults<T>::compute(const Context& context) const {
  const auto x = context.input<T>(0);
  const Axis scale = along_axis(context.input<T>(1), x.shape, target_, "scale");
  const Axis zero_point = along_axis(context.input<T>(2), x.shape, target_, "zero point");
  const Units units = target_.order.units(x.shape);
  Rows rows(context, units);
  check_map(rows.map, target_.bit_width);
  const auto first_sample = context.scalar<int64_t>(7, "the first sample number");
  const auto periods = numbers_of(units, target_.order.batched, first_sample, refresh_);
  rows.map.threshold = threshold_;
  rows.map.seed = static_cast<uint64_t>(context.scalar<int64_t>(6, "the seed"));
  rows.map.site = site_;
  rows.map.period = periods.data();
  T* y = context.output<T>(x.shape);
  const hwfault_format format = format_of(target_, scale, zero_point);
  const Codec<T> codec(format);
  in_order(context, target_.order, units, x, y, [&](const auto& where) {
    check_codes_known(x, units, format, where);
    context.share_out(units.count(), kUnitsPerPart, [&](int64_t first, int64_t last) {
      apply_map_units(x.data, y, rows.map, codec, units, first, last, where);
    });
  });
}

template Axis along_axis(const Tensor<const float>&, const Shape&, const Target&, const char*);
template Axis along_axis(const Tensor<const double>&, const Shape&, const Target&, const char*);
template class TransientFaults<float>;
template class TransientFaults<double>;
template class FaultMap<float>;
template class FaultMap<double>;
template class IntermittentFaults<float>;
template class IntermittentFaults<double>;

}  // namespace hwfault::ort
