#include "ort_clip.h"

namespace hwfault::ort {

template <class T>
ClippedRange<T>::ClippedRange(const NodeInfo& node)
    : target_(Target::holding<T>(node)),
      range_{0, 0, node.integer("low"), node.integer("high"), node.integer("below"), node.integer("above")} {
  check_range(range_, {nullptr, 0, 0, nullptr, 0, 0, target_.bit_width, target_.is_signed, HWFAULT_TWOS_COMPLEMENT});
}

template <class T>
void ClippedRange<T>::compute(const Context& context) const {
  const Run<T> run(context, target_);
  T* y = context.output<T>(run.x.shape);
  const Codec<T> codec(run.format());
  run.strike(y, run.units.count(), kUnitsPerPart, [&](const auto& where, int64_t first, int64_t last) {
    write_clipped(run.x.data, y, range_, codec, run.units, first, last, where);
  });
}

template class ClippedRange<float>;
template class ClippedRange<double>;
template class ClippedRange<int8_t>;
template class ClippedRange<uint8_t>;
template class ClippedRange<int16_t>;
template class ClippedRange<uint16_t>;
template class ClippedRange<int32_t>;

}  // namespace hwfault::ort
