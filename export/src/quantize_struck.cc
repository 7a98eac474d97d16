// The fake quantizer and the faults of what it gives in one pass, forward and backward.
#include <algorithm>
#include <string>
#include <vector>

#include "calls.h"
#include "hwfault.h"
#include "inject.h"
#include "quantize.h"
#include "site.h"

using namespace hwfault;

namespace {

constexpr int64_t kUnitsAtOnce = 16;  // blocks that stay in the second cache, and are drawn side by side

// A tensor of quantized values that is struck, in pieces of whole blocks: what is added up in one, and in which order,
// does not depend on the threads.
class Struck {
 public:
  Struck(const hwfault_quantizer& given, const hwfault_strike& strike)
      : quantizer(given), shape_(shape_of(quantizer, given, strike.batch)),
        draw_(site_draw(checked_site(strike), shape_, strike.seed, strike.sample)),
        format_(*strike.site, shape_, given.scale, given.zero_point), codec_(format_.get()),
        program_(strike.site->program), reads_stored_(strike.site->reads_stored), units_{draw_.batch, draw_.words} {
    if (strike.site->reads_others) throw Error("late bits need the values of other words: strike them on their own");
    check_present(units_, strike.sample);
  }

  const Quantizer quantizer;

  int64_t pieces() const { return (units_.count() + kUnitsAtOnce - 1) / kUnitsAtOnce; }
  int64_t words() const { return units_.batch * units_.words; }
  bool reads_stored() const { return reads_stored_; }

  Changes quantize(const float* x, float* out, int64_t piece) const {
    quantizer.quantize_range(x, out, begin(piece), begin(piece + 1));
    return inject_units<float>(out, out, program_, draw_, codec_, units_, first(piece), first(piece + 1));
  }

  // `stored` are the values before the faults, null where they do not decide which words are faulty.
  void differentiate(const float* x, const float* gradient, float* x_gradient, const float* stored, int64_t piece,
                     Quantizer::Sums& sums) const {
    zero_units<float>(gradient, x_gradient, stored, program_, draw_, codec_, units_, first(piece), first(piece + 1));
    quantizer.differentiate_range(x, x_gradient, x_gradient, begin(piece), begin(piece + 1), sums);
  }

 private:
  static hwfault_shape shape_of(const Quantizer& quantizer, const hwfault_quantizer& given, int64_t batch) {
    if (!quantizer.in_rows()) throw Error("values with a scale each are to be struck on their own");
    if (batch < 0 || (batch ? quantizer.count() % batch : quantizer.count()))
      throw Error(std::to_string(quantizer.count()) + " values are no " + std::to_string(batch) + " samples");
    const int64_t words = batch ? quantizer.count() / batch : 0, inner = std::max<int64_t>(1, given.shared);
    return {batch, words, std::max<int64_t>(1, given.outer), inner, given.zero_points, inner,
            HWFAULT_FLOAT32, HWFAULT_FLOAT32, HWFAULT_FLOAT32, 0};
  }
  static const hwfault_site& checked_site(const hwfault_strike& strike) {
    if (!strike.site) throw Error("the pointer to the site is null");
    return *strike.site;
  }

  int64_t first(int64_t piece) const { return std::min(piece * kUnitsAtOnce, units_.count()); }
  int64_t begin(int64_t piece) const {
    const int64_t unit = first(piece);
    return unit == units_.count() ? words() : units_.at(unit).offset;
  }

  const hwfault_shape shape_;
  const hwfault_draw draw_;
  const SiteFormat format_;
  const Codec<float> codec_;
  const Program& program_;
  const bool reads_stored_;
  const Units units_;
};

}  // namespace

extern "C" {

int64_t hwfault_quantize_struck(const float* x, float* out, const hwfault_quantizer* quantizer,
                                const hwfault_strike* strike, int32_t threads, int64_t* no_numbers) {
  return guarded([&] {
    const Struck struck(*quantizer, *strike);
    if (struck.words() && !(x && out)) throw Error("a pointer to values is null");
    return share_out_changes(struck.pieces(), threads, no_numbers, [&](int64_t first, int64_t last) {
      Changes found;
      for (int64_t piece = first; piece < last; ++piece) found += struck.quantize(x, out, piece);
      return found;
    }, 2);
  });
}

int64_t hwfault_quantize_struck_gradient(const float* x, const float* gradient, float* x_gradient,
                                         double* scale_gradient, const hwfault_quantizer* quantizer,
                                         const hwfault_strike* strike, int32_t no_numbers, int32_t threads) {
  return guarded([&] {
    const Struck struck(*quantizer, *strike);
    if (struck.words() && !(x && gradient && x_gradient)) throw Error("a pointer to values or gradients is null");
    if (gradient && x_gradient == gradient) throw Error("the gradient of x needs memory of its own");
    std::vector<float> stored;
    if (no_numbers || struck.reads_stored()) {
      stored.resize(struck.words());
      struck.quantizer.quantize_range(x, stored.data(), 0, struck.words());
    }
    std::vector<Quantizer::Sums> sums(struck.pieces());
    share_out(struck.pieces(), threads, [&](int64_t first, int64_t last) {
      for (int64_t piece = first; piece < last; ++piece)
        struck.differentiate(x, gradient, x_gradient, stored.empty() ? nullptr : stored.data(), piece, sums[piece]);
      return int64_t{0};
    }, 2);
    if (!scale_gradient) return int64_t{0};
    std::fill(scale_gradient, scale_gradient + struck.quantizer.scales(), 0.0);
    for (const Quantizer::Sums& piece : sums)
      for (const auto& [scale, sum] : piece) scale_gradient[scale] += sum;
    return int64_t{0};
  });
}

}  // extern "C"
