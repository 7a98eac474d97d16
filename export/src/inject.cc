#include "inject.h"

#include <algorithm>

namespace hwfault {
namespace {

void check_axis(const char* what, const double* values, int64_t n, int64_t inner) {
  if (!values || n < 1 || inner < 1)
    throw Error(std::string("the ") + what + " has " + std::to_string(n) + " values for " + std::to_string(inner) +
                " words each, expected 1 or more");
}

}  // namespace

void check_format(const hwfault_format& format) {
  if (format.bit_width < 1 || format.bit_width > 32)
    throw Error("bit_width is " + std::to_string(format.bit_width) + ", expected 1 to 32");
  if (format.representation < HWFAULT_TWOS_COMPLEMENT || format.representation > HWFAULT_SIGN_MAGNITUDE)
    throw Error("representation is " + std::to_string(format.representation) + ", expected 0 to 2");
  check_axis("scale", format.scale, format.n_scale, format.scale_inner);
  check_axis("zero point", format.zero_point, format.n_zero_point, format.zero_point_inner);
}

void check_draw(const hwfault_draw& draw) {
  if (draw.batch < 0 || draw.words < 0 || draw.words > int64_t{1} << 36 || draw.program_length < 0)
    throw Error("a draw of " + std::to_string(draw.batch) + " samples of " + std::to_string(draw.words) +
                " words, expected 0 or more, and at most 2^36 words");
  if (draw.words && draw.batch > INT64_MAX / draw.words) throw Error("a draw of more words than can be counted");
  if (!draw.program && draw.program_length) throw Error("the fault program is a null pointer");
}

void check_map(const hwfault_map& map, int bit_width) {
  check_draw({map.seed, nullptr, map.batch, map.words, nullptr, 0});
  if (map.rows < 0) throw Error("a fault map of " + std::to_string(map.rows) + " rows, expected 0 or more");
  if (map.rows && !(map.word && map.and_mask && map.xor_mask)) throw Error("a pointer to the fault map's rows is null");
  const bool sampled = map.threshold == kSampled;
  if (map.threshold < 0 || (map.threshold > kAlways && !sampled))
    throw Error("the activity threshold is " + std::to_string(map.threshold) + ", expected 0 to 2^32, or 2^33");
  if (map.threshold != kAlways && map.batch && map.words && !map.period)
    throw Error("the pointer to the periods is null");
  constexpr int64_t kWords = int64_t{1} << kSampledWordBits;
  if (sampled && map.words >= kWords)
    throw Error("faults of single samples of " + std::to_string(map.words) + " words, expected fewer than 2^31");
  for (int64_t row = 0; row < map.rows; ++row) {
    const int64_t key = map.word[row], word = sampled && key >= 0 ? key % kWords : key;
    if (word < 0 || word >= map.words)
      throw Error("the fault map names word " + std::to_string(word) + " of a tensor of " + std::to_string(map.words) +
                  " words");
    if (row && key <= map.word[row - 1])
      throw Error("the fault map's words must be strictly ascending; row " + std::to_string(row) + " is not");
    if (uint64_t{map.xor_mask[row]} >> bit_width)
      throw Error("row " + std::to_string(row) + " of the fault map has mask bits beyond the bit width");
  }
}

bool keeps_all_bits(const hwfault_map& map, int bit_width) {
  const uint32_t mask = bit_width == 32 ? ~0u : (1u << bit_width) - 1;
  return std::all_of(map.and_mask, map.and_mask + map.rows, [&](uint32_t kept) { return (kept & mask) == mask; });
}

}  // namespace hwfault
