// The C functions of quantized networks and their censuses.
#include <algorithm>
#include <memory>
#include <string>

#include "calls.h"
#include "hwfault.h"
#include "network.h"
#include "network_addends.h"
#include "network_census.h"
#include "network_values.h"

namespace {

using namespace hwfault;

void check_flips(const hwfault_flips& flips, const Census& census) {
  if (flips.count < 0) throw Error("the number of flips is " + std::to_string(flips.count) + ", expected 0 or more");
  if (flips.count && !(flips.word && flips.change)) throw Error("a pointer to flips is null");
  for (int64_t i = 0; i < flips.count; ++i) census.check(flips.word[i], flips.change[i]);
}

// Outputs that differ from the golden ones, as far as there is room for them.
class Survivors {
 public:
  Survivors(const hwfault_survivors* room, int64_t outputs) : room_(room), outputs_(outputs) {
    if (room && room->capacity && !(room->flip && room->image && room->outputs))
      throw Error("a pointer to survivors is null");
  }

  void note(int64_t flip, int64_t image, const Spread& spread) {
    if (room_ && found_ < room_->capacity) {
      room_->flip[found_] = flip;
      room_->image[found_] = image;
      spread.copy_outputs(room_->outputs + found_ * outputs_);
    }
    ++found_;
  }
  int64_t found() const { return found_; }

 private:
  const hwfault_survivors* room_;
  int64_t outputs_, found_ = 0;
};

void check_image(const Golden& golden, int64_t image) {
  if (image < 0 || image >= golden.images())
    throw Error("the number of an image is " + std::to_string(image) + ", expected 0 to " +
                std::to_string(golden.images() - 1));
}

// Every change in every image, as hwfault_census.
template <class Changes>
int64_t census_of(const Golden& golden, const Changes& changes, uint8_t* top1, uint32_t* died,
                  const hwfault_survivors* survivors) {
  Survivors found(survivors, golden.network().output_size());
  const int64_t row = (golden.images() + 7) / 8;
  const auto nodes = static_cast<int64_t>(golden.network().nodes().size());
  if (top1) std::fill(top1, top1 + changes.count() * row, uint8_t{0});
  if (died) std::fill(died, died + changes.count() * nodes, 0u);
  Spread spread(golden);
  for (int64_t i = 0; i < changes.count(); ++i)
    for (int64_t image = 0; image < golden.images(); ++image) {
      const int64_t node = changes.strike(i, image, spread);
      if (node >= 0) {
        if (died) ++died[i * nodes + node];
        continue;
      }
      if (top1 && spread.top1_differs()) top1[i * row + image / 8] |= static_cast<uint8_t>(0x80 >> image % 8);
      found.note(i, image, spread);
    }
  return found.found();
}

// Change i in image[i], as hwfault_run_flips.
template <class Changes>
int64_t run_each(const Golden& golden, const Changes& changes, const int64_t* image, int64_t* died, float* outputs) {
  if (changes.count() && !image) throw Error("the pointer to the images' numbers is null");
  Spread spread(golden);
  int64_t differ = 0;
  for (int64_t i = 0; i < changes.count(); ++i) {
    check_image(golden, image[i]);
    const int64_t node = changes.strike(i, image[i], spread);
    differ += node < 0;
    if (died) died[i] = node;
    if (outputs) spread.copy_outputs(outputs + i * golden.network().output_size());
  }
  return differ;
}

}  // namespace

extern "C" {

int64_t hwfault_network_new(const int64_t* plan, int64_t length, const float* constants, int64_t n_constants,
                            const int16_t* weights, int64_t n_weights, hwfault_network** network) {
  return guarded([&] {
    *network = std::make_unique<hwfault_network>(plan, length, constants, n_constants, weights, n_weights).release();
    return int64_t{0};
  });
}

void hwfault_network_free(hwfault_network* network) { delete network; }

int64_t hwfault_network_bytes(const hwfault_network* network) {
  return guarded([&] { return network->bytes_per_image(); });
}

int64_t hwfault_golden_new(const hwfault_network* network, const float* x, int64_t images, hwfault_golden** golden) {
  return guarded([&] {
    *golden = std::make_unique<hwfault_golden>(*network, x, images).release();
    return int64_t{0};
  });
}

void hwfault_golden_free(hwfault_golden* golden) { delete golden; }

int64_t hwfault_golden_outputs(const hwfault_golden* golden, float* out) {
  return guarded([&] {
    const auto output = static_cast<int64_t>(golden->network().tensors().size()) - 1;
    const float* values = golden->values(output, 0);
    std::copy(values, values + golden->images() * golden->network().output_size(), out);
    return int64_t{0};
  });
}

int64_t hwfault_census(const hwfault_golden* golden, const hwfault_flips* flips, uint8_t* top1, uint32_t* died,
                       const hwfault_survivors* survivors) {
  return guarded([&] {
    Census census(*golden, flips->node);
    check_flips(*flips, census);
    Survivors found(survivors, golden->network().output_size());
    const int64_t row = (golden->images() + 7) / 8;
    const auto nodes = static_cast<int64_t>(golden->network().nodes().size());
    if (top1) std::fill(top1, top1 + flips->count * row, uint8_t{0});
    if (died) std::fill(died, died + flips->count * nodes, 0u);
    for (int64_t i = 0; i < flips->count; ++i)
      census.strike_all(
          flips->word[i], flips->change[i],
          [&](int64_t image, const Spread& spread) {
            // the first image has the highest bit, as in NumPy's packbits
            if (top1 && spread.top1_differs()) top1[i * row + image / 8] |= static_cast<uint8_t>(0x80 >> image % 8);
            found.note(i, image, spread);
          },
          [&](int64_t node, int64_t images) {
            if (died) died[i * nodes + node] += static_cast<uint32_t>(images);
          });
    return found.found();
  });
}

int64_t hwfault_run_flips(const hwfault_golden* golden, const hwfault_flips* flips, const int64_t* image,
                          int64_t* died, float* outputs) {
  return guarded([&] {
    Census census(*golden, flips->node);
    check_flips(*flips, census);
    if (flips->count && !image) throw Error("the pointer to the images' numbers is null");
    int64_t differ = 0;
    for (int64_t i = 0; i < flips->count; ++i) {
      check_image(*golden, image[i]);
      const int64_t node = census.strike(flips->word[i], flips->change[i], image[i]);
      differ += node < 0;
      if (died) died[i] = node;
      if (outputs) census.spread().copy_outputs(outputs + i * golden->network().output_size());
    }
    return differ;
  });
}

int64_t hwfault_value_census(const hwfault_golden* golden, const hwfault_value_flips* flips, uint8_t* top1,
                             uint32_t* died, const hwfault_survivors* survivors) {
  return guarded([&] { return census_of(*golden, FlippedValues(*golden, *flips), top1, died, survivors); });
}

int64_t hwfault_run_value_flips(const hwfault_golden* golden, const hwfault_value_flips* flips, const int64_t* image,
                                int64_t* died, float* outputs) {
  return guarded([&] { return run_each(*golden, FlippedValues(*golden, *flips), image, died, outputs); });
}

int64_t hwfault_addend_census(const hwfault_golden* golden, const hwfault_addends* addends, uint8_t* top1,
                              uint32_t* died, const hwfault_survivors* survivors) {
  return guarded([&] { return census_of(*golden, ChangedAddends(*golden, *addends), top1, died, survivors); });
}

int64_t hwfault_run_addends(const hwfault_golden* golden, const hwfault_addends* addends, const int64_t* image,
                            int64_t* died, float* outputs) {
  return guarded([&] { return run_each(*golden, ChangedAddends(*golden, *addends), image, died, outputs); });
}

}  // extern "C"
