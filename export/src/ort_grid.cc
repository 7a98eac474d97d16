#include "ort_grid.h"

#include <cctype>

namespace hwfault::ort {

Rounding rounding_named(std::string mode) {
  for (char& c : mode) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  static const std::pair<const char*, Rounding> known[] = {
      {"ROUND", Rounding::half_even}, {"HALF_EVEN", Rounding::half_even}, {"CEIL", Rounding::ceil},
      {"FLOOR", Rounding::floor},     {"UP", Rounding::up},               {"DOWN", Rounding::down},
      {"HALF_UP", Rounding::half_up}, {"HALF_DOWN", Rounding::half_down}};
  std::string names;
  for (const auto& [name, rounding] : known) {
    if (mode == name) return rounding;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  throw Error("rounding_mode is '" + mode + "', expected one of " + names);
}

Range range_of(float bits, bool is_signed, bool narrow) {
  const float half = std::pow(2.0f, bits - 1), full = std::pow(2.0f, bits);
  if (is_signed) return {narrow ? -half + 1 : -half, half - 1};
  return {0 * bits, narrow ? full - 2 : full - 1};
}

void check_scale(const Tensor<const float>& scale, const char* what) {
  const int64_t size = scale.size();
  for (int64_t i = 0; i < size; ++i)
    if (!std::isfinite(scale.data[i]) || scale.data[i] == 0)
      throw Error(std::string(what) + " holds " + std::to_string(scale.data[i]) +
                  ", expected numbers that are finite and not 0");
}

float check_bits(float bits, const char* what) {
  if (!std::isfinite(bits) || bits < 0)
    throw Error(std::string(what) + " is " + std::to_string(bits) + ", expected a number of bits, 0 or more");
  return bits;
}

void check_bits(const Tensor<const float>& bits, const char* what) {
  const int64_t size = bits.size();
  for (int64_t i = 0; i < size; ++i) check_bits(bits.data[i], what);
}

}  // namespace hwfault::ort
