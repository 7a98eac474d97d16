#include "network_addends.h"

#include <cmath>
#include <string>

namespace hwfault {

ChangedAddends::ChangedAddends(const Golden& golden, const hwfault_addends& addends)
    : golden_(golden), addends_(addends), node_(layer_of(golden.network(), addends.node)) {
  if (addends.count < 0)
    throw Error("the number of addends is " + std::to_string(addends.count) + ", expected 0 or more");
  if (addends.count && !(addends.channel && addends.addend)) throw Error("a pointer to addends is null");
  const double largest = static_cast<double>(node_.largest_sum);
  double least = 0, most = 0;
  for (int64_t i = 0; i < addends.count; ++i) {
    const int64_t channel = addends.channel[i];
    if (channel < 0 || channel >= node_.channels)
      throw Error("the channel is " + std::to_string(channel) + ", expected 0 to " +
                  std::to_string(node_.channels - 1));
    if (!std::isfinite(addends.addend[i])) throw Error("an addend is no finite number");
    for (const double sum : {-largest, largest}) {  // the steps are monotone
      const double value = node_.steps.apply_with_addend(sum, channel, addends.addend[i]);
      if (std::isnan(value)) throw Error("with an addend the values of a layer may be no numbers");
      least = std::min(least, value), most = std::max(most, value);
    }
  }
  golden.network().check_range(addends.node, least, most);
}

int64_t ChangedAddends::strike(int64_t i, int64_t image, Spread& spread) const {
  const int64_t channel = addends_.channel[i];
  spread.begin(addends_.node, image);
  for (int64_t position = 0; position < node_.positions; ++position) {
    const int64_t element = channel * node_.positions + position;
    const double sum = golden_.before_steps(addends_.node, image, element);
    spread.tell(element, node_.steps.apply_with_addend(sum, channel, addends_.addend[i]));
  }
  return spread.finish();
}

}  // namespace hwfault
