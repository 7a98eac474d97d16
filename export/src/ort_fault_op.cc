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
  const Refresh refresh = refresh_named(node.text("refresh", "inference"));
  // cells that always show their fault are the same in every period
  return {threshold, static_cast<uint32_t>(in_range(site, "site", UINT32_MAX)),
          threshold == kAlways ? Refresh::held : refresh};
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

void Target::check_held(int64_t least, int64_t most) const {
  const WordFormat words({nullptr, 0, 0, nullptr, 0, 0, bit_width, is_signed, representation});
  if (words.low() < least || words.high() > most)
    throw Error("bit_width " + std::to_string(bit_width) + " and signed " + std::to_string(is_signed) +
                " are integers from " + std::to_string(words.low()) + " to " + std::to_string(words.high()) +
                ", but X is of a type from " + std::to_string(least) + " to " + std::to_string(most));
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

template <class G>
Axis along_axis(const Tensor<const G>& small, const Shape& x, const Target& target, const char* what) {
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
      scale_(along_axis(context.input<Grid<T>>(1), x.shape, target, "scale")),
      zero_point_(along_axis(context.input<Grid<T>>(2), x.shape, target, "zero point")) {}

template <class T>
hwfault_format Run<T>::format() const {
  if (std::is_integral_v<T> && !(scale_.all(1) && zero_point_.all(0)))
    throw Error("a scale or zero point of words that are integers themselves, expected the scale 1 and the zero point 0");
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

Seeds::Seeds(const Tensor<const int64_t>& of_each) : stretches_(0) {
  const int64_t n = of_each.size();
  const auto begins = [&](int64_t i) { return i == 0 || of_each.data[i] != of_each.data[i - 1]; };
  size_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += begins(i);
  stretches_ = Few<Stretch>(count);
  Stretch* next = stretches_.data();
  for (int64_t i = 0; i < n; ++i) {
    if (begins(i)) *next++ = {static_cast<uint64_t>(of_each.data[i]), i, i};
    next[-1].last = i + 1;
  }
}

template <class T>
void Run<T>::check_one_each(const Shape& given, const char* what) const {
  // a parameter does not know how many samples read it
  if (given.size() == 1 && (target_.order.batched ? given[0] == units.batch : given[0] > 0)) return;
  const std::string each = target_.order.batched ? " of " + std::to_string(units.batch) + " samples" : " sample";
  throw Error(std::string("the ") + what + " has shape " + text_of(given) + ", expected one value, or one for each" + each);
}

template <class T>
Seeds Run<T>::seeds(size_t place) const {
  const auto given = context.input<int64_t>(place);
  if (given.size() == 1) return Seeds(static_cast<uint64_t>(*given.data), units.batch);
  check_one_each(given.shape, "seed");
  const Seeds seeds(given);
  if (target_.order.batched) return seeds;
  if (seeds.stretches().size() != 1)
    throw Error("the seed has " + std::to_string(given.size()) + " values, not all the same, for a parameter, which all " +
                "samples of a batch read; expected one seed: run a plan that strikes parameters once for each seed");
  return Seeds(seeds.stretches().data()->seed, units.batch);
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
  const auto given = context.input<int64_t>(place);
  if (given.size() == 1) return count_from(*given.data, refresh);
  check_one_each(given.shape, "first sample number");
  return numbers_of_each(given, refresh);
}

template <class T>
Few<int64_t> Run<T>::count_from(int64_t first_sample, Refresh refresh) const {
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

template <class T>
Few<int64_t> Run<T>::numbers_of_each(const Tensor<const int64_t>& given, Refresh refresh) const {
  const int64_t *begin = given.data, *end = given.data + given.size();
  for (const int64_t* number = begin; number < end; ++number)
    if (*number < 0 || *number > int64_t{UINT32_MAX})
      throw Error("the sample number of element " + std::to_string(number - begin) + " is " + std::to_string(*number) +
                  ", expected 0 to 2^32 - 1");
  const bool batched = target_.order.batched;
  Few<int64_t> found(static_cast<size_t>(units.words ? units.batch : 0), 0);
  if (refresh == Refresh::held || begin == end) return found;
  if (batched && refresh == Refresh::inference) {
    std::copy(begin, begin + found.size(), found.data());
    return found;
  }
  // a period that all elements share is the number of the batch's first sample, which samples of several batches have not
  for (const int64_t* number = begin + 1; number < end; ++number)
    if (*number != number[-1] + 1)
      throw Error("the faults change from batch to batch, but the sample numbers " + std::to_string(number[-1]) + " and " +
                  std::to_string(*number) + " of neighbours are not of one batch; expected numbers one after the other");
  std::fill(found.data(), found.data() + found.size(), *begin);
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
template class Run<int8_t>;
template class Run<uint8_t>;
template class Run<int16_t>;
template class Run<uint16_t>;
template class Run<int32_t>;

}  // namespace hwfault::ort
