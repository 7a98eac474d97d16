#include "accumulate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "clones.h"

namespace hwfault {
namespace {

constexpr int64_t kLargestInput = int64_t{1} << 24;  // float32 holds no larger integers exactly
constexpr int64_t kPartBytes = 1 << 20;
constexpr int64_t kMost = int64_t{1} << 31;       // of a layer's numbers: products of two can be counted
constexpr int64_t kMostPassSteps = 1 << 24;       // steps without products are walked through as well

// p[i] += weight[0] * row[0][i] + weight[1] * row[1][i] + ..., modulo 2^32
HWFAULT_CLONES void add_products(uint32_t* p, const int32_t* const* row, const int32_t* weight, int64_t n, int64_t items) {
  int64_t t = 0;
  for (; t + 4 <= n; t += 4) {
    const auto w0 = static_cast<uint32_t>(weight[t]), w1 = static_cast<uint32_t>(weight[t + 1]);
    const auto w2 = static_cast<uint32_t>(weight[t + 2]), w3 = static_cast<uint32_t>(weight[t + 3]);
    const int32_t *r0 = row[t], *r1 = row[t + 1], *r2 = row[t + 2], *r3 = row[t + 3];
    for (int64_t i = 0; i < items; ++i)
      p[i] += w0 * static_cast<uint32_t>(r0[i]) + w1 * static_cast<uint32_t>(r1[i]) +
              w2 * static_cast<uint32_t>(r2[i]) + w3 * static_cast<uint32_t>(r3[i]);
  }
  for (; t < n; ++t)
    for (int64_t i = 0; i < items; ++i) p[i] += static_cast<uint32_t>(weight[t]) * static_cast<uint32_t>(row[t][i]);
}

HWFAULT_CLONES void add_products(int32_t* p, const int32_t* const* row, const int32_t* weight, int64_t n, int64_t items) {
  for (int64_t t = 0; t < n; ++t)
    for (int64_t i = 0; i < items; ++i) p[i] += weight[t] * row[t][i];
}

HWFAULT_CLONES void add_products(int64_t* p, const int32_t* const* row, const int32_t* weight, int64_t n, int64_t items) {
  for (int64_t t = 0; t < n; ++t)
    for (int64_t i = 0; i < items; ++i) p[i] += int64_t{weight[t]} * row[t][i];
}

HWFAULT_CLONES void clamp_all(int32_t* p, int64_t items, int32_t least, int32_t most) {
  for (int64_t i = 0; i < items; ++i) p[i] = std::min(std::max(p[i], least), most);
}
HWFAULT_CLONES void clamp_all(int64_t* p, int64_t items, int64_t least, int64_t most) {
  for (int64_t i = 0; i < items; ++i) p[i] = std::min(std::max(p[i], least), most);
}

// An integer that came as a float; what float32 cannot hold exactly counts as 0.
int32_t integer_of(float value) {
  return std::fabs(value) <= static_cast<float>(kLargestInput) ? static_cast<int32_t>(value) : 0;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void expect(bool good, const char* what, int64_t given, const char* expected) {
  if (!good) throw Error(std::string(what) + " is " + std::to_string(given) + ", expected " + expected);
}

// Throws Error if the product of numbers that are not negative, those of 0 not counted, is more than `most`.
void expect_product(const std::vector<int64_t>& numbers, int64_t most, const char* what) {
  int64_t product = 1;
  for (const int64_t n : numbers) {
    if (product > most / std::max<int64_t>(n, 1))
      throw Error(std::string(what) + " are more than " + std::to_string(most));
    product *= std::max<int64_t>(n, 1);
  }
}

void check_sizes(const hwfault_layer& layer) {
  std::vector<int64_t> input{layer.batch, layer.groups, layer.depth}, output{layer.batch, layer.channels};
  std::vector<int64_t> products{layer.depth}, weights{layer.channels, layer.depth};
  for (int32_t a = 0; a < layer.rank; ++a) {
    const int64_t* axis = layer.axes + 6 * a;
    for (int i = 0; i < 6; ++i) expect(axis[i] <= kMost, "a number of a spatial axis", axis[i], "at most 2^31");
    input.push_back(axis[0]), output.push_back(axis[1]), products.push_back(axis[2]), weights.push_back(axis[2]);
  }
  expect_product(input, INT64_MAX, "the inputs of a layer");
  expect_product(output, INT64_MAX, "the results of a layer");
  expect_product(weights, INT64_MAX, "the weights of a layer");
  expect_product(products, kMost, "the products of a result");
}

void check_layer(const hwfault_layer& layer) {
  expect(layer.batch >= 0, "the batch of a layer", layer.batch, "0 or more");
  expect(layer.groups >= 1, "the number of groups", layer.groups, "1 or more");
  expect(layer.channels >= 1 && layer.channels % layer.groups == 0, "the number of channels", layer.channels,
         "a multiple of the groups");
  expect(layer.depth >= 1, "the number of input channels of a group", layer.depth, "1 or more");
  expect(layer.rank >= 0 && layer.rank <= 8, "the number of spatial axes", layer.rank, "0 to 8");
  expect(layer.axes || layer.rank == 0, "the pointer to the axes", 0, "six numbers for each");
  for (int32_t a = 0; a < layer.rank; ++a) {
    const int64_t* axis = layer.axes + 6 * a;
    expect(axis[0] >= 0 && axis[1] >= 0, "a spatial length", std::min(axis[0], axis[1]), "0 or more");
    expect(axis[2] >= 1 && axis[3] >= 1 && axis[5] >= 1, "a kernel length, stride or dilation",
           std::min({axis[2], axis[3], axis[5]}), "1 or more");
    expect(axis[4] >= 0, "a padding", axis[4], "0 or more");
  }
  check_sizes(layer);
}

ArrayEvent checked_event(const int64_t* n) {
  for (int i = 0; i < 6; i += 2) {
    expect(n[i] >= 1, "the period of an event", n[i], "1 or more");
    expect(n[i + 1] >= 0 && n[i + 1] < n[i], "the place of an event", n[i + 1], "0 to its period less 1");
  }
  expect(n[6] >= 0 && n[6] <= int64_t{UINT32_MAX}, "an event's and_mask", n[6], "0 to 2^32 - 1");
  expect(n[7] >= 0 && n[7] <= int64_t{UINT32_MAX}, "an event's xor_mask", n[7], "0 to 2^32 - 1");
  return {n[0], n[1], n[2], n[3], n[4], n[5], static_cast<uint32_t>(n[6]), static_cast<uint32_t>(n[7])};
}

std::vector<int64_t> checked_order(const int64_t* order, int64_t products) {
  std::vector<int64_t> result(products);
  std::iota(result.begin(), result.end(), int64_t{0});
  if (!order) return result;
  std::vector<bool> seen(products);
  for (int64_t i = 0; i < products; ++i) {
    const bool good = order[i] >= 0 && order[i] < products && !seen[order[i]];
    expect(good, "a number in the order of the products", order[i], "each product once");
    seen[order[i]] = true;
    result[i] = order[i];
  }
  return result;
}

}  // namespace

Accumulation::Accumulation(const hwfault_layer& layer, const hwfault_array& array, int64_t run) : layer_(layer) {
  check_layer(layer);
  if (layer.rank) axes_.assign(layer.axes, layer.axes + 6 * layer.rank);
  for (int32_t a = 0; a < layer.rank; ++a) {
    input_size_ *= axes_[6 * a];
    positions_ *= axes_[6 * a + 1];
    kernel_size_ *= axes_[6 * a + 2];
  }
  products_ = layer.depth * kernel_size_;
  run_ = run;
  expect(array.width >= 2 && array.width <= 32, "the width of an accumulator", array.width, "2 to 32");
  expect(array.step >= 1, "the products of a step", array.step, "1 or more");
  expect(array.pass_steps >= 0 && array.pass_steps <= kMostPassSteps, "the steps of a pass", array.pass_steps,
         "0 to 2^24");
  expect(array.n_events == 0 || (array.n_events > 0 && array.events), "the number of events", array.n_events,
         "0 or more, and a pointer to them");
  order_ = checked_order(array.order, products_);
  for (int64_t i = 0; i < array.n_events; ++i) events_.push_back(checked_event(array.events + 8 * i));
  step_ = std::min(array.step, products_);
  const int64_t steps = ceil_div(products_, step_);
  steps_ = array.pass_steps ? array.pass_steps : steps;
  passes_ = ceil_div(steps, steps_);
  mask_ = array.width == 32 ? ~0u : (1u << array.width) - 1;
  sign_ = 1u << (array.width - 1);
  for (const ArrayEvent& event : events_)
    expect((event.xor_mask & ~mask_) == 0, "an event's xor_mask", event.xor_mask, "one within the accumulator's width");
  saturate_ = array.saturate != 0;
  recompute_ = array.recompute != 0;
}

void Accumulation::choose(const float* x, const float* w) {
  chosen_.clear();
  if (words() == 0) return;
  int64_t least = 0, most = 0;  // of the inputs, padding included
  if (saturate_)
    for (int64_t i = 0; i < x_size(); ++i) {
      const int64_t value = integer_of(x[i]);
      least = std::min(least, value), most = std::max(most, value);
    }
  int64_t largest = 0;
  const int64_t limit = sign_;
  for (int64_t n = 0; n < layer_.channels; ++n) {
    bool take = recompute_;
    for (const ArrayEvent& event : events_) take = take || n % event.channels == event.channel;
    if (saturate_) {
      int64_t low = 0, high = 0;
      for (int64_t k = 0; k < products_; ++k) {
        const int64_t weight = integer_of(w[n * products_ + k]);
        largest = std::max(largest, std::abs(weight));
        if (low < -limit || high > limit - 1) continue;  // known to overflow; the sums might as well
        low += std::min(weight * least, weight * most);
        high += std::max(weight * least, weight * most);
      }
      take = take || low < -limit || high > limit - 1;
    }
    if (take) chosen_.push_back(n);
  }
  const int64_t input = std::max(most, -least), per_step = std::min(step_, products_);
  if (saturate_ && largest * input > (int64_t{1} << 62) / per_step)
    throw Error("the " + std::to_string(per_step) + " products of a step may add up to more than 2^62");
  narrow_ = limit < (int64_t{1} << 29) && largest * input < (int64_t{1} << 29) / per_step;
}

int64_t Accumulation::items_per_part() const {
  return std::clamp<int64_t>(kPartBytes / (4 * products_), 16, 1024) / 16 * 16;
}

int64_t Accumulation::word_of(int64_t item, int64_t channel) const {
  if (layer_.channels_last)
    return row_of(item / positions_, item % positions_, positions_) * layer_.channels + channel;
  return (item / positions_ * layer_.channels + channel) * positions_ + item % positions_;
}

template <class T>
void Accumulation::keep(const T* acc, T* out, int64_t first, int64_t last) const {
  if (acc != out) std::copy(acc + first, acc + last, out + first);
  if (saturate_ || recompute_) return;  // channels that could overflow are added up anew
  for (int64_t i = first; i < last; ++i) {
    const bool known = std::fabs(acc[i]) < T(int64_t{1} << 62);
    const int64_t value = known ? static_cast<int64_t>(acc[i]) : 0;
    const int64_t kept = int64_t{(static_cast<uint32_t>(value) & mask_) ^ sign_} - int64_t{sign_};
    if (kept != value) out[i] = static_cast<T>(kept);
  }
}

struct Accumulation::Part {
  Part(const Accumulation& a, int64_t first, int64_t last)
      : a_(a), first_(first), items(last - first), struck(a.events_.size()), values_(a.products_ * items), index_(items) {
    for (size_t e = 0; e < struck.size(); ++e)
      for (int64_t i = 0; i < items; ++i)
        if (position(i) % a.events_[e].positions == a.events_[e].position) struck[e].push_back(i);
  }

  int64_t position(int64_t i) const { return (first_ + i) % a_.positions_; }
  const int32_t* row(int64_t product) const { return values_.data() + product * items; }

  // reads the inputs of a group: rows of items, one for each product
  void read(const float* x, int64_t group) {
    const int64_t depth = a_.layer_.depth, all = depth * a_.layer_.groups;
    for (int64_t t = 0; t < a_.kernel_size_; ++t) {
      place(t);
      for (int64_t c = 0; c < depth; ++c) {
        int32_t* to = values_.data() + (c * a_.kernel_size_ + t) * items;
        const int64_t channel = group * depth + c;
        for (int64_t i = 0; i < items; ++i) {
          const int64_t element = (first_ + i) / a_.positions_;
          const int64_t at = a_.layer_.channels_last
                                 ? a_.row_of(element, index_[i], a_.input_size_) * all + channel
                                 : (element * all + channel) * a_.input_size_ + index_[i];
          to[i] = index_[i] < 0 ? 0 : integer_of(x[at]);
        }
      }
    }
  }

  const Accumulation& a_;
  int64_t first_, items;
  std::vector<std::vector<int64_t>> struck;  // the items that each event strikes

 private:
  // index_[i] = where in the input kernel index t of item i lies, -1 in the padding
  void place(int64_t t) {
    for (int64_t i = 0; i < items; ++i) {
      int64_t rest = position(i), kernel = t, stride = 1, index = 0;
      for (int32_t axis = a_.layer_.rank; axis-- > 0 && index >= 0;) {
        const int64_t* n = a_.axes_.data() + 6 * axis;
        const int64_t at = rest % n[1] * n[3] - n[4] + kernel % n[2] * n[5];
        index = at < 0 || at >= n[0] ? -1 : index + at * stride;
        stride *= n[0], rest /= n[1], kernel /= n[2];
      }
      index_[i] = index;
    }
  }

  std::vector<int32_t> values_;
  std::vector<int64_t> index_;
};

template <class A>
A Accumulation::within(A value) const {
  return static_cast<A>(int64_t{(static_cast<uint32_t>(value) & mask_) ^ sign_} - int64_t{sign_});
}

bool Accumulation::stops_at(int64_t channel, int64_t step) const {
  return std::any_of(events_.begin(), events_.end(), [&](const ArrayEvent& event) {
    return channel % event.channels == event.channel && step % event.steps == event.step;
  });
}

// What the array does to the partial sums after a step: the width, then its stuck bits.
template <class A>
void Accumulation::settle(const Part& part, int64_t channel, int64_t step, A* partial) const {
  if constexpr (std::is_signed_v<A>)
    if (saturate_) clamp_all(partial, part.items, -static_cast<A>(sign_), static_cast<A>(sign_ - 1));
  for (size_t e = 0; e < events_.size(); ++e) {
    const ArrayEvent& event = events_[e];
    if (channel % event.channels != event.channel || step % event.steps != event.step) continue;
    for (const int64_t i : part.struck[e])
      partial[i] = within<A>(static_cast<A>((static_cast<uint32_t>(partial[i]) & event.and_mask) ^ event.xor_mask));
  }
}

template <class A>
void Accumulation::add_up_channel(const Part& part, const float* w, int64_t channel, std::vector<A>& partial,
                                  std::vector<A>& total) const {
  std::vector<int32_t> weights(products_);
  std::vector<const int32_t*> rows(products_);
  for (int64_t i = 0; i < products_; ++i) {
    weights[i] = integer_of(w[channel * products_ + order_[i]]);
    rows[i] = part.row(order_[i]);
  }
  std::fill(total.begin(), total.end(), A{0});
  for (int64_t pass = 0; pass < passes_; ++pass) {
    std::fill(partial.begin(), partial.end(), A{0});
    int64_t done = std::min(pass * steps_ * step_, products_);
    for (int64_t step = 0; step < steps_; ++step) {
      // sums modulo 2^32 need not be looked at where nothing is stuck
      if (!saturate_ && step + 1 < steps_ && !stops_at(channel, step)) continue;
      const int64_t end = std::min((pass * steps_ + step + 1) * step_, products_);
      add_products(partial.data(), rows.data() + done, weights.data() + done, end - done, part.items);
      done = end;
      settle(part, channel, step, partial.data());
    }
    for (int64_t i = 0; i < part.items; ++i) total[i] += partial[i];
    if constexpr (std::is_signed_v<A>)
      if (saturate_) clamp_all(total.data(), part.items, -static_cast<A>(sign_), static_cast<A>(sign_ - 1));
  }
}

template <class A, class T>
void Accumulation::add_up_as(const float* x, const float* w, T* out, int64_t first, int64_t last) const {
  Part part(*this, first, last);
  std::vector<A> partial(part.items), total(part.items);
  const int64_t per_group = layer_.channels / layer_.groups;
  int64_t group = -1;
  for (const int64_t channel : chosen_) {
    if (channel / per_group != group) part.read(x, group = channel / per_group);
    add_up_channel(part, w, channel, partial, total);
    for (int64_t i = 0; i < part.items; ++i) {
      T& sum = out[word_of(first + i, channel)];
      if (!std::isfinite(sum)) continue;  // as it was given: no number is among what it adds up
      sum = static_cast<T>(
          std::is_signed_v<A> ? static_cast<int64_t>(total[i])
                              : int64_t{(static_cast<uint32_t>(total[i]) & mask_) ^ sign_} - int64_t{sign_});
    }
  }
}

template <class T>
void Accumulation::add_up(const float* x, const float* w, T* out, int64_t first, int64_t last) const {
  if (!saturate_) return add_up_as<uint32_t>(x, w, out, first, last);
  return narrow_ ? add_up_as<int32_t>(x, w, out, first, last) : add_up_as<int64_t>(x, w, out, first, last);
}

template void Accumulation::keep(const float*, float*, int64_t, int64_t) const;
template void Accumulation::keep(const double*, double*, int64_t, int64_t) const;
template void Accumulation::add_up(const float*, const float*, float*, int64_t, int64_t) const;
template void Accumulation::add_up(const float*, const float*, double*, int64_t, int64_t) const;

}  // namespace hwfault
