#include "protect.h"

#include <numeric>

namespace hwfault {
namespace {

constexpr int64_t kMostSubWords = int64_t{1} << 36;

void expect(const char* what, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most)
    throw Error("a protected memory's " + std::string(what) + " is " + std::to_string(value) + ", expected " +
                std::to_string(least) + " to " + std::to_string(most));
}

const hwfault_protection& checked(const hwfault_protection& protection, int bit_width) {
  expect("kind", protection.kind, HWFAULT_PARITY, HWFAULT_TMR);
  expect("data_bits", protection.data_bits, 1, 64);
  expect("slot", protection.slot, bit_width, 64);
  expect("on_detected", protection.on_detected, HWFAULT_ZERO, HWFAULT_DUE);
  if (protection.rows < 0) expect("number of table rows", protection.rows, 0, INT64_MAX);
  if (protection.rows && !(protection.number && protection.cells))
    throw Error("a pointer to the table of a protected memory is null");
  return protection;
}

}  // namespace

ProtectedMemory::ProtectedMemory(const hwfault_protection& protection, const hwfault_draw& draw, const hwfault_map& map,
                                 const hwfault_format& format)
    : protection_(checked(protection, format.bit_width)),
      draw_(draw),
      map_(map),
      code_(protection.kind, protection.data_bits),
      code_mask_(static_cast<uint32_t>(low_bits(format.bit_width))) {
  check_draw(draw);
  while (sub_words_ * 32 < code_.cells()) sub_words_ *= 2;
  const int sub_word_bits = std::min(code_.cells(), 32);
  program_ = parse_program(draw.program, draw.program_length, sub_word_bits);
  if (program_.reads_others()) throw Error("late bits are faults of accumulators, not of a protected memory");
  memory_words_ = (draw.words * protection.slot + protection.data_bits - 1) / protection.data_bits;
  if (memory_words_ > kMostSubWords / sub_words_)
    throw Error("a protected memory of " + std::to_string(memory_words_) + " words, expected at most 2^36 sub-words");
  const int64_t block_bits = kBlock / sub_words_ * protection.data_bits;
  part_blocks_ = protection.slot / std::gcd(int64_t{protection.slot}, block_bits);
  part_words_ = linear() ? part_blocks_ * block_bits / protection.slot : std::max<int64_t>(draw.words, 1);
  parts_of_element_ = (draw.words + part_words_ - 1) / part_words_;
  if (!linear()) check_layout();
  map_.batch = draw.batch, map_.words = linear() ? memory_words_ * sub_words_ : kMostSubWords, map_.seed = draw.seed;
  if (map_.threshold > kAlways)  // a memory has its cells in every sample
    throw Error("the activity threshold is " + std::to_string(map_.threshold) + ", expected 0 to 2^32");
  check_map(map_, sub_word_bits);
}

void ProtectedMemory::check_layout() const {
  if (draw_.program_length) throw Error("transient faults need the linear layout, expected no table with a program");
  for (int64_t i = 0; i < protection_.rows; ++i) {
    expect("memory word in the table", protection_.number[i], i ? protection_.number[i - 1] : 0,
           kMostSubWords / sub_words_ - 1);
    for (int d = 0; d < protection_.data_bits; ++d) {
      const int64_t cell = protection_.cells[i * protection_.data_bits + d];
      const bool inside = cell >= 0 && cell >> 5 < draw_.words && code_mask_ >> (cell & 31) & 1u;
      if (!inside && cell != -1)
        throw Error("row " + std::to_string(i) + " of a protected memory's table names the cell " +
                    std::to_string(cell) + ", expected 32 word + bit within " + std::to_string(draw_.words) +
                    " code words, or -1");
    }
  }
}

int64_t ProtectedMemory::strike_rows(Cells& cells, int64_t memory_word, int64_t row, int64_t element) const {
  for (; word_of_row(row) == memory_word; ++row) {
    const Masks masks = active_masks(map_, row, element);
    uint32_t& struck = cells[static_cast<int>(map_.word[row] - memory_word * sub_words_)];
    struck = (struck & masks.and_mask) ^ masks.xor_mask;
  }
  return row;
}

uint64_t ProtectedMemory::read(const Cells& cells, uint64_t stored, Tally& tally) const {
  const Reading reading = code_.read(cells);
  if (reading.verdict == Verdict::detected) {
    ++tally.detected;
    return protection_.on_detected == HWFAULT_DUE ? stored ^ reading.data : stored;
  }
  if (reading.data != stored)
    ++tally.miscorrected;
  else if (reading.verdict == Verdict::corrected)
    ++tally.corrected;
  return stored ^ reading.data;
}

}  // namespace hwfault
