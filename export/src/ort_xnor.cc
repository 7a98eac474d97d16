#include "ort_xnor.h"

#include <bitset>

#include "clones.h"

namespace hwfault::ort {
namespace {

constexpr int64_t kWordsPerPart = 1 << 14;  // 64 bit words a thread compares at a time

// Rows of bits, 64 to a word, the last word filled up with zeros.
struct Bits {
  int64_t words;
  std::vector<uint64_t> data;
  const uint64_t* row(int64_t i) const { return data.data() + i * words; }
};

// `rows` rows of `length` values; value k of row r lies at r * row_step + k * step
Bits packed(const float* values, int64_t rows, int64_t length, int64_t row_step, int64_t step, const char* what) {
  Bits bits{(length + 63) / 64, {}};
  bits.data.resize(static_cast<size_t>(element_count({rows, bits.words})));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < length; ++k) {
      const float value = values[r * row_step + k * step];
      if (value != 0 && value != 1)
        throw Error(std::string(what) + " holds " + std::to_string(value) + ", expected 0 and 1 only");
      bits.data[static_cast<size_t>(r * bits.words + k / 64)] |= static_cast<uint64_t>(value == 1) << (k % 64);
    }
  return bits;
}

HWFAULT_CLONES int64_t differing(const uint64_t* a, const uint64_t* b, int64_t words) {
  int64_t count = 0;
  for (int64_t i = 0; i < words; ++i) count += static_cast<int64_t>(std::bitset<64>(a[i] ^ b[i]).count());
  return count;
}

}  // namespace

void XnorPopcountMatMul::compute(const Context& context) const {
  const auto a = context.input<float>(0), b = context.input<float>(1);
  if (a.shape.empty() || b.shape.empty() || b.shape.size() > 2 || a.shape.back() != b.shape[0])
    throw Error("inputs of shapes " + text_of(a.shape) + " and " + text_of(b.shape) + ", expected (..., K) and (K, N)");
  const int64_t length = b.shape[0], columns = b.shape.size() == 2 ? b.shape[1] : 1;
  Shape out(a.shape.begin(), a.shape.end() - 1);
  const int64_t rows = element_count(out);
  if (b.shape.size() == 2) out.push_back(columns);
  float* y = context.reshaped<float>(out);
  if (element_count(out) == 0) return;
  const Bits left = packed(a.data, rows, length, length, 1, "the first input");
  const Bits right = packed(b.data, columns, length, 1, columns, "the second input");
  const int64_t part = std::max<int64_t>(kWordsPerPart / std::max<int64_t>(columns * left.words, 1), 1);
  context.share_out(rows, part, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      for (int64_t c = 0; c < columns; ++c)
        y[r * columns + c] = static_cast<float>(length - differing(left.row(r), right.row(c), left.words));
  });
}

}  // namespace hwfault::ort
