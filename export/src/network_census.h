// Single flipped weights of a layer, image by image.
#pragma once

#include <cstdint>
#include <vector>

#include "network_spread.h"

namespace hwfault {

class Census {
 public:
  // Throws Error for a node that is no layer.
  Census(const Golden& golden, int64_t number);

  // Throws Error for a word that the layer does not have, or a change that makes a weight too large.
  void check(int64_t word, int32_t change) const;

  // Runs a flip in every image. survived(image, spread) is called where the outputs differ, died(node, images) for each
  // node behind which nothing differed any more. Flips of one channel and one word, one behind the other, are the
  // cheapest.
  template <class Survived, class Died>
  void strike_all(int64_t word, int32_t change, Survived survived, Died died) {
    read_word(word);
    const bool any = product_leaves(x_.data(), change, low_.data(), high_.data(), flags_.data(), items());
    int64_t alive = 0;  // images in which the layer's own values differ
    if (any) {
      collect();
      for (size_t i = 0; i < differing_.size(); i = end_of_image(i)) {
        const int64_t image = differing_[i] / node_.positions;
        const int64_t node = spread_image(image, i, end_of_image(i), change);
        ++alive;
        node < 0 ? survived(image, spread_) : died(node, int64_t{1});
      }
    }
    if (alive < golden_.images()) died(number_, golden_.images() - alive);
  }

  // Runs a flip in one image; returns as Spread::finish.
  int64_t strike(int64_t word, int32_t change, int64_t image);
  const Spread& spread() const { return spread_; }

 private:
  int64_t items() const { return golden_.images() * node_.positions; }
  int32_t input_at(int64_t word, int64_t image, int64_t position) const;
  void read_word(int64_t word);
  void read_channel(int64_t channel);
  void collect();
  size_t end_of_image(size_t i) const {
    const int64_t image = differing_[i] / node_.positions;
    while (i < differing_.size() && differing_[i] / node_.positions == image) ++i;
    return i;
  }
  int64_t spread_image(int64_t image, size_t first, size_t last, int32_t change);

  const Golden& golden_;
  const int64_t number_;
  const Node& node_;
  Spread spread_;
  int64_t word_ = -1, channel_ = -1;
  std::vector<int32_t> x_, low_, high_;  // of the present word and channel: (images, positions)
  std::vector<uint8_t> flags_;
  std::vector<int64_t> differing_;
};

}  // namespace hwfault
