// How the change that one flipped weight makes in one image goes through the network: only what differs from the golden
// run is carried on.
#pragma once

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
  struct Overlay {  // of a tensor: which of its elements differ in the present image
    std::vector<uint32_t> stamp;
    std::vector<float> value;
    std::vector<int32_t> changed;
  };

  float now(int64_t tensor, int64_t element) const {
    const Overlay& overlay = overlays_[tensor];
    return overlay.stamp[element] == epoch_ ? overlay.value[element] : golden_.values(tensor, image_)[element];
  }
  // Notes an element's value if it is not the golden one.
  void note(int64_t tensor, int64_t element, float value) {
    if (value == golden_.values(tensor, image_)[element]) return;
    Overlay& overlay = overlays_[tensor];
    overlay.stamp[element] = epoch_;
    overlay.value[element] = value;
    overlay.changed.push_back(static_cast<int32_t>(element));
  }
  void pass(int64_t number);
  void pass_layer(int64_t number);
  void collect_terms(const Node& node);
  void sort_terms();
  void pass_sums(int64_t number, int64_t bucket, const Term* terms, int64_t count);
  void pass_add(const Node& node, int64_t output);
  void pass_pool(const Node& node, int64_t output);
  void pass_move(const Node& node, int64_t output);

  const Golden& golden_;
  const Network& network_;
  int64_t number_ = 0, image_ = 0;
  uint32_t epoch_ = 0;
  std::vector<Overlay> overlays_;
  // of a layer: what changed inputs add, then the same by (group, position)
  std::vector<Term> unsorted_, terms_;
  std::vector<int32_t> bucket_of_, count_, touched_;
  std::vector<int32_t> sum_;
  std::vector<uint8_t> flags_;
  std::vector<uint32_t> seen_;
  uint32_t seen_epoch_ = 0;
};

}  // namespace hwfault
