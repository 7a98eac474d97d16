#include "ort_xnor.h"

#include <bitset>

#include "clones.h"

namespace hwfault::ort {
namespace {

constexpr int64_t kWordsPerPart = 1 << 14;  // 64 bit words a thread compares at a time

// Packs values that are `step` apart, 64 to a word, the last word filled up with zeros; whether all are 0 or 1.
HWFAULT_CLONES bool pack(const float* values, int64_t length, int64_t step, uint64_t* words) {
  uint32_t others = 0;
  for (int64_t first = 0; first < length; first += 64) {
    const int64_t n = std::min<int64_t>(length - first, 64);
    uint64_t word = 0;
    for (int64_t k = 0; k < n; ++k) {
      const float value = values[(first + k) * step];
      others |= (value != 0) & (value != 1);
      word |= static_cast<uint64_t>(value == 1) << k;
    }
    words[first / 64] = word;
  }
  return others == 0;
}

void refuse(const char* which) { throw Error(std::string(which) + " input holds other values than 0 and 1"); }

// y[c] = in how many of `length` places the row agrees with row c of `others`
HWFAULT_CLONES void count_agreeing(const uint64_t* row, const uint64_t* others, int64_t words, int64_t length,
                                   int64_t rows, float* y) {
  for (int64_t r = 0; r < rows; ++r, others += words) {
    int64_t differing = 0;
    for (int64_t i = 0; i < words; ++i)
      differing += static_cast<int64_t>(std::bitset<64>(row[i] ^ others[i]).count());
    y[r] = static_cast<float>(length - differing);
  }
}

}  // namespace

void XnorPopcountMatMul::compute(const Context& context) const {
  const auto a = context.input<float>(0), b = context.input<float>(1);
  if (a.shape.empty() || b.shape.empty() || b.shape.size() > 2 || a.shape.back() != b.shape[0])
    throw Error("inputs of shapes " + text_of(a.shape) + " and " + text_of(b.shape) + ", expected (..., K) and (K, N)");
  const int64_t length = b.shape[0], columns = b.shape.size() == 2 ? b.shape[1] : 1, words = (length + 63) / 64;
  Shape out(a.shape.begin(), a.shape.end() - 1);
  const int64_t rows = element_count(out);
  if (b.shape.size() == 2) out.push_back(columns);
  float* y = context.reshaped<float>(out);
  if (element_count(out) == 0) return;
  std::vector<uint64_t> right(static_cast<size_t>(element_count({columns, words})));
  for (int64_t c = 0; c < columns; ++c)
    if (!pack(b.data + c, length, columns, right.data() + c * words)) refuse("the second");
  const int64_t part = std::max<int64_t>(kWordsPerPart / std::max<int64_t>(columns * words, 1), 1);
  context.share_out(rows, part, [&](int64_t first, int64_t last) {
    std::vector<uint64_t> row(static_cast<size_t>(words));
    for (int64_t r = first; r < last; ++r) {
      if (!pack(a.data + r * length, length, 1, row.data())) refuse("the first");
      count_agreeing(row.data(), right.data(), words, length, columns, y + r * columns);
    }
  });
}

}  // namespace hwfault::ort
