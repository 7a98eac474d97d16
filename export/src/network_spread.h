// How the change that one flipped weight makes in one image goes through the network: only what differs from the golden
// run is carried on. Where all inputs of a layer differ its sums take the products of a dense run, in the same loops, so
// that there is no other way for dense changes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "network_golden.h"
#include "network_rows.h"

namespace hwfault {

class Spread {
 public:
  explicit Spread(const Golden& golden);

  // Begins with an image, in which node `number` gives other values than in the golden run: those that are told.
  void begin(int64_t number, int64_t image);
  void tell(int64_t element, float value) { note(number_ + 1, element, value); }

  // Carries them to the end. Returns -1 if the outputs differ from the golden ones, else the node behind which nothing
  // differed any more.
  int64_t finish();

  // After that: the outputs, and whether their first largest is another one than the golden run's.
  void copy_outputs(float* out) const;
  bool top1_differs() const;

 private:
  struct Element {
    uint32_t stamp;  // the present epoch where it differs
    float value;
  };
  struct Overlay {  // of a tensor: which of its elements differ in the present image
    std::vector<Element> elements;
    std::vector<int32_t> changed;
  };
  struct Inputs {  // of a layer at one position of a group: how many differ, and where their terms begin
    int32_t count, first;
  };

  float now(int64_t tensor, int64_t element) const {
    const Element& found = overlays_[tensor].elements[element];
    return found.stamp == epoch_ ? found.value : golden_.values(tensor, image_)[element];
  }
  // Notes an element's value if it is not the golden one.
  void note(int64_t tensor, int64_t element, float value) {
    if (value == golden_.values(tensor, image_)[element]) return;
    Overlay& overlay = overlays_[tensor];
    overlay.elements[element] = {epoch_, value};
    overlay.changed.push_back(static_cast<int32_t>(element));
  }
  // Keeps a value in front of a node's steps, until all of them are taken at once.
  void keep(int64_t element, int64_t channel, double value) {
    elements_[kept_] = static_cast<int32_t>(element);
    channels_[kept_] = static_cast<int32_t>(channel);
    before_[kept_++] = value;
  }
  // Which outputs of a node were met before: see(output) says whether it is the first time.
  void begin_seeing() {
    if (++seen_epoch_) return;
    std::fill(seen_.begin(), seen_.end(), 0);
    seen_epoch_ = 1;
  }
  bool see(int64_t output) {
    if (seen_[output] == seen_epoch_) return false;
    seen_[output] = seen_epoch_;
    return true;
  }
  void pass(int64_t number);
  void settle(const Node& node, int64_t output);
  void pass_layer(int64_t number);
  void collect_terms(const Node& node);
  void find_touched(const Node& node);
  void pass_sums(int64_t number, int64_t bucket);
  void pass_add(const Node& node);
  void pass_pool(const Node& node);
  void pass_move(const Node& node);

  const Golden& golden_;
  const Network& network_;
  int64_t number_ = 0, image_ = 0;
  uint32_t epoch_ = 0;
  std::vector<Overlay> overlays_;
  // of a node: what differs in front of its steps
  std::vector<int32_t> elements_, channels_;
  std::vector<double> before_;
  std::vector<float> behind_;
  int64_t kept_ = 0;
  // of a layer: its changed inputs by (group, position)
  std::vector<Term> terms_;
  std::vector<Inputs> inputs_;
  std::vector<int32_t> struck_;
  std::vector<int32_t> touched_;  // outputs (group, position) that they reach
  std::vector<Segment> segments_;
  std::vector<int32_t> sum_;
  std::vector<uint8_t> flags_;
  std::vector<uint32_t> seen_;
  uint32_t seen_epoch_ = 0;
};

}  // namespace hwfault
