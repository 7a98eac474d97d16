#include "ort_faults.h"

namespace hwfault::ort {
namespace {

// Y under the rows of a map.
template <class T>
void apply_rows(const Run<T>& run, const hwfault_map& map, const Seeds& seeds) {
  T* y = run.context.template output<T>(run.x.shape);
  const Codec<T> codec(run.format());
  run.strike(y, run.units.count(), kUnitsPerPart, [&](const auto& where, int64_t first, int64_t last) {
    seeds.each(first, last, run.units.blocks(), [&](size_t stretch, int64_t from, int64_t to) {
      hwfault_map own = map;
      own.seed = seeds.stretches().data()[stretch].seed;
      apply_map_units(run.x.data, y, own, codec, run.units, from, to, where);
    });
  });
}

}  // namespace

template <class T>
TransientFaults<T>::TransientFaults(const NodeInfo& node)
    : target_(Target::holding<T>(node)),
      numbers_(node.integers("program")),
      program_(parse_program(numbers_.data(), static_cast<int64_t>(numbers_.size()), target_.bit_width)) {}

template <class T>
void TransientFaults<T>::compute(const Context& context) const {
  constexpr size_t kSeed = place_of(inputs, "seed"), kFirstSample = place_of(inputs, "first_sample");
  const Run<T> run(context, target_);
  const Seeds seeds = run.seeds(kSeed);
  const Few<int64_t> samples = run.samples(kFirstSample);
  program_.check_words(run.units.words);
  T* y = context.output<T>(run.x.shape);
  const Codec<T> codec(run.format());
  // late bits are those of words that may have been struck in place
  const bool keep = y == run.x.data && program_.reads_others();
  const std::vector<T> kept(run.x.data, run.x.data + (keep ? run.x.size() : 0));
  const T* from = keep ? kept.data() : run.x.data;
  run.strike(y, run.units.count(), kUnitsPerPart, [&](const auto& where, int64_t first, int64_t last) {
    seeds.each(first, last, run.units.blocks(), [&](size_t stretch, int64_t begin, int64_t end) {
      const uint64_t seed = seeds.stretches().data()[stretch].seed;
      const hwfault_draw draw{seed, samples.data(), run.units.batch, run.units.words, nullptr, 0};
      inject_units(from, y, program_, draw, codec, run.units, begin, end, where);
    });
  });
}

template <class T>
void FaultMap<T>::compute(const Context& context) const {
  constexpr size_t kRows = place_of(inputs, "word");
  const Run<T> run(context, target_);
  const Rows rows(context, kRows, run.units);
  check_map(rows.map, target_.bit_width);
  apply_rows(run, rows.map, Seeds(0, run.units.batch));
}

template <class T>
void IntermittentFaults<T>::compute(const Context& context) const {
  constexpr size_t kRows = place_of(inputs, "word"), kSeed = place_of(inputs, "seed"),
                   kFirstSample = place_of(inputs, "first_sample");
  const Run<T> run(context, target_);
  Rows rows(context, kRows, run.units);
  const Few<int64_t> periods = run.periods(kFirstSample, activity_.refresh);
  rows.map.threshold = activity_.threshold;
  rows.map.site = activity_.site;
  rows.map.period = periods.data();
  check_map(rows.map, target_.bit_width);
  apply_rows(run, rows.map, run.seeds(kSeed));
}

template class TransientFaults<float>;
template class TransientFaults<double>;
template class TransientFaults<int8_t>;
template class TransientFaults<uint8_t>;
template class TransientFaults<int16_t>;
template class TransientFaults<uint16_t>;
template class TransientFaults<int32_t>;
template class FaultMap<float>;
template class FaultMap<double>;
template class FaultMap<int8_t>;
template class FaultMap<uint8_t>;
template class FaultMap<int16_t>;
template class FaultMap<uint16_t>;
template class FaultMap<int32_t>;
template class IntermittentFaults<float>;
template class IntermittentFaults<double>;
template class IntermittentFaults<int8_t>;
template class IntermittentFaults<uint8_t>;
template class IntermittentFaults<int16_t>;
template class IntermittentFaults<uint16_t>;
template class IntermittentFaults<int32_t>;

}  // namespace hwfault::ort
