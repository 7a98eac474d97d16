#include "network_values.h"

#include <string>

#include "inject.h"

namespace hwfault {
namespace {

constexpr int kMostBits = 14;  // a struck value and its products still fit the sums of 32 bits

const Node& node_of(const Network& network, int64_t number) {
  const auto count = static_cast<int64_t>(network.nodes().size());
  if (number < 0 || number >= count)
    throw Error("the node is " + std::to_string(number) + ", expected 0 to " + std::to_string(count - 1));
  return network.nodes()[number];
}

void check_within(const char* what, int64_t given, int64_t end) {
  if (given < 0 || given >= end)
    throw Error("the " + std::string(what) + " is " + std::to_string(given) + ", expected 0 to " +
                std::to_string(end - 1));
}

const hwfault_format& checked(const hwfault_value_flips& flips) {
  if (!flips.format) throw Error("the pointer to the format of flipped values is null");
  check_format(*flips.format);
  if (flips.format->bit_width > kMostBits)
    throw Error("flipped values have " + std::to_string(flips.format->bit_width) + " bits, expected at most " +
                std::to_string(kMostBits));
  return *flips.format;
}

}  // namespace

FlippedValues::FlippedValues(const Golden& golden, const hwfault_value_flips& flips)
    : golden_(golden), flips_(flips), node_(node_of(golden.network(), flips.node)), codec_(checked(flips)) {
  const std::vector<Step>& steps = node_.steps.steps();
  check_within("step", flips.step, static_cast<int64_t>(steps.size()));
  const StepKind kind = steps[flips.step].kind;
  if (kind != StepKind::quantize && kind != StepKind::bipolar)
    throw Error("step " + std::to_string(flips.step) + " of a node gives no codes that could flip");
  if (flips.count < 0) throw Error("the number of flips is " + std::to_string(flips.count) + ", expected 0 or more");
  if (flips.count && !(flips.word && flips.bit)) throw Error("a pointer to flips is null");
  for (int64_t i = 0; i < flips.count; ++i) {
    check_within("word", flips.word[i], node_.size());
    check_within("bit", flips.bit[i], flips.format->bit_width);
  }
}

int64_t FlippedValues::strike(int64_t flip, int64_t image, Spread& spread) const {
  const int64_t word = flips_.word[flip], channel = word / node_.positions;
  const auto behind = static_cast<size_t>(flips_.step) + 1;
  float value = node_.steps.apply_part(golden_.before_steps(flips_.node, image, word), channel, 0, behind);
  codec_.decode(codec_.encode(value, word) ^ (1u << flips_.bit[flip]), word, &value);
  spread.begin(flips_.node, image);
  spread.tell(word, node_.steps.apply_part(value, channel, behind, node_.steps.steps().size()));
  return spread.finish();
}

}  // namespace hwfault
