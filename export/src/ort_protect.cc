#include "ort_protect.h"

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

// The protection with the table of inputs 8 and 9.
hwfault_protection with_table(hwfault_protection protection, const Context& context) {
  const auto number = context.input<int64_t>(8), cells = context.input<int64_t>(9);
  const Shape expected{number.size(), protection.data_bits};
  if (cells.shape != expected && number.size() + cells.size() > 0)
    throw Error("cells has shape " + text_of(cells.shape) + ", expected " + text_of(expected) +
                ": a row of data_bits for each number");
  protection.number = number.data, protection.cells = cells.data, protection.rows = number.size();
  return protection;
}

}  // namespace

template <class T>
ProtectedFaults<T>::ProtectedFaults(const NodeInfo& node)
    : target_(node),
      program_(node.integers("program")),
      protection_(protection_of(node)),
      threshold_(in_range(node.integer("threshold", kAlways), "threshold", kAlways)),
      site_(static_cast<uint32_t>(in_range(node.integer("site", 0), "site", UINT32_MAX))),
      refresh_(refresh_named(node.text("refresh", "inference"))) {
  const double one = 1, zero = 0;  // refuses what does not fit at once
  const hwfault_draw draw{0, nullptr, 0, 0, program_.data(), static_cast<int64_t>(program_.size())};
  const hwfault_format format{&one, 1, 1, &zero, 1, 1, target_.bit_width, target_.is_signed, target_.representation};
  ProtectedMemory(protection_, draw, hwfault_map{0, 0, nullptr, nullptr, nullptr, 0, kAlways, 0, 0, nullptr}, format);
}

template <class T>
void ProtectedFaults<T>::compute(const Context& context) const {
  const auto x = context.input<T>(0);
  const Axis scale = along_axis(context.input<T>(1), x.shape, target_, "scale");
  const Axis zero_point = along_axis(context.input<T>(2), x.shape, target_, "zero point");
  const Units units = target_.order.units(x.shape);
  Rows rows(context, units);
  const auto seed = static_cast<uint64_t>(context.scalar<int64_t>(6, "the seed"));
  const auto first_sample = context.scalar<int64_t>(7, "the first sample number");
  const bool batched = target_.order.batched;
  const auto samples = numbers_of(units, batched, first_sample, batched ? Refresh::inference : Refresh::held);
  const auto periods = numbers_of(units, batched, first_sample, refresh_);
  rows.map.threshold = threshold_, rows.map.site = site_, rows.map.period = periods.data();
  const hwfault_draw draw{seed, samples.data(), units.batch, units.words, program_.data(),
                          static_cast<int64_t>(program_.size())};
  const hwfault_protection protection = with_table(protection_, context);
  const hwfault_format format = format_of(target_, scale, zero_point);
  const ProtectedMemory memory(protection, draw, rows.map, format);
  T* y = context.output<T>(x.shape);
  const Codec<T> codec(format);
  Counts counts;
  in_order(context, target_.order, units, x, y, [&](const auto& where) {
    check_codes_known(x, units, format, where);
    const auto work = [&](int64_t first, int64_t last) {
      protect_parts(x.data, y, memory, codec, first, last, counts, where);
    };
    if (!memory.linear()) return work(0, memory.parts());  // it allocates memory, and so may throw
    context.share_out(memory.parts(), std::max<int64_t>(1, kUnitsPerPart * kBlock / memory.words_of_part()), work);
  });
}

template class ProtectedFaults<float>;
template class ProtectedFaults<double>;

}  // namespace hwfault::ort
