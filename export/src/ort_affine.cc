#include "ort_affine.h"

#include "broadcast.h"
#include "clones.h"

namespace hwfault::ort {
namespace {

constexpr int64_t kPart = 1 << 15;  // words a thread takes at a time

HWFAULT_CLONES void affine_same(const float* x, float* y, int64_t n, double multiplier, double addend) {
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i] * multiplier + addend);
}
HWFAULT_CLONES void affine_same(const double* x, double* y, int64_t n, double multiplier, double addend) {
  HWFAULT_EACH_ALONE
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * multiplier + addend;
}

}  // namespace

template <class T>
void Affine<T>::compute(const Context& context) const {
  const auto x = context.input<T>(0);
  const auto multiplier = context.input<float>(1), addend = context.input<float>(2);
  T* y = context.output<T>(x.shape);
  const Runs<2> runs(x.shape, {&multiplier.shape, &addend.shape}, {"the multiplier", "the addend"});
  const auto [step, addend_step] = runs.steps();
  context.share_out(x.size(), kPart, [&, step = step, addend_step = addend_step](int64_t first, int64_t last) {
    for (int64_t at = first; at < last;) {
      const int64_t run = at / runs.inner(), n = std::min(last, (run + 1) * runs.inner()) - at;
      const auto offsets = runs.offsets(run, at - run * runs.inner());
      const float *m = multiplier.data + offsets[0], *a = addend.data + offsets[1];
      if (runs.constant())
        affine_same(x.data + at, y + at, n, *m, *a);
      else
        for (int64_t i = 0; i < n; ++i)
          y[at + i] = static_cast<T>(x.data[at + i] * static_cast<double>(m[i * step]) + a[i * addend_step]);
      at += n;
    }
  });
}

template class Affine<float>;
template class Affine<double>;

}  // namespace hwfault::ort
