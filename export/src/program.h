// A site's fault program, parsed and checked: the processes that strike its words, in order.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "stream.h"

namespace hwfault {

enum class Kind : int64_t { bit = 0, cluster = 1, mask = 2, random = 3, late = 4 };

// One plane of a bit or cluster process.
struct Plane {
  uint32_t accept01 = kAcceptAll, accept10 = kAcceptAll;
  Table table;
};

struct Process {
  Kind kind;
  uint32_t site;
  std::vector<Plane> planes;     // bit and cluster: one for each bit; others: one
  bool along_words = false;      // cluster
  const int64_t* sizes = nullptr;  // cluster
  int64_t n_sizes = 0;
  uint32_t zeros = 0, ones = 0;  // mask: the bits of a word that is hit that flip where they hold 0, and where 1
  uint32_t mask = 0;             // late
  // late: columns and rows of the array; channels, and how many words lie between one channel and the next
  int64_t columns = 1, rows = 1, channels = 1, inner = 1;

  // whether it strikes single bits, each plane on its own, and not words as wholes
  bool on_bits() const { return kind == Kind::bit || kind == Kind::cluster; }

  // mask: the bits that a hit flips in a word with this code
  uint32_t flips(uint32_t code) const { return zeros ^ ((zeros ^ ones) & code); }

  // late: the word that the same processing element produced before `word`, -1 for its first
  int64_t previous(int64_t word) const {
    const int64_t channel = word / inner % channels;
    if (channel >= columns) return word - columns * inner;
    const int64_t position = word / (inner * channels) * inner + word % inner;
    if (position < rows) return -1;
    const int64_t last = channel + (channels - 1 - channel) / columns * columns;
    const int64_t before = position - rows;
    return before / inner * inner * channels + last * inner + before % inner;
  }
};

struct Program {
  int bit_width = 0;
  std::vector<Process> processes;

  uint32_t code_mask() const { return bit_width == 32 ? ~0u : (1u << bit_width) - 1; }
  // whether which words become faulty depends on the codes stored before
  bool reads_stored() const;
  // whether what becomes of a word depends on other words
  bool reads_others() const;
  // throws Error unless a sample of so many words can be what the processes say it is
  void check_words(int64_t words) const;
};

// An error with the text that the caller is to see.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Points into `program`, which must outlive the result. Throws Error for anything that is not a program.
Program parse_program(const int64_t* program, int64_t length, int bit_width);
Table parse_table(const int64_t* table, int64_t length);

}  // namespace hwfault
