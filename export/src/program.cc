#include "program.h"

#include <algorithm>

namespace hwfault {
namespace {

constexpr int64_t kTwo32 = int64_t{1} << 32;
constexpr int64_t kToCode = int64_t{1} << 33;  // a mask of this and more makes words the code that it is more

// Reads a program front to back and never past its end.
class Reader {
 public:
  Reader(const int64_t* at, int64_t length) : at_(at), end_(at + length) {}
  bool done() const { return at_ == end_; }

  int64_t number(const char* what, int64_t least, int64_t most) {
    if (done()) throw Error(std::string("the fault program ends before ") + what);
    if (*at_ < least || *at_ > most)
      throw Error("the fault program has " + std::string(what) + " = " + std::to_string(*at_) + ", expected " +
                  std::to_string(least) + " to " + std::to_string(most));
    return *at_++;
  }

  // whether the next number is as large as this
  bool reaches(int64_t least) const { return !done() && *at_ >= least; }

  const int64_t* ascending(int64_t n, int64_t most, const char* what) {
    const int64_t* first = at_;
    if (n > end_ - at_) throw Error(std::string("the fault program ends within ") + what);
    if (n == 0) return first;
    // all at once, as tables of high rates have hundreds; one by one only to find the one to tell of
    bool good = first[0] >= 0 && first[n - 1] <= most;
    for (int64_t i = 1; i < n; ++i) good &= first[i] >= first[i - 1];
    int64_t least = 0;
    for (int64_t i = 0; i < n && !good; ++i) least = number(what, least, most);
    at_ = first + n;
    return first;
  }

  Reader part(int64_t n) {
    if (n > end_ - at_) throw Error("the fault program ends within a process");
    Reader inner(at_, n);
    at_ += n;
    return inner;
  }

  Table table() {
    const int64_t n = number("a count table's length", -1, end_ - at_);
    Table table;
    table.every = n < 0;
    table.length = std::max<int64_t>(n, 0);
    table.thresholds = ascending(table.length, kTwo32, "a count table");
    for (table.reachable = table.length; table.reachable && table.thresholds[table.reachable - 1] == kTwo32;)
      --table.reachable;
    return table;
  }

 private:
  const int64_t *at_, *end_;
};

void read_planes(Reader& body, Process& process, int n, bool with_accepts) {
  process.planes.resize(n);
  for (Plane& plane : process.planes) {
    if (with_accepts) {
      plane.accept01 = static_cast<uint32_t>(body.number("accept01", 0, kAcceptAll));
      plane.accept10 = static_cast<uint32_t>(body.number("accept10", 0, kAcceptAll));
    }
    plane.table = body.table();
  }
}

Process read_process(Reader& program, int bit_width) {
  Process process{};
  process.kind = static_cast<Kind>(program.number("a process' kind", 0, 4));
  process.site = static_cast<uint32_t>(program.number("a site number", 0, kTwo32 - 1));
  Reader body = program.part(program.number("a process' length", 0, INT64_MAX));
  if (process.kind == Kind::cluster) {
    process.along_words = body.number("a cluster's axis", 0, 1) == 1;
    process.n_sizes = body.number("a cluster's number of sizes", 0, kAcceptAll);
    process.sizes = body.ascending(process.n_sizes, kAcceptAll, "a cluster's sizes");
  }
  const int64_t most = (int64_t{1} << bit_width) - 1;
  if (process.kind == Kind::mask) {
    // of a word that becomes a code every bit flips that is another there
    const bool to_code = body.reaches(kToCode);
    const int64_t mask = to_code ? body.number("a mask", kToCode, kToCode + most) : body.number("a mask", 1, most);
    process.zeros = static_cast<uint32_t>(mask & most);
    process.ones = static_cast<uint32_t>((to_code ? ~mask : mask) & most);
  }
  if (process.kind == Kind::late) process.mask = static_cast<uint32_t>(body.number("a mask", 1, most));
  if (process.kind == Kind::late) {
    constexpr int64_t kMost = int64_t{1} << 31;  // products of two of them can be counted
    process.columns = body.number("the columns of an array", 1, kMost);
    process.rows = body.number("the rows of an array", 1, kMost);
    process.channels = body.number("the channels of a layer", 1, kMost);
    process.inner = body.number("the words of a channel", 1, kMost);
  }
  read_planes(body, process, process.on_bits() ? bit_width : 1, process.kind == Kind::bit);
  if (!body.done()) throw Error("the fault program has numbers left over at the end of a process");
  return process;
}

bool takes_every_hit(const Plane& plane) {
  return plane.table.empty() || (plane.accept01 == kAcceptAll && plane.accept10 == kAcceptAll);
}

}  // namespace

Program parse_program(const int64_t* numbers, int64_t length, int bit_width) {
  if (bit_width < 1 || bit_width > 32)
    throw Error("bit_width is " + std::to_string(bit_width) + ", expected 1 to 32");
  Program program;
  program.bit_width = bit_width;
  for (Reader reader(numbers, length); !reader.done();) program.processes.push_back(read_process(reader, bit_width));
  return program;
}

Table parse_table(const int64_t* numbers, int64_t length) {
  Reader reader(numbers, length);
  const Table table = reader.table();
  if (!reader.done()) throw Error("numbers are left over after a count table");
  return table;
}

bool Program::reads_others() const {
  return std::any_of(processes.begin(), processes.end(), [](const Process& p) { return p.kind == Kind::late; });
}

void Program::check_words(int64_t words) const {
  for (const Process& process : processes) {
    if (process.kind != Kind::late || words % (process.channels * process.inner) == 0) continue;
    throw Error("a late process counts " + std::to_string(process.channels) + " channels of " +
                std::to_string(process.inner) + " words, which do not make up samples of " + std::to_string(words) +
                " words");
  }
}

bool Program::reads_stored() const {
  if (reads_others()) return true;
  for (const Process& process : processes) {
    if (process.kind == Kind::random && processes.size() > 1) return true;
    if (process.zeros != process.ones) return true;
    if (!std::all_of(process.planes.begin(), process.planes.end(), takes_every_hit)) return true;
  }
  return false;
}

}  // namespace hwfault
