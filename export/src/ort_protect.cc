#include "ort_protect.h"

#include <deque>

namespace hwfault::ort {
namespace {

struct Named {
  const char* name;
  int32_t number;
};

template <size_t n>
int32_t number_named(const char* attribute, const std::string& name, const Named (&known)[n]) {
  std::string names;
  for (const Named& one : known) {
    if (name == one.name) return one.number;
    names += (names.empty() ? "" : ", ") + std::string(one.name);
  }
  throw Error("the attribute " + std::string(attribute) + " is '" + name + "', expected one of " + names);
}

hwfault_protection protection_of(const NodeInfo& node) {
  constexpr Named kinds[] = {{"parity", HWFAULT_PARITY}, {"secded", HWFAULT_SECDED}, {"tmr", HWFAULT_TMR}};
  constexpr Named reads[] = {{"zero", HWFAULT_ZERO}, {"due", HWFAULT_DUE}};
  return {number_named("protection", node.text("protection", ""), kinds),
          static_cast<int32_t>(in_range(node.integer("data_bits"), "data_bits", INT32_MAX)),
          static_cast<int32_t>(in_range(node.integer("slot"), "slot", INT32_MAX)),
          number_named("on_detected", node.text("on_detected", "zero"), reads),
          nullptr, nullptr, 0};
}

}  // namespace

template <class T>
ProtectedFaults<T>::ProtectedFaults(const NodeInfo& node)
    : target_(Target::holding<T>(node)),
      program_(node.integers("program")),
      protection_(protection_of(node)),
      activity_(Activity::optional(node)) {
  const double one = 1, zero = 0;  // refuses what does not fit at once
  const hwfault_draw draw{0, nullptr, 0, 0, program_.data(), static_cast<int64_t>(program_.size())};
  const hwfault_format format{&one, 1, 1, &zero, 1, 1, target_.bit_width, target_.is_signed, target_.representation};
  ProtectedMemory(protection_, draw, hwfault_map{0, 0, nullptr, nullptr, nullptr, 0, kAlways, 0, 0, nullptr}, format);
}

template <class T>
hwfault_protection ProtectedFaults<T>::with_table(const Context& context) const {
  constexpr size_t kNumber = place_of(inputs, "number"), kCells = place_of(inputs, "cells");
  const auto number = context.input<int64_t>(kNumber), cells = context.input<int64_t>(kCells);
  const Shape expected{number.size(), protection_.data_bits};
  if (cells.shape != expected && number.size() + cells.size() > 0)
    throw Error("cells has shape " + text_of(cells.shape) + ", expected " + text_of(expected) +
                ": a row of data_bits for each number");
  hwfault_protection protection = protection_;
  protection.number = number.data, protection.cells = cells.data, protection.rows = number.size();
  return protection;
}

template <class T>
void ProtectedFaults<T>::compute(const Context& context) const {
  constexpr size_t kRows = place_of(inputs, "word"), kSeed = place_of(inputs, "seed"),
                   kFirstSample = place_of(inputs, "first_sample");
  const Run<T> run(context, target_);
  Rows rows(context, kRows, run.units);
  const Seeds seeds = run.seeds(kSeed);
  const Few<int64_t> samples = run.samples(kFirstSample), periods = run.periods(kFirstSample, activity_.refresh);
  rows.map.threshold = activity_.threshold, rows.map.site = activity_.site, rows.map.period = periods.data();
  const hwfault_format format = run.format();
  const hwfault_protection protection = with_table(context);
  std::deque<ProtectedMemory> memories;  // one under each seed
  for (const Seeds::Stretch& stretch : seeds.stretches()) {
    const hwfault_draw draw{stretch.seed,    samples.data(),  run.units.batch,
                            run.units.words, program_.data(), static_cast<int64_t>(program_.size())};
    memories.emplace_back(protection, draw, rows.map, format);
  }
  T* y = context.output<T>(run.x.shape);
  const Codec<T> codec(format);
  Counts counts;
  if (memories.empty()) return;  // a batch of no samples
  const ProtectedMemory& any = memories.front();
  const int64_t part = std::max<int64_t>(1, kUnitsPerPart * kBlock / any.words_of_part());
  const bool alone = !any.linear();  // it allocates memory, and so may throw
  run.strike(y, any.parts(), part, [&](const auto& where, int64_t first, int64_t last) {
    seeds.each(first, last, any.parts_of_element(), [&](size_t stretch, int64_t from, int64_t to) {
      protect_parts(run.x.data, y, memories[stretch], codec, from, to, counts, where);
    });
  }, alone);
}

template class ProtectedFaults<float>;
template class ProtectedFaults<double>;
template class ProtectedFaults<int8_t>;
template class ProtectedFaults<uint8_t>;
template class ProtectedFaults<int16_t>;
template class ProtectedFaults<uint16_t>;
template class ProtectedFaults<int32_t>;

}  // namespace hwfault::ort
